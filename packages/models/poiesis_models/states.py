"""Task states and the one list of rules that decides the outcome of a task.

Used by the recorder (facts from files) and by the controller (facts from Kubernetes) alike.
Standard library only.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum


class TesState(StrEnum):
    """TES 1.1 `tesState`. PAUSED and UNKNOWN exist in the specification; Poiesis never writes them."""

    UNKNOWN = "UNKNOWN"
    QUEUED = "QUEUED"
    INITIALIZING = "INITIALIZING"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    COMPLETE = "COMPLETE"
    EXECUTOR_ERROR = "EXECUTOR_ERROR"
    SYSTEM_ERROR = "SYSTEM_ERROR"
    CANCELED = "CANCELED"
    PREEMPTED = "PREEMPTED"
    CANCELING = "CANCELING"


TERMINAL_STATES = frozenset(
    {
        TesState.COMPLETE,
        TesState.EXECUTOR_ERROR,
        TesState.SYSTEM_ERROR,
        TesState.CANCELED,
        TesState.PREEMPTED,
    }
)


@dataclass(frozen=True, kw_only=True)
class ExecutorEnd:
    """One executor that has ended.

    `exit_code`: of the process (128 + n after signal n). `by_platform`: it was ended from outside (its Pod
    was deleted, evicted or past its deadline), so the code does not describe the executor.
    """

    index: int
    exit_code: int
    oom: bool = False
    ignore_error: bool = False
    by_platform: bool = False

    @property
    def failed(self) -> bool:
        """Whether the task fails. Out of memory is never ignored, because its Pod cannot continue."""
        return not self.by_platform and (self.oom or (self.exit_code != 0 and not self.ignore_error))


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why something other than an executor ended the task, in the terms of Kubernetes if possible."""

    reason: str
    message: str
    container: str | None = None


@dataclass(frozen=True, kw_only=True)
class Facts:
    """The known facts about a task's execution, from any source.

    `running`: a container of the task runs, or may still start. `disruption`: the platform removed the Pod
    (preemption, eviction). `failure`: a failure of a filer, image, configuration or node, a deadline or a
    rejection. `cut_short`: an input was not streamed completely to the executor. `done`: every container has
    ended and every output has been sent.
    """

    cancel_requested: bool = False
    running: bool = True
    executors: Sequence[ExecutorEnd] = ()
    disruption: Failure | None = None
    failure: Failure | None = None
    cut_short: Failure | None = None
    preemptible: bool = False
    done: bool = False


@dataclass(frozen=True, kw_only=True)
class TaskOutcome:
    """A terminal state with its reason and message, for the task's row, metadata and system logs."""

    state: TesState
    reason: str | None = None
    message: str | None = None
    container: str | None = None


def _canceled(facts: Facts) -> TaskOutcome | None:
    if not facts.cancel_requested:
        return None
    return TaskOutcome(state=TesState.CANCELED, reason="Canceled", message="canceled on request")


def _cut_short(facts: Facts) -> TaskOutcome | None:
    """Precedes the executor's failure, which may be only a consequence of the incomplete input."""
    if facts.cut_short is None:
        return None
    outcome = _outcome(TesState.SYSTEM_ERROR, facts.cut_short)
    failed = _failed_executor(facts)
    return (
        replace(outcome, message=f"{outcome.message}; {_executor_failure(failed)[1]}") if failed else outcome
    )


def _executor_error(facts: Facts) -> TaskOutcome | None:
    failed = _failed_executor(facts)
    if failed is None:
        return None
    reason, message = _executor_failure(failed)
    if facts.failure is not None:
        message = f"{message}; then: {facts.failure.message}"
    return TaskOutcome(
        state=TesState.EXECUTOR_ERROR, reason=reason, message=message, container=f"executor-{failed.index}"
    )


def _failed_executor(facts: Facts) -> ExecutorEnd | None:
    return next((end for end in facts.executors if end.failed), None)


def _executor_failure(failed: ExecutorEnd) -> tuple[str, str]:
    """Return reason and message of a failed executor."""
    if failed.oom:
        return "OOMKilled", f"executor {failed.index} ran out of memory"
    return "Error", f"executor {failed.index} exited with code {failed.exit_code}"


def _disrupted(facts: Facts) -> TaskOutcome | None:
    if facts.disruption is None:
        return None
    return _outcome(TesState.PREEMPTED if facts.preemptible else TesState.SYSTEM_ERROR, facts.disruption)


def _other_failure(facts: Facts) -> TaskOutcome | None:
    return None if facts.failure is None else _outcome(TesState.SYSTEM_ERROR, facts.failure)


def _complete(facts: Facts) -> TaskOutcome | None:
    return TaskOutcome(state=TesState.COMPLETE) if facts.done else None


def _outcome(state: TesState, failure: Failure) -> TaskOutcome:
    return TaskOutcome(
        state=state, reason=failure.reason, message=failure.message, container=failure.container
    )


RULES: Sequence[Callable[[Facts], TaskOutcome | None]] = (
    _canceled,
    _cut_short,
    _executor_error,
    _disrupted,
    _other_failure,
    _complete,
)


def terminal_state(facts: Facts) -> TaskOutcome | None:
    """Return the outcome of the task; None while something runs or no rule applies.

    The first rule that applies decides: a requested cancel, an incompletely streamed input, an executor's own
    failure, a disruption by the platform, any other failure, success.
    """
    if facts.running:
        return None
    return next((outcome for rule in RULES if (outcome := rule(facts)) is not None), None)
