"""Decide how a container ended, from its status in the Pod and the helper's record.

The recorder and the controller both use it, so the outcome of a task does not depend on which of them
records it. Pure; standard library only.
"""

from dataclasses import dataclass

from poiesis_models.podstatus import ContainerEnd
from poiesis_models.report import ExecutorReport
from poiesis_models.runfiles import SIGTERM_EXIT, ExitRecord, ResourceUsage
from poiesis_models.states import ExecutorEnd, Failure

OOM = "OOMKilled"
OOM_EXIT = 137
NEVER_STARTED = frozenset({"StartError", "ContainerCannotRun"})  # reasons of container runtimes
LOST = "ContainerStatusUnknown"  # of the kubelet, which has no trace of the container
_HELPER_REFUSED = 70  # without a record: the helper could not start the process, or would not start it twice
_LOST_BY_RUNTIME = ("Unknown", 255)  # containerd, after its own restart
KILLED_EXITS = frozenset({OOM_EXIT, SIGTERM_EXIT})  # codes of a process that the kubelet ended
_MAX_EXIT = 255


@dataclass(frozen=True, kw_only=True)
class ContainerOutcome:
    """How one container ended. Times are Unix time in ns; 0 is unknown.

    `exit_code`: the code that clients see; None if the process did not run or its code is not known.
    `by_platform`: the platform terminated it, so its code does not describe it. `failure`: why there is no
    code, in Kubernetes' words if there are any.
    """

    exit_code: int | None
    start_ns: int = 0
    end_ns: int
    signal: int = 0
    oom: bool = False
    by_platform: bool = False
    failure: Failure | None = None
    usage: ResourceUsage | None = None

    @property
    def succeeded(self) -> bool:
        """Whether the container ended without any failure."""
        return not (self.exit_code or self.oom or self.by_platform or self.failure)

    def executor_end(self, index: int, *, ignore_error: bool) -> ExecutorEnd | None:
        """Return the executor's end for the rules of `states`; None without an exit code."""
        if self.exit_code is None:
            return None
        return ExecutorEnd(
            index=index,
            exit_code=self.exit_code,
            oom=self.oom,
            ignore_error=ignore_error,
            by_platform=self.by_platform,
        )

    def executor_report(self, index: int) -> ExecutorReport | None:
        """Return the report of an executor; None without an exit code or an end time."""
        if self.exit_code is None or self.end_ns == 0:
            return None
        return ExecutorReport(
            index=index,
            start_ns=self.start_ns or self.end_ns,
            end_ns=self.end_ns,
            exit_code=self.exit_code,
            oom=self.oom,
            usage=self.usage,
        )


def outcome_of(
    status: ContainerEnd | None, record: ExitRecord | None, *, terminating: bool, ran: bool = True
) -> ContainerOutcome | None:
    """Return how a container ended; None if neither source reports its end.

    `record` is the helper's, from its file or from the termination message. `terminating`: the Pod is
    being deleted, evicted or past its deadline. `ran`: False if a container without a record is known not to
    have started its process.
    """
    if record is not None:
        return _recorded(record, oom=record.oom or (status is not None and status.reason == OOM))
    if status is None:
        return None
    if status.reason == OOM:
        return _outcome(status, exit_code=OOM_EXIT, oom=True)
    if is_lost(status):
        message = f"the kubelet lost {status.name}: {status.message or 'its end is not known'}"
        failure = Failure(reason=LOST, message=message, container=status.name)
        return _outcome(status, by_platform=terminating, failure=failure)
    if did_not_run(status, ran=ran):
        return _outcome(status, by_platform=terminating, failure=_not_started(status))
    code = _within_bounds(status.exit_code)
    return _outcome(status, exit_code=code, by_platform=terminating and code in KILLED_EXITS)


def failure_of(name: str, *, oom: bool, message: str) -> Failure:
    """Return the failure of container `name`: it ran out of memory, else `message`."""
    return out_of_memory(name) if oom else Failure(reason="Error", message=message, container=name)


def out_of_memory(name: str) -> Failure:
    """Return the failure of container `name` if the kernel killed one of its processes for memory."""
    return Failure(reason=OOM, message=f"{name} ran out of memory", container=name)


def is_lost(status: ContainerEnd) -> bool:
    """Whether the exit code is made up, because the kubelet or the runtime lost the container."""
    found = status.reason == LOST or (status.reason, status.exit_code) == _LOST_BY_RUNTIME
    return status.record is None and found


def did_not_run(status: ContainerEnd, *, ran: bool = True) -> bool:
    """Whether the process of a container was never started."""
    if status.record is not None or status.reason == OOM:
        return False
    code = _within_bounds(status.exit_code)
    return status.reason in NEVER_STARTED or code == _HELPER_REFUSED or (code != 0 and not ran)


def _recorded(record: ExitRecord, *, oom: bool) -> ContainerOutcome:
    """Return the outcome by a record: 137 if the kernel killed any process of the container for memory."""
    return ContainerOutcome(
        exit_code=OOM_EXIT if oom else record.tes_exit_code,
        start_ns=record.start_ns,
        end_ns=record.end_ns,
        signal=record.signal,
        oom=oom,
        by_platform=record.term,
        usage=record.usage,
    )


def _outcome(
    status: ContainerEnd,
    *,
    exit_code: int | None = None,
    oom: bool = False,
    by_platform: bool = False,
    failure: Failure | None = None,
) -> ContainerOutcome:
    return ContainerOutcome(
        exit_code=exit_code,
        start_ns=status.started_ns,
        end_ns=status.finished_ns,
        oom=oom,
        by_platform=by_platform,
        failure=failure,
    )


def _not_started(status: ContainerEnd) -> Failure:
    reason = status.reason if status.reason in NEVER_STARTED else "Error"
    cause = status.message.strip() or f"exit code {status.exit_code}"
    message = f"{status.name} could not be started: {cause}"
    return Failure(reason=reason, message=message, container=status.name)


def _within_bounds(code: int) -> int:
    return min(max(code, 0), _MAX_EXIT)
