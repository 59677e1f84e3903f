"""Derive the facts for `poiesis_models.states` from a TaskPod's status. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from poiesis_models import labels
from poiesis_models.labels import PAUSE_CONTAINER, PLAN_ANNOTATION, TREC_CONTAINER
from poiesis_models.outcome import (
    KILLED_EXITS,
    OOM,
    ContainerOutcome,
    did_not_run,
    failure_of,
    is_lost,
    outcome_of,
)
from poiesis_models.plan import MalformedPlan, PodPlan
from poiesis_models.podstatus import ContainerEnd, container_ends, container_statuses, running_containers
from poiesis_models.report import ExecutorReport
from poiesis_models.states import ExecutorEnd, Facts, Failure

Object = Mapping[str, Any]
Statuses = Mapping[str, ContainerEnd]
Outcomes = Mapping[str, ContainerOutcome]

ENDED_BY_US = 1  # the activeDeadlineSeconds of a Pod that the controller ends
ENDED_PHASES = frozenset({"Succeeded", "Failed"})
_NODE_LOST = frozenset({"DeletionByTaintManager", "DeletionByPodGC"})  # reasons of DisruptionTarget
_DISRUPTIONS = frozenset({"Preempting", "Terminated", "NodeShutdown", "Shutdown"})  # of the Pod's status
CRASHES = 3  # after so many crashes a recorder is not expected to recover; one or two are ignored


def pod_facts(pod: Object, *, cancel_requested: bool) -> Facts:
    """Return the facts of a Pod in which nothing runs any more."""
    plan, ends = plan_of(pod), container_ends(pod)
    outcomes = _outcomes(pod, ends)
    executors = [end for _, end in _executors(plan, outcomes)]
    cut_short = _cut_short(plan, ends, outcomes)
    done = cut_short is None and _is_done(plan, ends, outcomes, executors)
    return Facts(
        cancel_requested=cancel_requested,
        running=False,
        executors=executors,
        # A disruption of the Pod after all its work was done does not matter.
        disruption=None if done else _disruption(pod),
        failure=None if done else _failure(pod, plan, ends, outcomes),
        cut_short=cut_short,
        preemptible=plan.preemptible,
        done=done,
    )


def executor_reports(pod: Object) -> tuple[ExecutorReport, ...]:
    """Return the reports of executors whose exit code is known, without texts."""
    outcomes = _outcomes(pod, container_ends(pod))
    return tuple(
        row
        for name, end in _executors(plan_of(pod), outcomes)
        if (row := outcomes[name].executor_report(end.index)) is not None
    )


def plan_of(pod: Object) -> PodPlan:
    """Return the plan in the annotation; if that is invalid, one by the names of the containers."""
    text = (pod["metadata"].get("annotations") or {}).get(PLAN_ANNOTATION) or ""
    try:
        return PodPlan.from_json(text)
    except MalformedPlan:
        names = [str(item["name"]) for item in (pod.get("spec") or {}).get("initContainers") or ()]
        executors = tuple(name for name in names if name.startswith(labels.EXECUTOR))
        return PodPlan(
            inputs=tuple(name for name in names if name.startswith(labels.TIF)),
            executors=executors,
            ignore_error=(False,) * len(executors),
            prepared=tuple(index for index in range(len(executors)) if labels.prepare_name(index) in names),
            outputs=tuple(name for name in names if name.startswith(labels.TOF)),
            streams=tuple(name for name in names if name.startswith(labels.STREAM)),
            rescues=tuple(name for name in names if name.startswith(labels.RESCUE)),
        )


def time_of(text: str | None) -> datetime | None:
    """Parse a metav1.Time."""
    return None if not text else datetime.fromisoformat(text)


def phase(pod: Object) -> str:
    """Return the Pod's phase, empty if it has none."""
    return str((pod.get("status") or {}).get("phase") or "")


def is_deleted(item: Object) -> bool:
    """Return whether its deletion was requested."""
    return item["metadata"].get("deletionTimestamp") is not None


def is_alive(pod: Object) -> bool:
    """Return whether it may still run containers and its deletion was not requested."""
    return phase(pod) not in ENDED_PHASES and not is_deleted(pod)


