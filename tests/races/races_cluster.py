"""A cluster in memory: an API server, the Job controller, the garbage collector and a kubelet.

Each part takes one step at a time, on request. The kubelet's Pod is the truth: the API server has the status
of the kubelet's last update.
"""

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from poiesis_models.labels import (
    PAUSE_CONTAINER,
    PLAN_ANNOTATION,
    TASK_LABEL,
    TREC_CONTAINER,
    executor_name,
)
from poiesis_models.plan import PodPlan
from poiesis_models.runfiles import ExitRecord, ResourceUsage, Started
from poiesis_trec.facts import RunFiles

Object = dict[str, Any]
_SECOND_NS = 10**9
_EPOCH_NS = 1_767_225_600 * _SECOND_NS


@dataclass(frozen=True, kw_only=True)
class Truth:
    """The behaviour of a task's containers without disturbances: exit codes of executors and of the filer.

    `canceled_in`: its client cancels the task when this executor has started.
    """

    codes: tuple[int, ...] = (0,)
    outputs: bool = False
    tof_code: int = 0
    canceled_in: str | None = None


@dataclass(frozen=True, kw_only=True)
class End:
    """`code`: exit code for the kubelet. `record`: of the helper, unless it was killed."""

    code: int
    record: ExitRecord | None = None


@dataclass(eq=False, kw_only=True)
class KubeletPod:
    """A Pod on the node."""

    uid: str
    name: str
    task_id: UUID
    plan: PodPlan
    truth: Truth
    token: str
    on_node: bool = False
    trec_started: bool = False
    trec_alive: bool = False
    trec_signaled: bool = False  # SIGTERM
    ending: str | None = None  # reason for which the kubelet ends it
    running: str | None = None
    ends: dict[str, End] = field(default_factory=dict)
    files: dict[str, RunFiles] = field(default_factory=dict)
    over: bool = False
    gone: bool = False
    pushed: str = ""  # the status that the API server has

    @property
    def next(self) -> str | None:
        """Return the next container; None while one runs, after the last, or after a failure."""
        if self.running or not self.trec_started or self.ending or self.over or self._aborted:
            return None
        return next((name for name in (*self.plan, PAUSE_CONTAINER) if name not in self.ends), None)

    @property
    def _aborted(self) -> bool:
        return any(end.code for end in self.ends.values())

    @property
    def work_is_over(self) -> bool:
        """Return whether only the recorder is left."""
        idle = self.running is None
        return idle and (bool(self.ending) or self._aborted or PAUSE_CONTAINER in self.ends)

    @property
    def runs_work(self) -> bool:
        """Return whether an executor or a filer runs."""
        return self.running is not None and self.running != PAUSE_CONTAINER

    @property
    def continues(self) -> bool:
        """Return whether the Pod continues after a failed executor, to send outputs."""
        return self.plan.upload_on_error and bool(self.plan.outputs)

    def own_codes(self) -> dict[int, int]:
        """Return the exit codes of executors that ran and ended, as clients must see them."""
        codes = {}
        for index, name in enumerate(self.plan.executors):
            end = self.ends.get(name)
            if end is not None and end.record is not None:
                codes[index] = end.record.tes_exit_code
            elif end is not None and end.code:
                codes[index] = end.code
        return codes


