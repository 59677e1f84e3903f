"""The Role of a recorder and its binding: get and watch one Pod, deleted with that Pod. Pure."""

from typing import Any

from poiesis_models.labels import object_name, task_labels
from poiesis_tctl.decide import EnsureRole

_GROUP = "rbac.authorization.k8s.io"


def role(wanted: EnsureRole) -> dict[str, Any]:
    """Return the manifest of the Role."""
    return {
        "apiVersion": f"{_GROUP}/v1",
        "kind": "Role",
        "metadata": _metadata(wanted),
        "rules": [
            {
                "apiGroups": [""],
                "resources": ["pods"],
                "resourceNames": [wanted.pod_name],
                "verbs": ["get", "watch"],
            }
        ],
    }


def role_binding(wanted: EnsureRole) -> dict[str, Any]:
    """Return the manifest of the RoleBinding."""
    return {
        "apiVersion": f"{_GROUP}/v1",
        "kind": "RoleBinding",
        "metadata": _metadata(wanted),
        "roleRef": {"apiGroup": _GROUP, "kind": "Role", "name": wanted.pod_name},
        "subjects": [{"kind": "ServiceAccount", "name": object_name(wanted.task_id)}],
    }


def _metadata(wanted: EnsureRole) -> dict[str, Any]:
    owner = {"apiVersion": "v1", "kind": "Pod", "name": wanted.pod_name, "uid": wanted.pod_uid}
    return {"name": wanted.pod_name, "labels": task_labels(wanted.task_id), "ownerReferences": [owner]}
