"""Kubernetes JSON as an API server sends it, with only the fields that a test needs."""

import json
from typing import Any
from uuid import UUID

from poiesis_models.labels import PLAN_ANNOTATION, object_name, task_labels
from poiesis_models.plan import PodPlan
from poiesis_models.states import TesState
from poiesis_tctl.decide import TaskRow

TASK = UUID("0f8fad5b-d9cb-469f-a165-70867728950e")
START_NS = 1_763_877_600_000_000_000  # 2025-11-23T06:00:00Z
PLAN = PodPlan(
    inputs=("tif-0",),
    executors=("executor-0", "executor-1"),
    ignore_error=(False, False),
    outputs=("tof-0",),
)


def row(**values: Any) -> TaskRow:
    known: dict[str, Any] = {
        "id": TASK,
        "state": TesState.RUNNING,
        "cancel_requested": False,
        "ended": False,
        "submitted": True,
        "claimed": False,
        "reported_by": None,
    }
    return TaskRow(**{**known, **values})


def record(exit_code: int = 0, *, oom: bool = False, term: bool = False) -> str:
    """Return the exit record that the helper writes as the termination message."""
    return json.dumps(
        {
            "exit_code": exit_code,
            "signal": 0,
            "oom": oom,
            "term": term,
            "start_ns": START_NS,
            "end_ns": START_NS + 2_500_000_000,
            "max_rss_kb": 1024,
            "user_us": 10,
            "sys_us": 10,
        }
    )


def terminated(exit_code: int = 0, reason: str | None = None, message: str = "") -> dict[str, Any]:
    reason = reason or ("Completed" if exit_code == 0 else "Error")
    times = {"startedAt": "2025-11-23T06:00:00Z", "finishedAt": "2025-11-23T06:00:03Z"}
    return {"terminated": {"exitCode": exit_code, "reason": reason, "message": message, **times}}


def recorded(exit_code: int = 0, container_code: int | None = None, **values: Any) -> dict[str, Any]:
    """Return a terminated state with the helper's record. `container_code`: if it differs."""
    code = exit_code if container_code is None else container_code
    return terminated(code, values.pop("reason", None), record(exit_code, **values))


def waiting(reason: str = "PodInitializing", message: str = "") -> dict[str, Any]:
    return {"waiting": {"reason": reason, **({"message": message} if message else {})}}


RUNNING: dict[str, Any] = {"running": {"startedAt": "2025-11-23T06:00:00Z"}}


def pod(
    states: dict[str, Any] | None = None,
    *,
    phase: str = "Pending",
    reason: str | None = None,
    message: str | None = None,
    conditions: list[dict[str, Any]] | None = None,
    plan: PodPlan | None = PLAN,
    name: str = f"poiesis-{TASK}-abcde",
    uid: str = "pod-uid-1",
    task: UUID = TASK,
    node: str | None = "node-1",
    deleted: bool = False,
    deadline: int | None = None,
    restarts: int = 0,
    created: str = "2025-11-23T06:00:00Z",
    version: str = "1",
) -> dict[str, Any]:
    """Return a Pod. `states`: container -> state; other containers have not started."""
    names = ["trec", *(plan or PLAN).rescues, *(plan or PLAN), *(plan or PLAN).streams]
    states = states or {}
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": "tes",
        "uid": uid,
        "resourceVersion": version,
        "creationTimestamp": created,
        "labels": {**task_labels(task), "batch.kubernetes.io/job-name": object_name(task)},
        "annotations": {} if plan is None else {PLAN_ANNOTATION: plan.to_json()},
        "managedFields": [{"manager": "kube-controller-manager"}],
        "ownerReferences": [
            {"kind": "Job", "name": object_name(task), "uid": "job-uid-1", "controller": True}
        ],
    }
    if deleted:
        metadata |= {"deletionTimestamp": "2025-11-23T06:01:00Z", "deletionGracePeriodSeconds": 60}
    spec: dict[str, Any] = {
        "initContainers": [
            {"name": one, "image": f"registry.test/{one}:1"}
            | ({"restartPolicy": "Always"} if one == "trec" else {})
            for one in names
        ],
        "containers": [{"name": "pause", "image": "registry.test/pause:1"}],
        "terminationGracePeriodSeconds": 60,
        "serviceAccountName": object_name(task),
    }
    if node:
        spec["nodeName"] = node
    if deadline:
        spec["activeDeadlineSeconds"] = deadline
    status: dict[str, Any] = {
        "phase": phase,
        "startTime": "2025-11-23T06:00:00Z",
        "conditions": conditions or [],
        "initContainerStatuses": [
            _status(one, states.get(one, waiting()), restarts if one == "trec" else 0) for one in names
        ],
        "containerStatuses": [_status("pause", states.get("pause", waiting()), 0)],
    }
    if reason:
        status["reason"] = reason
    if message:
        status["message"] = message
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status}


