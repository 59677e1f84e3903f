"""What executors have printed since the last look, from texts that are capped tails. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from poiesis_cli.tes import Attempt, Task

Stream = Literal["stdout", "stderr"]
STREAMS: tuple[Stream, ...] = ("stdout", "stderr")
_CUT = "\ufffd"
_INDEX_DIGITS = 4
_LEAST_OVERLAP = 16  # characters; a shorter one may be chance
_CUT_CHARACTERS = 3  # of a UTF-8 character's bytes at most three may be missing


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Text that is new. `gap`: something before it was printed and never shown."""

    attempt: int
    executor: int
    stream: Stream
    text: str
    gap: bool = False


@dataclass
class Follower:
    """What has been shown of each stream, at most its last text."""

    shown: dict[tuple[int, int, Stream], str] = field(default_factory=dict)

    def news(self, task: Task) -> Iterator[Piece]:
        """Every stream of every attempt in order, as far as it has not been shown."""
        for number, attempt in enumerate(task.attempts):
            live = _live(attempt)
            known = max([len(attempt.executors), *(index + 1 for index, _ in live)])
            for index in range(known):
                for stream in STREAMS:
                    text, whole = _said(attempt, index, stream, live)
                    yield from self._new(
                        number, index, stream, text if whole or task.ended else _steady(text)
                    )

    def _new(self, attempt: int, executor: int, stream: Stream, text: str) -> Iterator[Piece]:
        key = (attempt, executor, stream)
        new, gap = added(self.shown.get(key, ""), text)
        if text:
            self.shown[key] = text
        if new:
            yield Piece(attempt=attempt, executor=executor, stream=stream, text=new, gap=gap)


def added(old: str, new: str) -> tuple[str, bool]:
    """What `new` has after the end of `old`, and whether something may be missing between the two.

    Both are ends of the same growing text; `new` may begin later, with a line that says so, or in the middle
    of a character. Where the text repeats itself the longest overlap is believed.
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
    """Length of the longest end of `old` that `new` begins with (Knuth, Morris, Pratt)."""
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
    """Poiesis: `executor-<n>.stdout` and `.stderr` in the metadata of an attempt whose executor n runs."""
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


def _said(
    attempt: Attempt, index: int, stream: Stream, live: Mapping[tuple[int, Stream], str]
) -> tuple[str, bool]:
    """The text, and whether it is all there will be."""
    if index < len(attempt.executors):
        log = attempt.executors[index]
        text = log.stdout if stream == "stdout" else log.stderr
        if text or (index, stream) not in live:
            return text, log.exit_code is not None
    return live.get((index, stream), ""), False


def _steady(text: str) -> str:
    """Without the beginning of a character whose other bytes are still to come."""
    cut = text.rstrip(_CUT)
    return cut if len(text) - len(cut) <= _CUT_CHARACTERS else text


def executors_running(attempt: Attempt) -> list[int]:
    """Indices of executors that print and have not ended, where the server tells."""
    return sorted({index for index, _ in _live(attempt) if index >= len(attempt.executors)})
