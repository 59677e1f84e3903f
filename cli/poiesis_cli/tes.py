"""TES documents as servers really send them, made safe to read. Pure.

Null is as good as absent, unknown keys and states are kept in the document and otherwise ignored, and what
has another type than TES 1.1 says counts as absent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
    """`tesExecutor`, as far as it is shown."""

    image: str = ""
    command: Sequence[str] = ()
    ignore_error: bool = False


@dataclass(frozen=True, kw_only=True)
class ExecutorLog:
    """`tesExecutorLog`. `exit_code` is None where the server does not tell it."""

    exit_code: int | None = None
    stdout: str = ""
    stderr: str = ""
    end_time: str = ""


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """`tesTaskLog`."""

    executors: Sequence[ExecutorLog] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    system_logs: Sequence[str] = ()
    outputs: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, kw_only=True)
class Task:
    """`tesTask`; `document` is what the server sent, whole."""

    id: str
    state: str
    name: str = ""
    creation_time: str = ""
    executors: Sequence[Executor] = ()
    attempts: Sequence[Attempt] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    document: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def ended(self) -> bool:
        """Whether nothing will follow. A state that TES 1.1 does not know is not an end."""
        return self.state in _EXITS

    @property
    def last_attempt(self) -> Attempt:
        """The attempt that counts; an empty one if there is none yet."""
        return self.attempts[-1] if self.attempts else Attempt()

    @property
    def failed_executor(self) -> tuple[int, int] | None:
        """Index and exit code of the executor that ended the task; None if no server's word names one."""
        codes = [
            (index, log.exit_code)
            for index, log in enumerate(self.last_attempt.executors)
            if log.exit_code not in (None, 0)
        ]
        fatal = [(index, code) for index, code in codes if not self._ignores(index)]
        return next(((index, code) for index, code in fatal or codes if code is not None), None)

    @property
    def exit_code(self) -> int:
        """What `wait` and `run` exit with when this task has ended: errors.Exit, or the failed executor's."""
        if self.state == "EXECUTOR_ERROR" and self.failed_executor is not None:
            _, code = self.failed_executor
            return code if code in _EXIT_CODES else Exit.EXECUTOR_ERROR
        return _EXITS[self.state]

    def _ignores(self, index: int) -> bool:
        return index < len(self.executors) and self.executors[index].ignore_error


def read_task(document: object) -> Task:
    """Raise NotTes if it is no task at all: not an object."""
    if not isinstance(document, dict):
        raise NotTes(f"a task should be a JSON object, not {type(document).__name__}")
    return Task(
        id=_text(document.get("id")),
        state=_text(document.get("state")) or "UNKNOWN",  # TES 1.1: the default where the field is missing
        name=_text(document.get("name")),
        creation_time=_text(document.get("creation_time")),
        executors=tuple(_executor(one) for one in _objects(document.get("executors"))),
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
    )


def _executor_log(document: object) -> ExecutorLog:
    if not isinstance(document, dict):
        return ExecutorLog()
    return ExecutorLog(
        exit_code=_whole_number(document.get("exit_code")),
        stdout=_text(document.get("stdout")),
        stderr=_text(document.get("stderr")),
        end_time=_text(document.get("end_time")),
    )


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
