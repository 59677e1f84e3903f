"""What a person who waits wants to know of a task. Pure."""

import re
from collections.abc import Iterator, Sequence, Set

from poiesis_cli.live import executors_running
from poiesis_cli.tes import Attempt, Task

# Poiesis' own lines; those of other servers do not match, and then there is less to say.
_MOVED = re.compile(r"\b(staged|sent) (\d{1,12}) files?, (\d{1,18}) bytes?(?: in .*)?$")
_MOVING = re.compile(
    r"\b(tif|tof|stream|rescue)-\d+ so far: (\d{1,12}) files?, (\d{1,18}) bytes?, ([\d.]{1,18}) MB/s$"
)
_IN, _OUT = frozenset({"tif", "stream"}), frozenset({"tof", "rescue"})
_TAIL_LINES = 10
_LINE_CHARACTERS = 160
_KIND = 1000.0


def activity(task: Task) -> str:
    """What goes on, in a few words; empty if the server does not tell."""
    attempt = task.last_attempt
    match task.state:
        case "INITIALIZING":
            return _together(_moving(attempt, "staging", _IN), _moved(attempt, "staged"))
        case "RUNNING":
            return _together(
                _executor(task, attempt),
                _moving(attempt, "staging", _IN),
                _moving(attempt, "sending", _OUT),
                _moved(attempt, "staged"),
            )
        case "QUEUED" | "PAUSED" | "CANCELING" | "PREEMPTED":
            return _in_short(attempt.system_logs[-1]) if attempt.system_logs else ""
        case "COMPLETE":
            return _moved(attempt, "sent")
    return ""


def verdict(task: Task, *, output: bool = True) -> Iterator[str]:
    """Why a task did not end well, as far as the server knows; nothing for one that did.

    `output`: with the last lines of the executor that failed.
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


def size_text(count: int) -> str:
    """Bytes in units of 1000, as TES' own sizes are."""
    size = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < _KIND:
            return f"{count} bytes" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= _KIND
    return f"{size:.1f} TB"


def _executor(task: Task, attempt: Attempt) -> str:
    count = len(task.executors)
    running = executors_running(attempt)
    index = running[0] if running else len(attempt.executors)
    if count and index >= count:
        return "executors have ended, outputs are sent"
    if not count:
        return f"executor {index}"
    command = " ".join(task.executors[index].command)
    return f"executor {index} ({index + 1} of {count}): {command[:60]}".rstrip(": ")


def _together(*parts: str) -> str:
    return "; ".join(filter(None, parts))


def _moving(attempt: Attempt, verb: str, filers: Set[str]) -> str:
    """What filers that run now have done so far."""
    found = [match for line in attempt.system_logs if (match := _MOVING.search(line)) and match[1] in filers]
    rate = sum(float(match[4]) for match in found)
    return f"{verb}: {_total(found)} so far, {rate:.1f} MB/s" if found else ""


def _moved(attempt: Attempt, verb: str) -> str:
    found = [match for line in attempt.system_logs if (match := _MOVED.search(line)) and match[1] == verb]
    return f"{verb} {_total(found)}" if found else ""


def _total(found: Sequence[re.Match[str]]) -> str:
    """Of lines of one kind: their second and third group are files and bytes."""
    files, size = sum(int(match[2]) for match in found), sum(int(match[3]) for match in found)
    return f"{files} {'file' if files == 1 else 'files'}, {size_text(size)}"


def _in_short(line: str) -> str:
    text = re.sub(r"^\d{4}-\d\d-\d\dT\S+ ", "", line)
    return text if len(text) <= _LINE_CHARACTERS else f"{text[: _LINE_CHARACTERS - 1]}…"


def _tail(text: str) -> Sequence[str]:
    return text.rstrip("\n").split("\n")[-_TAIL_LINES:] if text.strip() else ()
