"""Parts of manifests that several objects of a task share: metadata, labels, variables and mounts."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from poiesis_api.config import Requests
from poiesis_models import labels

Manifest = dict[str, Any]

COMPONENT = "taskpod"
UID = 65532  # user and group of every container except the executors, and the Pod's fsGroup
RESTRICTED: Mapping[str, Any] = {
    "runAsNonRoot": True,
    "runAsUser": UID,
    "runAsGroup": UID,
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def object_labels(task_id: UUID) -> dict[str, str]:
    """Return the labels of the task's objects and of its Pod."""
    return {**labels.task_labels(task_id), labels.COMPONENT_LABEL: COMPONENT}


def object_metadata(task_id: UUID, name: str) -> Manifest:
    """Return the metadata of one of the task's objects."""
    return {"name": name, "labels": object_labels(task_id)}


def owned_by(manifest: Manifest, job_uid: str) -> Manifest:
    """Return the object with its task's Job as owner, so that Kubernetes deletes it with the Job."""
    metadata = manifest["metadata"]
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": _job_name(metadata), "uid": job_uid}
    return {**manifest, "metadata": {**metadata, "ownerReferences": [owner]}}


def _job_name(metadata: Mapping[str, Any]) -> str:
    return labels.object_name(UUID(metadata["labels"][labels.TASK_LABEL]))


def env_var(name: str, value: str) -> Manifest:
    """Return a variable whose value the container gets unchanged."""
    return {"name": name, "value": escape_dollars(value)}


def env_from_pod(name: str, field_path: str) -> Manifest:
    """Return a variable with the value of a field of the Pod (downward API)."""
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": field_path}}}


def escape_dollars(text: str) -> str:
    """Double each `$`, since Kubernetes expands `$(NAME)` and `$$` in command, args and env."""
    return text.replace("$", "$$")


def volume_mount(volume: str, path: str, *, sub_path: str | None = None, read_only: bool = False) -> Manifest:
    """Return a mount of the Pod's volume `volume` at the container path `path`."""
    mount: Manifest = {"name": volume, "mountPath": path}
    if sub_path is not None:
        mount["subPath"] = sub_path
    if read_only:
        mount["readOnly"] = True
    return mount


def resources(requests: Requests) -> Manifest:
    """Return configured requests and limits as a container's `resources`."""
    return requests.model_dump()
