"""Read the state of a task's Job in Kueue from its Workload (kueue.x-k8s.io, v1beta1 and v1beta2). Pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from poiesis_models.labels import OBJECT_NAME, TASK_LABEL

Object = Mapping[str, Any]

_JOB_OF_TASK = re.compile(OBJECT_NAME)
_DEACTIVATED = "Deactivated"  # also the prefix of Kueue's reasons: DeactivatedDueTo…


@dataclass(frozen=True, kw_only=True)
class KueueReason:
    """Reason and message of a condition."""

    reason: str
    message: str

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"


def slim_workload(workload: Object) -> Object:
    """Reduce a Workload to what decisions need, and add its task's label, which Kueue does not copy."""
    metadata = workload["metadata"]
    owner = _owner(metadata)
    labels = {} if owner is None else {TASK_LABEL: _task_of(owner)}
    kept = ("name", "uid", "resourceVersion", "creationTimestamp")
    return {
        "metadata": {**{key: metadata[key] for key in kept if key in metadata}, "labels": labels},
        "job_uid": None if owner is None else owner["uid"],
        "active": (workload.get("spec") or {}).get("active") is not False,
        "conditions": (workload.get("status") or {}).get("conditions") or (),
    }


def _owner(metadata: Object) -> Object | None:
    """Return the owner that is a task's Job, None without one."""
    owners: Sequence[Object] = metadata.get("ownerReferences") or ()
    return next((one for one in owners if one.get("kind") == "Job" and _task_of(one) is not None), None)


def _task_of(owner: Object) -> str | None:
    found = _JOB_OF_TASK.fullmatch(str(owner.get("name")))
    return None if found is None else found["task"]


def is_of(workload: Object, job_uid: str) -> bool:
    """Return whether the Workload belongs to the Job with this uid, not to an earlier one."""
    return bool(workload["job_uid"] == job_uid)


def eviction(workload: Object) -> KueueReason | None:
    """Return why the Workload was evicted, until it is admitted again."""
    return _reason(workload, "Evicted", "True")


def pending(workload: Object) -> KueueReason | None:
    """Return why the Workload has no quota yet."""
    return _reason(workload, "QuotaReserved", "False")


def deactivation(workload: Object) -> KueueReason | None:
    """Return why the Workload will never run (spec.active is false); with Kueue's reason if it has one."""
    if workload["active"]:
        return None
    evicted = eviction(workload)
    if evicted is not None and evicted.reason.startswith(_DEACTIVATED):
        return evicted
    return KueueReason(reason=_DEACTIVATED, message="")


def _reason(workload: Object, kind: str, status: str) -> KueueReason | None:
    for one in workload["conditions"]:
        if one.get("type") == kind and one.get("status") == status:
            return KueueReason(reason=one.get("reason") or kind, message=one.get("message") or "")
    return None
