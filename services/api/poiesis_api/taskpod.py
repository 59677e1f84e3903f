"""The Kubernetes objects of one task, as plain manifests. Pure: no connection, environment or clock."""

import base64
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from posixpath import basename
from typing import Any, Literal, TypeVar
from uuid import UUID

from poiesis_api.config import (
    Filer,
    FilerSide,
    Requests,
    SharedVolume,
    Storage,
    StorageCredentials,
    TaskPodConfig,
)
from poiesis_api.grants import needed_by
from poiesis_api.mounts import (
    MountPlan,
    is_scratch,
    needs_volume,
    normal,
    plan_mounts,
)
from poiesis_api.parameters import configured
from poiesis_api.rescue import ack_seconds, pod_grace_seconds, rescue_container, rescue_names
from poiesis_api.storage_urls import url_scheme
from poiesis_api.streaming import may_be_streamed
from poiesis_models import labels, paths, s3credentials, shared
from poiesis_models.plan import Plan
from poiesis_models.runfiles import PROGRESS
from poiesis_models.s3credentials import S3Credentials
from poiesis_models.tes import TesExecutor, TesInput, TesOutput, TesTaskRequest
from poiesis_models.worklist import EXIT_PASSING, FileType, InputItem, OutputItem, WorkList, waves

Manifest = dict[str, Any]
_Item = TypeVar("_Item", InputItem, OutputItem)

COMPONENT = "taskpod"
KUEUE_QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
KUEUE_PRIORITY_LABEL = "kueue.x-k8s.io/priority-class"
UID = 65532
SECRET_BYTES = 700 * 1024  # of a Secret's 1 MiB, which counts names and metadata too
WORK_LIST_BYTES = 400 * 1024
RUN_BYTES = 2**30  # of the run directories together: executors can write there, and shall not fill the node
ACK_TIMEOUT_SECONDS = 600
FAILED_ACK_SECONDS = 60  # a failed container stays so long for a recorder that is down: three restarts
TOKEN_SECONDS = 3600
CA_DIRECTORY = "/poiesis/storage-ca"
INSTALL_COMMAND = [paths.HELPER_IN_IMAGE, "install", "--bin", paths.BIN, "--paths", paths.RECORDER_PATHS]
S3_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")

