"""What the recorder tells Postgres: one report with everything that changed, applied by `record_report`.

A report says what is, never what happened since: applying it twice changes nothing, so a recorder that
was killed simply reports again. Standard library only.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from poiesis_models.states import Ending, TesState


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
    """What an input without a type turned out to be: FILE or DIRECTORY."""

    path: str
    type: str


@dataclass(frozen=True, kw_only=True)
class FilerReport:
    """How far a filer is that has started, and how fast. `end_ns` None: it moves data, or may."""

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
    """`cancel_seen`: the ending was decided knowing that a cancel had been asked for.

    Without it Postgres refuses the ending if one has been, and the recorder decides again.
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
    ending: Ending | None = None
    cancel_seen: bool = False

    def to_json(self) -> str:
        """Unset fields are left out."""
        return json.dumps(_pruned(asdict(self)), ensure_ascii=False, separators=(",", ":"))


def executors_json(executors: Sequence[ExecutorReport]) -> str:
    """Return what `record_executors` takes. Unset fields are left out."""
    return json.dumps([_pruned(asdict(one)) for one in executors], ensure_ascii=False, separators=(",", ":"))


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What Postgres says to a report: the task as it is now."""

    state: TesState
    cancel_requested: bool
    ended: bool


def _pruned(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _pruned(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_pruned(item) for item in value]
    return value
