"""Progress and outcome of a task, in words. Pure.

Progress comes from fields of the last log's `metadata` (docs/api.md), never from messages. Servers without
these fields show their states only.
"""

import fnmatch
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from poiesis_cli.tes import Attempt, Task

_EXECUTOR_STARTED = re.compile(r"executor-(\d{1,4})\.start_time")
_WILDCARD = re.compile(r"[*?\[]")
_DIGITS = 19  # of a 64-bit integer
_TAIL_LINES = 10
_LINE_CHARACTERS = 160
_COMMAND_CHARACTERS = 60
_UNIT = 1000.0
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def activity(task: Task) -> str:
    """Return what the task is doing, in a few words; empty if the server does not report it."""
    attempt = task.last_attempt
    waiting = _shortened(attempt.metadata.get("waiting_reason", ""))
    staging = _transfer(attempt, "staging", "staged")
    sending = _transfer(attempt, "sending", "sent")
    match task.state:
        case "QUEUED":
            return waiting
        case "INITIALIZING":
            return _joined(staging, waiting)
        case "RUNNING":
            return _joined(_executor(task, attempt), staging, sending, waiting)
        case "COMPLETE":
            return sending
    return ""


def failure(task: Task, *, output: bool = True) -> Iterator[str]:
    """Yield why a task failed, as far as the server returns it; nothing for a COMPLETE task.

    `output`: include the last lines of the executor that failed.
    """
    if task.state == "COMPLETE":
        return
    attempt = task.last_attempt
    reason, message = attempt.metadata.get("reason", ""), attempt.metadata.get("message", "")
    failed = task.failed_executor
    if reason or message:
        yield ": ".join(filter(None, [reason, message]))
    elif failed is not None:
        yield f"executor {failed[0]} exited with code {failed[1]}"
    if failed is not None and output and task.state == "EXECUTOR_ERROR":
        yield from _tail(attempt.executors[failed[0]].stderr or attempt.executors[failed[0]].stdout)
    elif task.state == "SYSTEM_ERROR" and not message:
        yield from attempt.system_logs[-_TAIL_LINES:]


def missing_outputs(task: Task) -> Iterator[str]:
    """Yield the paths of outputs of a COMPLETE task for which its log lists no sent file."""
    if task.state != "COMPLETE":
        return
    sent = [str(output.get("path")) for output in task.last_attempt.outputs]
    for output in task.outputs:
        path = output.get("path")
        if isinstance(path, str) and not any(_is_from(one, path, output) for one in sent):
            yield path


def size_text(count: int) -> str:
    """Format bytes in units of 1000, as TES uses for sizes."""
    size = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < _UNIT:
            return f"{count} bytes" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= _UNIT
    return f"{size:.1f} TB"


def sent_size(output: Mapping[str, Any]) -> str:
    """Format size_bytes after two spaces: TES has a string, some servers send a number."""
    text = str(output.get("size_bytes"))
    return f"  {size_text(int(text))}" if text.isascii() and text.isdigit() else ""


def duration_text(seconds: float) -> str:
    """Format a duration in at most two units: 7s, 4m12s, 2h03m, 5d01h."""
    whole = max(int(seconds), 0)
    if whole < _MINUTE:
        return f"{whole}s"
    if whole < _HOUR:
        return f"{whole // _MINUTE}m{whole % _MINUTE:02}s"
    if whole < _DAY:
        return f"{whole // _HOUR}h{whole % _HOUR // _MINUTE:02}m"
    return f"{whole // _DAY}d{whole % _DAY // _HOUR:02}h"


def _executor(task: Task, attempt: Attempt) -> str:
    count = len(task.executors)
    running = _running_executors(attempt)
    index = running[0] if running else len(attempt.executors)
    if count and index >= count:
        return "executors have ended, sending outputs"
    if not count:
        return f"executor {index}"
    command = " ".join(task.executors[index].command)
    return f"executor {index} ({index + 1} of {count}): {command[:_COMMAND_CHARACTERS]}".rstrip(": ")


def _running_executors(attempt: Attempt) -> list[int]:
    """Return the indices of executors with a start time and no end time in the metadata."""
    started = [int(match[1]) for key in attempt.metadata if (match := _EXECUTOR_STARTED.fullmatch(key))]
    return sorted(index for index in started if f"executor-{index}.end_time" not in attempt.metadata)


def _joined(*parts: str) -> str:
    return "; ".join(filter(None, parts))


def _transfer(attempt: Attempt, key: str, done: str) -> str:
    """Describe the files that filers have staged or sent; they have a rate only while they run."""
    files, size = _count(attempt, f"{key}.files_done"), _count(attempt, f"{key}.bytes_done")
    if files is None or size is None:
        return ""
    total = f"{files} {'file' if files == 1 else 'files'}, {size_text(size)}"
    rate = _count(attempt, f"{key}.bytes_per_second")
    return f"{done} {total}" if rate is None else f"{key}: {total} so far, {size_text(rate)}/s"


def _count(attempt: Attempt, key: str) -> int | None:
    text = attempt.metadata.get(key, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _DIGITS else None


def _is_from(sent: str, path: str, output: Mapping[str, Any]) -> bool:
    """Return whether a sent file belongs to an output: the file itself, in the directory, or a match."""
    if sent == path:
        return True
    if output.get("type") == "DIRECTORY":
        return sent.startswith(f"{path.rstrip('/')}/")
    # Here `*` matches `/` too, so a match may be too wide but never too narrow.
    return _WILDCARD.search(path) is not None and fnmatch.fnmatchcase(sent, path)


def _shortened(text: str) -> str:
    return text if len(text) <= _LINE_CHARACTERS else f"{text[: _LINE_CHARACTERS - 1]}…"


def _tail(text: str) -> Sequence[str]:
    return text.rstrip("\n").split("\n")[-_TAIL_LINES:] if text.strip() else ()