_KEEP = {
    "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
    "karpenter.sh/do-not-disrupt": "true",
}
_RESTRICTED = {
    "runAsNonRoot": True,
    "runAsUser": UID,
    "runAsGroup": UID,
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


class NoFiler(Exception):
    """The configuration has changed since the create: nothing serves this URL any more."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A stored task that is about to become a Pod. `credentials`: names of the S3 credentials it may use."""

    id: UUID
    request: TesTaskRequest
    recorder_token: str = field(repr=False)
    credentials: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class TaskObjects:
    """`owned` belong to the Job: send them with `owned_by`. The Job is suspended."""

    job: Manifest
    owned: tuple[Manifest, ...]


@dataclass(frozen=True, kw_only=True)
class FilerRun:
    """One filer container: what it does, with which S3 credentials besides the deployment's own, and the
    contents that it writes (key in a Secret -> text)."""

    name: str
    filer: Filer
    side: FilerSide
    key: str
    work_list: WorkList
    credentials: Sequence[StorageCredentials] = ()
    contents: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Everything about one TaskPod that several of its parts must agree on.

    `volume`: `scratch` holds only what executors leave for each other, and no output.
    """

    task: Task
    mounts: MountPlan
    inputs: tuple[FilerRun, ...]
    streams: tuple[FilerRun, ...]
    outputs: tuple[FilerRun, ...]
    plan: Plan
    volume: Literal["task", "scratch"] | None

    @property
    def name(self) -> str:
        """Of all its objects."""
        return labels.object_name(self.task.id)

    @property
    def filers(self) -> tuple[FilerRun, ...]:
        """All of them."""
        return (*self.inputs, *self.streams, *self.outputs)


def task_objects(task: Task, config: TaskPodConfig) -> TaskObjects:
    """Everything that is created for a task. Raise NoFiler."""
    resources = task.request.resources
    config = configured(config, resources.backend_parameters or {} if resources else {})
    layout = layout_of(task, config)
    secrets = pack_secrets(task.id, secret_entries(layout))
    owned = [service_account(layout), *(secret(task.id, name, data) for name, data in secrets.items())]
    if layout.volume == "task" and config.volume.type == "pvc":
        owned.append(claim(layout, config))
    return TaskObjects(job=job(layout, config, secret_of_key(secrets)), owned=tuple(owned))


def owned_by(manifest: Manifest, job_uid: str) -> Manifest:
    """The same object with the task's Job as its owner."""
    metadata = manifest["metadata"]
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": job_name(metadata), "uid": job_uid}
    return {**manifest, "metadata": {**metadata, "ownerReferences": [owner]}}


def job_name(metadata: Mapping[str, Any]) -> str:
    """The Job of the task that an object's labels name."""
    return labels.object_name(UUID(metadata["labels"][labels.TASK_LABEL]))


def layout_of(task: Task, config: TaskPodConfig) -> Layout:
    """Which containers there are and what they share."""
    request = task.request
    streamed = streamed_inputs(request, config)
    inputs, streams = input_runs(task, config, without=streamed), stream_runs(task, config, streamed)
    outputs = output_runs(task, config)
    upload_on_error = bool(outputs) and config.executors.on_error == "upload"
    mounts = plan_mounts(request, may_place=_may_write_anywhere(config))
    plan = Plan(
        inputs=tuple(run.name for run in inputs),
        executors=tuple(labels.executor_name(index) for index in range(len(request.executors))),
        ignore_error=tuple(bool(executor.ignore_error) for executor in request.executors),
        prepared=changed_images(request.executors) if mounts.filled else (),
        outputs=tuple(run.name for run in outputs),
        streams=tuple(run.name for run in streams),
        rescues=rescue_names(len(outputs), upload_on_error=upload_on_error, config=config),
        upload_on_error=upload_on_error,
        preemptible=bool(request.resources and request.resources.preemptible),
    )
    return Layout(
        task=task,
        mounts=mounts,
        inputs=inputs,
        streams=streams,
        outputs=outputs,
        plan=plan,
        volume=None if not needs_volume(request) else "scratch" if is_scratch(request) else "task",
    )


def changed_images(executors: Sequence[TesExecutor]) -> tuple[int, ...]:
    """Return the indexes of executors whose image is another one than that of the executor before."""
    before: list[str | None] = [None, *(executor.image for executor in executors)]
    return tuple(index for index, executor in enumerate(executors) if executor.image != before[index])


def _may_write_anywhere(config: TaskPodConfig) -> bool:
    """Whether an executor may be root on a file system of its own, as far as the operator decides that."""
    context = config.executors.security_context
    is_other_user = bool(context.get("runAsNonRoot")) or context.get("runAsUser") not in {None, 0}
    return not (is_other_user or context.get("readOnlyRootFilesystem"))


# The filers' work


def streamed_inputs(request: TesTaskRequest, config: TaskPodConfig) -> frozenset[int]:
    """Indexes of those that a filer pours while the executor reads. Raise NoFiler."""
    return frozenset(
        index
        for index in may_be_streamed(request)
        if _input_filer((request.inputs or ())[index], config)[1].stream_command is not None
    )


def stream_runs(task: Task, config: TaskPodConfig, streamed: frozenset[int]) -> tuple[FilerRun, ...]:
    """One sidecar a filer that streams."""
    groups = _by_filer(
        (_input_filer(source, config), _input_item(index, source))
        for index, source in enumerate(task.request.inputs or ())
        if index in streamed
    )
    return tuple(
        FilerRun(
            name=labels.stream_name(number),
            filer=filer,
            side=side,
            key=f"streams-{number}.json",
            work_list=WorkList(task=str(task.id), inputs=tuple(items)),
            credentials=needed_by(items, (), granted_to(task, filer, config)),
        )
        for number, (filer, side, items) in enumerate(groups)
    )


def input_runs(task: Task, config: TaskPodConfig, *, without: frozenset[int]) -> tuple[FilerRun, ...]:
    """One container a filer that the inputs need, but for some, in the order in which they need it."""
    contents: dict[str, str] = {}
    served: list[tuple[tuple[Filer, FilerSide], InputItem]] = []
    for index, source in enumerate(task.request.inputs or ()):
        if index in without:
            continue
        item = _input_item(index, source)
        if item.content_file is not None:
            contents[item.content_file] = source.literal or ""
        served.append((_input_filer(source, config), item))
    runs: list[FilerRun] = []
    for filer, side, items in _in_order(served):
        granted = granted_to(task, filer, config)
        for part in _parts(items):
            number = len(runs)
            runs.append(
                FilerRun(
                    name=labels.tif_name(number),
                    filer=filer,
                    side=side,
                    key=f"inputs-{number}.json",
                    work_list=WorkList(task=str(task.id), inputs=tuple(part)),
                    credentials=needed_by(part, (), granted),
                    contents={
                        item.content_file: contents[item.content_file] for item in part if item.content_file
                    },
                )
            )
    return tuple(runs)


def output_runs(task: Task, config: TaskPodConfig) -> tuple[FilerRun, ...]:
    """One container a filer that the outputs need."""
    groups = _by_filer(
        (_output_filer(output, config), _output_item(output)) for output in task.request.outputs or ()
    )
    runs: list[FilerRun] = []
    for filer, side, items in groups:
        granted = granted_to(task, filer, config)
        for part in _parts(items):
            number = len(runs)
            runs.append(
                FilerRun(
                    name=labels.tof_name(number),
                    filer=filer,
                    side=side,
                    key=f"outputs-{number}.json",
                    work_list=WorkList(task=str(task.id), outputs=tuple(part)),
                    credentials=needed_by((), part, granted),
                )
            )
    return tuple(runs)


def _in_order(
    served: Sequence[tuple[tuple[Filer, FilerSide], InputItem]],
) -> Iterator[tuple[Filer, FilerSide, list[InputItem]]]:
    """Yield what each filer stages: once per filer, unless inputs of different filers cover one another."""
    by_filer = list(_by_filer(served))
    first, *others = waves([item for _, item in served]) or [[]]
    if len(by_filer) == 1 or not others:
        yield from by_filer
        return
    for wave in (first, *others):
        yield from _by_filer(served[index] for index in wave)


def _by_filer(
    served: Iterable[tuple[tuple[Filer, FilerSide], _Item]],
) -> Iterable[tuple[Filer, FilerSide, list[_Item]]]:
    """What each filer serves, in the order in which they are needed."""
    groups: dict[str, tuple[Filer, FilerSide, list[_Item]]] = {}
    for (filer, side), item in served:
        groups.setdefault(filer.name, (filer, side, []))[2].append(item)
    return groups.values()


def granted_to(task: Task, filer: Filer, config: TaskPodConfig) -> list[StorageCredentials]:
    """As they are configured now; what is configured no more counts for nothing."""
    if not filer.object_storage:
        return []
    return [entry for entry in config.storage.credentials if entry.name in task.credentials]


def _input_filer(source: TesInput, config: TaskPodConfig) -> tuple[Filer, FilerSide]:
    if source.literal is not None:
        filer = config.literal_filer
    else:
        filer = config.input_filers.get(url_scheme(source.url or ""))
    if filer is None or filer.inputs is None:
        raise NoFiler(f"no filer is configured for the input {source.path}")
    return filer, filer.inputs


def _output_filer(output: TesOutput, config: TaskPodConfig) -> tuple[Filer, FilerSide]:
    filer = config.output_filers.get(url_scheme(output.url))
    if filer is None or filer.outputs is None:
        raise NoFiler(f"no filer is configured for the output {output.path}")
    return filer, filer.outputs


def _input_item(index: int, source: TesInput) -> InputItem:
    path = normal(source.path)
    literal = source.literal is not None
    return InputItem(
        path=path,
        local=paths.data_path(path),
        type=_file_type(source.type),
        url=None if literal else source.url,
        content_file=f"content-{index}" if literal else None,
    )


def _output_item(output: TesOutput) -> OutputItem:
    path = normal(output.place)
    return OutputItem(
        url=output.url,
        path=path,
        local=paths.data_path(path),
        type="DIRECTORY" if output.path.endswith("/") else _file_type(output.type),
        wildcard=output.wildcard,
        path_prefix=output.prefix,
    )


def _file_type(value: str | None) -> FileType | None:
    return "FILE" if value == "FILE" else "DIRECTORY" if value == "DIRECTORY" else None


def _parts(items: Sequence[_Item]) -> Iterator[list[_Item]]:
    """A work list must fit a Secret, so a very long one is done by several containers."""
    part: list[_Item] = []
    size = 0
    for item in items:
        item_size = len(json.dumps(asdict(item), ensure_ascii=False).encode())
        if part and size + item_size > WORK_LIST_BYTES:
            yield part
            part, size = [], 0
        part.append(item)
        size += item_size
    if part:
        yield part


# Secrets


def secret_entries(layout: Layout) -> dict[str, bytes]:
    """All that travels in Secrets, by key."""
    runs = layout.filers
    return {
        "token": layout.task.recorder_token.encode(),
        **path_parts(layout),
        **{run.key: run.work_list.to_json().encode() for run in runs},
        **{key: text.encode() for run in runs for key, text in run.contents.items()},
    }


def path_parts(layout: Layout) -> dict[str, bytes]:
    """Return the list of the task's paths, in parts that fit a Secret, by key."""
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
    starts = range(0, len(whole), WORK_LIST_BYTES)
    return {
        f"paths-{number:04}": whole[start : start + WORK_LIST_BYTES] for number, start in enumerate(starts)
    }


def pack_secrets(task_id: UUID, entries: Mapping[str, bytes]) -> dict[str, dict[str, bytes]]:
    """Spread over as few Secrets as their size allows: name -> entries. The token is in the first."""
    packed: dict[str, dict[str, bytes]] = {labels.object_name(task_id): {}}
    room = SECRET_BYTES
    for key, value in entries.items():
        if len(value) > room:
            packed[labels.content_secret_name(task_id, len(packed) - 1)] = {}
            room = SECRET_BYTES
        next(reversed(packed.values()))[key] = value
        room -= len(value)
    return packed


def secret_of_key(packed: Mapping[str, Mapping[str, bytes]]) -> dict[str, str]:
    """Key -> name of the Secret that holds it."""
    return {key: name for name, entries in packed.items() for key in entries}


def secret(task_id: UUID, name: str, entries: Mapping[str, bytes]) -> Manifest:
    """One of the task's Secrets; nothing changes it, so the kubelet need not watch it."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": _metadata(task_id, name),
        "type": "Opaque",
        "immutable": True,
        "data": {key: base64.b64encode(value).decode() for key, value in entries.items()},
    }


# The other small objects


def service_account(layout: Layout) -> Manifest:
    """Without rights until the controller grants it a view of its own Pod."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": _metadata(layout.task.id, layout.name),
        "automountServiceAccountToken": False,
    }


