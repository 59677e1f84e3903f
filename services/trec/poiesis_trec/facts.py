"""Derive the state of this Pod's containers from their files and the Pod's status. Pure.

Files take precedence: the helper writes `exit.json` as soon as a container ends, without the API server.
The Pod's status is used where a helper could not write: killed with its cgroup, or a full disk.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from poiesis_models.outcome import ContainerOutcome, failure_of, out_of_memory, outcome_of
from poiesis_models.plan import PodPlan
from poiesis_models.podstatus import (
    ContainerEnd,
    ContainerWait,
    container_ends,
    container_waits,
    running_containers,
)
from poiesis_models.runfiles import ExitRecord, FoundInput, Started
from poiesis_models.states import ExecutorEnd, Facts, Failure, TesState


@dataclass(frozen=True, kw_only=True)
class RunFiles:
    """The content of one container's run directory.

    `helper_gone`: it has started, its lock is free, and there is no exit record. `caught_up`: progress.jsonl
    has been read to its end, so `moved_files`, `moved_bytes`, `warnings` and `error` are a filer's final
    values. `inputs`: the types of inputs that were submitted without one.
    `streaming`: inputs that are being streamed, of which a reader may have received a part;
    `streaming_since_ns`: when the first stream began.
    """

    started: Started | None = None
    exit: ExitRecord | None = None
    failed: bool = False
    skipped: bool = False
    helper_gone: bool = False
    moved_files: int = 0
    moved_bytes: int = 0
    warnings: tuple[str, ...] = ()
    error: str | None = None
    inputs: tuple[FoundInput, ...] = ()
    streaming: tuple[str, ...] = ()
    streaming_since_ns: int | None = None
    caught_up: bool = True


NO_RUN_FILES = RunFiles()


@dataclass(frozen=True, kw_only=True)
class PodView:
    """The fields of this Pod's status that decisions need.

    `terminating`: the Pod is being deleted or evicted, or is past its deadline.
    """

    ends: Mapping[str, ContainerEnd] = field(default_factory=dict)
    waits: Mapping[str, ContainerWait] = field(default_factory=dict)
    running: frozenset[str] = frozenset()
    terminating: bool = False

    @classmethod
    def from_json(cls, pod: Mapping[str, Any]) -> "PodView":
        """Read a Pod as the API server sends it."""
        metadata, status = pod.get("metadata") or {}, pod.get("status") or {}
        return cls(
            ends=container_ends(pod),
            waits=container_waits(pod),
            running=running_containers(pod),
            terminating=bool(metadata.get("deletionTimestamp") or status.get("reason")),
        )


@dataclass(frozen=True, kw_only=True)
class Observation:
    """All inputs of a decision at one moment.

    `shutting_down`: the kubelet ends this Pod, nothing more will start. `streams_awaited`: the sidecars that
    stream inputs may still report the results.
    """

    plan: PodPlan
    files: Mapping[str, RunFiles]
    pod: PodView | None = None
    cancel_requested: bool = False
    shutting_down: bool = False
    streams_awaited: bool = True


@dataclass(frozen=True, kw_only=True)
class PlannedContainer:
    """The known state of one planned container. `executor`: its index, None for a filer."""

    name: str
    files: RunFiles
    executor: int | None = None
    start_ns: int | None = None
    end: ContainerOutcome | None = None
    reached: bool = False  # it has started, or been skipped
    last: bool = False

    @property
    def over(self) -> bool:
        """Return whether it has ended or will never run."""
        return self.end is not None or self.files.skipped


def containers(observation: Observation) -> tuple[PlannedContainer, ...]:
    """Return all planned containers in the order in which they run."""
    plan = observation.plan
    executors = {name: index for index, name in enumerate(plan.executors)}
    names = tuple(plan)
    known = [_container(name, executors.get(name), observation, last=name == names[-1]) for name in names]
    follower = None
    for position in reversed(range(len(known))):
        if follower is not None and known[position].reached:
            known[position] = _followed(known[position], follower, plan)
        if known[position].reached:
            follower = known[position]
    return tuple(known)


def facts(observation: Observation, known: Sequence[PlannedContainer]) -> Facts:
    """Return the input of `terminal_state`."""
    plan = observation.plan
    ends = tuple(
        end
        for one in known
        if one.executor is not None
        and one.end is not None
        and (end := one.end.executor_end(one.executor, ignore_error=plan.ignore_error[one.executor]))
    )
    failure = next((found for one in known if (found := _failure(one)) is not None), None)
    cut = cut_short(observation)
    streaming = still_streaming(observation)
    running = (
        _running(observation, known, ends)
        or (streaming and cut is None and not observation.shutting_down)
        or still_rescuing(observation, known)
    )
    succeeded = failure is None and cut is None and not streaming
    return Facts(
        cancel_requested=observation.cancel_requested,
        running=running,
        executors=ends,
        failure=failure,
        cut_short=cut,
        preemptible=plan.preemptible,
        done=not running and succeeded and known[-1].over and _succeeded(known[-1], plan),
    )


def cut_short(observation: Observation) -> Failure | None:
    """Return why an executor may have received only part of a streamed input, None if it has not.

    A sidecar that streams ends with its Pod. If it ends earlier, its readers may have seen an end of file.
    """
    streams = ((name, observation.files.get(name, NO_RUN_FILES)) for name in observation.plan.streams)
    return next((found for name, files in streams if (found := _cut_short(name, files, observation))), None)


def still_streaming(observation: Observation) -> bool:
    """Return whether the result of a streamed input is still unknown."""
    return any(observation.files.get(name, NO_RUN_FILES).streaming for name in observation.plan.streams)


def killed(known: Sequence[PlannedContainer]) -> PlannedContainer | None:
    """Return the executor that was killed with its helper or ran out of memory, if no container followed it.

    Kubernetes starts no container after it. The sidecars that send outputs read the same files.
    """
    latest = next((one for one in reversed(known) if one.reached), None)
    if latest is None or latest.executor is None:
        return None
    files, end = latest.files, latest.end
    if files.exit is not None:
        return latest if files.exit.oom else None
    gone = files.started is not None and (files.helper_gone or end is not None)
    continues = files.failed or (end is not None and end.exit_code == 0)  # its record could not be written
    return latest if gone and not continues else None


def still_rescuing(observation: Observation, known: Sequence[PlannedContainer]) -> bool:
    """Return whether outputs are still being sent after a kill, or have not been read to the end.

    The kubelet ends the recorder after the sidecars that send, so in shutdown they have ended.
    """
    if killed(known) is None:
        return False
    rescues = [observation.files.get(name, NO_RUN_FILES) for name in observation.plan.rescues]
    sending = any(files.exit is None for files in rescues) and not observation.shutting_down
    return sending or not all(files.caught_up for files in rescues)


def wants_rescue(observation: Observation, known: Sequence[PlannedContainer]) -> bool:
    """Return whether to request the outputs of an executor that ran out of memory and whose helper survived.

    That helper waits for the recorder's ack, so the Pod does not terminate, which would be the signal.
    """
    one = killed(known)
    return bool(observation.plan.rescues) and one is not None and one.files.exit is not None


def phase(known: Sequence[PlannedContainer]) -> TesState:
    """Return the state while the task runs: RUNNING as soon as its first executor has started."""
    return (
        TesState.RUNNING
        if any(one.executor is not None and one.reached for one in known)
        else TesState.INITIALIZING
    )


def awaited(known: Sequence[PlannedContainer]) -> PlannedContainer | None:
    """Return the container that runs now and will still write an exit record."""
    return next((one for one in known if one.reached and not one.over and not one.files.helper_gone), None)


def unexplained(known: Sequence[PlannedContainer]) -> PlannedContainer | None:
    """Return a container whose helper was killed without a record: the Pod's status may have its end."""
    return next((one for one in known if one.reached and not one.over and one.files.helper_gone), None)


