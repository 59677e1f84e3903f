"""The recorder's report: everything that changed, applied by Postgres' function `record_report`.

A report describes the current state: applying it twice, or after a later one, changes nothing. So a recorder
that was killed, or whose response was lost, reports again. Standard library only.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from poiesis_models.runfiles import ResourceUsage
from poiesis_models.states import TaskOutcome, TesState


@dataclass(frozen=True, kw_only=True)
class MoreText:
    """Text that continues the stored one. Postgres ignores it unless the stored text ends at byte `after`."""

    after: int
    text: str


@dataclass(frozen=True, kw_only=True)
class ExecutorReport:
    """One executor that has started. None = unchanged.

    `stdout`, `stderr`: the whole kept text. `stdout_more`, `stderr_more`: only what was appended.
    `stdout_bytes`, `stderr_bytes`: the byte of the stream at which the text ends; older texts are ignored.
    """

    index: int
    start_ns: int
    end_ns: int | None = None
    exit_code: int | None = None
    oom: bool = False
    stdout: str | None = None
    stderr: str | None = None
    stdout_more: MoreText | None = None
    stderr_more: MoreText | None = None
    stdout_bytes: int | None = None
    stderr_bytes: int | None = None
    usage: ResourceUsage | None = None


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

    @classmethod
    def from_json(cls, data: bytes) -> "ReportResponse":
        """Parse the gateway's response. Raise ValueError."""
        try:
            fields = json.loads(data)
        except RecursionError as error:
            raise ValueError("nested too deeply") from error
        if not isinstance(fields, dict):
            raise ValueError("not a JSON object")  # noqa: TRY004 (one error for all malformed responses)
        for name in ("cancel_requested", "ended"):
            if not isinstance(fields.get(name), bool):
                raise ValueError(f"{name} must be true or false")  # noqa: TRY004
        state = TesState(str(fields.get("state")))
        return cls(state=state, cancel_requested=fields["cancel_requested"], ended=fields["ended"])

    def to_json(self) -> str:
        """Return the gateway's response."""
        return json.dumps(asdict(self), separators=(",", ":"))


def _pruned(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _pruned(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_pruned(item) for item in value]
    return value
