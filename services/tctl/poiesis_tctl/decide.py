"""Decide what to do about a task, from its row and its objects. Pure: no connection, no clock.

`decide` evaluates triggers. The actions of a trigger are due when it has held for `after` seconds, which
may be 0. How long each trigger has held is passed from one decision to the next in `since`, on a monotonic
clock. The outcome of a task is decided by `poiesis_models.states.terminal_state` alone.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import takewhile
from typing import Any
from uuid import UUID

from poiesis_models.labels import OBJECT_NAME, POD_SUFFIX, TASK_LABEL, TREC_CONTAINER
from poiesis_models.podlines import status_lines
from poiesis_models.podstatus import (
    ContainerWait,
    container_ends,
    container_statuses,
    container_waits,
    running_containers,
)
from poiesis_models.refusals import explained, is_permanent
from poiesis_models.report import ExecutorReport
from poiesis_models.states import Facts, Failure, TaskOutcome, TesState, terminal_state
from poiesis_tctl import podevents, workloads
from poiesis_tctl.config import Limits
from poiesis_tctl.podevents import PodLine
from poiesis_tctl.podfacts import (
    CRASHES,
    ENDED_BY_US,
    ENDED_PHASES,
    executor_reports,
    gate_is_open,
    has_started,
    is_alive,
    is_deleted,
    is_stalled,
    pause_status,
    phase,
    plan_of,
    pod_facts,
    restarts_of_recorder,
    time_of,
    waits_for_a_lost_recorder,
)

Object = Mapping[str, Any]

_PERMANENT = frozenset({"InvalidImageName"})
_IMAGE = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "ImageInspectError",
        "RegistryUnavailable",
        "SignatureValidationFailed",
    }
)
_CONFIGURATION = frozenset(
    {
        "ErrImageNeverPull",
        "CreateContainerConfigError",
        "CreateContainerError",
        "PreCreateHookError",
        "PreStartHookError",
        "RunContainerError",
    }
)
_RECORDER_ENDED_SECONDS = 900.0  # `pause` waits 600 s for an ack; then the Pod has its grace period
_EXECUTOR_LEFT_SECONDS = 30.0  # a helper exits immediately after the recorder's ack
_GRACE_SECONDS = 30.0  # Kubernetes' default
_REFUSED_SECONDS = 5.0  # the Job controller creates a Pod within a second, or records an event
_KUEUE_REASON_SECONDS = 10.0  # between spec.active and the condition with the reason
# Reasons of events (pkg/kubelet/events; the attach-detach controller).
_SETUP_FAILURES = frozenset(
    {"FailedAttachVolume", "FailedMount", "FailedMapVolume", "FailedCreatePodSandBox"}
)
_QUANTITY = re.compile(r"\b\d[\w.]*")
_JOB_NAME = re.compile(OBJECT_NAME)
_POD_NAME = re.compile(rf"({OBJECT_NAME}){POD_SUFFIX}\b")


@dataclass(frozen=True, kw_only=True)
class TaskRow:
    """A task's row in Postgres. `claimed`: an api replica is creating its objects now."""

    id: UUID
    state: TesState
    cancel_requested: bool
    ended: bool
    submitted: bool
    claimed: bool
    reported_by: str | None


@dataclass(frozen=True, kw_only=True)
class TaskView:
    """A task and its objects. `gone_pod`, `gone_job`: the last known state of those that vanished last.

    `workload`: Kueue's Workload of the Job, reduced by `workloads.slim_workload`.
    """

    task: TaskRow | None
    pod: Object | None = None
    job: Object | None = None
    gone_pod: Object | None = None
    gone_job: Object | None = None
    workload: Object | None = None

    @property
    def depends_on_absence(self) -> bool:
        """Whether a decision has to be repeated with objects read from the API server.

        The caches may lag, each by a different time.
        """
        return self.pod is None or is_deleted(self.pod)


@dataclass(frozen=True, kw_only=True)
class EnsureRole:
    """Let the recorder get and watch its own Pod."""

    task_id: UUID
    pod_name: str
    pod_uid: str


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """The task_log row of a Pod."""

    pod_uid: str
    pod_name: str
    node: str
    start: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Finish:
    """Record the outcome, and what the recorder did not report about the executors.

    `note`: a line of the attempt's system_logs, why the controller records the outcome.
    """

    outcome: TaskOutcome
    cancel_seen: bool
    attempt: Attempt | None = None
    executors: tuple[ExecutorReport, ...] = ()
    note: str | None = None