def unstarted(known: Sequence[PlannedContainer]) -> PlannedContainer | None:
    """Return the container that was next when nothing ran and nothing had failed.

    In shutdown, either the Pod was ended from outside, or the runtime could not start this container, which
    the Pod's status shows.
    """
    latest = next((one for one in reversed(known) if one.reached), None)
    if latest is not None and (not latest.over or (latest.end is not None and latest.end.by_platform)):
        return None
    return next((one for one in known if not one.reached), None)


def _container(name: str, executor: int | None, observation: Observation, *, last: bool) -> PlannedContainer:
    files, pod = observation.files.get(name, NO_RUN_FILES), observation.pod
    end = _end(name, files, pod, hidden=_may_hide_failure(executor, observation.plan))
    start_ns = files.started.start_ns if files.started else None
    if start_ns is None and files.exit is not None:
        start_ns = files.exit.start_ns
    elif start_ns is None and end is not None and end.exit_code is not None:
        start_ns = end.end_ns
    runs = pod is not None and name in pod.running
    return PlannedContainer(
        name=name,
        files=files,
        executor=executor,
        start_ns=start_ns,
        end=end,
        reached=files.skipped or start_ns is not None or end is not None or runs,
        last=last,
    )


def _may_hide_failure(executor: int | None, plan: PodPlan) -> bool:
    """Return whether the helper exits 0 after a failure without a `failed` file: with ignore_error."""
    return executor is not None and plan.ignore_error[executor]


