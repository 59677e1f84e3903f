"""Task states and the one list of rules that decides how a task ended.

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

    `exit_code` is the process's own (128 + n after signal n). `by_platform`: it was told to end from
    outside (its Pod was being deleted, evicted, past its deadline), so its code says nothing about it.
    """

    index: int
    exit_code: int
    oom: bool = False
    ignore_error: bool = False
    by_platform: bool = False

    @property
    def failed(self) -> bool:
        """Whether this end is the task's end. Out of memory is never ignored (its Pod cannot go on)."""
        return not self.by_platform and (self.oom or (self.exit_code != 0 and not self.ignore_error))


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """Why something other than an executor ended the task, in Kubernetes' words where there are any."""

    reason: str
    message: str
    container: str | None = None


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All that is known of a task's work, from whatever source.

    `running`: something of the task runs, or may still start. `disruption`: the platform took the Pod away
    (preemption, eviction). `trouble`: filer, image, configuration, deadline, node, refusal. `cut_short`: the
    executor may have been given less than the whole of an input that was streamed to it. `done`: every
    container has ended and every output has been sent.
    """

    cancel_requested: bool = False
    running: bool = True
    executors: Sequence[ExecutorEnd] = ()
    disruption: Trouble | None = None
    trouble: Trouble | None = None
    cut_short: Trouble | None = None
    preemptible: bool = False
    done: bool = False


@dataclass(frozen=True, kw_only=True)
class Ending:
    """A terminal state and why: what the task's row, its log's metadata and its system logs say."""

    state: TesState
    reason: str | None = None
    message: str | None = None
    container: str | None = None


def _canceled(facts: Facts) -> Ending | None:
    if not facts.cancel_requested:
        return None
    return Ending(state=TesState.CANCELED, reason="Canceled", message="canceled on request")


def _cut_short(facts: Facts) -> Ending | None:
    """Before the executor's own failure, which may be no more than what it made of half an input."""
    if facts.cut_short is None:
        return None
    ending = _ending(TesState.SYSTEM_ERROR, facts.cut_short)
    failed = _failed(facts)
    return replace(ending, message=f"{ending.message}; {_failure(failed)[1]}") if failed else ending


def _executor_error(facts: Facts) -> Ending | None:
    failed = _failed(facts)
    if failed is None:
        return None
    reason, message = _failure(failed)
    if facts.trouble is not None:
        message = f"{message}; then: {facts.trouble.message}"
    return Ending(
        state=TesState.EXECUTOR_ERROR, reason=reason, message=message, container=f"executor-{failed.index}"
    )


def _failed(facts: Facts) -> ExecutorEnd | None:
    return next((end for end in facts.executors if end.failed), None)


def _failure(failed: ExecutorEnd) -> tuple[str, str]:
    """Reason and message."""
    if failed.oom:
        return "OOMKilled", f"executor {failed.index} ran out of memory"
    return "Error", f"executor {failed.index} exited with code {failed.exit_code}"


def _disrupted(facts: Facts) -> Ending | None:
    if facts.disruption is None:
        return None
    return _ending(TesState.PREEMPTED if facts.preemptible else TesState.SYSTEM_ERROR, facts.disruption)


def _troubled(facts: Facts) -> Ending | None:
    return None if facts.trouble is None else _ending(TesState.SYSTEM_ERROR, facts.trouble)


def _complete(facts: Facts) -> Ending | None:
    return Ending(state=TesState.COMPLETE) if facts.done else None


def _ending(state: TesState, trouble: Trouble) -> Ending:
    return Ending(state=state, reason=trouble.reason, message=trouble.message, container=trouble.container)


RULES: Sequence[Callable[[Facts], Ending | None]] = (
    _canceled,
    _cut_short,
    _executor_error,
    _disrupted,
    _troubled,
    _complete,
)


def terminal_state(facts: Facts) -> Ending | None:
    """How the task ended; None while something runs or while no rule can tell.

    The first rule that applies wins: a cancel that was asked for, then an input that was cut short while it
    was streamed, then an executor's own failure, then the platform, then everything else that went wrong,
    then success.
    """
    if facts.running:
        return None
    return next((ending for rule in RULES if (ending := rule(facts)) is not None), None)