@dataclass(frozen=True, kw_only=True)
class EndPod:
    """Let the kubelet end the Pod. The object and its status stay."""

    name: str
    uid: str
    why: str


@dataclass(frozen=True, kw_only=True)
class DeleteJob:
    """Delete the Job and, in the background, its Pod."""

    name: str
    uid: str
    why: str


@dataclass(frozen=True, kw_only=True)
class DeletePod:
    """Delete the Pod with its grace period. Only after its Job: the Job controller would replace it."""

    name: str
    uid: str
    why: str


@dataclass(frozen=True, kw_only=True)
class RequeueAttempt:
    """Close an attempt and wait for the next: the Job was suspended, or has a new Pod.

    `pod_uid` None: any open attempt.
    """

    pod_uid: str | None
    message: str


@dataclass(frozen=True, kw_only=True)
class ExplainNoPod:
    """Read from the Job's events why it has no Pod, then do what `decide_refused` returns.

    `give_up`: end the task for any reason, because it has lasted too long.
    """

    task: TaskRow
    job_name: str
    job_uid: str
    give_up: bool = False


@dataclass(frozen=True, kw_only=True)
class ExplainNoStart:
    """Read from the Pod's events why no container could start, then do what `decide_no_start` returns."""

    task: TaskRow
    pod: Object


@dataclass(frozen=True, kw_only=True)
class SystemLog:
    """Add a line to the system_logs of a task without a Pod; once for each key."""

    key: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Recheck:
    """Decide again after this time, even without an event."""

    seconds: float


