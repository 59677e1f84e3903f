"""What happened to the containers of this Pod, from what the files and the Pod's status say. Pure.

Files come first: the helper writes `exit.json` at the very moment a container ends, with no API server
needed. The Pod's status fills in where a helper could not write: killed with its cgroup, or a full disk.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from poiesis_models.outcome import OOM, ContainerOutcome, outcome_of
from poiesis_models.plan import Plan
from poiesis_models.podstatus import (
    ContainerEnd,
    ContainerWait,
    container_ends,
    container_waits,
    running_containers,
)
from poiesis_models.runfiles import ExitRecord, FoundInput, Started
from poiesis_models.states import ExecutorEnd, Facts, TesState, Trouble

End = ContainerOutcome


@dataclass(frozen=True, kw_only=True)
class Files:
    """What the run directory of one container says.

    `helper_gone`: it has started, its lock is free, and there is no exit record. `caught_up`: progress.jsonl
    has been read to its end, so `moved_files`, `moved_bytes`, `warnings` and `error` are a filer's last word.
    `inputs`: what the inputs without a type are.
    `pouring`: inputs that are being streamed, of which a reader may have been given a part; `poured_ns`:
    since when there has been one.
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
    pouring: tuple[str, ...] = ()
    poured_ns: int | None = None
    caught_up: bool = True


NO_FILES = Files()


@dataclass(frozen=True, kw_only=True)
class PodView:
    """What matters of this Pod's status. `going`: it is being deleted or evicted, or past its deadline."""

    ends: Mapping[str, ContainerEnd] = field(default_factory=dict)
    waits: Mapping[str, ContainerWait] = field(default_factory=dict)
    running: frozenset[str] = frozenset()
    going: bool = False

    @classmethod
    def from_json(cls, pod: Mapping[str, Any]) -> "PodView":
        """Read a Pod as the API server sends it."""
        metadata, status = pod.get("metadata") or {}, pod.get("status") or {}
        return cls(
            ends=container_ends(pod),
            waits=container_waits(pod),
            running=running_containers(pod),
            going=bool(metadata.get("deletionTimestamp") or status.get("reason")),
        )


@dataclass(frozen=True, kw_only=True)
class Situation:
    """Everything known at one moment. `shutting_down`: the kubelet ends this Pod, nothing more will start.

    `patient`: what streams inputs may still say what became of them.
    """

    plan: Plan
    files: Mapping[str, Files]
    pod: PodView | None = None
    cancel_requested: bool = False
    shutting_down: bool = False
    patient: bool = True


@dataclass(frozen=True, kw_only=True)
class Container:
    """One planned container as far as it is known. `executor`: its index, None for a filer."""

    name: str
    files: Files
    executor: int | None = None
    start_ns: int | None = None
    end: End | None = None
    seen: bool = False  # it has started, or been skipped
    last: bool = False

    @property
    def over(self) -> bool:
        """Whether it has ended or will never run."""
        return self.end is not None or self.files.skipped


def containers(situation: Situation) -> tuple[Container, ...]:
    """All planned containers in the order in which they run."""
    plan = situation.plan
    executors = {name: index for index, name in enumerate(plan.executors)}
    names = tuple(plan)
    known = [_container(name, executors.get(name), situation, last=name == names[-1]) for name in names]
    follower = None
    for position in reversed(range(len(known))):
        if follower is not None and known[position].seen:
            known[position] = _followed(known[position], follower, plan)
        if known[position].seen:
            follower = known[position]
    return tuple(known)


def facts(situation: Situation, known: Sequence[Container]) -> Facts:
    """The input of `terminal_state`."""
    plan = situation.plan
    ends = tuple(
        end
        for one in known
        if one.executor is not None
        and one.end is not None
        and (end := one.end.executor_end(one.executor, ignore_error=plan.ignore_error[one.executor]))
    )
    trouble = next((found for one in known if (found := _trouble(one)) is not None), None)
    cut = cut_short(situation)
    pouring = still_pouring(situation)
    running = (
        _running(situation, known, ends)
        or (pouring and cut is None and not situation.shutting_down)
        or still_rescuing(situation, known)
    )
    well = trouble is None and cut is None and not pouring
    return Facts(
        cancel_requested=situation.cancel_requested,
        running=running,
        executors=ends,
        trouble=trouble,
        cut_short=cut,
        preemptible=plan.preemptible,
        done=not running and well and known[-1].over and _went_well(known[-1], plan),
    )


