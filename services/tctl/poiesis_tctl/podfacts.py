"""What a TaskPod's status says about its task, as facts for `poiesis_models.states`. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from poiesis_models.labels import PAUSE_CONTAINER, PLAN_ANNOTATION, TREC_CONTAINER, prepare_name
from poiesis_models.plan import MalformedPlan, Plan
from poiesis_models.podstatus import ContainerEnd, container_ends, container_statuses, running_containers
from poiesis_models.states import ExecutorEnd, Facts, Trouble

Object = Mapping[str, Any]

ENDED_PHASES = frozenset({"Succeeded", "Failed"})
NEVER_STARTED = frozenset({"StartError", "ContainerCannotRun"})  # the runtime's words
_NODE_LOST = frozenset({"DeletionByTaintManager", "DeletionByPodGC"})  # reasons of DisruptionTarget
_DISRUPTIONS = frozenset({"Preempting", "Terminated", "NodeShutdown", "Shutdown"})  # of the Pod's status
CRASHES = 3  # of a recorder, and it is not expected to come back; once or twice is nothing
_OOM = "OOMKilled"
_OOM_EXIT = 137
_KILLED = frozenset({137, 143})
_LOST_EXIT = 255
_HELPER_REFUSED = 70  # without a record: the helper itself could not or would not start the process
_MAX_EXIT = 255


@dataclass(frozen=True, kw_only=True)
class ExecutorRow:
    """What `executor_log` keeps of an executor that has ended."""

    index: int
    start: datetime
    end: datetime
    exit_code: int
    oom: bool


def pod_facts(pod: Object, *, cancel_requested: bool) -> Facts:
    """Facts of a Pod in which nothing runs any more."""
    plan, ends = plan_of(pod), container_ends(pod)
    executors = [end for _, end in _executors(pod, plan, ends)]
    cut_short = _cut_short(pod, plan, ends)
    done = cut_short is None and _is_done(plan, ends, executors)
    return Facts(
        cancel_requested=cancel_requested,
        running=False,
        executors=executors,
        # What befell the Pod when all its work was done does not matter.
        disruption=None if done else _disruption(pod),
        trouble=None if done else _trouble(pod, plan, ends),
        cut_short=cut_short,
        preemptible=plan.preemptible,
        done=done,
    )


def executor_rows(pod: Object) -> tuple[ExecutorRow, ...]:
    """Of executors whose exit code is known."""
    ends = container_ends(pod)
    states = {status["name"]: status.get("state") or {} for status in container_statuses(pod)}
    return tuple(
        row
        for name, end in _executors(pod, plan_of(pod), ends)
        if (row := _row(end, ends[name], states[name]["terminated"])) is not None
    )


def plan_of(pod: Object) -> Plan:
    """From the annotation; where somebody has spoilt that, from the names of the containers."""
    text = (pod["metadata"].get("annotations") or {}).get(PLAN_ANNOTATION) or ""
    try:
        return Plan.from_json(text)
    except MalformedPlan:
        names = [str(item["name"]) for item in (pod.get("spec") or {}).get("initContainers") or ()]
        executors = tuple(name for name in names if name.startswith("executor-"))
        return Plan(
            inputs=tuple(name for name in names if name.startswith("tif-")),
            executors=executors,
            ignore_error=(False,) * len(executors),
            prepared=tuple(index for index in range(len(executors)) if prepare_name(index) in names),
            outputs=tuple(name for name in names if name.startswith("tof-")),
            streams=tuple(name for name in names if name.startswith("stream-")),
            rescues=tuple(name for name in names if name.startswith("rescue-")),
        )


def time_of(text: str | None) -> datetime | None:
    """A metav1.Time."""
    return None if not text else datetime.fromisoformat(text)


def phase(pod: Object) -> str:
    return str((pod.get("status") or {}).get("phase") or "")


def is_deleted(item: Object) -> bool:
    """Somebody has asked for its deletion."""
    return item["metadata"].get("deletionTimestamp") is not None


def is_alive(pod: Object) -> bool:
    """It may run something, and nobody has asked for its deletion."""
    return phase(pod) not in ENDED_PHASES and not is_deleted(pod)


def gate_is_open(pod: Object) -> bool:
    """The recorder has let a container start."""
    return any(
        status["name"] != TREC_CONTAINER and ({"running", "terminated"} & (status.get("state") or {}).keys())
        for status in container_statuses(pod)
    )


def has_started(pod: Object) -> bool:
    """Any of its containers, ever."""
    return any(
        {"running", "terminated"} & {*(status.get("state") or {}), *(status.get("lastState") or {})}
        for status in container_statuses(pod)
    )


def is_stalled(pod: Object) -> bool:
    """Nothing runs, nothing is waited for, and yet the Pod does not end.

    Two known ways: an init container that has ended 0 with reason OOMKilled (the kubelet kills the Pod for
    its reason and keeps its phase for its exit code), and a sandbox lost (its node was rebooted) between two
    init containers, the recorder being the first. In any other Pod the next container may be pulling its
    image, which no status tells; so the recorder must be dead and not merely about to be restarted. Before
    it has let anything start, that is so if the kubelet has lost it: one that could not start is tried again.
    """
    if running_containers(pod):
        return False
    ends = container_ends(pod)
    out_of_memory = any(end.reason == _OOM for name, end in ends.items() if name != TREC_CONTAINER)
    recorder = ends.get(TREC_CONTAINER)
    return out_of_memory or (recorder is not None and (gate_is_open(pod) or _is_unknown(recorder)))


def waits_for_a_lost_recorder(pod: Object) -> bool:
    """All work is over, each executor that ran has left its record, and `pause` waits for an acknowledgement
    that a recorder would have to give that is dead, or dies whenever it is restarted."""
    running, ends = running_containers(pod), container_ends(pod)
    ran = [name for name, _ in _executors(pod, plan_of(pod), ends)]
    return (
        PAUSE_CONTAINER in running
        and (TREC_CONTAINER not in running or restarts_of_recorder(pod) >= CRASHES)
        and bool(ran)
        and all(ends[name].record is not None for name in ran)
    )


def restarts_of_recorder(pod: Object) -> int:
    """As far as the kubelet has said."""
    counts = {status["name"]: status.get("restartCount") for status in container_statuses(pod)}
    return int(counts.get(TREC_CONTAINER) or 0)


def pause_note(pod: Object) -> str:
    """What `pause` has to say: it exits 1 if it got no ack, or one of a task that failed."""
    end = container_ends(pod).get(PAUSE_CONTAINER)
    return "pause had not ended" if end is None else f"pause exited with code {end.exit_code}"


def _executors(
    pod: Object, plan: Plan, ends: Mapping[str, ContainerEnd]
) -> Iterator[tuple[str, ExecutorEnd]]:
    """Executors that ran, in order. After one that failed the others only say that they did not run."""
    for index, (name, ignore_error) in enumerate(zip(plan.executors, plan.ignore_error, strict=True)):
        end = ends.get(name)
        if end is None or _is_unknown(end) or _did_not_run(end):
            return
        executor = _executor(index, end, ignore_error=ignore_error, taken=_is_taken_away(pod))
        yield name, executor
        if executor.failed or executor.by_platform:
            return


def _executor(index: int, end: ContainerEnd, *, ignore_error: bool, taken: bool) -> ExecutorEnd:
    oom = end.reason == _OOM or (end.record is not None and end.record.oom)
    if end.record is not None:
        exit_code, by_platform = end.record.tes_exit_code, end.record.term
    else:
        exit_code = min(max(end.exit_code, 0), _MAX_EXIT)
        by_platform = taken and not oom and exit_code in _KILLED
    if oom and exit_code == 0:
        exit_code = _OOM_EXIT
    return ExecutorEnd(
        index=index, exit_code=exit_code, oom=oom, ignore_error=ignore_error, by_platform=by_platform
    )


def _is_done(plan: Plan, ends: Mapping[str, ContainerEnd], executors: Sequence[ExecutorEnd]) -> bool:
    return (
        len(executors) == len(plan.executors) > 0  # what ran nothing is no task's Pod
        and not any(end.failed or end.by_platform for end in executors)
        and all(name in ends and _filer_code(ends[name]) == 0 for name in (*plan.inputs, *plan.outputs))
        and all(name in ends and _stream_code(ends[name]) == 0 for name in plan.streams)
    )


def _filer_code(end: ContainerEnd) -> int:
    return _unless_oom(end, end.exit_code if end.record is None else end.record.tes_exit_code)


def _stream_code(end: ContainerEnd) -> int:
    """0 only of one that has cut nothing short: the kubelet ends it when its Pod's work is done."""
    return _unless_oom(end, end.exit_code if end.record is None else end.record.exit_code)