Action = (
    Finish
    | EndPod
    | DeleteJob
    | DeletePod
    | RequeueAttempt
    | ExplainNoPod
    | ExplainNoStart
    | SystemLog
    | PodLine
    | Recheck
)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The actions that are due. `since`: when each trigger was first seen, for the next decision."""

    actions: tuple[Action, ...] = ()
    since: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class _Trigger:
    """Actions that are due when this has been seen for `after` seconds.

    `repeat`: repeat them, each time after as long as the trigger has held, at most this many seconds.
    """

    key: str
    actions: tuple[Action, ...]
    after: float = 0.0
    repeat: float | None = None


def decide(view: TaskView, since: Mapping[str, float], now: float, limits: Limits) -> Decision:
    """Return the actions of the first trigger that is due, and when to decide again."""
    triggers = list(_triggers(view, limits))
    seen = {trigger.key: since.get(trigger.key, now) for trigger in triggers}
    left = {trigger.key: seen[trigger.key] + trigger.after - now for trigger in triggers}
    due = next((trigger for trigger in triggers if left[trigger.key] <= 0), None)
    if due is not None:
        waits = [left[trigger.key] for trigger in takewhile(lambda one: one is not due, triggers)]
        if due.repeat is not None:
            waits.append(min(max(now - seen[due.key], due.after), due.repeat))
        recheck = (Recheck(seconds=min(waits)),) if waits else ()
        return Decision(actions=(*due.actions, *recheck), since=seen)
    return Decision(actions=(Recheck(seconds=min(left.values())),) if left else (), since=seen)


def decide_refused(asked: ExplainNoPod, message: str) -> tuple[Action, ...]:
    """Return what to do about a Job whose Pod the API server rejects with this message.

    A permanent rejection ends the task.
    """
    message = explained(_POD_NAME.sub(r"\1", message))
    if is_permanent(message) or asked.give_up:
        finish = _finish(asked.task, None, Failure(reason="FailedCreate", message=message))
        return finish, DeleteJob(name=asked.job_name, uid=asked.job_uid, why="its Pod is rejected")
    # Once for each message: the Pod would get a new name each time.
    key = podevents.key_of("FailedCreate", message)
    return (SystemLog(key=key, message=f"FailedCreate: {message}"),)


def decide_no_start(asked: ExplainNoStart, events: Sequence[Object]) -> tuple[Action, ...]:
    """Return what to do about a Pod without volumes or network for too long. `events`: its warnings."""
    failures = [event for event in events if event.get("reason") in _SETUP_FAILURES]
    latest = max(failures, key=event_time, default={})
    why = latest.get("message") or "the node did not start the Pod and gave no reason"
    message = f"Pod {_name(asked.pod)}: {why}"
    return _stop(
        asked.task, asked.pod, Failure(reason=latest.get("reason") or "PodNotStarted", message=message)
    )


def event_time(event: Object) -> str:
    """Return when the event happened last, as text that sorts by time."""
    series = event.get("series") or {}
    return str(event.get("lastTimestamp") or series.get("lastObservedTime") or event.get("eventTime") or "")


def decide_role(pod: Object) -> EnsureRole | None:
    """Return the Role that a Pod needs, None if it cannot run, or if its recorder works from files only.

    Needs no row from Postgres.
    """
    task_id = (pod["metadata"].get("labels") or {}).get(TASK_LABEL)
    if not is_alive(pod) or task_id is None or plan_of(pod).files_only:
        return None
    return EnsureRole(task_id=UUID(task_id), pod_name=pod["metadata"]["name"], pod_uid=pod["metadata"]["uid"])


def slim_pod(pod: Object) -> Object:
    """Reduce a Pod to the fields that decisions need. It is a task's only if the task's Job controls it."""
    spec = pod.get("spec") or {}
    kept = ("nodeName", "activeDeadlineSeconds", "terminationGracePeriodSeconds")
    containers = {
        key: [{"name": item["name"], "image": item.get("image")} for item in spec.get(key) or ()]
        for key in ("initContainers", "containers")
    }
    return {
        "metadata": _slim_metadata(pod["metadata"], _controlling_job(pod["metadata"])),
        "spec": {**{key: spec[key] for key in kept if key in spec}, **containers},
        "status": pod.get("status") or {},
    }


def slim_job(job: Object) -> Object:
    """Reduce a Job to the fields that decisions need. It is a task's only if it has the task's name."""
    return {
        "metadata": _slim_metadata(job["metadata"], job["metadata"]["name"]),
        "spec": {"suspend": (job.get("spec") or {}).get("suspend")},
        "status": job.get("status") or {},
    }


def of_tasks(items: Iterable[Object]) -> list[Object]:
    """Return the reduced objects that belong to a task."""
    return [item for item in items if TASK_LABEL in (item["metadata"].get("labels") or {})]


def _slim_metadata(metadata: Object, job: str | None) -> Object:
    """Reduce metadata. The label of a task is kept if `job` is the name of the task's Job.

    A user who may create Pods can give them any label, and must not end another user's task by that.
    """
    kept = {key: value for key, value in metadata.items() if key not in {"managedFields", "ownerReferences"}}
    found = None if job is None else _JOB_NAME.fullmatch(job)
    labels = kept.get("labels") or {}
    if TASK_LABEL in labels and (found is None or found["task"] != labels[TASK_LABEL]):
        kept["labels"] = {key: value for key, value in labels.items() if key != TASK_LABEL}
    return kept


def _controlling_job(metadata: Object) -> str | None:
    """Return the name of the Job that controls a Pod, None if no Job does."""
    owners: Sequence[Object] = metadata.get("ownerReferences") or ()
    return next((one["name"] for one in owners if one.get("kind") == "Job" and one.get("controller")), None)


def _triggers(view: TaskView, limits: Limits) -> Iterator[_Trigger]:
    """Yield the triggers that hold, the most important first."""
    task, pod = view.task, view.pod
    if task is None:
        return
    if task.ended:
        yield from _leftovers(task, view, limits)
    elif pod is None:
        yield from _without_pod(task, view, limits)
    else:
        gone = None if task.cancel_requested else view.gone_pod  # no attempt follows a cancel
        if gone is not None and _uid(gone) != _uid(pod):
            yield _requeue(gone, f"Pod {_name(gone)} was replaced by Pod {_name(pod)}")
        yield from _with_pod(task, pod, view.job, limits)


def _with_pod(task: TaskRow, pod: Object, job: Object | None, limits: Limits) -> Iterator[_Trigger]:
    if is_deleted(pod) and _is_suspended(job) and not task.cancel_requested:
        return  # terminating; another attempt follows
    lines = _status_lines(pod)
    if phase(pod) in ENDED_PHASES:
        finish = _finish(task, pod, _pod_failure(pod, job))
        yield _Trigger(key="ended", actions=(*lines, finish))
    elif task.cancel_requested:
        yield from _cancel(task, pod, job)
    elif is_deleted(pod):
        yield from _lingering(task, pod, limits)
    else:
        yield from _waiting(task, pod, limits)
        yield from _recorder_down(task, pod, limits)
        yield from _recorder_lost(task, pod, limits)
        yield from _stalled(task, pod, limits)
        yield from _unschedulable(task, pod, job, limits)
        yield from _not_set_up(task, pod, limits)
        if lines:
            yield _Trigger(key="status", actions=lines)


def _status_lines(pod: Object) -> tuple[PodLine, ...]:
    """Return the lines that the recorder does not write because it works from files only."""
    if not plan_of(pod).files_only:
        return ()
    lines = status_lines(container_waits(pod).values(), container_ends(pod).values())
    return tuple(PodLine(pod_uid=_uid(pod), key=line.key, message=line.message) for line in lines)


def _without_pod(task: TaskRow, view: TaskView, limits: Limits) -> Iterator[_Trigger]:
    job = view.job
    if job is None or is_deleted(job):
        yield from _without_job(task, view, limits)
    elif task.cancel_requested:
        yield _immediate("canceled", _delete(job, "canceled"))
    elif _is_suspended(job):
        yield from _suspended(task, job, view)
    elif (failed := _condition(job, "Failed")) is not None:
        yield _immediate("job failed", _finish(task, view.gone_pod, _job_failure(failed, view.gone_pod)))
    elif _condition(job, "Complete") is not None:  # `pause` exits 0 only with the ack of a COMPLETE task
        yield _immediate("job complete", _ended(Facts(running=False, done=True), task, view.gone_pod))
    elif view.gone_pod is not None:
        # The Job controller soon fails the Job or, if it had been suspended, creates a new Pod.
        actions = (_finish(task, view.gone_pod, _pod_deleted(view.gone_pod)),)
        yield _Trigger(key="pod gone", after=limits.no_pod, actions=actions)
    else:
        yield from _refused(task, job, limits)


def _suspended(task: TaskRow, job: Object, view: TaskView) -> Iterator[_Trigger]:
    """Yield the triggers of a Job that waits for Kueue, or was evicted by it."""
    workload = view.workload
    if workload is not None and not workloads.is_of(workload, _uid(job)):
        workload = None
    if workload is not None and task.submitted and (why := workloads.deactivation(workload)) is not None:
        message = why.message or "the Workload of the Job is not active"
        finish = _finish(task, view.gone_pod, Failure(reason=why.reason, message=f"Kueue: {message}"))
        actions = (finish, _delete(job, "its Workload is not active"))
        after = 0.0 if why.message else _KUEUE_REASON_SECONDS
        yield _Trigger(key="deactivated", after=after, actions=actions)
    if _has_attempt(task, view):
        evicted = None if workload is None else workloads.eviction(workload)
        by = "" if evicted is None else f" by Kueue ({evicted})"
        yield _requeue(view.gone_pod, f"the Job was suspended{by}; another attempt follows")
    elif workload is not None and (pending := workloads.pending(workload)) is not None:
        # Once for each reason, with any quantities.
        key = podevents.key_of("Kueue", _QUANTITY.sub("", str(pending)))
        yield _immediate("queued", SystemLog(key=key, message=f"Kueue: {pending}"))


def _has_attempt(task: TaskRow, view: TaskView) -> bool:
    """Return whether the suspension ended an attempt: the task had a Pod."""
    return view.gone_pod is not None or task.state in {TesState.INITIALIZING, TesState.RUNNING}


def _refused(task: TaskRow, job: Object, limits: Limits) -> Iterator[_Trigger]:
    """Yield the triggers of a Job without a Pod: check for permanent rejections soon, then less often."""
    explain = ExplainNoPod(task=task, job_name=_name(job), job_uid=_uid(job))
    if limits.unschedulable:
        give_up = (replace(explain, give_up=True),)
        yield _Trigger(
            key="no pod for too long", after=limits.unschedulable, actions=give_up, repeat=limits.no_pod
        )
    soon = min(_REFUSED_SECONDS, limits.no_pod)
    yield _Trigger(key="no pod", after=soon, actions=(explain,), repeat=limits.no_pod)


def _without_job(task: TaskRow, view: TaskView, limits: Limits) -> Iterator[_Trigger]:
    if task.submitted:
        if view.gone_pod is None and view.gone_job is None and view.job is None:
            otherwise = Failure(reason="Lost", message="neither the Job nor the Pod of this task exists")
        else:
            otherwise = _job_deleted()
        yield _immediate("no job", _finish(task, view.gone_pod, otherwise))
    elif task.cancel_requested and task.claimed:
        yield _immediate("being created", Recheck(seconds=limits.leftover))
    elif task.cancel_requested:
        yield _immediate("never created", _finish(task, view.gone_pod, None))


def _leftovers(task: TaskRow, view: TaskView, limits: Limits) -> Iterator[_Trigger]:
    """Yield the triggers that free the objects of an ended task: Kubernetes frees them when the Job ends."""
    pod, job = view.pod, view.job
    if pod is None:
        if job is not None and not is_deleted(job) and not _is_finished(job):
            delete = _delete(job, "its task has ended")
            yield _Trigger(key="leftover job", after=limits.leftover, actions=(delete,))
    elif is_alive(pod):
        if (pod.get("spec") or {}).get("activeDeadlineSeconds") == ENDED_BY_US:
            why, after = "its Pod did not end", _grace(pod) + limits.leftover
            if job is not None and not is_deleted(job):
                yield _Trigger(key="pod did not end", after=after, actions=(_delete(job, why),))
            return
        if is_stalled(pod):
            actions = (_end(pod, job, "its task has ended and it is stalled"),)
            yield _Trigger(key="stalled", after=limits.stalled, actions=actions)
        by_recorder = task.reported_by == "recorder"
        if by_recorder and running_containers(pod) & set(plan_of(pod).executors):
            actions = (_end(pod, job, "its task has ended and an executor still runs"),)
            yield _Trigger(key="executor left", after=_EXECUTOR_LEFT_SECONDS, actions=actions)
        after = max(_RECORDER_ENDED_SECONDS, limits.leftover) if by_recorder else limits.leftover
        yield _Trigger(key="leftover", after=after, actions=(_end(pod, job, "its task has ended"),))


def _lingering(task: TaskRow, pod: Object, limits: Limits) -> Iterator[_Trigger]:
    """Yield the trigger of a deleted Pod that stays."""
    grace = pod["metadata"].get("deletionGracePeriodSeconds") or 0
    message = f"Pod {_name(pod)} was deleted and its node did not report its end"
    actions = (_finish(task, pod, Failure(reason="NodeLost", message=message)),)
    yield _Trigger(key="lingering", after=grace + limits.node_lost, actions=actions)


def _cancel(task: TaskRow, pod: Object, job: Object | None) -> Iterator[_Trigger]:
    """Yield the next step of a cancel: the Job, then its Pod, then the outcome if the Pod can never run.

    The API server binds no deleted Pod to a node (`assignPod` of its Pod storage). A Pod with a node has to
    end, which the node reports.
    """
    if job is not None and not is_deleted(job):
        yield _immediate("canceled", _delete(job, "canceled"))
    elif not is_deleted(pod):
        yield _immediate("canceled", DeletePod(name=_name(pod), uid=_uid(pod), why="canceled"))
    elif _node(pod) is None:
        yield _immediate("canceled before it had a node", _finish(task, pod, None))


def _waiting(task: TaskRow, pod: Object, limits: Limits) -> Iterator[_Trigger]:
    """Yield the triggers of containers that cannot start, which the kubelet retries indefinitely.

    Restarts of a recorder that has already let a container start are left to the kubelet.
    """
    for wait in container_waits(pod).values():
        after = _limit(wait.reason, limits)
        if after is None or (wait.name == TREC_CONTAINER and (_is_crash(wait) or gate_is_open(pod))):
            continue
        message = f"{wait.name} ({_image(pod, wait)}) cannot start: {wait.message or wait.reason}"
        failure = Failure(reason=wait.reason, message=message, container=wait.name)
        kind = "configuration" if wait.reason in _CONFIGURATION else "image"
        yield _Trigger(key=f"{kind} of {wait.name}", after=after, actions=_stop(task, pod, failure))


def _is_crash(wait: ContainerWait) -> bool:
    """Return whether the container could not be run and is retried.

    The kubelet of 1.34 reports CrashLoopBackOff after ten seconds, that of 1.37 this reason until it retries.
    """
    return wait.reason == "RunContainerError"


def _limit(reason: str, limits: Limits) -> float | None:
    if reason in _PERMANENT:
        return 0.0
    if reason in _IMAGE:
        return limits.image_pull
    return limits.config_error if reason in _CONFIGURATION else None


def _recorder_down(task: TaskRow, pod: Object, limits: Limits) -> Iterator[_Trigger]:
    """Yield the trigger of a recorder that crashes before it has let a container start."""
    status = next((item for item in container_statuses(pod) if item["name"] == TREC_CONTAINER), None)
    if status is None or restarts_of_recorder(pod) < CRASHES or gate_is_open(pod):
        return
    reason, why = _last_end(status)
    message = f"the recorder was restarted {status['restartCount']} times and could not start: {why}"
    failure = Failure(reason=reason, message=message, container=TREC_CONTAINER)
    yield _Trigger(key="recorder", after=limits.start, actions=_stop(task, pod, failure))


def _last_end(status: Object) -> tuple[str, str]:
    """Return reason and message of a restarted container's last end: CrashLoopBackOff contains neither."""
    for key in ("state", "lastState"):
        ended = (status.get(key) or {}).get("terminated")
        if ended:
            return ended["reason"], ended.get("message") or f"exit code {ended['exitCode']}"
    return "Error", "no reason reported"


