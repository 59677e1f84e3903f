"""Find the new output of executors in responses that contain only the end of each stream. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from poiesis_cli.tes import Attempt, Task

Stream = Literal["stdout", "stderr"]
STREAMS: tuple[Stream, ...] = ("stdout", "stderr")
_CUT = "\ufffd"
_INDEX_DIGITS = 4
_LEAST_OVERLAP = 16  # characters; a shorter one may be a coincidence
_CUT_CHARACTERS = 3  # at most three bytes of a UTF-8 character can be missing


@dataclass(frozen=True, kw_only=True)
class LogChunk:
    """New text of a stream. `gap`: text before it is missing."""

    attempt: int
    executor: int
    stream: Stream
    text: str
    gap: bool = False


@dataclass
class Follower:
    """The last text of each stream."""

    shown: dict[tuple[int, int, Stream], str] = field(default_factory=dict)

    def new_chunks(self, task: Task) -> Iterator[LogChunk]:
        """Yield the text that is new since the last call, by attempt, executor and stream."""
        for number, attempt in enumerate(task.attempts):
            live = _live(attempt)
            count = max([len(attempt.executors), *(index + 1 for index, _ in live)])
            for index in range(count):
                for stream in STREAMS:
                    text, final = _text(attempt, index, stream, live)
                    complete = text if final or task.ended else _without_partial_character(text)
                    yield from self._new(number, index, stream, complete)

    def _new(self, attempt: int, executor: int, stream: Stream, text: str) -> Iterator[LogChunk]:
        key = (attempt, executor, stream)
        new, gap = added(self.shown.get(key, ""), text)
        if text:
            self.shown[key] = text
        if new:
            yield LogChunk(attempt=attempt, executor=executor, stream=stream, text=new, gap=gap)


def added(old: str, new: str) -> tuple[str, bool]:
    """Return what `new` adds to `old`, and whether text may be missing between the two.

    Both are ends of the same growing text. `new` may start later, with a line that marks the omission, or
    within a character. If the text repeats itself, the longest overlap is assumed.
    """
    if new.startswith(old):
        return new[len(old) :], False
    if not new:
        return "", False
    _, newline, after_mark = new.partition("\n")
    for candidate in (new.lstrip(_CUT), after_mark.lstrip(_CUT) if newline else ""):
        length = _overlap(old, candidate)
        if length >= _LEAST_OVERLAP:
            return candidate[length:], False
    return new, True


def _overlap(old: str, new: str) -> int:
    """Return the length of the longest suffix of `old` that is a prefix of `new` (Knuth, Morris, Pratt)."""
    if not old or not new:
        return 0
    if new in {old[-len(new) :], old}:
        return len(new)
    failure = _failure(new)
    matched = 0
    for char in old[-len(new) :]:
        while matched and (matched == len(new) or char != new[matched]):
            matched = failure[matched - 1]
        if char == new[matched]:
            matched += 1
    return matched


def _failure(pattern: str) -> list[int]:
    table = [0] * len(pattern)
    matched = 0
    for index in range(1, len(pattern)):
        while matched and pattern[index] != pattern[matched]:
            matched = table[matched - 1]
        if pattern[index] == pattern[matched]:
            matched += 1
        table[index] = matched
    return table


def _live(attempt: Attempt) -> Mapping[tuple[int, Stream], str]:
    """Return the texts of running executors, which Poiesis has in the metadata as `executor-<n>.stdout`."""
    texts: dict[tuple[int, Stream], str] = {}
    for key, text in attempt.metadata.items():
        name, _, stream = key.rpartition(".")
        number = name.removeprefix("executor-")
        if (
            stream in STREAMS
            and number != name
            and number.isascii()
            and number.isdigit()
            and len(number) <= _INDEX_DIGITS
        ):
            texts[int(number), "stdout" if stream == "stdout" else "stderr"] = text
    return texts


def _text(
    attempt: Attempt, index: int, stream: Stream, live: Mapping[tuple[int, Stream], str]
) -> tuple[str, bool]:
    """Return the text of a stream, and whether it is final."""
    if index < len(attempt.executors):
        log = attempt.executors[index]
        text = log.stdout if stream == "stdout" else log.stderr
        if text or (index, stream) not in live:
            return text, log.exit_code is not None
    return live.get((index, stream), ""), False


def _without_partial_character(text: str) -> str:
    """Remove the start of a character at the end whose other bytes have not arrived."""
    cut = text.rstrip(_CUT)
    return cut if len(text) - len(cut) <= _CUT_CHARACTERS else text