def cut_short(situation: Situation) -> Trouble | None:
    """Why an executor may have been given less than the whole of an input that is streamed.

    What streams ends when its Pod does: one that ends before may have left its readers with an end of file.
    """
    streams = ((name, situation.files.get(name, NO_FILES)) for name in situation.plan.streams)
    return next((found for name, files in streams if (found := _cut_short(name, files, situation))), None)


def still_pouring(situation: Situation) -> bool:
    """Whether it is not known yet what became of an input that is streamed."""
    return any(situation.files.get(name, NO_FILES).pouring for name in situation.plan.streams)


def killed(known: Sequence[Container]) -> Container | None:
    """Return the executor that was killed with its helper or ran out of memory, if nothing came after it.

    Kubernetes starts no container after it. The sidecars that send outputs then look at the same files.
    """
    latest = next((one for one in reversed(known) if one.seen), None)
    if latest is None or latest.executor is None:
        return None
    files, end = latest.files, latest.end
    if files.exit is not None:
        return latest if files.exit.oom else None
    gone = files.started is not None and (files.helper_gone or end is not None)
    goes_on = files.failed or (end is not None and end.exit_code == 0)  # its record could not be written
    return latest if gone and not goes_on else None


def still_rescuing(situation: Situation, known: Sequence[Container]) -> bool:
    """Whether outputs are still being sent after an executor was killed, or have not been read to the end.

    The kubelet ends the recorder after the sidecars that send, so in shutdown they have ended.
    """
    if killed(known) is None:
        return False
    rescues = [situation.files.get(name, NO_FILES) for name in situation.plan.rescues]
    sending = any(files.exit is None for files in rescues) and not situation.shutting_down
    return sending or not all(files.caught_up for files in rescues)


def wants_rescue(situation: Situation, known: Sequence[Container]) -> bool:
    """Whether to ask for the outputs of an executor that ran out of memory and whose helper has survived.

    That helper waits for the recorder's ack, so the Pod does not begin to end, which would be the signal.
    """
    one = killed(known)
    return bool(situation.plan.rescues) and one is not None and one.files.exit is not None


def phase(known: Sequence[Container]) -> TesState:
    """The state while the task runs: RUNNING as soon as its first executor has started."""
    return (
        TesState.RUNNING
        if any(one.executor is not None and one.seen for one in known)
        else TesState.INITIALIZING
    )


def awaited(known: Sequence[Container]) -> Container | None:
    """The container that runs now and will still leave an exit record."""
    return next((one for one in known if one.seen and not one.over and not one.files.helper_gone), None)


def unexplained(known: Sequence[Container]) -> Container | None:
    """A container whose helper was killed before it could say how it ended: the Pod's status may."""
    return next((one for one in known if one.seen and not one.over and one.files.helper_gone), None)


def unstarted(known: Sequence[Container]) -> Container | None:
    """The container that was next when nothing ran and nothing had failed: in shutdown, either the Pod was
    ended from outside, or the runtime could not start it, and the Pod's status says so."""
    latest = next((one for one in reversed(known) if one.seen), None)
    if latest is not None and (not latest.over or (latest.end is not None and latest.end.by_platform)):
        return None
    return next((one for one in known if not one.seen), None)


def _container(name: str, executor: int | None, situation: Situation, *, last: bool) -> Container:
    files, pod = situation.files.get(name, NO_FILES), situation.pod
    end = _end(name, files, pod, hidden=_may_hide_failure(executor, situation.plan))
    start_ns = files.started.start_ns if files.started else None
    if start_ns is None and files.exit is not None:
        start_ns = files.exit.start_ns
    elif start_ns is None and end is not None and end.exit_code is not None:
        start_ns = end.end_ns
    runs = pod is not None and name in pod.running
    return Container(
        name=name,
        files=files,
        executor=executor,
        start_ns=start_ns,
        end=end,
        seen=files.skipped or start_ns is not None or end is not None or runs,
        last=last,
    )