def _recorder_lost(task: TaskRow, pod: Object, limits: Limits) -> Iterator[_Trigger]:
    """Yield the trigger of finished work that a lost recorder does not report.

    The Pod is not ended: a recorder that is restarted adds the logs.
    """
    if waits_for_a_lost_recorder(pod) and terminal_state(pod_facts(pod, cancel_requested=False)) is not None:
        yield _Trigger(key="unreported", after=limits.stalled, actions=(_finish(task, pod, None),))


def _stalled(task: TaskRow, pod: Object, limits: Limits) -> Iterator[_Trigger]:
    if is_stalled(pod):
        message = f"every container of Pod {_name(pod)} is dead and the Pod does not end"
        failure = Failure(reason="PodStalled", message=message)
        yield _Trigger(key="stalled", after=limits.stalled, actions=_stop(task, pod, failure))


def _unschedulable(task: TaskRow, pod: Object, job: Object | None, limits: Limits) -> Iterator[_Trigger]:
    condition = _condition(pod, "PodScheduled", status="False")
    if limits.unschedulable and _node(pod) is None and not _is_gated(condition):
        # There is no condition while the scheduler waits for a volume to be bound.
        why = (condition or {}).get("message") or "no node was found, and the scheduler gave no reason"
        finish = _finish(task, pod, Failure(reason="Unschedulable", message=f"Pod {_name(pod)}: {why}"))
        actions = (finish, _end(pod, job, "no node was found for it"))
        yield _Trigger(key="unschedulable for too long", after=limits.unschedulable, actions=actions)
    if condition is not None and condition.get("reason") == "Unschedulable":
        # The Pod's event has the same message sooner, and the same key. But events may be lost.
        reason, message = podevents.FAILED_SCHEDULING, condition.get("message") or ""
        line = podevents.line(_uid(pod), reason, message)
        yield _Trigger(key="unschedulable", after=limits.no_pod, actions=(line,))