def claim(layout: Layout, config: TaskPodConfig) -> Manifest:
    """The task volume of volume type `pvc`."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": _metadata(layout.task.id, layout.name),
        "spec": _claim_spec(layout, config),
    }


def _claim_spec(layout: Layout, config: TaskPodConfig) -> Manifest:
    spec: Manifest = {
        "accessModes": [config.volume.access_mode],
        "resources": {"requests": {"storage": str(disk_bytes(layout.task.request, config))}},
    }
    if config.volume.storage_class is not None:
        spec["storageClassName"] = config.volume.storage_class
    return spec


def disk_bytes(request: TesTaskRequest, config: TaskPodConfig) -> int:
    """disk_gb, or the configured size."""
    asked = request.resources.disk_gb if request.resources else None
    return gb_to_bytes(config.volume.default_size_gb if asked is None else asked)


def volume_on_node(layout: Layout, config: TaskPodConfig) -> bool:
    """Whether the task has a volume and that is its node's disk."""
    return layout.volume == "task" and config.volume.type == "emptyDir"


def gb_to_bytes(gigabytes: float) -> int:
    """GB = 10**9 bytes, rounded up."""
    return math.ceil(round(gigabytes * 10**9, 3))


def _labels(task_id: UUID) -> dict[str, str]:
    return {**labels.task_labels(task_id), labels.COMPONENT_LABEL: COMPONENT}