def _unless_oom(end: ContainerEnd, code: int) -> int:
    """No program tells 0 of itself whose child the kernel killed for want of memory."""
    return _OOM_EXIT if end.reason == _OOM and code == 0 else code


def _is_unknown(end: ContainerEnd) -> bool:
    """The kubelet has lost the container: its code is made up."""
    lost = end.reason == "Unknown" and end.exit_code == _LOST_EXIT
    return end.record is None and (lost or end.reason == "ContainerStatusUnknown")


def _did_not_run(end: ContainerEnd) -> bool:
    refused = end.exit_code == _HELPER_REFUSED and end.reason != _OOM
    return end.record is None and (refused or end.reason in NEVER_STARTED)


def _is_taken_away(pod: Object) -> bool:
    status = pod.get("status") or {}
    return is_deleted(pod) or bool(status.get("reason")) or _disruption_target(pod) is not None


def _disruption_target(pod: Object) -> Object | None:
    conditions: Sequence[Object] = (pod.get("status") or {}).get("conditions") or ()
    return next(
        (item for item in conditions if item["type"] == "DisruptionTarget" and item["status"] == "True"),
        None,
    )


def _disruption(pod: Object) -> Trouble | None:
    """Taken away for the sake of others. A Pod that was evicted for its own disk use, or lost with its node,
    was not."""
    status, target = pod.get("status") or {}, _disruption_target(pod)
    reason, message = status.get("reason"), status.get("message")
    if target is None:
        return Trouble(reason=reason, message=message or reason) if reason in _DISRUPTIONS else None
    if target.get("reason") in _NODE_LOST:
        return None
    reason = reason or target.get("reason") or "DisruptionTarget"
    return Trouble(reason=reason, message=message or target.get("message") or reason)