def gate_is_open(pod: Object) -> bool:
    """Return whether the recorder has let a container start."""
    return any(
        status["name"] != TREC_CONTAINER and ({"running", "terminated"} & (status.get("state") or {}).keys())
        for status in container_statuses(pod)
    )


def has_started(pod: Object) -> bool:
    """Return whether any of its containers has ever started."""
    return any(
        {"running", "terminated"} & {*(status.get("state") or {}), *(status.get("lastState") or {})}
        for status in container_statuses(pod)
    )


def is_stalled(pod: Object) -> bool:
    """Return whether nothing runs, nothing is about to start, and yet the Pod does not end.

    Two causes are known: an init container that exited 0 with reason OOMKilled (the kubelet kills the Pod
    because of the reason and keeps its phase because of the exit code), and a sandbox that was lost (its node
    was rebooted) between two init containers, the recorder being the first. In any other Pod the next
    container may be pulling its image, which no status shows, so the recorder must be dead and not about to
    be restarted. Before the gate opens, that is true only if the kubelet has lost the recorder: one that
    could not start is retried.
    """
    if running_containers(pod):
        return False
    ends = container_ends(pod)
    out_of_memory = any(end.reason == OOM for name, end in ends.items() if name != TREC_CONTAINER)
    recorder = ends.get(TREC_CONTAINER)
    return out_of_memory or (recorder is not None and (gate_is_open(pod) or is_lost(recorder)))


def waits_for_a_lost_recorder(pod: Object) -> bool:
    """Return whether all work is done and only `pause` waits, for the ack of a recorder that is lost.

    Each executor that ran has left its record. The recorder is dead, or crashes after each restart.
    """
    running, ends = running_containers(pod), container_ends(pod)
    ran = [name for name, _ in _executors(plan_of(pod), _outcomes(pod, ends))]
    return (
        PAUSE_CONTAINER in running
        and (TREC_CONTAINER not in running or restarts_of_recorder(pod) >= CRASHES)
        and bool(ran)
        and all(ends[name].record is not None for name in ran)
    )


def restarts_of_recorder(pod: Object) -> int:
    """Return the restarts of the recorder that the kubelet has reported."""
    counts = {status["name"]: status.get("restartCount") for status in container_statuses(pod)}
    return int(counts.get(TREC_CONTAINER) or 0)


def pause_status(pod: Object) -> str:
    """Return how `pause` ended, as text. It exits 1 without an ack, or with that of a failed task."""
    end = container_ends(pod).get(PAUSE_CONTAINER)
    return "pause had not ended" if end is None else f"pause exited with code {end.exit_code}"


def _outcomes(pod: Object, ends: Statuses) -> Outcomes:
    """Return the outcomes of the containers that have ended."""
    terminating = _is_terminating(pod)
    found = {name: outcome_of(end, end.record, terminating=terminating) for name, end in ends.items()}
    return {name: outcome for name, outcome in found.items() if outcome is not None}


def _executors(plan: PodPlan, outcomes: Outcomes) -> Iterator[tuple[str, ExecutorEnd]]:
    """Yield the executors that ran, in order. None runs after a failed one, though each has an exit code."""
    for index, (name, ignore_error) in enumerate(zip(plan.executors, plan.ignore_error, strict=True)):
        outcome = outcomes.get(name)
        end = outcome.executor_end(index, ignore_error=ignore_error) if outcome is not None else None
        if end is None:
            return
        yield name, end
        if end.failed or end.by_platform:
            return


def _is_done(plan: PodPlan, ends: Statuses, outcomes: Outcomes, executors: Sequence[ExecutorEnd]) -> bool:
    filers = (*plan.inputs, *plan.outputs)
    return (
        len(executors) == len(plan.executors) > 0  # a Pod that ran nothing is not the Pod of a task
        and not any(end.failed or end.by_platform for end in executors)
        and all(name in outcomes and outcomes[name].exit_code == 0 for name in filers)
        and all(name in ends and _stream_code(ends[name], outcomes[name]) == 0 for name in plan.streams)
    )


