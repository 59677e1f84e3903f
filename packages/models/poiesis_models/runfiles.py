"""Parse the untrusted files that the helper and the filers write into a container's run directory.

An executor may write anything into its own directory: sizes are bounded, parsing is strict, and a file is
evidence for its own container only. Standard library only.
"""

import codecs
import json
import re
from dataclasses import dataclass, fields
from typing import Any

STARTED = "started"
EXIT = "exit.json"
STDOUT = "stdout"
STDERR = "stderr"
FAILED = "failed"
SKIPPED = "skipped"
PROGRESS = "progress.jsonl"

RECORD_BYTES = 1024  # the helper writes less than 512
PROGRESS_LINE_BYTES = 16 * 1024
LOG_MARK_BYTES = 80  # at most, see `log_mark`
SIGTERM_EXIT = 143
STREAM_BEGUN = "begun"
STREAM_WHOLE = "whole"  # complete and verified
STREAM_CLOSED = "closed"  # closed by the reader
STREAM_FAILED = "failed"  # an `error` event has the reason

_LOG_MARK = re.compile(rb"\[poiesis: (\d{1,18}) bytes of earlier output left out\]\n")
_CONTINUATION = range(0x80, 0xC0)  # UTF-8
_CONTINUATION_BYTES = 3  # of one character, at most

FILE_TYPES = ("FILE", "DIRECTORY")  # TES tesFileType


class MalformedFile(ValueError):
    """A file does not have the helper's format."""


@dataclass(frozen=True, kw_only=True)
class Started:
    """The start of a container's process. `start_ns`: Unix time in ns, by the node's clock."""

    start_ns: int

    @classmethod
    def parse(cls, data: bytes) -> "Started":
        """Parse `started`. Raise MalformedFile."""
        return cls(start_ns=_int(_record(data), "start_ns", 1))


@dataclass(frozen=True, kw_only=True)
class ResourceUsage:
    """What a container used, by its cgroup. None: not measured.

    CPU time is in µs. `peak_memory_bytes` includes the page cache. `read_bytes`, `written_bytes`: of block
    devices. `disk_used_bytes`: what the files of the task's volume occupied at the end.
    """

    user_us: int | None = None
    sys_us: int | None = None
    peak_memory_bytes: int | None = None
    read_bytes: int | None = None
    written_bytes: int | None = None
    disk_used_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class ExitRecord:
    """The exit of a container's process: `exit.json`, also the container's termination message.

    `term`: the helper had received SIGTERM before. Times are Unix time in ns.
    """

    exit_code: int
    signal: int
    oom: bool
    term: bool
    start_ns: int
    end_ns: int
    usage: ResourceUsage = ResourceUsage()

    @classmethod
    def parse(cls, data: bytes) -> "ExitRecord":
        """Parse `exit.json`. Raise MalformedFile."""
        record = _record(data)
        return cls(
            exit_code=_int(record, "exit_code", 0, 255),
            signal=_int(record, "signal", 0, 64),
            oom=_bool(record, "oom"),
            term=_bool(record, "term"),
            start_ns=_int(record, "start_ns", 0),
            end_ns=_int(record, "end_ns", 0),
            usage=ResourceUsage(
                **{one.name: _int(record, one.name, 0) for one in fields(ResourceUsage) if one.name in record}
            ),
        )

    @property
    def tes_exit_code(self) -> int:
        """The exit code for clients: 143 instead of 0 for a process that was ended by SIGTERM."""
        return SIGTERM_EXIT if self.term and self.exit_code == 0 else self.exit_code


@dataclass(frozen=True, kw_only=True)
class FilerProgress:
    """The progress of a filer: the sum of its progress.jsonl (filer contract v1)."""

    files: int = 0
    bytes: int = 0
    outputs: tuple["SentOutput", ...] = ()
    inputs: tuple["FoundInput", ...] = ()
    streams: tuple["Stream", ...] = ()
    warnings: tuple[str, ...] = ()
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class Stream:
    """The state of an input that is streamed into a FIFO.

    `begun`: its reader has opened it and may have read only a part. Any other state is final.
    """

    path: str
    state: str

    @property
    def begun(self) -> bool:
        """Whether the stream is in progress."""
        return self.state == STREAM_BEGUN


@dataclass(frozen=True, kw_only=True)
class SentOutput:
    """One file that was sent (TES `OutputFileLog`)."""

    url: str
    path: str
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class FoundInput:
    """The type (FILE or DIRECTORY) of an input without one. `path` is that of the work list."""

    path: str
    type: str