class Cluster:
    """`truth_of`: behaviour of a task's containers. `pause_code`: of `pause`, None while it runs."""

    def __init__(
        self, truth_of: Callable[[UUID], Truth], pause_code: Callable[[KubeletPod], int | None]
    ) -> None:
        self._truth_of, self._pause_code = truth_of, pause_code
        self.objects: dict[tuple[str, str], Object] = {}
        self.history: list[tuple[int, str, str, Object]] = []  # version, kind, event, object
        self.pods: list[KubeletPod] = []
        self.starts: dict[tuple[UUID, str], int] = {}
        self.changed: Callable[[], None] = lambda: None
        self._version = 100
        self._ns = _EPOCH_NS

    # The API server

    @property
    def version(self) -> str:
        return str(self._version)

    def of_kind(self, kind: str) -> list[Object]:
        return [item for (stored, _), item in self.objects.items() if stored == kind]

    def get(self, kind: str, name: str) -> Object | None:
        return self.objects.get((kind, name))

    def put(self, kind: str, item: Object) -> Object:
        key = (kind, item["metadata"]["name"])
        event = "MODIFIED" if key in self.objects else "ADDED"
        self._version += 1
        if event == "ADDED":
            made = {"uid": f"{kind}-{self._version}", "creationTimestamp": f"2026-01-01T{self._version:08}"}
            item = {**item, "metadata": {**item["metadata"], **made}}
        item = copy.deepcopy(item)
        item["metadata"]["resourceVersion"] = self.version
        self.objects[key] = item
        self._notify(kind, event, item)
        return item

    def remove(self, kind: str, name: str) -> None:
        item = self.objects.pop((kind, name))
        self._version += 1
        metadata = {**item["metadata"], "resourceVersion": self.version}
        self._notify(kind, "DELETED", {**item, "metadata": metadata})

    def _notify(self, kind: str, event: str, item: Object) -> None:
        self.history.append((self._version, kind, event, copy.deepcopy(item)))
        self.changed()

    # The possible next steps

    def steps(self) -> list[tuple[str, Callable[[], None]]]:
        return [*self._job_steps(), *self._garbage(), *self._finalizers(), *self._kubelet_steps()]

    def _job_steps(self) -> Iterator[tuple[str, Callable[[], None]]]:
        for job in self.of_kind("Job"):
            name, uid = job["metadata"]["name"], job["metadata"]["uid"]
            if job["spec"].get("suspend") or (job.get("status") or {}).get("conditions"):
                continue
            pod = next((one for one in self.of_kind("Pod") if _owner(one) == uid), None)
            had_pod = (job.get("status") or {}).get("active") is not None
            phase = None if pod is None else pod["status"].get("phase")
            if pod is None and not had_pod:
                yield f"Job controller: Pod of {_short(name)}", lambda name=name: self._make_pod(name)
            elif phase == "Succeeded":
                yield f"Job controller: {_short(name)} is complete", self._judge(name, "Complete")
            elif phase == "Failed" or pod is None:
                yield f"Job controller: {_short(name)} has failed", self._judge(name, "Failed")

    def _make_pod(self, job_name: str) -> None:
        job = self.objects["Job", job_name]
        self.put("Job", {**job, "status": {"active": 1}})
        template = copy.deepcopy(job["spec"]["template"])
        owner = {"kind": "Job", "name": job_name, "uid": job["metadata"]["uid"], "controller": True}
        name = f"{job_name}-{self._version:05}"
        metadata = {**template["metadata"], "name": name, "ownerReferences": [owner]}
        self.put("Pod", {"metadata": metadata, "spec": template["spec"], "status": {"phase": "Pending"}})

    def _judge(self, job_name: str, verdict: str) -> Callable[[], None]:
        def judge() -> None:
            condition = {"type": verdict, "status": "True", "reason": "BackoffLimitExceeded"}
            job = self.objects["Job", job_name]
            self.put("Job", {**job, "status": {"active": 0, "conditions": [condition]}})

        return judge

    def _garbage(self) -> Iterator[tuple[str, Callable[[], None]]]:
        uids = {item["metadata"]["uid"] for item in self.objects.values()}
        for (kind, name), item in self.objects.items():
            owner = _owner(item)
            if owner is None or owner in uids or item["metadata"].get("deletionTimestamp"):
                continue
            delete = self.delete_pod if kind == "Pod" else lambda name, kind=kind: self.remove(kind, name)
            yield (
                f"garbage collector: {kind} of {_short(name)}",
                lambda name=name, delete=delete: delete(name),
            )

    def delete_pod(self, name: str) -> None:
        """Delete a Pod, with a grace period if it is on a node. Without a node, only a finalizer keeps it."""
        pod = self.objects["Pod", name]
        grace = 30 if pod["spec"].get("nodeName") else 0
        deleted = {"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": grace}
        self.put("Pod", {**pod, "metadata": {**pod["metadata"], **deleted}})

    def _finalizers(self) -> Iterator[tuple[str, Callable[[], None]]]:
        """The Job controller removes its finalizer from deleted Pods that never had a node."""
        for item in self.of_kind("Pod"):
            name = item["metadata"]["name"]
            if item["metadata"].get("deletionTimestamp") and not item["spec"].get("nodeName"):
                yield f"Job controller: releases {_short(name)}", lambda name=name: self.remove("Pod", name)

    # The scheduler and the kubelet

    def _kubelet_steps(self) -> Iterator[tuple[str, Callable[[], None]]]:
        for item in self.of_kind("Pod"):
            # The API server binds no deleted Pod.
            if not item["spec"].get("nodeName") and not item["metadata"].get("deletionTimestamp"):
                name = item["metadata"]["name"]
                yield f"scheduler: {_short(name)}", lambda name=name: self._schedule(name)
        for pod in self.pods:
            if not pod.gone:
                for what, step in self._pod_steps(pod):
                    yield f"kubelet: {_short(pod.name)}: {what}", lambda pod=pod, step=step: step(pod)

    def _schedule(self, name: str) -> None:
        item = self.objects["Pod", name]
        item = self.put("Pod", {**item, "spec": {**item["spec"], "nodeName": "node-1"}})
        task_id = UUID(item["metadata"]["labels"][TASK_LABEL])
        secret = self.objects.get(("Secret", _token_secret(item)), {"data": {"token": ""}})
        self.pods.append(
            KubeletPod(
                uid=item["metadata"]["uid"],
                name=name,
                task_id=task_id,
                plan=PodPlan.from_json(item["metadata"]["annotations"][PLAN_ANNOTATION]),
                truth=self._truth_of(task_id),
                token=secret["data"]["token"],
            )
        )

    def _pod_steps(self, pod: KubeletPod) -> Iterator[tuple[str, Callable[[KubeletPod], None]]]:
        item = self.objects["Pod", pod.name]
        if pod.pushed != json.dumps(self._status(pod)):
            yield "status", self._push
        if pod.over:
            if pod.pushed == json.dumps(self._status(pod)) and item["metadata"].get("deletionTimestamp"):
                yield "is removed", self._removed
            return
        if pod.ending is None and not pod.work_is_over:
            if item["metadata"].get("deletionTimestamp"):
                yield "ends it: deleted", lambda pod: setattr(pod, "ending", "Deleted")
            elif item["spec"].get("activeDeadlineSeconds") == 1:
                yield "ends it: deadline", lambda pod: setattr(pod, "ending", "DeadlineExceeded")
        if not pod.trec_started and pod.ending is None and pod.token:  # else its Secret cannot be mounted
            yield "starts trec", self._start_trec
        elif not pod.trec_alive and pod.trec_started and pod.ending is None and not pod.work_is_over:
            yield "starts trec again", self._start_trec
        yield from self._container_steps(pod)

    def _container_steps(self, pod: KubeletPod) -> Iterator[tuple[str, Callable[[KubeletPod], None]]]:
        if pod.next is not None:
            yield f"starts {pod.next}", self._start_next
        if pod.runs_work:
            yield f"{pod.running} ends", self._ends
        if pod.running == PAUSE_CONTAINER and (code := self._pause_code(pod)) is not None:
            yield f"pause ends with {code}", lambda pod, code=code: self._end_pause(pod, code)
        if pod.running is not None and pod.ending:
            yield f"{pod.running} gets SIGTERM", self._terminated
            yield f"{pod.running} is killed", self._killed
        if (pod.ending or pod.work_is_over) and not pod.trec_signaled and pod.trec_alive:
            yield "sends SIGTERM to trec", lambda pod: setattr(pod, "trec_signaled", True)
        if pod.work_is_over and (pod.trec_signaled or not pod.trec_alive):
            yield "is over", self._over

    def _start_trec(self, pod: KubeletPod) -> None:
        pod.trec_started = pod.trec_alive = True

    def _start_next(self, pod: KubeletPod) -> None:
        name = pod.next
        assert name is not None
        if name != PAUSE_CONTAINER:
            if name in pod.plan.executors and any(file.failed for file in pod.files.values()):
                pod.files[name] = RunFiles(skipped=True)
                pod.ends[name] = End(code=0)
                return
            self.starts[pod.task_id, name] = self.starts.get((pod.task_id, name), 0) + 1
            self._ns += _SECOND_NS
            pod.files[name] = RunFiles(started=Started(start_ns=self._ns))
        pod.running = name

    def _ends(self, pod: KubeletPod) -> None:
        """End the running container normally."""
        assert pod.running is not None
        code = 0
        if pod.running in pod.plan.executors:
            code = pod.truth.codes[pod.plan.executors.index(pod.running)]
        elif pod.running in pod.plan.outputs:
            code = pod.truth.tof_code
        failed = code != 0 and pod.running in pod.plan.executors and pod.continues
        self._end(pod, code, seen=0 if failed else code, failed=failed)

    def _terminated(self, pod: KubeletPod) -> None:
        if pod.running == PAUSE_CONTAINER:
            self._end_pause(pod, 143)
        else:
            self._end(pod, 143, seen=143, term=True)

    def _killed(self, pod: KubeletPod) -> None:
        """Kill the running container and its helper, without an exit record."""
        assert pod.running is not None
        if pod.running == PAUSE_CONTAINER:
            self._end_pause(pod, 137)
            return
        pod.ends[pod.running] = End(code=137)
        pod.files[pod.running] = RunFiles(started=pod.files[pod.running].started, helper_gone=True)
        pod.running = None

    def _end_pause(self, pod: KubeletPod, code: int) -> None:
        pod.ends[PAUSE_CONTAINER] = End(code=code)
        pod.running = None

    def _end(
        self, pod: KubeletPod, code: int, *, seen: int, failed: bool = False, term: bool = False
    ) -> None:
        assert pod.running is not None
        started = pod.files[pod.running].started
        assert started is not None
        self._ns += _SECOND_NS
        record = ExitRecord(
            exit_code=code,
            signal=0,
            oom=False,
            term=term,
            start_ns=started.start_ns,
            end_ns=self._ns,
            usage=ResourceUsage(user_us=1, sys_us=1),
        )
        pod.files[pod.running] = RunFiles(started=started, exit=record, failed=failed)
        pod.ends[pod.running] = End(code=seen, record=record)
        pod.running = None

    def _over(self, pod: KubeletPod) -> None:
        pod.over = True
        pod.trec_alive = False

    def _push(self, pod: KubeletPod) -> None:
        status = self._status(pod)
        pod.pushed = json.dumps(status)
        self.put("Pod", {**self.objects["Pod", pod.name], "status": status})

    def _removed(self, pod: KubeletPod) -> None:
        pod.gone = True
        self.remove("Pod", pod.name)

    def _status(self, pod: KubeletPod) -> Object:
        if pod.over:
            pause = pod.ends.get(PAUSE_CONTAINER)
            phase = "Succeeded" if pause is not None and pause.code == 0 else "Failed"
        else:
            phase = "Running" if pod.running == PAUSE_CONTAINER else "Pending"
        times = {"startedAt": _time(_EPOCH_NS), "finishedAt": _time(_EPOCH_NS)}
        trec: Object = {"waiting": {"reason": "PodInitializing"}}
        if pod.trec_alive:
            trec = {"running": {"startedAt": _time(_EPOCH_NS)}}
        elif pod.trec_started and pod.over:
            trec = {"terminated": {"exitCode": 0, "reason": "Completed", "message": "", **times}}
        elif pod.trec_started:
            trec = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off restarting"}}
        status: Object = {
            "phase": phase,
            "startTime": _time(_EPOCH_NS),
            "initContainerStatuses": [
                {"name": TREC_CONTAINER, "state": trec, "restartCount": 0},
                *({"name": name, "state": self._state(pod, name)} for name in pod.plan),
            ],
            "containerStatuses": [{"name": PAUSE_CONTAINER, "state": self._state(pod, PAUSE_CONTAINER)}],
        }
        if pod.over and pod.ending == "DeadlineExceeded":
            status |= {"reason": pod.ending, "message": "Pod was active on the node longer than allowed"}
        return status

    def _state(self, pod: KubeletPod, name: str) -> Object:
        if pod.running == name:
            return {"running": {"startedAt": _time(_EPOCH_NS)}}
        end = pod.ends.get(name)
        if end is None:
            return {"waiting": {"reason": "PodInitializing"}}
        return {
            "terminated": {
                "exitCode": end.code,
                "reason": "Error" if end.code else "Completed",
                "message": _exit_json(end.record) if end.record else "",
                "startedAt": _time(_EPOCH_NS),
                "finishedAt": _time(_EPOCH_NS),
            }
        }


def stdout_of(index: int) -> str:
    """Return the output of executor `index`, the same for all tasks."""
    return f"out of {executor_name(index)}\n"


def _owner(item: Object) -> str | None:
    owners = item["metadata"].get("ownerReferences") or ()
    return next((str(owner["uid"]) for owner in owners), None)


def _time(ns: int) -> str:
    return datetime.fromtimestamp(ns // _SECOND_NS, UTC).isoformat().replace("+00:00", "Z")


def _token_secret(pod: Object) -> str:
    """Return the name of the Secret that the recorder's token is mounted from."""
    (volume,) = (one for one in pod["spec"]["volumes"] if one["name"] == "recorder")
    return str(volume["projected"]["sources"][0]["secret"]["name"])


def _short(name: str) -> str:
    return name.removeprefix("poiesis-")[:8]


def _exit_json(record: ExitRecord) -> str:
    """Return the file that the helper writes: usage is beside the other fields, as far as it was measured."""
    document = asdict(record)
    usage = document.pop("usage")
    return json.dumps(document | {name: value for name, value in usage.items() if value is not None})