def _not_set_up(task: TaskRow, pod: Object, limits: Limits) -> Iterator[_Trigger]:
    """Yield the trigger of a Pod without volumes or network, which the kubelet retries indefinitely."""
    unready = _condition(pod, "PodReadyToStartContainers", status="False")
    if limits.unschedulable and unready is not None and not has_started(pod):
        actions = (ExplainNoStart(task=task, pod=pod),)
        yield _Trigger(key="not set up for too long", after=limits.unschedulable, actions=actions)


def _is_gated(condition: Object | None) -> bool:
    """Return whether a scheduling gate, for example of a queue, holds the Pod back."""
    return condition is not None and condition.get("reason") == "SchedulingGated"


def _stop(task: TaskRow, pod: Object, failure: Failure) -> tuple[Action, ...]:
    """End the task and then the Pod, which would not end by itself."""
    finish = _finish(task, pod, failure)
    return finish, EndPod(name=_name(pod), uid=_uid(pod), why=finish.outcome.reason or "ended")


def _finish(task: TaskRow, pod: Object | None, otherwise: Failure | None) -> Finish:
    """Return the outcome that the Pod's status shows, else `otherwise`."""
    if pod is None:
        facts = Facts(cancel_requested=task.cancel_requested, running=False)
    else:
        facts = pod_facts(pod, cancel_requested=task.cancel_requested)
    if terminal_state(facts) is None or _waits_for_container(facts, otherwise):
        facts = replace(facts, failure=otherwise)
    return _ended(facts, task, pod)


