"""The Pod's containers: recorder, filers, executors and `pause`."""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal

from kubernetes.utils.quantity import parse_quantity

from poiesis_api.config import CpuLimit, TaskPodConfig
from poiesis_api.taskpod.filer_runs import FilerRun
from poiesis_api.taskpod.layout import Layout
from poiesis_api.taskpod.manifest import (
    RESTRICTED,
    Manifest,
    env_from_pod,
    env_var,
    escape_dollars,
    resources,
    volume_mount,
)
from poiesis_api.taskpod.rescue import rescue_container
from poiesis_api.taskpod.storage import storage_env, storage_mounts
from poiesis_api.taskpod.volumes import (
    disk_bytes,
    gb_to_bytes,
    run_bytes,
    run_mounts,
    volume_on_node,
    work_list_volume,
)
from poiesis_models import labels, paths
from poiesis_models.runfiles import PROGRESS
from poiesis_models.tes import TesExecutor, TesResources
from poiesis_models.worklist import EXIT_RETRYABLE

_DISK = "ephemeral-storage"
ROOT_DISK_GB = 20  # by default; in units of 10**9 bytes
ACK_TIMEOUT_SECONDS = 600
FAILED_ACK_SECONDS = 120  # how long a failed container waits for the recorder: three restarts and an outage
INSTALL_COMMAND = [paths.HELPER_IN_IMAGE, "install", "--bin", paths.BIN, "--paths", paths.RECORDER_PATHS]


def init_containers(layout: Layout, config: TaskPodConfig) -> list[Manifest]:
    """Return the init containers in start order.

    The recorder, `rescue` and streaming filers are native sidecars. `rescue` comes second: before Kubernetes
    1.30.4 a Pod that is deleted before a sidecar has started waits for its whole grace period.
    """
    outputs = [filer_container(run, run.side.command, layout, config) for run in layout.outputs]
    return [
        recorder_container(layout, config),
        *(
            rescue_container(name, tof, _retried(run.side.command, config), config)
            for name, tof, run in zip(layout.plan.rescues, outputs, layout.outputs, strict=False)
        ),
        *(filer_container(run, run.side.command, layout, config) for run in layout.inputs),
        *(stream_container(run, layout, config) for run in layout.streams),
        *executor_containers(layout, config),
        *outputs,
    ]


def recorder_container(layout: Layout, config: TaskPodConfig) -> Manifest:
    """Return the recorder, a native sidecar whose postStart hook installs the helper and makes directories.

    The recorder does the same when it starts: a kubelet that restarts before it has run the hook does not run
    it later.
    """
    mounts = [
        volume_mount("bin", paths.BIN),
        volume_mount("run", paths.RUNS),
        volume_mount("ack", paths.ACK),
        volume_mount("recorder", paths.RECORDER, read_only=True),
    ]
    if layout.volume:
        mounts.append(volume_mount("task", paths.TASK))
    return {
        "name": labels.TREC_CONTAINER,
        "image": config.images.trec,
        "imagePullPolicy": config.images.pull_policy,
        "restartPolicy": "Always",
        "env": [
            env_var("POIESIS_TASK_ID", str(layout.task.id)),
            env_var("POIESIS_PLAN", layout.plan.to_json()),
            env_from_pod("POD_NAME", "metadata.name"),
            env_from_pod("POD_UID", "metadata.uid"),
            env_from_pod("POD_NAMESPACE", "metadata.namespace"),
            env_from_pod("NODE_NAME", "spec.nodeName"),
            env_var("POIESIS_INSTALL", json.dumps(INSTALL_COMMAND)),
            env_var("POIESIS_LOG_BYTES", str(config.executors.log_bytes)),
            env_var("POIESIS_GRACE_SECONDS", str(config.termination_grace_period_seconds)),
            *_transport_env(config),
        ],
        "lifecycle": {"postStart": {"exec": {"command": INSTALL_COMMAND}}},
        "resources": resources(config.resources.trec),
        "securityContext": RESTRICTED,
        "volumeMounts": mounts,
    }


def _transport_env(config: TaskPodConfig) -> Iterator[Manifest]:
    """Yield the variables of the recorder's transport. Their presence selects it (poiesis_trec)."""
    if config.gateway is not None and config.recorder.transport == "gateway":
        yield env_var("POIESIS_GATEWAY_URL", config.gateway.url)
    elif config.recorder.transport == "postgres" and config.recorder_postgres.ca_file is not None:
        yield env_var("PGSSLROOTCERT", paths.POSTGRES_CA)


