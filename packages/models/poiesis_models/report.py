"""The recorder's report to Postgres: everything that changed, applied by the function `record_report`.

A report describes the current state: applying it twice changes nothing, so a recorder that was killed
reports again. Standard library only.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from poiesis_models.states import TaskOutcome, TesState


@dataclass(frozen=True, kw_only=True)
class ExecutorReport:
    """One executor that has started. Log texts are whole (capped), not additions; None = unchanged."""

    index: int
    start_ns: int
    end_ns: int | None = None
    exit_code: int | None = None
    oom: bool = False
    stdout: str | None = None
    stderr: str | None = None


@dataclass(frozen=True, kw_only=True)
class OutputReport:
    """One sent file (TES OutputFileLog)."""

    url: str
    path: str
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class InputReport:
    """The type of an input that was submitted without one: FILE or DIRECTORY."""

    path: str
    type: str


@dataclass(frozen=True, kw_only=True)
class FilerReport:
    """The progress and rate of a filer that has started. `end_ns` None: it may still transfer data."""

    container: str
    start_ns: int
    end_ns: int | None = None
    files: int
    bytes: int
    bytes_per_second: int


@dataclass(frozen=True, kw_only=True)
class SystemLogReport:
    """One line of system_logs. `key` makes it unique in its attempt: the same key again updates nothing."""

    key: str
    at_ns: int
    message: str


@dataclass(frozen=True, kw_only=True)
class Report:
    """One report. `ending`: the outcome of the task, under the name that `record_report` reads.

    `cancel_seen`: the outcome was decided with the knowledge that a cancel was requested. Without it Postgres
    rejects the outcome of a task whose cancel was requested, and the recorder decides again.
    """

    pod_uid: str
    pod_name: str
    node: str
    state: TesState | None = None
    executors: tuple[ExecutorReport, ...] = ()
    outputs: tuple[OutputReport, ...] = ()
    inputs: tuple[InputReport, ...] = ()
    filers: tuple[FilerReport, ...] = ()
    system_logs: tuple[SystemLogReport, ...] = ()
    ending: TaskOutcome | None = None
    cancel_seen: bool = False

    def to_json(self) -> str:
        """Return the argument of `record_report`, without unset fields."""
        return json.dumps(_pruned(asdict(self)), ensure_ascii=False, separators=(",", ":"))


def executors_json(executors: Sequence[ExecutorReport]) -> str:
    """Return the argument of `record_executors`, without unset fields."""
    return json.dumps([_pruned(asdict(one)) for one in executors], ensure_ascii=False, separators=(",", ":"))


@dataclass(frozen=True, kw_only=True)
class ReportResponse:
    """The result of `record_report`: the task after the report."""

    state: TesState
    cancel_requested: bool
    ended: bool


def _pruned(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _pruned(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_pruned(item) for item in value]
    return value