def _waits_for_container(facts: Facts, otherwise: Failure | None) -> bool:
    """Return whether `otherwise` names a container that the Pod waits for, and nothing failed before it."""
    return (
        otherwise is not None and otherwise.container is not None and facts.failure is None and not facts.done
    )


def _ended(facts: Facts, task: TaskRow, pod: Object | None) -> Finish:
    outcome = terminal_state(facts)
    if outcome is None:
        raise ValueError(f"no rule decides the outcome of task {task.id}: {facts}")
    finish = Finish(outcome=outcome, cancel_seen=task.cancel_requested)
    if pod is None:
        return finish
    return replace(finish, attempt=_attempt(pod), executors=executor_reports(pod), note=_note(pod))


def _attempt(pod: Object) -> Attempt | None:
    """Return the attempt of a Pod, None if no node was found for it."""
    node = _node(pod)
    if node is None:
        return None
    start = time_of((pod.get("status") or {}).get("startTime"))
    return Attempt(pod_uid=_uid(pod), pod_name=_name(pod), node=node, start=start)


def _note(pod: Object) -> str:
    return (
        f"outcome recorded by the controller from the Pod's status (phase {phase(pod) or 'unknown'}, "
        f"{pause_status(pod)}): the recorder of Pod {_name(pod)} did not report it"
    )