def stream_container(run: FilerRun, layout: Layout, config: TaskPodConfig) -> Manifest:
    """Return a native sidecar that streams inputs into FIFOs, which the recorder's hook has made."""
    container = filer_container(run, run.side.stream_command or (), layout, config)
    return {**container, "restartPolicy": "Always"}


def filer_container(run: FilerRun, command: Sequence[str], layout: Layout, config: TaskPodConfig) -> Manifest:
    """Return the container that runs a filer's `command` under the helper."""
    container: Manifest = {
        "name": run.name,
        "image": run.side.image,
        "imagePullPolicy": config.images.pull_policy,
        "command": [*_helper_run(config), *_retried(command, config)],
        "env": [env_var(name, value) for name, value in _filer_env(run, layout, config).items()],
        "resources": resources(config.resources.filer),
        "securityContext": {
            **RESTRICTED,
            "readOnlyRootFilesystem": run.filer.read_only_root_filesystem,
        },
        "volumeMounts": [
            *run_mounts(run.name),
            volume_mount("task", paths.TASK),
            volume_mount(work_list_volume(run), paths.SPEC, read_only=True),
            *storage_mounts(run, config),
        ],
    }
    if run.filer.object_storage and config.storage.s3.secret_name is not None:
        container["envFrom"] = [{"secretRef": {"name": config.storage.s3.secret_name}}]
    return container


def executor_containers(layout: Layout, config: TaskPodConfig) -> Iterator[Manifest]:
    """Yield the executors in order, each after the container that prepares its directories, if any."""
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
        "resources": resources(config.resources.filer),
        "securityContext": config.executors.effective_security_context,
        "volumeMounts": [
            *run_mounts(name),
            *_previous_mounts(index, layout),
            volume_mount("task", paths.COLLECT, sub_path=paths.DATA_SUBPATH),
            volume_mount("task", paths.FILLED, sub_path=paths.FILLED_SUBPATH),
        ],
    }
    return container | image_pull_policy(config)


def executor_container(index: int, layout: Layout, config: TaskPodConfig) -> Manifest:
    """Return the init container that runs executor `index` as TES defines it: an argv, without a shell."""
    executor = layout.task.request.executors[index]
    name = labels.executor_name(index)
    mounts = layout.mounts
    container: Manifest = {
        "name": name,
        "image": executor.image,
        "command": executor_command(index, layout, config),
        "env": [env_var(key, value) for key, value in (executor.env or {}).items()],
        "resources": executor_resources(layout, config),
        "securityContext": config.executors.effective_security_context,
        "volumeMounts": [
            *run_mounts(name),
            *_previous_mounts(index, layout),
            *(
                volume_mount("task", path, sub_path=paths.data_subpath(path))
                for path in (*mounts.directories, *mounts.files)
            ),
        ],
    }
    if layout.volume:
        container["volumeMounts"].append(volume_mount("task", paths.COLLECT, sub_path=paths.DATA_SUBPATH))
    if executor.workdir is not None:
        container["workingDir"] = executor.workdir
    return container | image_pull_policy(config)


def image_pull_policy(config: TaskPodConfig) -> Manifest:
    """Return the pull policy of the clients' images; none: Kubernetes' rule.

    A private image that one task brought to the node must not run in another without its credentials.
    """
    policy = config.executors.image_pull_policy or ("Always" if config.pull_secrets else None)
    return {} if policy is None else {"imagePullPolicy": policy}


def executor_command(index: int, layout: Layout, config: TaskPodConfig) -> list[str]:
    """Return the helper's command line, followed by `--` and the executor's argv."""
    executors = layout.task.request.executors
    executor = executors[index]
    same_user_next = index + 1 < len(executors) and executors[index + 1].image == executor.image
    volume = ["--paths", paths.PATHS, "--volume", paths.COLLECT] if layout.volume else []
    return [
        *_helper_run(config),
        *_after(index, layout),
        *_redirections(executor),
        *volume,
        *(["--keep-modes"] if volume and same_user_next else []),
        *_options("--on-failure", ["continue" if layout.plan.upload_on_error else "exit"]),
        *(["--ignore-error"] if executor.ignore_error else []),
        "--",
        *map(escape_dollars, executor.command),
    ]


