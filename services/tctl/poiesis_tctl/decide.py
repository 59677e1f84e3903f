"""What to do about a task, from all that is known of it. Pure: no connection, no clock.

`decide` looks for symptoms. Each may last for a while before its cure is due; how long each has lasted is
carried from one decision to the next in `since`, on a clock that never jumps. A cure that is due at once has
a limit of 0. How a task ended is `poiesis_models.states.terminal_state`'s word alone.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import takewhile
from typing import Any
from uuid import UUID

from poiesis_models.labels import OBJECT_NAME, POD_SUFFIX, TASK_LABEL, TREC_CONTAINER
from poiesis_models.podstatus import ContainerWait, container_statuses, container_waits, running_containers
from poiesis_models.refusals import explained, is_final
from poiesis_models.states import Ending, Facts, TesState, Trouble, terminal_state
from poiesis_tctl import podevents, workloads
from poiesis_tctl.config import Limits
from poiesis_tctl.podevents import PodLine
from poiesis_tctl.podfacts import (
    CRASHES,
    ENDED_PHASES,
    ExecutorRow,
    executor_rows,
    gate_is_open,
    has_started,
    is_alive,
    is_deleted,
    is_stalled,
    pause_note,
    phase,
    plan_of,
    pod_facts,
    restarts_of_recorder,
    time_of,
    waits_for_a_lost_recorder,
)

Object = Mapping[str, Any]

_AT_ONCE = frozenset({"InvalidImageName"})
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
_EXECUTOR_LEFT_SECONDS = 30.0  # a helper exits at once after the recorder's ack
_GRACE_SECONDS = 30.0  # Kubernetes' default
_REFUSED_SECONDS = 5.0  # the Job controller makes a Pod within a second, or says why not
_KUEUE_SAYS_SECONDS = 10.0  # between spec.active and the condition that says why
# Reasons of events (pkg/kubelet/events; the attach-detach controller).
_NOT_SET_UP = frozenset({"FailedAttachVolume", "FailedMount", "FailedMapVolume", "FailedCreatePodSandBox"})
_QUANTITY = re.compile(r"\b\d[\w.]*")
_POD_NAME = re.compile(rf"({OBJECT_NAME}){POD_SUFFIX}\b")


@dataclass(frozen=True, kw_only=True)
class TaskRow:
    """A task as Postgres knows it. `claimed`: an api replica is making its objects right now."""

    id: UUID
    state: TesState
    cancel_requested: bool
    ended: bool
    submitted: bool
    claimed: bool
    reported_by: str | None


@dataclass(frozen=True, kw_only=True)
class View:
    """A task and its objects. `gone_pod`, `gone_job`: those that vanished last, as they were last known.

    `workload`: what Kueue makes of the Job, as `workloads.slim_workload` has it.
    """

    task: TaskRow | None
    pod: Object | None = None
    job: Object | None = None
    gone_pod: Object | None = None
    gone_job: Object | None = None
    workload: Object | None = None

    @property
    def rests_on_absence(self) -> bool:
        """What is decided from this must be read again from the API server: a cache may be behind, and of two
        caches one may be further behind than the other."""
        return self.pod is None or is_deleted(self.pod)


@dataclass(frozen=True, kw_only=True)
class EnsureRole:
    """Let the recorder get and watch its own Pod."""

    task_id: UUID
    pod_name: str
    pod_uid: str


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """The task_log row that a Pod has."""

    pod_uid: str
    pod_name: str
    node: str
    start: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Finish:
    """Store the ending, and beside it what the recorder has not said about the executors.

    `note` is a system log of the attempt: why it is not the recorder who tells the end.
    """

    ending: Ending
    cancel_seen: bool
    attempt: Attempt | None = None
    executors: tuple[ExecutorRow, ...] = ()
    note: str | None = None


@dataclass(frozen=True, kw_only=True)
class EndPod:
    """Let the kubelet end it: the object and its status stay."""

    name: str
    uid: str
    why: str


@dataclass(frozen=True, kw_only=True)
class DeleteJob:
    """In the background, so that the Pod follows."""

    name: str
    uid: str
    why: str


@dataclass(frozen=True, kw_only=True)
class RequeueAttempt:
    """The attempt is over but the task is not: its Job was suspended, or has a new Pod.

    `pod_uid` None: whichever attempt is open.
    """

    pod_uid: str | None
    message: str


@dataclass(frozen=True, kw_only=True)
class ExplainNoPod:
    """Look up in the Job's events why it has no Pod; `decide_refused` tells what to do then.

    `give_up`: it has lasted too long, whatever the reason.
    """

    task: TaskRow
    job_name: str
    job_uid: str
    give_up: bool = False


@dataclass(frozen=True, kw_only=True)
class ExplainNoStart:
    """Look up in the Pod's events why nothing of it could start; `decide_no_start` tells what to do then."""

    task: TaskRow
    pod: Object