def _trouble(pod: Object, plan: Plan, ends: Mapping[str, ContainerEnd]) -> Trouble | None:
    """The most telling first."""
    taken = _is_taken_away(pod)
    planned = [ends[name] for name in plan if name in ends]
    filers = [end for end in planned if end.name not in plan.executors]
    return (
        next((trouble for end in filers if (trouble := _filer_trouble(end, taken=taken))), None)
        or next((_never_started(end) for end in planned if _did_not_run(end)), None)
        or _node_lost(pod)
        or _status_trouble(pod)
        or next((_lost_sight(end) for end in planned if _is_unknown(end)), None)
    )


def _filer_trouble(end: ContainerEnd, *, taken: bool) -> Trouble | None:
    code = _filer_code(end)
    if code == 0 or _is_unknown(end) or _did_not_run(end):
        return None
    if end.record.term if end.record is not None else taken and code in _KILLED and end.reason != _OOM:
        return None
    if end.reason == _OOM or (end.record is not None and end.record.oom):
        return Trouble(reason=_OOM, message=f"{end.name} ran out of memory", container=end.name)
    return Trouble(reason="Error", message=f"{end.name} exited with code {code}", container=end.name)


def _cut_short(pod: Object, plan: Plan, ends: Mapping[str, ContainerEnd]) -> Trouble | None:
    """None of one that was told to end while it poured (143): the Pod was taken away."""
    for end in (ends[name] for name in plan.streams if name in ends):
        code = _stream_code(end)
        told_to_end = code in _KILLED and (end.record.term if end.record is not None else _is_taken_away(pod))
        if code == 0 or _is_unknown(end) or told_to_end:
            continue
        if end.reason == _OOM or (end.record is not None and end.record.oom):
            return Trouble(reason=_OOM, message=f"{end.name} ran out of memory", container=end.name)
        message = f"{end.name} exited with code {code}: an input may have been cut short"
        return Trouble(reason="Error", message=message, container=end.name)
    return None


def _never_started(end: ContainerEnd) -> Trouble:
    reason = end.reason if end.reason in NEVER_STARTED else "Error"
    message = f"{end.name} could not be started: {end.message or f'exit code {end.exit_code}'}"
    return Trouble(reason=reason, message=message, container=end.name)


def _node_lost(pod: Object) -> Trouble | None:
    target = _disruption_target(pod)
    if target is None or target.get("reason") not in _NODE_LOST:
        return None
    message = f"{target['reason']}: {target.get('message') or 'the node does not answer'}"
    return Trouble(reason="NodeLost", message=message)


def _status_trouble(pod: Object) -> Trouble | None:
    status = pod.get("status") or {}
    reason = status.get("reason")
    return Trouble(reason=reason, message=status.get("message") or reason) if reason else None


def _lost_sight(end: ContainerEnd) -> Trouble:
    message = f"the kubelet lost {end.name}: {end.message or 'its end is not known'}"
    return Trouble(reason="ContainerStatusUnknown", message=message, container=end.name)


def _row(executor: ExecutorEnd, end: ContainerEnd, terminated: Object) -> ExecutorRow | None:
    if end.record is not None:
        start, stop = _from_ns(end.record.start_ns), _from_ns(end.record.end_ns)
    else:
        finished = time_of(terminated.get("finishedAt"))
        if finished is None:
            return None
        start, stop = time_of(terminated.get("startedAt")) or finished, finished
    return ExecutorRow(
        index=executor.index, start=start, end=stop, exit_code=executor.exit_code, oom=executor.oom
    )


def _from_ns(value: int) -> datetime:
    return datetime.fromtimestamp(value / 1e9, UTC)