def _end(name: str, files: RunFiles, pod: PodView | None, *, hidden: bool) -> ContainerOutcome | None:
    if not files.caught_up:  # its progress must be read before its end is used
        return None
    status = pod.ends.get(name) if pod is not None else None
    record = files.exit or (status.record if status is not None else None)
    end = _outcome(status, record, files, pod)
    if end is None or record is not None or end.exit_code != 0:
        return end
    return None if files.skipped else _without_record(name, end.end_ns, failed=files.failed, hidden=hidden)


def _outcome(
    status: ContainerEnd | None, record: ExitRecord | None, files: RunFiles, pod: PodView | None
) -> ContainerOutcome | None:
    """Combine the record and the Pod's status. A helper records when it has started its process."""
    terminating = pod is not None and pod.terminating
    return outcome_of(status, record, terminating=terminating, ran=files.started is not None)


def _without_record(name: str, end_ns: int, *, failed: bool, hidden: bool) -> ContainerOutcome:
    """Return the outcome of a container that exited 0 for the kubelet and left no record of its process."""
    if not failed:
        return ContainerOutcome(exit_code=None if hidden else 0, end_ns=end_ns)
    failure = Failure(reason="Error", message=f"{name} failed; its exit code is not known", container=name)
    return ContainerOutcome(exit_code=None, end_ns=end_ns, failure=failure)


def _followed(one: PlannedContainer, follower: PlannedContainer, plan: PodPlan) -> PlannedContainer:
    """Return a container after which Kubernetes started another, so it exited 0 by itself."""
    if one.end is not None and one.end.by_platform:
        return replace(one, end=replace(one.end, by_platform=False))
    if one.over:
        return one
    end = _without_record(
        one.name,
        follower.start_ns or one.start_ns or 0,
        failed=one.files.failed or follower.files.skipped,
        hidden=_may_hide_failure(one.executor, plan),
    )
    return replace(one, end=end)


def _failure(one: PlannedContainer) -> Failure | None:
    end = one.end
    if end is None or end.by_platform:
        return None
    if end.failure is not None or one.executor is not None or end.succeeded:
        return end.failure
    message = one.files.error or f"{one.name} exited with code {end.exit_code}"
    return failure_of(one.name, oom=end.oom, message=message)


def _cut_short(name: str, files: RunFiles, observation: Observation) -> Failure | None:
    end = files.exit
    if files.error is not None:
        message = files.error
    elif end is not None and end.oom:
        return out_of_memory(name)
    elif end is not None and not end.term:
        message = f"{name} exited with code {end.exit_code} while it streamed inputs"
    elif files.helper_gone and not observation.shutting_down:
        message = f"{name} was killed while it streamed inputs"
    elif files.streaming and not observation.streams_awaited:
        message = f"{name} did not report whether it streamed {', '.join(files.streaming)} completely"
    else:
        return None
    return Failure(reason="Error", message=message, container=name)


def _running(
    observation: Observation, known: Sequence[PlannedContainer], ends: Sequence[ExecutorEnd]
) -> bool:
    latest = next((one for one in reversed(known) if one.reached), None)
    if latest is None:
        return not observation.shutting_down
    if not latest.over:
        return not (observation.shutting_down and latest.files.helper_gone)
    if latest.last or observation.shutting_down:
        return False
    return latest.files.skipped or not _stops(latest, observation.plan, ends)


def _stops(latest: PlannedContainer, plan: PodPlan, ends: Sequence[ExecutorEnd]) -> bool:
    """Return whether no container follows: Kubernetes starts none after a non-zero exit."""
    end = latest.end
    if end is None:
        return False
    if end.by_platform or end.oom or end.failure is not None:
        return True
    if latest.executor is None:
        return not end.succeeded
    failed = any(one.index == latest.executor and one.failed for one in ends)
    return failed and not (plan.upload_on_error and plan.outputs)


def _succeeded(last: PlannedContainer, plan: PodPlan) -> bool:
    end = last.end
    if end is None:  # skipped: an earlier one failed, and its end shows that
        return False
    if last.executor is not None and plan.ignore_error[last.executor]:
        return not (end.oom or end.by_platform)
    return end.succeeded
