"""What the executors of a task used, beside what was requested. Pure.

The keys are those that several TES servers set in the metadata of a log: of the attempt, in Poiesis also of
each executor, as `executor-<n>.<key>`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from poiesis_cli.progress import size_text
from poiesis_cli.tes import Attempt, Task, read_time

_ALL = "all"


@dataclass(frozen=True, kw_only=True)
class UsageRow:
    """One executor, or all of them together. Texts are `used of requested`; empty if nothing was measured."""

    executor: str
    cpu_cores: str
    memory: str
    disk: str


def usage_rows(task: Task) -> list[UsageRow]:
    """Return a row per measured executor of the last attempt; one for all if the server shows only that."""
    attempt = task.last_attempt
    resources = task.document.get("resources")
    requested = resources if isinstance(resources, dict) else {}
    rows = [
        _row(str(index), attempt.metadata, f"executor-{index}.", requested, _times(attempt, index))
        for index in range(len(task.executors))
    ]
    measured = [row for row in rows if row.cpu_cores or row.memory or row.disk]
    if measured:
        return measured
    row = _row(_ALL, attempt.metadata, "", requested, (attempt.start_time, attempt.end_time))
    return [row] if row.cpu_cores or row.memory or row.disk else []


_Times = tuple[datetime | None, datetime | None]


def _times(attempt: Attempt, index: int) -> _Times:
    prefix = f"executor-{index}"
    start, end = (attempt.metadata.get(f"{prefix}.{name}") for name in ("start_time", "end_time"))
    return read_time(start), read_time(end)


def _row(
    executor: str, metadata: Mapping[str, str], prefix: str, requested: Mapping[str, Any], times: _Times
) -> UsageRow:
    cores = _cores(_number(metadata.get(f"{prefix}cpu_time_ms")), times)
    memory, disk = (_number(metadata.get(prefix + key)) for key in ("peak_memory_bytes", "disk_used_bytes"))
    return UsageRow(
        executor=executor,
        cpu_cores=_of("" if cores is None else f"{cores:.2f}", _requested(requested, "cpu_cores", "{:g}")),
        memory=_of(_size(memory), _requested(requested, "ram_gb", "{:g} GB")),
        disk=_of(_size(disk), _requested(requested, "disk_gb", "{:g} GB")),
    )


def _cores(cpu_ms: int | None, times: _Times) -> float | None:
    """Return the cores that were used on average."""
    start, end = times
    if cpu_ms is None or start is None or end is None or end <= start:
        return None
    return cpu_ms / 1000 / (end - start).total_seconds()


def _of(used: str, requested: str) -> str:
    return " of ".join(filter(None, (used, requested))) if used else ""


def _size(count: int | None) -> str:
    return "" if count is None else size_text(count)


def _requested(resources: Mapping[str, Any], name: str, form: str) -> str:
    value = resources.get(name)
    return form.format(value) if isinstance(value, int | float) and not isinstance(value, bool) else ""


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() else None