@dataclass(frozen=True, kw_only=True)
class SystemLog:
    """Say it once, of a task that has no Pod yet."""

    key: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Recheck:
    """Decide again after so many seconds, whatever happens."""

    seconds: float


Action = (
    Finish
    | EndPod
    | DeleteJob
    | RequeueAttempt
    | ExplainNoPod
    | ExplainNoStart
    | SystemLog
    | PodLine
    | Recheck
)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """`since`: the symptoms that were seen, and from when on; give it to the next decision."""

    actions: tuple[Action, ...] = ()
    since: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class _Symptom:
    key: str
    cure: tuple[Action, ...]
    limit: float = 0.0
    again: float | None = (
        None  # the cure is repeated: after as long as it has lasted, at most so many seconds
    )


def decide(view: View, since: Mapping[str, float], now: float, limits: Limits) -> Decision:
    """The cure of the first symptom that has lasted too long, else when to look again."""
    symptoms = list(_symptoms(view, limits))
    seen = {symptom.key: since.get(symptom.key, now) for symptom in symptoms}
    left = {symptom.key: seen[symptom.key] + symptom.limit - now for symptom in symptoms}
    due = next((symptom for symptom in symptoms if left[symptom.key] <= 0), None)
    if due is not None:
        waits = [left[symptom.key] for symptom in takewhile(lambda one: one is not due, symptoms)]
        if due.again is not None:
            waits.append(min(max(now - seen[due.key], due.limit), due.again))
        again = (Recheck(seconds=min(waits)),) if waits else ()
        return Decision(actions=(*due.cure, *again), since=seen)
    return Decision(actions=(Recheck(seconds=min(left.values())),) if left else (), since=seen)


def decide_refused(asked: ExplainNoPod, message: str) -> tuple[Action, ...]:
    """About a Job whose Pod the API server refuses with these words: what can never pass ends the task."""
    message = explained(_POD_NAME.sub(r"\1", message))
    if is_final(message) or asked.give_up:
        finish = _finish(asked.task, None, Trouble(reason="FailedCreate", message=message))
        return finish, DeleteJob(name=asked.job_name, uid=asked.job_uid, why="its Pod is refused")
    # Once for each message, whatever name the Pod would have had.
    key = podevents.key_of("FailedCreate", message)
    return (SystemLog(key=key, message=f"FailedCreate: {message}"),)


def decide_no_start(asked: ExplainNoStart, events: Sequence[Object]) -> tuple[Action, ...]:
    """About a Pod that has waited too long for its volumes or its network: `events` are its warnings."""
    told = [event for event in events if event.get("reason") in _NOT_SET_UP]
    latest = max(told, key=event_time, default={})
    said = latest.get("message") or "its node does not set it up, and does not say why"
    message = f"Pod {_name(asked.pod)}: {said}"
    return _stop(
        asked.task, asked.pod, Trouble(reason=latest.get("reason") or "PodNotStarted", message=message)
    )


def event_time(event: Object) -> str:
    """When it happened last; later ones sort after earlier ones."""
    series = event.get("series") or {}
    return str(event.get("lastTimestamp") or series.get("lastObservedTime") or event.get("eventTime") or "")


def decide_role(pod: Object) -> EnsureRole | None:
    """The first thing to do about a Pod, before anybody asks Postgres what its task is."""
    task_id = (pod["metadata"].get("labels") or {}).get(TASK_LABEL)
    if not is_alive(pod) or task_id is None:
        return None
    return EnsureRole(task_id=UUID(task_id), pod_name=pod["metadata"]["name"], pod_uid=pod["metadata"]["uid"])


