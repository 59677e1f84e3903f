"""Parse the untrusted files that the helper and the filers write into a container's run directory.

An executor may write anything into its own directory: sizes are bounded, parsing is strict, and a file is
evidence for its own container only. Standard library only.
"""

import json
from dataclasses import dataclass
from typing import Any

STARTED = "started"
EXIT = "exit.json"
STDOUT = "stdout"
STDERR = "stderr"
FAILED = "failed"
SKIPPED = "skipped"
PROGRESS = "progress.jsonl"

RECORD_BYTES = 1024  # the helper writes less than 200
PROGRESS_LINE_BYTES = 16 * 1024
LOG_MARK = b"[poiesis: earlier output left out]\n"
SIGTERM_EXIT = 143
STREAM_BEGUN = "begun"
STREAM_WHOLE = "whole"  # complete and verified
STREAM_CLOSED = "closed"  # closed by the reader
STREAM_FAILED = "failed"  # an `error` event has the reason

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
class ExitRecord:
    """The exit of a container's process: `exit.json`, also the container's termination message.

    `term`: the helper had received SIGTERM before. Times are Unix time in ns, memory in KiB, CPU in µs.
    """

    exit_code: int
    signal: int
    oom: bool
    term: bool
    start_ns: int
    end_ns: int
    max_rss_kb: int
    user_us: int
    sys_us: int

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
            max_rss_kb=_int(record, "max_rss_kb", 0),
            user_us=_int(record, "user_us", 0),
            sys_us=_int(record, "sys_us", 0),
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


def log_text(data: bytes, cap: int) -> str:
    """Return a log file as text that Postgres and JSON can store: at most a mark and the last `cap` bytes.

    A shortened text begins at a line, if one begins in its first half. NUL and invalid UTF-8 become U+FFFD.
    """
    marked = data.startswith(LOG_MARK)
    body = data[len(LOG_MARK) :] if marked else data
    if len(body) > cap:
        marked, body = True, body[len(body) - cap :]
        body = body[body.find(b"\n", 0, cap // 2) + 1 :]
    text = body.decode("utf-8", "replace").replace("\0", "\ufffd")
    return LOG_MARK.decode() + text if marked else text


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