def _requeue(gone_pod: Object | None, message: str) -> _Trigger:
    uid = None if gone_pod is None else _uid(gone_pod)
    return _immediate("requeued", RequeueAttempt(pod_uid=uid, message=message))


def _job_failure(condition: Object, gone_pod: Object | None) -> Failure:
    if gone_pod is not None:
        return _pod_deleted(gone_pod)
    reason = condition.get("reason") or "JobFailed"
    return Failure(reason=reason, message=condition.get("message") or reason)


def _pod_failure(pod: Object, job: Object | None) -> Failure:
    """Return the reason of a Pod that ended and still exists. A deleted Pod exists for a moment, too."""
    if not is_deleted(pod):
        return Failure(reason="PodFailed", message=f"Pod {_name(pod)} failed; {pause_status(pod)}")
    return _job_deleted() if job is None or is_deleted(job) else _pod_deleted(pod)


def _job_deleted() -> Failure:
    return Failure(reason="JobDeleted", message="the Job was deleted")


def _pod_deleted(pod: Object) -> Failure:
    return Failure(reason="PodDeleted", message=f"Pod {_name(pod)} was deleted")


def _end(pod: Object, job: Object | None, why: str) -> EndPod | DeleteJob:
    """Return the action that ends a Pod. One without a node has no kubelet, so its Job is deleted."""
    if job is not None and not is_deleted(job) and _node(pod) is None:
        return _delete(job, why)
    return EndPod(name=_name(pod), uid=_uid(pod), why=why)


def _delete(job: Object, why: str) -> DeleteJob:
    return DeleteJob(name=_name(job), uid=_uid(job), why=why)


def _immediate(key: str, action: Action) -> _Trigger:
    return _Trigger(key=key, actions=(action,))


def _image(pod: Object, wait: ContainerWait) -> str:
    spec = pod.get("spec") or {}
    containers: Sequence[Object] = (*(spec.get("initContainers") or ()), *(spec.get("containers") or ()))
    return next((str(item.get("image")) for item in containers if item["name"] == wait.name), "?")


def _is_suspended(job: Object | None) -> bool:
    return job is not None and bool((job.get("spec") or {}).get("suspend"))


def _is_finished(job: Object) -> bool:
    return _condition(job, "Failed") is not None or _condition(job, "Complete") is not None


def _condition(item: Object, kind: str, *, status: str = "True") -> Object | None:
    conditions: Sequence[Object] = (item.get("status") or {}).get("conditions") or ()
    return next((one for one in conditions if one["type"] == kind and one["status"] == status), None)


def _node(pod: Object) -> str | None:
    """Return the name of the Pod's node, None if it has none yet."""
    return (pod.get("spec") or {}).get("nodeName") or None


def _grace(pod: Object) -> float:
    return float((pod.get("spec") or {}).get("terminationGracePeriodSeconds") or _GRACE_SECONDS)


def _name(item: Object) -> str:
    return str(item["metadata"]["name"])


def _uid(item: Object) -> str:
    return str(item["metadata"]["uid"])