def slim_pod(pod: Object) -> Object:
    """What of a Pod is worth keeping in memory: what is decided upon."""
    spec = pod.get("spec") or {}
    kept = ("nodeName", "activeDeadlineSeconds", "terminationGracePeriodSeconds")
    containers = {
        key: [{"name": item["name"], "image": item.get("image")} for item in spec.get(key) or ()]
        for key in ("initContainers", "containers")
    }
    return {
        "metadata": _slim_metadata(pod["metadata"]),
        "spec": {**{key: spec[key] for key in kept if key in spec}, **containers},
        "status": pod.get("status") or {},
    }


def slim_job(job: Object) -> Object:
    """What of a Job is worth keeping in memory."""
    return {
        "metadata": _slim_metadata(job["metadata"]),
        "spec": {"suspend": (job.get("spec") or {}).get("suspend")},
        "status": job.get("status") or {},
    }


def _slim_metadata(metadata: Object) -> Object:
    return {key: value for key, value in metadata.items() if key not in {"managedFields", "ownerReferences"}}


def _symptoms(view: View, limits: Limits) -> Iterator[_Symptom]:
    """In the order in which they count."""
    task, pod = view.task, view.pod
    if task is None:
        return
    if task.ended:
        yield from _after_the_end(task, view, limits)
    elif pod is None:
        yield from _without_pod(task, view, limits)
    else:
        if view.gone_pod is not None and _uid(view.gone_pod) != _uid(pod):
            yield _requeue(view.gone_pod, f"Pod {_name(view.gone_pod)} was replaced by Pod {_name(pod)}")
        yield from _with_pod(task, pod, view.job, limits)


def _with_pod(task: TaskRow, pod: Object, job: Object | None, limits: Limits) -> Iterator[_Symptom]:
    if is_deleted(pod) and _is_suspended(job) and not task.cancel_requested:
        return  # on its way out; another attempt follows
    if phase(pod) in ENDED_PHASES:
        yield _at_once("ended", _finish(task, pod, _pod_trouble(pod, job)))
    elif is_deleted(pod):
        yield from _lingering(task, pod, limits)
    elif task.cancel_requested:
        yield from _cancel(pod, job)
    else:
        yield from _waiting(task, pod, limits)
        yield from _recorder_down(task, pod, limits)
        yield from _untold(task, pod, limits)
        yield from _stalled(task, pod, limits)
        yield from _unschedulable(task, pod, job, limits)
        yield from _not_set_up(task, pod, limits)


def _without_pod(task: TaskRow, view: View, limits: Limits) -> Iterator[_Symptom]:
    job = view.job
    if job is None or is_deleted(job):
        yield from _without_job(task, view, limits)
    elif task.cancel_requested:
        yield _at_once("canceled", _delete(job, "canceled"))
    elif _is_suspended(job):
        yield from _suspended(task, job, view)
    elif (failed := _condition(job, "Failed")) is not None:
        yield _at_once("job failed", _finish(task, view.gone_pod, _job_trouble(failed, view.gone_pod)))
    elif _condition(job, "Complete") is not None:  # only `pause` with the ack of a COMPLETE task ends so
        yield _at_once("job complete", _ended(Facts(running=False, done=True), task, view.gone_pod))
    elif view.gone_pod is not None:
        # The Job controller says soon what follows: a failed Job, or (it had been suspended) a new Pod.
        cure = (_finish(task, view.gone_pod, _pod_deleted(view.gone_pod)),)
        yield _Symptom(key="no verdict", limit=limits.no_pod, cure=cure)
    else:
        yield from _refused(task, job, limits)


def _suspended(task: TaskRow, job: Object, view: View) -> Iterator[_Symptom]:
    """It waits for its turn, which is Kueue's to give, or has lost it."""
    workload = view.workload
    if workload is not None and not workloads.is_of(workload, _uid(job)):
        workload = None
    if workload is not None and task.submitted and (why := workloads.deactivation(workload)) is not None:
        message = why.message or "the Workload of its Job is not active"
        finish = _finish(task, view.gone_pod, Trouble(reason=why.reason, message=f"Kueue: {message}"))
        cure = (finish, _delete(job, "its Workload is not active"))
        yield _Symptom(key="deactivated", limit=0.0 if why.message else _KUEUE_SAYS_SECONDS, cure=cure)
    if _has_attempt(task, view):
        said = None if workload is None else workloads.eviction(workload)
        by = "" if said is None else f" by Kueue ({said})"
        yield _requeue(view.gone_pod, f"the Job was suspended{by}; another attempt follows")
    elif workload is not None and (wait := workloads.waits_for(workload)) is not None:
        # Once for each reason, whatever the quantities.
        key = podevents.key_of("Kueue", _QUANTITY.sub("", str(wait)))
        yield _at_once("queued", SystemLog(key=key, message=f"Kueue: {wait}"))