def executor_resources(layout: Layout, config: TaskPodConfig) -> Manifest:
    """Return the task's resources; `ram_gb` is in units of 10**9 bytes. Only the limit of CPU may differ.

    The kubelet compares what the Pod uses of its node's disk, including emptyDirs, with the largest limit of
    any container, so `ephemeral-storage` includes them. It is a limit only: if each task reserved as much as
    it may write, few tasks would fit a node.
    """
    request, default = layout.task.request, config.executors.default_resources
    requested = request.resources or TesResources()
    cpu = default.cpu if requested.cpu_cores is None else str(requested.cpu_cores)
    others = {
        "memory": default.memory if requested.ram_gb is None else str(gb_to_bytes(requested.ram_gb)),
        **config.executors.extended_resources,
    }
    requests = {"cpu": cpu, **others}
    limits = {**cpu_limit(cpu, config.executors.cpu_limit), **others}
    root_disk_gb = _root_disk_gb(config)
    if not root_disk_gb:
        return {"requests": requests, "limits": limits}
    on_node = disk_bytes(request, config) if volume_on_node(layout, config) else 0
    size = gb_to_bytes(root_disk_gb) + run_bytes(request, config) + on_node
    return {
        "requests": {**requests, _DISK: "0"},  # unset, it would be the limit
        "limits": {**limits, _DISK: str(size)},
    }


def cpu_limit(request: str, limit: CpuLimit) -> dict[str, str]:
    """Return the limit of CPU for a container with this request, in whole millicores if it differs."""
    match limit:
        case "none":
            return {}
        case "request":
            return {"cpu": request}
    cores: Decimal = parse_quantity(request)  # type: ignore[no-untyped-call]
    return {"cpu": f"{math.ceil(cores * Decimal(str(limit)) * 1000)}m"}


def _root_disk_gb(config: TaskPodConfig) -> float:
    """Return the limit of writes outside volumes, 0 for none.

    Kueue admits no Pod with a resource that its ClusterQueue does not cover, even if it requests none of it.
    """
    given = config.executors.root_disk_gb
    if given is not None:
        return given
    return 0 if config.queue.kueue_queue_name else ROOT_DISK_GB


def pause_container(layout: Layout, config: TaskPodConfig) -> Manifest:
    """Return the Pod's main container, which waits for the recorder so that the Job ends as the task did."""
    quantities = resources(config.resources.pause)
    if volume_on_node(layout, config):
        # Only this request makes the scheduler count the size of the emptyDir.
        size = str(disk_bytes(layout.task.request, config))
        quantities["requests"] = {**quantities["requests"], _DISK: size}
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
        "resources": quantities,
        "securityContext": RESTRICTED,
        "volumeMounts": [volume_mount("ack", paths.ACK, read_only=True)],
    }


def _helper_run(config: TaskPodConfig) -> list[str]:
    return [
        paths.HELPER,
        "run",
        *_options("--run", [paths.RUN]),
        *_options("--log-bytes", [str(config.executors.log_bytes)]),
        *_options("--grace", [str(config.termination_grace_period_seconds)]),
        *_options("--ack", [paths.ACK_FILE]),
        *_options("--ack-timeout", [str(FAILED_ACK_SECONDS)]),
    ]


def _retried(command: Sequence[str], config: TaskPodConfig) -> list[str]:
    """Return the end of a helper's command line that runs a filer's `command` and repeats it."""
    return ["--rerun", *_retries(config.filer_retry_attempts), "--", *map(escape_dollars, command)]


def _retries(attempts: int) -> list[str]:
    if attempts == 0:
        return []
    return ["--retry-exit-code", str(EXIT_RETRYABLE), "--retry-attempts", str(attempts), "--retry-killed"]


def _redirections(executor: TesExecutor) -> Iterator[str]:
    for option, path in (
        ("--stdin", executor.stdin),
        ("--stdout", executor.stdout),
        ("--stderr", executor.stderr),
    ):
        if path is not None:
            yield from (option, escape_dollars(path))


def _after(index: int, layout: Layout) -> list[str]:
    """Return the option that skips executor `index` if the one before failed and outputs are sent anyway."""
    return ["--after", paths.PREVIOUS] if index > 0 and layout.plan.upload_on_error else []


def _previous_mounts(index: int, layout: Layout) -> list[Manifest]:
    if not _after(index, layout):
        return []
    return [volume_mount("run", paths.PREVIOUS, sub_path=labels.executor_name(index - 1), read_only=True)]


def _options(name: str, values: Iterable[str]) -> Iterator[str]:
    for value in values:
        yield from (name, value)


def _filer_env(run: FilerRun, layout: Layout, config: TaskPodConfig) -> dict[str, str]:
    return {
        "POIESIS_RUN": paths.RUN,
        "POIESIS_WORK_LIST": paths.WORK_LIST,
        "POIESIS_DISK_BYTES": str(disk_bytes(layout.task.request, config)),
        **storage_env(run, config, session=layout.name),
        **run.filer.env,
    }