def _metadata(task_id: UUID, name: str) -> Manifest:
    return {"name": name, "labels": _labels(task_id)}


# The Job and its Pod


def job(layout: Layout, config: TaskPodConfig, secrets: Mapping[str, str]) -> Manifest:
    """Suspended; `secrets`: key -> Secret."""
    metadata = _metadata(layout.task.id, layout.name)
    if config.queue.kueue_queue_name is not None:
        metadata["labels"][KUEUE_QUEUE_LABEL] = config.queue.kueue_queue_name
        if config.queue.kueue_priority_class is not None:
            metadata["labels"][KUEUE_PRIORITY_LABEL] = config.queue.kueue_priority_class
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
    """The TaskPod."""
    return {
        "metadata": {
            "labels": {**config.pod.labels, **_labels(layout.task.id)},
            "annotations": {
                **_KEEP,
                **config.pod.annotations,
                labels.PLAN_ANNOTATION: layout.plan.to_json(),
            },
        },
        "spec": {
            "restartPolicy": "Never",
            "serviceAccountName": layout.name,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": pod_grace_seconds(layout.plan, config),
            "securityContext": {
                "fsGroup": UID,
                "fsGroupChangePolicy": "OnRootMismatch",
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "initContainers": [
                recorder_container(layout, config),
                *rescue_containers(layout, config),
                *(filer_container(run, run.side.command, layout, config) for run in layout.inputs),
                *(stream_container(run, layout, config) for run in layout.streams),
                *executor_containers(layout, config),
                *(filer_container(run, run.side.command, layout, config) for run in layout.outputs),
            ],
            "containers": [pause_container(layout, config)],
            "volumes": list(_volumes(layout, config, secrets)),
            **_scheduling(config),
        },
    }


def recorder_container(layout: Layout, config: TaskPodConfig) -> Manifest:
    """The native sidecar. Its hook makes what the others need; they start when it has returned.

    The sidecar does the same: a kubelet that is restarted before it has run the hook does not run it later.
    """
    mounts = [
        _mount("bin", paths.BIN),
        _mount("run", paths.RUNS),
        _mount("ack", paths.ACK),
        _mount("recorder", paths.RECORDER, read_only=True),
    ]
    if layout.volume:
        mounts.append(_mount("task", paths.TASK))
    return {
        "name": labels.TREC_CONTAINER,
        "image": config.images.trec,
        "imagePullPolicy": config.images.pull_policy,
        "restartPolicy": "Always",
        "env": [
            _env("POIESIS_TASK_ID", str(layout.task.id)),
            _env("POIESIS_PLAN", layout.plan.to_json()),
            _env_from_pod("POD_NAME", "metadata.name"),
            _env_from_pod("POD_UID", "metadata.uid"),
            _env_from_pod("POD_NAMESPACE", "metadata.namespace"),
            _env_from_pod("NODE_NAME", "spec.nodeName"),
            _env("POIESIS_INSTALL", json.dumps(INSTALL_COMMAND)),
            _env("POIESIS_LOG_BYTES", str(config.executors.log_bytes)),
            _env("POIESIS_GRACE_SECONDS", str(config.termination_grace_period_seconds)),
            *([_env("PGSSLROOTCERT", paths.POSTGRES_CA)] if config.postgres_ca_secret else []),
        ],
        "lifecycle": {"postStart": {"exec": {"command": INSTALL_COMMAND}}},
        "resources": _resources(config.resources.trec),
        "securityContext": _RESTRICTED,
        "volumeMounts": mounts,
    }


def stream_container(run: FilerRun, layout: Layout, config: TaskPodConfig) -> Manifest:
    """A native sidecar beside the executor, which finds the FIFOs already: the recorder's hook makes them."""
    container = filer_container(run, run.side.stream_command or (), layout, config)
    return {**container, "restartPolicy": "Always"}


def rescue_containers(layout: Layout, config: TaskPodConfig) -> Iterator[Manifest]:
    """Native sidecars right after the recorder, so that a Pod that ends early has few that never started."""
    for name, run in zip(layout.plan.rescues, layout.outputs, strict=False):
        yield rescue_container(name, filer_container(run, run.side.command, layout, config), config)


def filer_container(run: FilerRun, command: Sequence[str], layout: Layout, config: TaskPodConfig) -> Manifest:
    """Stages inputs, streams them or sends outputs, under the helper."""
    container: Manifest = {
        "name": run.name,
        "image": run.side.image,
        "imagePullPolicy": config.images.pull_policy,
        "command": [
            *_helper_run(config),
            "--rerun",
            *_retries(config.filer_retry_attempts),
            "--",
            *map(literal, command),
        ],
        "env": [_env(name, value) for name, value in _filer_env(run, layout, config).items()],
        "resources": _resources(config.resources.filer),
        "securityContext": {
            **_RESTRICTED,
            "readOnlyRootFilesystem": run.filer.read_only_root_filesystem,
        },
        "volumeMounts": [
            *_run_mounts(run.name),
            _mount("task", paths.TASK),
            _mount(_spec_volume(run), paths.SPEC, read_only=True),
            *(
                _mount(_credentials_volume(entry), _credentials_directory(entry), read_only=True)
                for entry in run.credentials
                if _has_files(entry)
            ),
            *_filer_mounts(run.filer, config),
        ],
    }
    if run.filer.object_storage and config.storage.secret_name is not None:
        container["envFrom"] = [{"secretRef": {"name": config.storage.secret_name}}]
    return container


def told(entry: StorageCredentials) -> S3Credentials:
    """As a filer hears of it."""
    directory = _credentials_directory(entry)
    return S3Credentials(
        name=entry.name,
        urls=tuple(entry.urls),
        secret=entry.secret_name,
        directory=directory if entry.secret_name else None,
        anonymous=entry.anonymous,
        requester_pays=entry.requester_pays,
        endpoint=entry.endpoint,
        region=entry.region,
        addressing_style=entry.addressing_style,
        ca_file=f"{directory}/ca.crt" if entry.ca_secret else None,
    )


def _has_files(entry: StorageCredentials) -> bool:
    return entry.secret_name is not None or entry.ca_secret is not None


def _credentials_volume(entry: StorageCredentials) -> str:
    return f"credentials-{entry.name}"


def _credentials_directory(entry: StorageCredentials) -> str:
    return f"{paths.CREDENTIALS}/{entry.name}"


def _credentials_sources(entry: StorageCredentials) -> list[Manifest]:
    """Optional: for want of a Secret the kubelet lets a Pod wait for ever; a filer ends and names it."""
    sources = []
    if entry.secret_name is not None:
        sources.append(_from_secret(entry.secret_name, {key: key for key in S3_KEYS}))
    if entry.ca_secret is not None:
        sources.append(_from_secret(entry.ca_secret.name, {entry.ca_secret.key: "ca.crt"}))
    for source in sources:
        source["secret"]["optional"] = True
    return sources


def _filer_mounts(filer: Filer, config: TaskPodConfig) -> Iterator[Manifest]:
    """What the operator gives this filer, and no other container."""
    if filer.object_storage and config.storage.ca_secret is not None:
        yield _mount("storage-ca", CA_DIRECTORY, read_only=True)
    if filer.object_storage and config.storage.web_identity is not None:
        yield _mount("web-identity", paths.WEB_IDENTITY, read_only=True)
    if filer.secret_name is not None:
        yield _mount(_secret_volume(filer, config), paths.SECRET, read_only=True)
    for one in filer.shared_volumes:
        path = f"{paths.SHARED}{one.prefix}"
        name = _shared_volume(one, config)
        yield _mount(name, path, sub_path=one.sub_path, read_only=not one.writable)


def _filer_volumes(filers: Iterable[Filer], config: TaskPodConfig) -> Iterator[Manifest]:
    sources: dict[str, list[SharedVolume]] = {}
    for filer in filers:
        if filer.secret_name is not None:
            name = _secret_volume(filer, config)
            yield {"name": name, "secret": _filer_secret(filer.secret_name)}
        for one in filer.shared_volumes:
            sources.setdefault(_shared_volume(one, config), []).append(one)
    for name, uses in sources.items():
        yield {"name": name, **_shared_source(uses)}


def _filer_secret(name: str) -> Manifest:
    """Optional, like those of credentials: the Pod starts without it, and the filer reports the error."""
    return {"secretName": name, "optional": True}


def _secret_volume(filer: Filer, config: TaskPodConfig) -> str:
    return f"secret-{config.filers.index(filer)}"


def _shared_volume(shared_volume: SharedVolume, config: TaskPodConfig) -> str:
    """One name a source: a Pod that has the same claim under two names waits for its volumes for ever."""
    sources = [one.volume for filer in config.filers for one in filer.shared_volumes]
    return f"shared-{sources.index(shared_volume.volume)}"


def _shared_source(uses: Sequence[SharedVolume]) -> Manifest:
    """A claim that is only read is attached so: else Kubernetes may give its files to the fsGroup."""
    source = uses[0].volume
    claim = source.get("persistentVolumeClaim")
    if claim is None or any(one.writable for one in uses):
        return source
    return {"persistentVolumeClaim": {**claim, "readOnly": True}}


def executor_containers(layout: Layout, config: TaskPodConfig) -> Iterator[Manifest]:
    """Return the executors in order, each after the container that prepares its directories, if any."""
    for index in range(len(layout.plan.executors)):
        if index in layout.plan.prepared:
            yield prepare_container(index, layout, config)
        yield executor_container(index, layout, config)


def prepare_container(index: int, layout: Layout, config: TaskPodConfig) -> Manifest:
    """Return the init container that copies what the image of executor `index` has in mounted directories.

    It has the image and the rights of the executor and runs the helper alone.
    """
    name = labels.prepare_name(index)
    fill = [
        paths.HELPER,
        "fill",
        *("--paths", paths.PATHS, "--to", paths.COLLECT, "--record", paths.FILLED),
        *("--progress", f"{paths.RUN}/{PROGRESS}"),
    ]
    container: Manifest = {
        "name": name,
        "image": layout.task.request.executors[index].image,
        "command": [*_helper_run(config), *_after(index, layout), "--rerun", "--", *fill],
        "resources": _resources(config.resources.filer),
        "securityContext": executor_security_context(config.executors.security_context),
        "volumeMounts": [
            *_run_mounts(name),
            *_previous_mounts(index, layout),
            _mount("task", paths.COLLECT, sub_path=paths.DATA_SUBPATH),
            _mount("task", paths.FILLED, sub_path=paths.FILLED_SUBPATH),
        ],
    }
    if config.executors.image_pull_policy is not None:
        container["imagePullPolicy"] = config.executors.image_pull_policy
    return container


def executor_container(index: int, layout: Layout, config: TaskPodConfig) -> Manifest:
    """The init container that runs executor `index` exactly as TES gives it: argv, no shell."""
    executor = layout.task.request.executors[index]
    name = labels.executor_name(index)
    mounts = layout.mounts
    container: Manifest = {
        "name": name,
        "image": executor.image,
        "command": executor_command(index, layout, config),
        "env": [_env(key, value) for key, value in (executor.env or {}).items()],
        "resources": executor_resources(layout, config),
        "securityContext": executor_security_context(config.executors.security_context),
        "volumeMounts": [
            *_run_mounts(name),
            *_previous_mounts(index, layout),
            *(
                _mount("task", path, sub_path=paths.data_subpath(path))
                for path in (*mounts.directories, *mounts.files)
            ),
        ],
    }
    if layout.volume:
        container["volumeMounts"].append(_mount("task", paths.COLLECT, sub_path=paths.DATA_SUBPATH))
    if executor.workdir is not None:
        container["workingDir"] = executor.workdir
    if config.executors.image_pull_policy is not None:
        container["imagePullPolicy"] = config.executors.image_pull_policy
    return container


def executor_security_context(configured: Mapping[str, Any]) -> Manifest:
    """Return the operator's securityContext without NET_RAW.

    An executor shares the Pod's network with the recorder, and the node's bridge with other Pods: with a raw
    socket it could read and forge their packets. Runtimes drop after they add, so `add: [ALL]` is covered.
    """
    capabilities = configured.get("capabilities") or {}
    drop = capabilities.get("drop") or []
    if not {"ALL", "NET_RAW"} & set(drop):
        drop = [*drop, "NET_RAW"]
    return {"allowPrivilegeEscalation": False, **configured, "capabilities": {**capabilities, "drop": drop}}


def executor_command(index: int, layout: Layout, config: TaskPodConfig) -> list[str]:
    """The helper, and after `--` the executor's argv."""
    executors = layout.task.request.executors
    executor = executors[index]
    same_user_next = index + 1 < len(executors) and executors[index + 1].image == executor.image
    volume = ["--paths", paths.PATHS, "--volume", paths.COLLECT] if layout.volume else []
    return [
        *_helper_run(config, ack_seconds(FAILED_ACK_SECONDS, layout.plan, config)),
        *_after(index, layout),
        *_redirections(executor),
        *volume,
        *(["--keep-modes"] if volume and same_user_next else []),
        *_options("--on-failure", ["continue" if layout.plan.upload_on_error else "exit"]),
        *(["--ignore-error"] if executor.ignore_error else []),
        "--",
        *map(literal, executor.command),
    ]


def executor_resources(layout: Layout, config: TaskPodConfig) -> Manifest:
    """What the task asks for; ram_gb in units of 10**9 bytes. Requests = limits.

    The kubelet holds what the Pod uses of its node's disk, emptyDirs too, against the largest limit of any
    container: `ephemeral-storage` has to have room for them.
    """
    request, default = layout.task.request, config.executors.default_resources
    asked = request.resources
    quantities = {
        "cpu": default.cpu if asked is None or asked.cpu_cores is None else str(asked.cpu_cores),
        "memory": default.memory if asked is None or asked.ram_gb is None else str(gb_to_bytes(asked.ram_gb)),
        **config.executors.extended_resources,
    }
    if config.executors.root_disk_gb:
        on_node = disk_bytes(request, config) if volume_on_node(layout, config) else 0
        size = gb_to_bytes(config.executors.root_disk_gb) + run_bytes(request, config) + on_node
        quantities["ephemeral-storage"] = str(size)
    return {"requests": quantities, "limits": quantities}


def run_bytes(request: TesTaskRequest, config: TaskPodConfig) -> int:
    """A log may be there twice its size, and once more while it is rewritten; two streams an executor."""
    return RUN_BYTES + len(request.executors) * 2 * 3 * config.executors.log_bytes


def pause_container(layout: Layout, config: TaskPodConfig) -> Manifest:
    """Waits for the recorder's word, so that the Job ends as the task did."""
    resources = _resources(config.resources.pause)
    if volume_on_node(layout, config):
        # The scheduler knows of an emptyDir by this request alone.
        size = str(disk_bytes(layout.task.request, config))
        resources["requests"] = {**resources["requests"], "ephemeral-storage": size}
    return {
        "name": labels.PAUSE_CONTAINER,
        "image": config.images.helper,
        "imagePullPolicy": config.images.pull_policy,
        "command": [
            paths.HELPER_IN_IMAGE,
            "wait",
            *_options("--ack", [paths.ACK_FILE]),
            *_options("--timeout", [str(ACK_TIMEOUT_SECONDS)]),
        ],
        "resources": resources,
        "securityContext": _RESTRICTED,
        "volumeMounts": [_mount("ack", paths.ACK, read_only=True)],
    }


def literal(text: str) -> str:
    """So that Kubernetes, which expands `$(X)` and `$$` in command, args and env, leaves this very text."""
    return text.replace("$", "$$")


def _helper_run(config: TaskPodConfig, ack_timeout: int = FAILED_ACK_SECONDS) -> list[str]:
    return [
        paths.HELPER,
        "run",
        *_options("--run", [paths.RUN]),
        *_options("--log-bytes", [str(config.executors.log_bytes)]),
        *_options("--grace", [str(config.termination_grace_period_seconds)]),
        *_options("--ack", [paths.ACK_FILE]),
        *_options("--ack-timeout", [str(ack_timeout)]),
    ]


def _retries(attempts: int) -> list[str]:
    if attempts == 0:
        return []
    return ["--retry-exit-code", str(EXIT_PASSING), "--retry-attempts", str(attempts), "--retry-killed"]


def _redirections(executor: TesExecutor) -> Iterator[str]:
    for option, path in (
        ("--stdin", executor.stdin),
        ("--stdout", executor.stdout),
        ("--stderr", executor.stderr),
    ):
        if path is not None:
            yield from (option, literal(path))


def _after(index: int, layout: Layout) -> list[str]:
    """Not after an executor that failed, where outputs are sent all the same."""
    return ["--after", paths.PREVIOUS] if index > 0 and layout.plan.upload_on_error else []


def _previous_mounts(index: int, layout: Layout) -> list[Manifest]:
    if not _after(index, layout):
        return []
    return [_mount("run", paths.PREVIOUS, sub_path=labels.executor_name(index - 1), read_only=True)]


def _options(name: str, values: Iterable[str]) -> Iterator[str]:
    for value in values:
        yield from (name, value)


def _filer_env(run: FilerRun, layout: Layout, config: TaskPodConfig) -> dict[str, str]:
    filer = run.filer
    credentials = [told(entry) for entry in run.credentials]
    optional = {
        **(_storage_env(config.storage, layout.name) if filer.object_storage else {}),
        "POIESIS_HTTP_ALLOW": " ".join(config.storage.http_allow) or None,
        "POIESIS_HTTP_DENY": " ".join(config.storage.http_deny) or None,
        "POIESIS_S3_CREDENTIALS": s3credentials.to_json(credentials) if credentials else None,
        "POIESIS_SECRET": paths.SECRET if filer.secret_name else None,
        "POIESIS_SHARED": shared.to_json(filer.shared) if filer.shared_volumes else None,
    }
    return {
        "POIESIS_RUN": paths.RUN,
        "POIESIS_WORK_LIST": paths.WORK_LIST,
        "POIESIS_DISK_BYTES": str(disk_bytes(layout.task.request, config)),
        **{name: value for name, value in optional.items() if value is not None},
        **filer.env,
    }


def _storage_env(storage: Storage, session: str) -> dict[str, str | None]:
    """`session`: how the store's own log names who came by a web identity."""
    role = storage.web_identity
    return {
        "POIESIS_S3_ADDRESSING_STYLE": storage.addressing_style,
        "POIESIS_S3_OUTPUT_KEYS": None if storage.output_keys == "literal" else storage.output_keys,
        "AWS_ENDPOINT_URL_S3": storage.endpoint,
        "AWS_REGION": storage.region,
        "AWS_CA_BUNDLE": f"{CA_DIRECTORY}/ca.crt" if storage.ca_secret else None,
        "AWS_ROLE_ARN": role.role_arn if role else None,
        "AWS_ROLE_SESSION_NAME": session if role else None,
        "AWS_WEB_IDENTITY_TOKEN_FILE": f"{paths.WEB_IDENTITY}/token" if role else None,
        "AWS_ENDPOINT_URL_STS": role.sts_endpoint if role else None,
    }


def _env(name: str, value: str) -> Manifest:
    return {"name": name, "value": literal(value)}


def _env_from_pod(name: str, path: str) -> Manifest:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def _resources(configured: Requests) -> Manifest:
    return configured.model_dump()


def _mount(volume: str, path: str, *, sub_path: str | None = None, read_only: bool = False) -> Manifest:
    mount: Manifest = {"name": volume, "mountPath": path}
    if sub_path is not None:
        mount["subPath"] = sub_path
    if read_only:
        mount["readOnly"] = True
    return mount


def _run_mounts(container: str) -> list[Manifest]:
    return [
        _mount("bin", paths.BIN, read_only=True),
        _mount("run", paths.RUN, sub_path=container),
        _mount("ack", paths.ACK, read_only=True),
    ]


def _spec_volume(run: FilerRun) -> str:
    return f"spec-{run.name}"


def _volumes(layout: Layout, config: TaskPodConfig, secrets: Mapping[str, str]) -> Iterator[Manifest]:
    yield {"name": "bin", "emptyDir": {}}
    yield {"name": "run", **_run_volume(layout, config)}
    yield {"name": "ack", "emptyDir": {}}
    yield {"name": "recorder", "projected": {"sources": _recorder_sources(layout, config, secrets)}}
    if layout.volume:
        yield {"name": "task", **_task_volume(layout, config)}
    runs = layout.filers
    for run in runs:
        yield {"name": _spec_volume(run), "projected": {"sources": _spec_sources(run, secrets)}}
    credentials = {entry.name: entry for run in runs for entry in run.credentials if _has_files(entry)}
    for entry in credentials.values():
        yield {"name": _credentials_volume(entry), "projected": {"sources": _credentials_sources(entry)}}
    filers = {run.filer.name: run.filer for run in runs}
    yield from _filer_volumes(filers.values(), config)
    if any(filer.object_storage for filer in filers.values()):
        yield from _storage_volumes(config.storage)


def _storage_volumes(storage: Storage) -> Iterator[Manifest]:
    if storage.ca_secret is not None:
        items = [{"key": storage.ca_secret.key, "path": "ca.crt"}]
        secret = {"secretName": storage.ca_secret.name, "items": items, "optional": True}
        yield {"name": "storage-ca", "secret": secret}
    if storage.web_identity is not None:
        token = {
            "audience": storage.web_identity.audience,
            "path": "token",
            "expirationSeconds": TOKEN_SECONDS,
        }
        yield {"name": "web-identity", "projected": {"sources": [{"serviceAccountToken": token}]}}


def _run_volume(layout: Layout, config: TaskPodConfig) -> Manifest:
    return {"emptyDir": {"sizeLimit": str(run_bytes(layout.task.request, config))}}


def _task_volume(layout: Layout, config: TaskPodConfig) -> Manifest:
    if config.volume.type == "pvc" and layout.volume == "task":
        return {"persistentVolumeClaim": {"claimName": layout.name}}
    if config.volume.type == "emptyDir" or layout.volume == "scratch":
        return {"emptyDir": {"sizeLimit": str(disk_bytes(layout.task.request, config))}}
    template = {
        "metadata": {"labels": _labels(layout.task.id)},
        "spec": _claim_spec(layout, config),
    }
    return {"ephemeral": {"volumeClaimTemplate": template}}


def _recorder_sources(layout: Layout, config: TaskPodConfig, secrets: Mapping[str, str]) -> list[Manifest]:
    authority = config.postgres_ca_secret
    directory = basename(paths.RECORDER_PATHS)
    parts = {key: f"{directory}/{key}" for key in path_parts(layout)}
    return [
        *_from_secrets({"token": "token", **parts}, secrets),
        _from_secret(config.recorder_secret, {"recorder-dsn": "dsn"}),
        *([_from_secret(authority.name, {authority.key: basename(paths.POSTGRES_CA)})] if authority else []),
        {"serviceAccountToken": {"path": "kubernetes/token", "expirationSeconds": TOKEN_SECONDS}},
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


def _spec_sources(run: FilerRun, secrets: Mapping[str, str]) -> list[Manifest]:
    """The work list as work.json beside the contents that it names, from whichever Secrets hold them."""
    names = {run.key: "work.json", **{key: key for key in run.contents}}
    return _from_secrets(names, secrets)


def _from_secrets(names: Mapping[str, str], secrets: Mapping[str, str]) -> list[Manifest]:
    """Return sources that give each key the path that it has in `names`, from the Secret that holds it."""
    by_secret: dict[str, dict[str, str]] = {}
    for key, path in names.items():
        by_secret.setdefault(secrets[key], {})[key] = path
    return [_from_secret(name, items) for name, items in by_secret.items()]


def _from_secret(name: str, items: Mapping[str, str]) -> Manifest:
    return {"secret": {"name": name, "items": [{"key": key, "path": path} for key, path in items.items()]}}


def _scheduling(config: TaskPodConfig) -> Manifest:
    pod = config.pod
    settings = {
        "imagePullSecrets": [{"name": name} for name in config.images.pull_secrets],
        "nodeSelector": pod.node_selector,
        "tolerations": pod.tolerations,
        "affinity": pod.affinity,
        "priorityClassName": pod.priority_class_name,
        "runtimeClassName": pod.runtime_class_name,
        "activeDeadlineSeconds": pod.active_deadline_seconds,
    }
    return {key: value for key, value in settings.items() if value}