def _has_attempt(task: TaskRow, view: View) -> bool:
    """Return whether the suspension ended an attempt: the task had a Pod."""
    return view.gone_pod is not None or task.state in {TesState.INITIALIZING, TesState.RUNNING}


def _refused(task: TaskRow, job: Object, limits: Limits) -> Iterator[_Symptom]:
    """Looked at soon, for what can never pass; then ever more seldom."""
    explain = ExplainNoPod(task=task, job_name=_name(job), job_uid=_uid(job))
    if limits.unschedulable:
        give_up = (replace(explain, give_up=True),)
        yield _Symptom(
            key="no pod for too long", limit=limits.unschedulable, cure=give_up, again=limits.no_pod
        )
    soon = min(_REFUSED_SECONDS, limits.no_pod)
    yield _Symptom(key="no pod", limit=soon, cure=(explain,), again=limits.no_pod)


def _without_job(task: TaskRow, view: View, limits: Limits) -> Iterator[_Symptom]:
    if task.submitted:
        if view.gone_pod is None and view.gone_job is None and view.job is None:
            otherwise = Trouble(reason="Lost", message="neither the Job nor the Pod of this task exists")
        else:
            otherwise = _job_deleted()
        yield _at_once("no job", _finish(task, view.gone_pod, otherwise))
    elif task.cancel_requested and task.claimed:
        yield _at_once("being made", Recheck(seconds=limits.leftover))
    elif task.cancel_requested:
        yield _at_once("never made", _finish(task, view.gone_pod, None))


def _after_the_end(task: TaskRow, view: View, limits: Limits) -> Iterator[_Symptom]:
    """Free what a task that has ended still holds: by itself it goes only if its Job ends."""
    pod, job = view.pod, view.job
    if pod is None:
        if job is not None and not is_deleted(job) and not _is_finished(job):
            delete = _delete(job, "its task has ended")
            yield _Symptom(key="leftover job", limit=limits.leftover, cure=(delete,))
    elif is_alive(pod):
        if (pod.get("spec") or {}).get("activeDeadlineSeconds") == 1:
            why, limit = "its Pod would not end", _grace(pod) + limits.leftover
            if job is not None and not is_deleted(job):
                yield _Symptom(key="would not end", limit=limit, cure=(_delete(job, why),))
            return
        if is_stalled(pod):
            cure = (_end(pod, job, "its task has ended and it is stalled"),)
            yield _Symptom(key="stalled", limit=limits.stalled, cure=cure)
        by_recorder = task.reported_by == "recorder"
        if by_recorder and running_containers(pod) & set(plan_of(pod).executors):
            cure = (_end(pod, job, "its task has ended and an executor still runs"),)
            yield _Symptom(key="executor left", limit=_EXECUTOR_LEFT_SECONDS, cure=cure)
        limit = max(_RECORDER_ENDED_SECONDS, limits.leftover) if by_recorder else limits.leftover
        yield _Symptom(key="leftover", limit=limit, cure=(_end(pod, job, "its task has ended"),))


def _lingering(task: TaskRow, pod: Object, limits: Limits) -> Iterator[_Symptom]:
    """Nobody says that it is dead. Of a canceled task that must be known."""
    if not task.cancel_requested:
        grace = pod["metadata"].get("deletionGracePeriodSeconds") or 0
        message = f"Pod {_name(pod)} was deleted and its node does not say that it has ended"
        cure = (_finish(task, pod, Trouble(reason="NodeLost", message=message)),)
        yield _Symptom(key="lingering", limit=grace + limits.node_lost, cure=cure)


def _cancel(pod: Object, job: Object | None) -> Iterator[_Symptom]:
    if job is None:
        if (pod.get("spec") or {}).get("activeDeadlineSeconds") != 1:
            yield _at_once("canceled", _end(pod, job, "canceled, and it has no Job"))
    elif not is_deleted(job):
        yield _at_once("canceled", _delete(job, "canceled"))


