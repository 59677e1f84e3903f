"""The Pod's volumes, their sizes and the task's PersistentVolumeClaim. Sizes are in bytes."""

import math
from collections.abc import Iterator, Mapping
from posixpath import basename

from poiesis_api.config import TaskPodConfig
from poiesis_api.taskpod.filer_runs import FilerRun
from poiesis_api.taskpod.layout import Layout
from poiesis_api.taskpod.manifest import Manifest, object_labels, object_metadata, volume_mount
from poiesis_api.taskpod.secrets import (
    DSN_KEY,
    GATEWAY_CA_KEY,
    POSTGRES_CA_KEY,
    path_parts,
    sources_of_keys,
    work_list_sources,
)
from poiesis_api.taskpod.storage import storage_volumes
from poiesis_models import paths
from poiesis_models.tes import TesTaskRequest

RUN_BYTES = 2**30  # of all run directories: executors can write there, and must not fill the node's disk
KUBERNETES_TOKEN_SECONDS = 3600


def pod_volumes(layout: Layout, config: TaskPodConfig, secrets: Mapping[str, str]) -> Iterator[Manifest]:
    """Yield the Pod's volumes. `secrets`: the name of the Secret that holds each key."""
    yield {"name": "bin", "emptyDir": {}}
    yield {"name": "run", **_run_volume(layout, config)}
    yield {"name": "ack", "emptyDir": {}}
    yield {"name": "recorder", "projected": {"sources": _recorder_sources(layout, secrets)}}
    if layout.volume:
        yield {"name": "task", **_task_volume(layout, config)}
    for run in layout.filers:
        yield {"name": work_list_volume(run), "projected": {"sources": work_list_sources(run, secrets)}}
    yield from storage_volumes(layout.filers, config)


def run_mounts(container: str) -> list[Manifest]:
    """Return the mounts of every container that runs under the helper."""
    return [
        volume_mount("bin", paths.BIN, read_only=True),
        volume_mount("run", paths.RUN, sub_path=container),
        volume_mount("ack", paths.ACK, read_only=True),
    ]


def work_list_volume(run: FilerRun) -> str:
    """Return the name of the volume with a filer's work list and literal contents."""
    return f"spec-{run.name}"


def volume_claim(layout: Layout, config: TaskPodConfig) -> Manifest:
    """Return the PersistentVolumeClaim of volume type `pvc`."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": object_metadata(layout.task.id, layout.name),
        "spec": _claim_spec(layout, config),
    }


def disk_bytes(request: TesTaskRequest, config: TaskPodConfig) -> int:
    """Return the size of the task volume: `disk_gb`, or the configured default."""
    asked = request.resources.disk_gb if request.resources else None
    return gb_to_bytes(config.volume.default_size_gb if asked is None else asked)


def run_bytes(request: TesTaskRequest, config: TaskPodConfig) -> int:
    """Return the size of the run directories.

    Each executor has two streams. A log may grow to twice its limit, and needs another copy while rewritten.
    """
    return RUN_BYTES + len(request.executors) * 2 * 3 * config.executors.log_bytes


def volume_on_node(layout: Layout, config: TaskPodConfig) -> bool:
    """Return whether the task volume is on the node's own disk."""
    return layout.volume == "task" and config.volume.type == "emptyDir"


def gb_to_bytes(gigabytes: float) -> int:
    """Convert decimal gigabytes (10**9 bytes, TES `ram_gb` and `disk_gb`) to bytes, rounded up."""
    return math.ceil(round(gigabytes * 10**9, 3))


def _run_volume(layout: Layout, config: TaskPodConfig) -> Manifest:
    return {"emptyDir": {"sizeLimit": str(run_bytes(layout.task.request, config))}}


def _task_volume(layout: Layout, config: TaskPodConfig) -> Manifest:
    if config.volume.type == "pvc" and layout.volume == "task":
        return {"persistentVolumeClaim": {"claimName": layout.name}}
    if config.volume.type == "emptyDir" or layout.volume == "scratch":
        return {"emptyDir": {"sizeLimit": str(disk_bytes(layout.task.request, config))}}
    template = {
        "metadata": {"labels": object_labels(layout.task.id)},
        "spec": _claim_spec(layout, config),
    }
    return {"ephemeral": {"volumeClaimTemplate": template}}


def _claim_spec(layout: Layout, config: TaskPodConfig) -> Manifest:
    spec: Manifest = {
        "accessModes": [config.volume.access_mode],
        "resources": {"requests": {"storage": str(disk_bytes(layout.task.request, config))}},
    }
    if config.volume.storage_class is not None:
        spec["storageClassName"] = config.volume.storage_class
    return spec


def _recorder_sources(layout: Layout, secrets: Mapping[str, str]) -> list[Manifest]:
    directory = basename(paths.RECORDER_PATHS)
    places = {
        "token": basename(paths.RECORDER_TOKEN),
        GATEWAY_CA_KEY: basename(paths.GATEWAY_CA),
        DSN_KEY: basename(paths.RECORDER_DSN),
        POSTGRES_CA_KEY: basename(paths.POSTGRES_CA),
        **{key: f"{directory}/{key}" for key in path_parts(layout)},
    }
    files = sources_of_keys({key: place for key, place in places.items() if key in secrets}, secrets)
    return files if layout.plan.files_only else [*files, *_kubernetes_sources()]


def _kubernetes_sources() -> list[Manifest]:
    """Return the recorder's token for the API server, with its authority and namespace."""
    return [
        {"serviceAccountToken": {"path": "kubernetes/token", "expirationSeconds": KUBERNETES_TOKEN_SECONDS}},
        {
            "configMap": {
                "name": "kube-root-ca.crt",
                "items": [{"key": "ca.crt", "path": "kubernetes/ca.crt"}],
            }
        },
        {
            "downwardAPI": {
                "items": [{"path": "kubernetes/namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]
            }
        },
    ]
