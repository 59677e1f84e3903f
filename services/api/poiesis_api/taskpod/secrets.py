"""The task's Secrets: token and certificates of its recorder, its paths, work lists and literal contents."""

import base64
from collections.abc import Mapping
from uuid import UUID

from poiesis_api.config import Transport
from poiesis_api.task_paths import normal
from poiesis_api.taskpod.filer_runs import FilerRun
from poiesis_api.taskpod.layout import Layout
from poiesis_api.taskpod.manifest import Manifest, object_metadata
from poiesis_api.taskpod.task import Task
from poiesis_models import labels, paths

SECRET_BYTES = 700 * 1024  # of a Secret's 1 MiB, which counts names and metadata too
PATHS_BYTES = 400 * 1024  # of one part of the list of paths
GATEWAY_CA_KEY = "gateway-ca"
DSN_KEY = "recorder-dsn"
POSTGRES_CA_KEY = "postgres-ca"


def secret_entries(layout: Layout, transport: Transport) -> dict[str, bytes]:
    """Return all entries of the task's Secrets, by key."""
    runs = layout.filers
    return {
        "token": layout.task.recorder_token.encode(),
        **_recorder_entries(layout.task, transport),
        **path_parts(layout),
        **{run.key: run.work_list.to_json().encode() for run in runs},
        **{key: text.encode() for run in runs for key, text in run.contents.items()},
    }


def _recorder_entries(task: Task, transport: Transport) -> dict[str, bytes]:
    if transport == "gateway":
        return {GATEWAY_CA_KEY: task.gateway_ca.encode()}
    authority = {} if task.postgres.ca is None else {POSTGRES_CA_KEY: task.postgres.ca.encode()}
    return {DSN_KEY: task.postgres.dsn.encode(), **authority}


def path_parts(layout: Layout) -> dict[str, bytes]:
    """Return the list of the task's paths (`poiesis_models.paths.path_list`), in parts that fit a Secret."""
    mounts, request = layout.mounts, layout.task.request
    runs = [f"{paths.RUNS}/{name}" for name in (*layout.plan, *layout.plan.streams, *layout.plan.rescues)]
    data = [paths.DATA_ROOT, *map(paths.data_path, mounts.made)] if layout.volume else []
    filled = [f"{paths.TASK}/{paths.FILLED_SUBPATH}"] if layout.plan.prepared else []
    outputs = request.outputs or ()
    whole = paths.path_list(
        (
            ("m", (*runs, *data, *filled)),
            ("q", (item.local for run in layout.streams for item in run.work_list.inputs)),
            ("s", mounts.directories),
            ("p", mounts.placed),
            ("f", mounts.filled),
            ("x", mounts.fresh),
            ("o", (normal(one.place) for one in outputs if not one.wildcard)),
            ("w", (one.path for one in outputs if one.wildcard)),
        )
    )
    starts = range(0, len(whole), PATHS_BYTES)
    return {f"paths-{number:04}": whole[start : start + PATHS_BYTES] for number, start in enumerate(starts)}


def pack_secrets(task: Task, entries: Mapping[str, bytes]) -> dict[str, dict[str, bytes]]:
    """Distribute entries over Secrets in order, each at most SECRET_BYTES. Return the entries by Secret name.

    The names contain the Job's nonce: a Secret of this name can only belong to this Job.
    """
    packed: dict[str, dict[str, bytes]] = {labels.secret_name(task.id, task.nonce): {}}
    free = SECRET_BYTES
    for key, value in entries.items():
        if len(value) > free:
            packed[labels.content_secret_name(task.id, task.nonce, len(packed) - 1)] = {}
            free = SECRET_BYTES
        next(reversed(packed.values()))[key] = value
        free -= len(value)
    return packed


def secret_of_key(packed: Mapping[str, Mapping[str, bytes]]) -> dict[str, str]:
    """Return the name of the Secret that holds each key."""
    return {key: name for name, entries in packed.items() for key in entries}


def secret(task_id: UUID, name: str, entries: Mapping[str, bytes]) -> Manifest:
    """Return one of the task's Secrets, immutable so that the kubelet need not watch it."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": object_metadata(task_id, name),
        "type": "Opaque",
        "immutable": True,
        "data": {key: base64.b64encode(value).decode() for key, value in entries.items()},
    }


def work_list_sources(run: FilerRun, secrets: Mapping[str, str]) -> list[Manifest]:
    """Return the sources of a filer's volume: its work list as `work.json`, and the contents by key."""
    names = {run.key: "work.json", **{key: key for key in run.contents}}
    return sources_of_keys(names, secrets)


def sources_of_keys(names: Mapping[str, str], secrets: Mapping[str, str]) -> list[Manifest]:
    """Return projected sources that place each key of `names` at its path; `secrets` names its Secret."""
    by_secret: dict[str, dict[str, str]] = {}
    for key, path in names.items():
        by_secret.setdefault(secrets[key], {})[key] = path
    return [secret_source(name, items) for name, items in by_secret.items()]


def secret_source(name: str, items: Mapping[str, str]) -> Manifest:
    """Return a projected source that places keys of one Secret at paths."""
    return {"secret": {"name": name, "items": [{"key": key, "path": path} for key, path in items.items()]}}