def _status(name: str, state: dict[str, Any], restarts: int) -> dict[str, Any]:
    return {"name": name, "state": state, "restartCount": restarts, "image": f"registry.test/{name}:1"}


def rejected(reason: str, message: str) -> dict[str, Any]:
    """The status of a Pod that the kubelet does not admit: no container statuses."""
    refused = pod(phase="Failed", reason=reason, message=message)
    del refused["status"]["initContainerStatuses"], refused["status"]["containerStatuses"]
    return refused


def job(
    *,
    suspended: bool = False,
    conditions: list[dict[str, Any]] | None = None,
    deleted: bool = False,
    task: UUID = TASK,
    uid: str = "job-uid-1",
    version: str = "1",
) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "name": object_name(task),
        "namespace": "tes",
        "uid": uid,
        "resourceVersion": version,
        "creationTimestamp": "2025-11-23T05:59:59Z",
        "labels": task_labels(task),
    }
    if deleted:
        metadata["deletionTimestamp"] = "2025-11-23T06:01:00Z"
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {"suspend": suspended},
        "status": {"conditions": conditions or []},
    }


def workload(
    *conditions: dict[str, Any],
    active: bool | None = None,
    task: UUID = TASK,
    job_uid: str = "job-uid-1",
    owner: str = "Job",
) -> dict[str, Any]:
    """The Workload of the task's Job; `active` None: the field is absent, which means true."""
    owners = [{"apiVersion": "batch/v1", "kind": owner, "name": object_name(task), "uid": job_uid}]
    return {
        "apiVersion": "kueue.x-k8s.io/v1beta1",
        "kind": "Workload",
        "metadata": {
            "name": f"job-{object_name(task)}-1a2b3",
            "namespace": "tes",
            "uid": "workload-uid-1",
            "resourceVersion": "1",
            "creationTimestamp": "2025-11-23T05:59:59Z",
            "labels": {"kueue.x-k8s.io/job-uid": job_uid},
            "ownerReferences": owners,
            "managedFields": [{"manager": "kueue"}],
        },
        "spec": {"queueName": "lq", "podSets": [{"name": "main"}]}
        | ({} if active is None else {"active": active}),
        "status": {"conditions": list(conditions)},
    }


def condition(kind: str, reason: str = "", message: str = "", status: str = "True") -> dict[str, Any]:
    return {"type": kind, "status": status, "reason": reason, "message": message}


def disrupted(reason: str, message: str = "") -> list[dict[str, Any]]:
    return [condition("DisruptionTarget", reason, message)]


def event(
    reason: str,
    message: str,
    *,
    kind: str = "Warning",
    container: str | None = None,
    name: str = "e1",
    task: UUID = TASK,
    suffix: str = "-abcde",
    uid: str = "pod-uid-1",
    about: str = "Pod",
    first: str | None = "2025-11-23T06:00:00Z",
    time: str | None = None,
    count: int = 1,
) -> dict[str, Any]:
    """Return an event about a TaskPod, its container, or another object of the task (without `suffix`)."""
    object_name = f"poiesis-{task}{suffix}"
    involved = {"kind": about, "namespace": "tes", "name": object_name, "uid": uid}
    if container is not None:
        field = "containers" if container == "pause" else "initContainers"
        involved["fieldPath"] = f"spec.{field}{{{container}}}"
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{object_name}.{name}", "namespace": "tes", "uid": f"uid-of-{name}"},
        "involvedObject": involved,
        "type": kind,
        "reason": reason,
        "message": message,
        "firstTimestamp": first,
        "lastTimestamp": first,
        "eventTime": time,
        "count": count,
    }


TREC_KILLED = terminated(143, "Error")
ALL_DONE: dict[str, Any] = {
    "trec": TREC_KILLED,
    "tif-0": recorded(0),
    "executor-0": recorded(0),
    "executor-1": recorded(0),
    "tof-0": recorded(0),
}