def _waiting(task: TaskRow, pod: Object, limits: Limits) -> Iterator[_Symptom]:
    """The kubelet tries again for ever; restarts of a recorder whose gate was open are its own affair."""
    for wait in container_waits(pod).values():
        limit = _limit(wait.reason, limits)
        if limit is None or (wait.name == TREC_CONTAINER and (_is_crash(wait) or gate_is_open(pod))):
            continue
        message = f"{wait.name} ({_image(pod, wait)}) cannot start: {wait.message or wait.reason}"
        trouble = Trouble(reason=wait.reason, message=message, container=wait.name)
        kind = "configuration" if wait.reason in _CONFIGURATION else "image"
        yield _Symptom(key=f"{kind} of {wait.name}", limit=limit, cure=_stop(task, pod, trouble))


def _is_crash(wait: ContainerWait) -> bool:
    """It could not be run and is tried again: the kubelet of 1.34 says CrashLoopBackOff after ten seconds,
    that of 1.37 looks again only at the next try, and says this until then."""
    return wait.reason == "RunContainerError"


def _limit(reason: str, limits: Limits) -> float | None:
    if reason in _AT_ONCE:
        return 0.0
    if reason in _IMAGE:
        return limits.image_pull
    return limits.config_error if reason in _CONFIGURATION else None


def _recorder_down(task: TaskRow, pod: Object, limits: Limits) -> Iterator[_Symptom]:
    """It crashes before it has let anything start."""
    status = next((item for item in container_statuses(pod) if item["name"] == TREC_CONTAINER), None)
    if status is None or restarts_of_recorder(pod) < CRASHES or gate_is_open(pod):
        return
    reason, said = _last_end(status)
    message = f"the recorder was restarted {status['restartCount']} times and could not start: {said}"
    trouble = Trouble(reason=reason, message=message, container=TREC_CONTAINER)
    yield _Symptom(key="recorder", limit=limits.start, cure=_stop(task, pod, trouble))


def _last_end(status: Object) -> tuple[str, str]:
    """Reason and words of a restarted container's newest end: CrashLoopBackOff says neither."""
    for key in ("state", "lastState"):
        ended = (status.get(key) or {}).get("terminated")
        if ended:
            return ended["reason"], ended.get("message") or f"exit code {ended['exitCode']}"
    return "Error", "nobody says why"


def _untold(task: TaskRow, pod: Object, limits: Limits) -> Iterator[_Symptom]:
    """All is over and nobody says so. The Pod is left alone: a recorder that does come back adds the logs."""
    if waits_for_a_lost_recorder(pod) and terminal_state(pod_facts(pod, cancel_requested=False)) is not None:
        yield _Symptom(key="untold", limit=limits.stalled, cure=(_finish(task, pod, None),))


def _stalled(task: TaskRow, pod: Object, limits: Limits) -> Iterator[_Symptom]:
    if is_stalled(pod):
        message = f"every container of Pod {_name(pod)} is dead and the Pod does not end"
        trouble = Trouble(reason="PodStalled", message=message)
        yield _Symptom(key="stalled", limit=limits.stalled, cure=_stop(task, pod, trouble))


def _unschedulable(task: TaskRow, pod: Object, job: Object | None, limits: Limits) -> Iterator[_Symptom]:
    condition = _condition(pod, "PodScheduled", status="False")
    if limits.unschedulable and not (pod.get("spec") or {}).get("nodeName") and not _is_gated(condition):
        # Without a condition while the scheduler waits for a volume to be bound.
        said = (condition or {}).get(
            "message"
        ) or "no node was found for it, and the scheduler does not say why"
        finish = _finish(task, pod, Trouble(reason="Unschedulable", message=f"Pod {_name(pod)}: {said}"))
        cure = (finish, _end(pod, job, "no node was found for it"))
        yield _Symptom(key="unschedulable for too long", limit=limits.unschedulable, cure=cure)
    if condition is not None and condition.get("reason") == "Unschedulable":
        # Its event says the same, sooner, and is told once with this: but events may be lost.
        reason, message = podevents.FAILED_SCHEDULING, condition.get("message") or ""
        told = podevents.line(_uid(pod), reason, message)
        yield _Symptom(key="unschedulable", limit=limits.no_pod, cure=(told,))


def _not_set_up(task: TaskRow, pod: Object, limits: Limits) -> Iterator[_Symptom]:
    """Its node cannot mount its volumes or give it a network, and tries again for ever."""
    unready = _condition(pod, "PodReadyToStartContainers", status="False")
    if limits.unschedulable and unready is not None and not has_started(pod):
        cure = (ExplainNoStart(task=task, pod=pod),)
        yield _Symptom(key="not set up for too long", limit=limits.unschedulable, cure=cure)


