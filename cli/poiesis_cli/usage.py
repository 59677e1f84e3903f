"""What tasks used: of one task, next to what was requested, and reports of many. Pure.

The keys of a task are those that several TES servers set in the metadata of a log: of the attempt, in
Poiesis also of each executor, as `executor-<n>.<key>`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from poiesis_cli.errors import BadUsage, NotTes
from poiesis_cli.progress import size_text
from poiesis_cli.tes import Attempt, Task, read_time

ALL = "all"


@dataclass(frozen=True, kw_only=True)
class UsageRow:
    """One executor, or all of them together. Texts are `used of requested`; empty if nothing was measured."""

    executor: str
    cpu_cores: str
    memory: str
    disk: str


_GROUPS = ("month", "day", "owner", "group", "tag")
_MEASURES = {
    "tasks": "TASKS",
    "failures": "FAILED",
    "cpu_hours": "CPU-HOURS",
    "cpu_hours_used": "CPU-HOURS USED",
    "ram_gb_hours": "GB-HOURS",
    "disk_gb_hours": "DISK GB-HOURS",
    "gpu_hours": "GPU-HOURS",
    "cost": "COST",
}


@dataclass(frozen=True, kw_only=True)
class Report:
    """A report of usage. `columns`: the texts of a table by heading; `document`: the complete response."""

    columns: Mapping[str, Sequence[str]]
    truncated: bool
    document: Mapping[str, Any]


def usage_params(
    since: str | None, until: str | None, groups: Sequence[str], *, as_csv: bool
) -> list[tuple[str, str]]:
    """Return the parameters of GET /poiesis/v1/usage. Raise BadUsage for a group that it does not have."""
    params = [(name, text) for name, text in (("since", since), ("until", until)) if text]
    for group in groups:
        name, separator, key = group.partition(":")
        if name not in _GROUPS or (name == "tag") != bool(key) or (separator and name != "tag"):
            raise BadUsage(f"--by must be month, day, owner, group or tag:KEY, got {group!r}")
        params.append(("group_by", name))
        if key:
            params.append(("tag_key", key))
    return [*params, ("format", "csv")] if as_csv else params


def read_report(document: object) -> Report:
    """Read a report. Raise NotTes if it is not one."""
    if not isinstance(document, dict) or not isinstance(document.get("rows"), list):
        raise NotTes("a report of usage must be a JSON object with rows")
    rows = [row for row in document["rows"] if isinstance(row, dict)]
    currency = document.get("currency")
    columns = {}
    for name, heading in ({one: one.upper() for one in _GROUPS} | _MEASURES).items():
        if any(name in row for row in rows):
            unit = f" {currency}" if name == "cost" and isinstance(currency, str) else ""
            columns[heading + unit] = [_figure(row.get(name)) for row in rows]
    return Report(columns=columns, truncated=document.get("truncated") is True, document=document)


def _figure(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2f}"
    return "" if value is None else str(value)


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
    row = _row(ALL, attempt.metadata, "", requested, (attempt.start_time, attempt.end_time))
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