def _stream_code(end: ContainerEnd, outcome: ContainerOutcome) -> int:
    """Return the exit code of a stream sidecar: 0 only if it cut no input short.

    The kubelet ends it when the work of its Pod is done.
    """
    if end.record is not None and not outcome.oom:
        return end.record.exit_code
    return end.exit_code if outcome.exit_code is None else outcome.exit_code


def _is_terminating(pod: Object) -> bool:
    status = pod.get("status") or {}
    return is_deleted(pod) or bool(status.get("reason")) or _disruption_target(pod) is not None


def _disruption_target(pod: Object) -> Object | None:
    conditions: Sequence[Object] = (pod.get("status") or {}).get("conditions") or ()
    return next(
        (item for item in conditions if item["type"] == "DisruptionTarget" and item["status"] == "True"),
        None,
    )


def _disruption(pod: Object) -> Failure | None:
    """Return why the platform removed the Pod in favor of others, None if it did not.

    An eviction for the Pod's own disk use, and the loss of its node, are no disruptions.
    """
    status, target = pod.get("status") or {}, _disruption_target(pod)
    reason, message = status.get("reason"), status.get("message")
    if target is None:
        return Failure(reason=reason, message=message or reason) if reason in _DISRUPTIONS else None
    if target.get("reason") in _NODE_LOST:
        return None
    reason = reason or target.get("reason") or "DisruptionTarget"
    return Failure(reason=reason, message=message or target.get("message") or reason)


def _failure(pod: Object, plan: PodPlan, ends: Statuses, outcomes: Outcomes) -> Failure | None:
    """Return the most specific failure."""
    planned = {name: outcomes[name] for name in plan if name in outcomes}
    filers = [(name, outcome) for name, outcome in planned.items() if name not in plan.executors]
    return (
        next((failure for name, end in filers if (failure := _filer_failure(name, end))), None)
        or next((end.failure for name, end in planned.items() if did_not_run(ends[name])), None)
        or _node_lost(pod)
        or _status_failure(pod)
        or _lost_container(planned, ends)
    )


def _filer_failure(name: str, outcome: ContainerOutcome) -> Failure | None:
    if not outcome.exit_code or outcome.by_platform:
        return None
    return failure_of(name, oom=outcome.oom, message=f"{name} exited with code {outcome.exit_code}")


def _cut_short(plan: PodPlan, ends: Statuses, outcomes: Outcomes) -> Failure | None:
    """Return the failure of a stream sidecar. One that ended with its Pod (143) has not failed."""
    for name in plan.streams:
        if name not in ends or is_lost(ends[name]):
            continue
        outcome, code = outcomes[name], _stream_code(ends[name], outcomes[name])
        if code == 0 or (outcome.by_platform and code in KILLED_EXITS):
            continue
        message = f"{name} exited with code {code}: an input may have been cut short"
        return failure_of(name, oom=outcome.oom, message=message)
    return None


def _node_lost(pod: Object) -> Failure | None:
    target = _disruption_target(pod)
    if target is None or target.get("reason") not in _NODE_LOST:
        return None
    message = f"{target['reason']}: {target.get('message') or 'the node does not respond'}"
    return Failure(reason="NodeLost", message=message)


def _status_failure(pod: Object) -> Failure | None:
    status = pod.get("status") or {}
    reason = status.get("reason")
    if not reason:
        return None
    return Failure(reason=reason, message=(status.get("message") or reason) + _wall_time(pod, reason))


def _wall_time(pod: Object, reason: str) -> str:
    """Return the limit of a Pod that took too long, for which Kubernetes gives no number."""
    seconds = (pod.get("spec") or {}).get("activeDeadlineSeconds")
    if reason != "DeadlineExceeded" or seconds in {None, ENDED_BY_US}:
        return ""
    return f" ({seconds} s: wall_time_seconds of the task, or config.pod.activeDeadlineSeconds)"


def _lost_container(planned: Outcomes, ends: Statuses) -> Failure | None:
    return next((outcome.failure for name, outcome in planned.items() if is_lost(ends[name])), None)