def parse_progress(data: bytes) -> FilerProgress:
    """Sum up the complete lines of progress.jsonl; an unfinished last line is left for the next read.

    Unknown events are ignored, since newer filers may write more. Raise MalformedFile for a malformed line.
    """
    files = size = 0
    outputs: dict[tuple[str, str], SentOutput] = {}
    inputs: dict[str, FoundInput] = {}
    streams: dict[str, Stream] = {}
    warnings: list[str] = []
    error: str | None = None
    complete, _, _ = data.rpartition(b"\n")
    for line in filter(None, complete.split(b"\n")):
        event = _object(line, PROGRESS_LINE_BYTES)
        match event.get("event"):
            case "progress":
                files, size = _int(event, "files", 0), _int(event, "bytes", 0)
            case "output":
                sent = SentOutput(
                    url=_str(event, "url"), path=_str(event, "path"), size_bytes=_int(event, "size_bytes", 0)
                )
                outputs[sent.path, sent.url] = sent
            case "input":
                found = FoundInput(path=_str(event, "path"), type=_file_type(event))
                inputs[found.path] = found
            case "stream":
                path = _str(event, "path")
                streams[path] = Stream(path=path, state=_str(event, "state"))
            case "warning":
                warnings.append(_str(event, "message"))
            case "error":
                error = _str(event, "message")
    return FilerProgress(
        files=files,
        bytes=size,
        outputs=tuple(outputs.values()),
        inputs=tuple(inputs.values()),
        streams=tuple(streams.values()),
        warnings=tuple(warnings),
        error=error,
    )


@dataclass(frozen=True, kw_only=True)
class LogText:
    """The text of a stream's bytes from `begin` to `end`, which are counted from the start of the stream.

    The text can be stored by Postgres and JSON: NUL and invalid UTF-8 become U+FFFD.
    """

    text: str
    begin: int
    end: int


def log_mark(left_out: int) -> bytes:
    """Return the first line of a log that does not begin with the first byte of its stream."""
    return b"[poiesis: %d bytes of earlier output left out]\n" % left_out


def whole_log(data: bytes, cap: int, *, ended: bool) -> LogText:
    """Return a log file's text: at most a mark and the last `cap` bytes.

    A shortened text begins at a line, if one begins in its first half. An incomplete character at the end is
    left out until its stream has `ended`, so that it can be continued by `more_log`.
    """
    begin, body = _kept(data)
    if len(body) > cap:
        last = body[len(body) - cap :]
        last = last[last.find(b"\n", 0, cap // 2) + 1 :]
        begin, body = begin + len(body) - len(last), last
    if begin > 0:
        cut = _cut_character(body)
        begin, body = begin + cut, body[cut:]
    text, size = _text(body, ended=ended)
    mark = log_mark(begin).decode() if begin > 0 else ""
    return LogText(text=mark + text, begin=begin, end=begin + size)


def more_log(data: bytes, after: int, *, ended: bool) -> LogText | None:
    """Return the text that follows byte `after` of the stream; None if the file does not hold that byte."""
    begin, body = _kept(data)
    if not begin <= after <= begin + len(body):
        return None
    text, size = _text(body[after - begin :], ended=ended)
    return LogText(text=text, begin=after, end=after + size)


def _kept(data: bytes) -> tuple[int, bytes]:
    """Return the part of the stream that a log file holds, and where in the stream it begins."""
    mark = _LOG_MARK.match(data)
    return (int(mark[1]), data[mark.end() :]) if mark else (0, data)


def _cut_character(body: bytes) -> int:
    """Return how many bytes at the start belong to a character whose first byte is left out."""
    count = 0
    while count < min(len(body), _CONTINUATION_BYTES) and body[count] in _CONTINUATION:
        count += 1
    return count


def _text(body: bytes, *, ended: bool) -> tuple[str, int]:
    """Return the text, and how many bytes it represents: all, or all complete characters."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = decoder.decode(body, ended).replace("\0", "\ufffd")
    return text, len(body) - len(decoder.getstate()[0])


def sanitized(text: str) -> str:
    """Return text that Postgres and JSON can store: NUL becomes U+FFFD, an unpaired surrogate `?`.

    A file name that is not UTF-8 has surrogates such as "\\udcff", which UTF-8 and jsonb cannot represent.
    """
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")


def _record(data: bytes) -> dict[str, Any]:
    return _object(data, RECORD_BYTES)


def _object(data: bytes, limit: int) -> dict[str, Any]:
    if len(data) > limit:
        raise MalformedFile(f"{len(data)} bytes long (the maximum is {limit})")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise MalformedFile(str(error)) from error
    if not isinstance(value, dict):
        raise MalformedFile("not a JSON object")
    return value


def _int(record: dict[str, Any], key: str, low: int, high: int = 2**63 - 1) -> int:
    value = record.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise MalformedFile(f"{key} must be an integer between {low} and {high}")
    return value


def _bool(record: dict[str, Any], key: str) -> bool:
    value = record.get(key)
    if not isinstance(value, bool):
        raise MalformedFile(f"{key} must be true or false")
    return value


def _str(record: dict[str, Any], key: str) -> str:
    value = record.get(key)
    if not isinstance(value, str):
        raise MalformedFile(f"{key} must be a string")
    return sanitized(value)


def _file_type(record: dict[str, Any]) -> str:
    value = _str(record, "type")
    if value not in FILE_TYPES:
        raise MalformedFile(f"type must be one of {', '.join(FILE_TYPES)}")
    return value