def _may_hide_failure(executor: int | None, plan: Plan) -> bool:
    """Whether the helper exits 0 after a failure without leaving a `failed` file: with ignore_error."""
    return executor is not None and plan.ignore_error[executor]


def _end(name: str, files: Files, pod: PodView | None, *, hidden: bool) -> End | None:
    if not files.caught_up:  # its end is not its last word until its progress has been read
        return None
    told = pod.ends.get(name) if pod is not None else None
    record = files.exit or (told.record if told is not None else None)
    end = _told(told, record, files, pod)
    if end is None or record is not None or end.exit_code != 0:
        return end
    return None if files.skipped else _passed(name, end.end_ns, failed=files.failed, hidden=hidden)


def _told(
    told: ContainerEnd | None, record: ExitRecord | None, files: Files, pod: PodView | None
) -> End | None:
    """From the record and the Pod's status. A helper notes when it has started its process."""
    taken = pod is not None and pod.going
    return outcome_of(told, record, taken=taken, ran=files.started is not None)


def _passed(name: str, end_ns: int, *, failed: bool, hidden: bool) -> End:
    """The kubelet saw exit code 0 and there is no record of the process's own."""
    if not failed:
        return End(exit_code=None if hidden else 0, end_ns=end_ns)
    trouble = Trouble(reason="Error", message=f"{name} failed; its exit code is not known", container=name)
    return End(exit_code=None, end_ns=end_ns, trouble=trouble)


def _followed(one: Container, follower: Container, plan: Plan) -> Container:
    """Kubernetes went on to a later container: this one exited 0, and the platform did not end it."""
    if one.end is not None and one.end.by_platform:
        return replace(one, end=replace(one.end, by_platform=False))
    if one.over:
        return one
    end = _passed(
        one.name,
        follower.start_ns or one.start_ns or 0,
        failed=one.files.failed or follower.files.skipped,
        hidden=_may_hide_failure(one.executor, plan),
    )
    return replace(one, end=end)


def _trouble(one: Container) -> Trouble | None:
    end = one.end
    if end is None or end.by_platform:
        return None
    if end.trouble is not None or one.executor is not None or end.well:
        return end.trouble
    if end.oom:
        return Trouble(reason=OOM, message=f"{one.name} ran out of memory", container=one.name)
    said = one.files.error or f"{one.name} exited with code {end.exit_code}"
    return Trouble(reason="Error", message=said, container=one.name)


def _cut_short(name: str, files: Files, situation: Situation) -> Trouble | None:
    end = files.exit
    if files.error is not None:
        said = files.error
    elif end is not None and end.oom:
        return Trouble(reason=OOM, message=f"{name} ran out of memory", container=name)
    elif end is not None and not end.term:
        said = f"{name} exited with code {end.exit_code} while it streamed inputs"
    elif files.helper_gone and not situation.shutting_down:
        said = f"{name} was killed while it streamed inputs"
    elif files.pouring and not situation.patient:
        said = f"{name} does not say what became of {', '.join(files.pouring)}"
    else:
        return None
    return Trouble(reason="Error", message=said, container=name)


def _running(situation: Situation, known: Sequence[Container], ends: Sequence[ExecutorEnd]) -> bool:
    latest = next((one for one in reversed(known) if one.seen), None)
    if latest is None:
        return not situation.shutting_down
    if not latest.over:
        return not (situation.shutting_down and latest.files.helper_gone)
    if latest.last or situation.shutting_down:
        return False
    return latest.files.skipped or not _stops(latest, situation.plan, ends)


def _stops(latest: Container, plan: Plan, ends: Sequence[ExecutorEnd]) -> bool:
    """Whether nothing runs after this end: Kubernetes starts no container after one that exited non-zero."""
    end = latest.end
    if end is None:
        return False
    if end.by_platform or end.oom or end.trouble is not None:
        return True
    if latest.executor is None:
        return not end.well
    failed = any(one.index == latest.executor and one.failed for one in ends)
    return failed and not (plan.upload_on_error and plan.outputs)


def _went_well(last: Container, plan: Plan) -> bool:
    end = last.end
    if end is None:  # skipped: an earlier one failed, and its end says so
        return False
    if last.executor is not None and plan.ignore_error[last.executor]:
        return not (end.oom or end.by_platform)
    return end.well
