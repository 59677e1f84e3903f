"""What Kueue says of a task's Job: its Workload (kueue.x-k8s.io, v1beta1 and v1beta2 alike). Pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from poiesis_models.labels import OBJECT_NAME, TASK_LABEL

Object = Mapping[str, Any]

_JOB_OF_TASK = re.compile(OBJECT_NAME)
_DEACTIVATED = "Deactivated"  # also the beginning of Kueue's own: DeactivatedDueTo…


@dataclass(frozen=True, kw_only=True)
class Word:
    """Reason and message of a condition."""

    reason: str
    message: str

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"


def slim_workload(workload: Object) -> Object:
    """What of a Workload is worth keeping in memory; and its task's label, which Kueue does not copy."""
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
    """The task's Job, if it is one's."""
    owners: Sequence[Object] = metadata.get("ownerReferences") or ()
    return next((one for one in owners if one.get("kind") == "Job" and _task_of(one) is not None), None)


def _task_of(owner: Object) -> str | None:
    found = _JOB_OF_TASK.fullmatch(str(owner.get("name")))
    return None if found is None else found["task"]


def is_of(workload: Object, job_uid: str) -> bool:
    """Of this very Job, not of a former one."""
    return bool(workload["job_uid"] == job_uid)


def eviction(workload: Object) -> Word | None:
    """Why it was evicted, until it is admitted again."""
    return _word(workload, "Evicted", "True")


def waits_for(workload: Object) -> Word | None:
    """Why it has no quota."""
    return _word(workload, "QuotaReserved", "False")


def deactivation(workload: Object) -> Word | None:
    """Why it shall never run (spec.active is false), in Kueue's words once it has said them."""
    if workload["active"]:
        return None
    said = eviction(workload)
    if said is not None and said.reason.startswith(_DEACTIVATED):
        return said
    return Word(reason=_DEACTIVATED, message="")


def _word(workload: Object, kind: str, status: str) -> Word | None:
    for one in workload["conditions"]:
        if one.get("type") == kind and one.get("status") == status:
            return Word(reason=one.get("reason") or kind, message=one.get("message") or "")
    return None
