"""TES documents as real servers send them. Pure.

Null counts as absent. Unknown fields and states stay in the document and are otherwise ignored. A value of
another type than TES 1.1 specifies counts as absent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from poiesis_cli.errors import Exit, NotTes

STATES = (
    "UNKNOWN",
    "QUEUED",
    "INITIALIZING",
    "RUNNING",
    "PAUSED",
    "COMPLETE",
    "EXECUTOR_ERROR",
    "SYSTEM_ERROR",
    "CANCELED",
    "PREEMPTED",
    "CANCELING",
)
_EXITS = {
    "COMPLETE": Exit.OK,
    "EXECUTOR_ERROR": Exit.EXECUTOR_ERROR,
    "SYSTEM_ERROR": Exit.SYSTEM_ERROR,
    "CANCELED": Exit.CANCELED,
    "PREEMPTED": Exit.PREEMPTED,
}
_EXIT_CODES = range(1, 256)


@dataclass(frozen=True, kw_only=True)
class Executor:
    """The displayed fields of a `tesExecutor`."""

    image: str = ""
    command: Sequence[str] = ()
    ignore_error: bool = False


@dataclass(frozen=True, kw_only=True)
class ExecutorLog:
    """A `tesExecutorLog`. `exit_code` is None if the response does not contain it."""

    exit_code: int | None = None
    stdout: str = ""
    stderr: str = ""


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """A `tesTaskLog`."""

    executors: Sequence[ExecutorLog] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    system_logs: Sequence[str] = ()
    outputs: Sequence[Mapping[str, Any]] = ()
    start_time: datetime | None = None
    end_time: datetime | None = None

    @property
    def has_output(self) -> bool:
        """Whether an executor has printed anything that the server returns."""
        return any(log.stdout or log.stderr for log in self.executors)


@dataclass(frozen=True, kw_only=True)
class Task:
    """A `tesTask`; `document` is the complete response."""

    id: str
    state: str
    name: str = ""
    creation_time: str = ""
    executors: Sequence[Executor] = ()
    outputs: Sequence[Mapping[str, Any]] = ()
    attempts: Sequence[Attempt] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    document: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def ended(self) -> bool:
        """Whether the state is terminal. A state that TES 1.1 does not define is not terminal."""
        return self.state in _EXITS

    @property
    def last_attempt(self) -> Attempt:
        """The last attempt; an empty `Attempt` before the first one."""
        return self.attempts[-1] if self.attempts else Attempt()

    @property
    def failed_executor(self) -> tuple[int, int] | None:
        """Index and exit code of the executor that ended the task; None if the server names none."""
        codes = [
            (index, log.exit_code)
            for index, log in enumerate(self.last_attempt.executors)
            if log.exit_code not in (None, 0)
        ]
        fatal = [(index, code) for index, code in codes if not self._ignores(index)]
        return next(((index, code) for index, code in fatal or codes if code is not None), None)

    @property
    def exit_code(self) -> int:
        """The exit code of `wait` and `run` for an ended task: from errors.Exit, or the failed executor's."""
        if self.state == "EXECUTOR_ERROR" and self.failed_executor is not None:
            _, code = self.failed_executor
            return code if code in _EXIT_CODES else Exit.EXECUTOR_ERROR
        return _EXITS[self.state]

    def _ignores(self, index: int) -> bool:
        return index < len(self.executors) and self.executors[index].ignore_error


def read_task(document: object) -> Task:
    """Read a task. Raise NotTes if the document is not an object."""
    if not isinstance(document, dict):
        raise NotTes(f"a task must be a JSON object, got {type(document).__name__}")
    return Task(
        id=_text(document.get("id")),
        state=_text(document.get("state")) or "UNKNOWN",  # TES 1.1: the default of a missing field
        name=_text(document.get("name")),
        creation_time=_text(document.get("creation_time")),
        executors=tuple(_executor(one) for one in _objects(document.get("executors"))),
        outputs=_objects(document.get("outputs")),
        attempts=tuple(_attempt(one) for one in _objects(document.get("logs"))),
        tags=_texts_by_name(document.get("tags")),
        document=document,
    )


def _executor(document: Mapping[str, Any]) -> Executor:
    return Executor(
        image=_text(document.get("image")),
        command=_texts(document.get("command")),
        ignore_error=document.get("ignore_error") is True,
    )


def _attempt(document: Mapping[str, Any]) -> Attempt:
    logs = document.get("logs")
    return Attempt(
        # A null keeps its place: the position is the executor's index.
        executors=tuple(_executor_log(one) for one in logs) if isinstance(logs, list) else (),
        metadata=_texts_by_name(document.get("metadata")),
        system_logs=_texts(document.get("system_logs")),
        outputs=_objects(document.get("outputs")),
        start_time=read_time(document.get("start_time")),
        end_time=read_time(document.get("end_time")),
    )


def _executor_log(document: object) -> ExecutorLog:
    if not isinstance(document, dict):
        return ExecutorLog()
    return ExecutorLog(
        exit_code=_whole_number(document.get("exit_code")),
        stdout=_text(document.get("stdout")),
        stderr=_text(document.get("stderr")),
    )


def read_time(value: object) -> datetime | None:
    """Parse RFC 3339; a time without an offset is in UTC."""
    try:
        time = datetime.fromisoformat(_text(value))
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _whole_number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _texts(value: object) -> tuple[str, ...]:
    return tuple(one for one in value if isinstance(one, str)) if isinstance(value, list) else ()


def _objects(value: object) -> tuple[Mapping[str, Any], ...]:
    return tuple(one for one in value if isinstance(one, dict)) if isinstance(value, list) else ()


def _texts_by_name(value: object) -> Mapping[str, str]:
    if not isinstance(value, dict):
        return {}
    return {name: text for name, text in value.items() if isinstance(text, str)}