def _is_gated(condition: Object | None) -> bool:
    """Somebody else (a queue) wants it to wait."""
    return condition is not None and condition.get("reason") == "SchedulingGated"


def _stop(task: TaskRow, pod: Object, trouble: Trouble) -> tuple[Action, ...]:
    """The task ends because the Pod never would."""
    finish = _finish(task, pod, trouble)
    return finish, EndPod(name=_name(pod), uid=_uid(pod), why=finish.ending.reason or "ended")


def _finish(task: TaskRow, pod: Object | None, otherwise: Trouble | None) -> Finish:
    """By the Pod's status as far as it decides, else by `otherwise`."""
    if pod is None:
        facts = Facts(cancel_requested=task.cancel_requested, running=False)
    else:
        facts = pod_facts(pod, cancel_requested=task.cancel_requested)
    if terminal_state(facts) is None or _says_more(facts, otherwise):
        facts = replace(facts, trouble=otherwise)
    return _ended(facts, task, pod)


def _says_more(facts: Facts, otherwise: Trouble | None) -> bool:
    """`otherwise` names a container that the Pod waits for, beside what has happened in it."""
    return (
        otherwise is not None and otherwise.container is not None and facts.trouble is None and not facts.done
    )


def _ended(facts: Facts, task: TaskRow, pod: Object | None) -> Finish:
    ending = terminal_state(facts)
    if ending is None:
        raise ValueError(f"no rule can tell how task {task.id} ended: {facts}")
    told = Finish(ending=ending, cancel_seen=task.cancel_requested)
    if pod is None:
        return told
    return replace(told, attempt=_attempt(pod), executors=executor_rows(pod), note=_note(pod))


def _attempt(pod: Object) -> Attempt | None:
    """None for a Pod that no node was found for."""
    node = (pod.get("spec") or {}).get("nodeName")
    if not node:
        return None
    start = time_of((pod.get("status") or {}).get("startTime"))
    return Attempt(pod_uid=_uid(pod), pod_name=_name(pod), node=node, start=start)


def _note(pod: Object) -> str:
    return (
        f"the recorder of Pod {_name(pod)} had not told the end; the controller did, by the Pod's status "
        f"(phase {phase(pod) or 'unknown'}, {pause_note(pod)})"
    )


def _requeue(gone_pod: Object | None, message: str) -> _Symptom:
    uid = None if gone_pod is None else _uid(gone_pod)
    return _at_once("requeued", RequeueAttempt(pod_uid=uid, message=message))


def _job_trouble(condition: Object, gone_pod: Object | None) -> Trouble:
    if gone_pod is not None:
        return _pod_deleted(gone_pod)
    reason = condition.get("reason") or "JobFailed"
    return Trouble(reason=reason, message=condition.get("message") or reason)


def _pod_trouble(pod: Object, job: Object | None) -> Trouble:
    """Of a Pod that has ended and is still there: for a moment also of one that was deleted."""
    if not is_deleted(pod):
        return Trouble(reason="PodFailed", message=f"Pod {_name(pod)} failed; {pause_note(pod)}")
    return _job_deleted() if job is None or is_deleted(job) else _pod_deleted(pod)


def _job_deleted() -> Trouble:
    return Trouble(reason="JobDeleted", message="the Job was deleted")


def _pod_deleted(pod: Object) -> Trouble:
    return Trouble(reason="PodDeleted", message=f"Pod {_name(pod)} was deleted")


def _end(pod: Object, job: Object | None, why: str) -> EndPod | DeleteJob:
    """Only a kubelet can end a Pod: one without a node goes with its Job."""
    if job is not None and not is_deleted(job) and not (pod.get("spec") or {}).get("nodeName"):
        return _delete(job, why)
    return EndPod(name=_name(pod), uid=_uid(pod), why=why)


def _delete(job: Object, why: str) -> DeleteJob:
    return DeleteJob(name=_name(job), uid=_uid(job), why=why)


def _at_once(key: str, action: Action) -> _Symptom:
    return _Symptom(key=key, cure=(action,))


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


def _grace(pod: Object) -> float:
    return float((pod.get("spec") or {}).get("terminationGracePeriodSeconds") or _GRACE_SECONDS)


def _name(item: Object) -> str:
    return str(item["metadata"]["name"])


def _uid(item: Object) -> str:
    return str(item["metadata"]["uid"])
