"""All Kubernetes objects of a task: the Job with its Pod, and what belongs to the Job."""

from collections.abc import Mapping
from dataclasses import dataclass

from poiesis_api.config import TaskPodConfig
from poiesis_api.parameters import with_parameters
from poiesis_api.taskpod.containers import init_containers, pause_container
from poiesis_api.taskpod.layout import Layout, layout_of
from poiesis_api.taskpod.manifest import UID, Manifest, object_labels, object_metadata
from poiesis_api.taskpod.rescue import pod_grace_seconds
from poiesis_api.taskpod.scheduling import KEEP_NODE_ANNOTATIONS, kueue_labels, scheduling_fields
from poiesis_api.taskpod.secrets import pack_secrets, secret, secret_entries, secret_of_key
from poiesis_api.taskpod.task import Task
from poiesis_api.taskpod.volumes import pod_volumes, volume_claim
from poiesis_models import labels


@dataclass(frozen=True, kw_only=True)
class TaskObjects:
    """A task's suspended Job, and the objects to create with it as owner (see `owned_by`)."""

    job: Manifest
    owned: tuple[Manifest, ...]


def task_objects(task: Task, config: TaskPodConfig) -> TaskObjects:
    """Return the objects to create for a task. Raise NoFiler."""
    resources = task.request.resources
    config = with_parameters(config, resources.backend_parameters or {} if resources else {})
    layout = layout_of(task, config)
    secrets = pack_secrets(task, secret_entries(layout, config.recorder.transport))
    account = [service_account(layout)] if has_service_account(config) else []
    owned = [*account, *(secret(task.id, name, data) for name, data in secrets.items())]
    if layout.volume == "task" and config.volume.type == "pvc":
        owned.append(volume_claim(layout, config))
    return TaskObjects(job=job(layout, config, secret_of_key(secrets)), owned=tuple(owned))


def has_service_account(config: TaskPodConfig) -> bool:
    """Return whether the Pod has its own ServiceAccount: for the recorder's token, or for a web identity."""
    return not config.recorder.files_only or config.storage.s3.web_identity is not None


def service_account(layout: Layout) -> Manifest:
    """Return the Pod's ServiceAccount, to which the controller grants read access to a watched Pod."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": object_metadata(layout.task.id, layout.name),
        "automountServiceAccountToken": False,
    }


def job(layout: Layout, config: TaskPodConfig, secrets: Mapping[str, str]) -> Manifest:
    """Return the suspended Job. `secrets`: the name of the Secret that holds each key."""
    metadata = object_metadata(layout.task.id, layout.name)
    metadata["labels"] |= {labels.NONCE_LABEL: layout.task.nonce, **kueue_labels(config.queue)}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {
            "suspend": True,
            "completions": 1,
            "parallelism": 1,
            "backoffLimit": 0,
            "podReplacementPolicy": "Failed",
            "ttlSecondsAfterFinished": config.ttl_seconds_after_finished,
            "template": pod_template(layout, config, secrets),
        },
    }


def pod_template(layout: Layout, config: TaskPodConfig, secrets: Mapping[str, str]) -> Manifest:
    """Return the template of the task's Pod."""
    return {
        "metadata": {
            "labels": {**config.pod.labels, **object_labels(layout.task.id)},
            "annotations": {
                **KEEP_NODE_ANNOTATIONS,
                **config.pod.annotations,
                labels.PLAN_ANNOTATION: layout.plan.to_json(),
            },
        },
        "spec": {
            "restartPolicy": "Never",
            **({"serviceAccountName": layout.name} if has_service_account(config) else {}),
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": pod_grace_seconds(layout.plan, config),
            "securityContext": {
                "fsGroup": UID,
                "fsGroupChangePolicy": "OnRootMismatch",
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "initContainers": init_containers(layout, config),
            "containers": [pause_container(layout, config)],
            "volumes": list(pod_volumes(layout, config, secrets)),
            **scheduling_fields(config),
        },
    }
