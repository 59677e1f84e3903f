"""Limits of the kernel and of Kubernetes for a task's containers, checked on the manifests. Pure.

Sizes are conservative estimates: JSON is longer than etcd's encoding, and the fields that Kubernetes adds are
included. ADR 0021 explains the limits.
"""

import json
from collections.abc import Collection, Iterable, Iterator
from uuid import UUID

from poiesis_api.config import Document
from poiesis_api.errors import InvalidTask, Loggable, Text, shown, text
from poiesis_api.pod_bound import CONTAINER_BYTES, PodBound
from poiesis_api.taskpod import Manifest, Task, task_objects
from poiesis_models.labels import NONCE_CHARACTERS, prepare_name
from poiesis_models.tes import TesExecutor, TesInput, TesOutput, TesTaskRequest

# Linux, exec(2): MAX_ARG_STRLEN, for an argument or NAME=value, including the final NUL.
STRING_BYTES = 128 * 1024
# All of them, each with a pointer: a quarter of the usual 8 MiB stack, less a reserve for the image's
# variables.
STRINGS_BYTES = 2 * 1024 * 1024 - 128 * 1024
_POINTER_BYTES = 8

_STATUS_BYTES = 1280  # of one container: image, identifiers, times, termination message, and defaults
_FIELD_BYTES = len('"f:":{},')  # of one field in managedFields
_KEY_BYTES = len('"k:{}":{".":{}},')  # of one item of a list that is merged by a key
_MERGE_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "env": "name",
    "imagePullSecrets": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
}
_STRINGS = ("command", "env", "lifecycle")  # where a container's strings for exec(2) are
_ID = UUID(int=0)
_NONCE = "0" * NONCE_CHARACTERS
_SHORTER = Loggable("use fewer or shorter executors, arguments, variables and paths")


def check_strings(task: TesTaskRequest) -> None:
    """Raise InvalidTask for an argument or variable that is too long for exec(2)."""
    for index, executor in enumerate(task.executors):
        for field, name, size in _too_long(index, executor):
            raise InvalidTask(
                "{field}{name} is {size} bytes long; the kernel's maximum is {limit}"
                " (send the text as an input with content or url, and pass its path)",
                field,
                limit=STRING_BYTES - 1,
                name=name,
                size=size - 1,
            )


def check_objects(
    task: TesTaskRequest, credentials: Collection[str], config: Document, bound: PodBound | None = None
) -> None:
    """Raise InvalidTask for a task whose Pod is too large for Kubernetes or the kernel.

    `credentials`: names of the S3 credentials that the task gets. `bound`: of this configuration
    (`pod_bound`); it saves building the Pod of a small task and changes no decision.
    """
    limit = config.limits.task_object_bytes
    if bound is not None and _surely_fits(task, credentials, bound, limit):
        return
    if len(task.executors) > 1:  # counts the mounts before they are created for all executors
        first = task.model_copy(update={"executors": task.executors[:1]})
        mounts = [one.get("volumeMounts", []) for one in _containers(_job(first, credentials, config))]
        _check_size(len(task.executors) * max(map(_json_bytes, mounts)), limit)
    job = _job(task, credentials, config)
    for container in _containers(job):
        _check_container(container)
    _check_size(stored_bytes(job), limit)


def _surely_fits(task: TesTaskRequest, credentials: Collection[str], bound: PodBound, limit: int) -> bool:
    size = bound.size(task, credentials)
    # A string counts 9 bytes in argv, and at least its quotes and a comma in JSON.
    return size is not None and size.stored <= min(limit, STRINGS_BYTES // 3) and size.longest <= STRING_BYTES


def pod_bound(config: Document) -> PodBound:
    """Return the operator's share of every Pod, measured on a task that uses each filer."""
    job = _job(_reference_task(config), [], config)
    containers = _containers(job)
    shares = {one["name"]: _share(one) for one in containers}
    largest = max(shares.values())
    streams = max((_json_bytes(one.inputs.stream_command) for one in config.filers if one.inputs), default=0)
    return PodBound(
        once=stored_bytes(job) + CONTAINER_BYTES,
        executor=largest + shares[prepare_name(1)] + 2 * CONTAINER_BYTES,
        input=largest + CONTAINER_BYTES + 2 * streams,
        output=2 * (largest + CONTAINER_BYTES),  # with its rescue
        string=max(_json_bytes([one.get(name) for name in _STRINGS]) for one in containers) + streams,
    )


def _reference_task(config: Document) -> TesTaskRequest:
    """Return a task with a file of every filer and two executors that work in a directory of their image."""
    inputs = [TesInput(url=f"{scheme}://b/i", path=f"/i/{scheme}") for scheme in config.input_filers]
    literal = [TesInput(content="", path="/i/literal")] if config.literal_filer else []
    outputs = [TesOutput(url=f"{scheme}://b/o", path=f"/o/{scheme}") for scheme in config.output_filers]
    executors = [TesExecutor(image=name, command=["c"], workdir="/w", env={"A": ""}) for name in ("a", "b")]
    return TesTaskRequest(executors=executors, inputs=[*inputs, *literal], outputs=outputs, volumes=["/v"])


def _share(container: Manifest) -> int:
    """Return the container's share of `stored_bytes`."""
    mounts = _json_bytes(container.get("volumeMounts", []))
    return _json_bytes(container) + _managed_bytes([container], "initContainers") + _STATUS_BYTES + mounts


def _job(task: TesTaskRequest, credentials: Collection[str], config: Document) -> Manifest:
    placeholder = Task(
        id=_ID, request=task, nonce=_NONCE, recorder_token="", credentials=frozenset(credentials)
    )
    return task_objects(placeholder, config).job


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise InvalidTask(
            "{field}: the task is too large for Kubernetes: its Pod has about {size} bytes; the maximum is"
            " {limit} (limits.taskObjectBytes); {advice}",
            "executors",
            limit=limit,
            size=size,
            advice=_SHORTER,
        )


def stored_bytes(job: Manifest) -> int:
    """Return the approximate final size of a Job's Pod in bytes: manifest, managedFields and status."""
    status = sum(_STATUS_BYTES + _json_bytes(one.get("volumeMounts", [])) for one in _containers(job))
    return _json_bytes(job) + _managed_bytes(job) + status


def _too_long(index: int, executor: TesExecutor) -> Iterator[tuple[str, Text, int]]:
    """Yield field, addition to the field in messages, and size of each string that the kernel rejects."""
    for number, argument in enumerate(executor.command):
        if (size := _bytes(argument)) > STRING_BYTES:
            yield f"executors[{index}].command[{number}]", text(""), size
    for name, value in (executor.env or {}).items():
        if (size := _bytes(f"{name}={value}")) > STRING_BYTES:
            yield f"executors[{index}].env", text("[{name}]", name=shown(name)), size


def _containers(job: Manifest) -> list[Manifest]:
    spec = job["spec"]["template"]["spec"]
    return [*spec["initContainers"], *spec["containers"]]


def _check_container(container: Manifest) -> None:
    """Check argv and environment. The helper's argv includes the executor's; the recorder has a hook too."""
    hook = container.get("lifecycle", {}).get("postStart", {}).get("exec", {}).get("command", [])
    argv = max(hook, [_unescaped(one) for one in container.get("command", [])], key=_bytes_of)
    env = [f"{one['name']}={_unescaped(one.get('value', ''))}" for one in container.get("env", [])]
    longest, total = max(map(_bytes, [*argv, *env]), default=0), _bytes_of(argv) + _bytes_of(env)
    if longest > STRING_BYTES or total > STRINGS_BYTES:
        found, limit = (
            (text("an argument or variable of {size}", size=longest), STRING_BYTES)
            if longest > STRING_BYTES
            else (text("arguments and variables of {size}", size=total), STRINGS_BYTES)
        )
        raise InvalidTask(
            "{field}: container {container} of this task would get {found} bytes; the kernel's"
            " maximum is {limit}; {advice}",
            "executors",
            limit=limit,
            container=Loggable(container["name"]),
            found=found,
            advice=_SHORTER,
        )


def _bytes(string: str) -> int:
    """Return the size of a string with its final NUL."""
    return len(string.encode()) + 1


def _bytes_of(strings: Iterable[str]) -> int:
    return sum(_bytes(one) + _POINTER_BYTES for one in strings)


def _unescaped(string: str) -> str:
    """Undo `escape_dollars` of `taskpod.manifest`."""
    return string.replace("$$", "$")


def _json_bytes(value: object) -> int:
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())


def _managed_bytes(value: object, name: str = "") -> int:
    """Return the size of the managedFields entry for the owner of `value` (server-side apply, FieldsV1)."""
    if isinstance(value, dict):
        return sum(len(key) + _FIELD_BYTES + _managed_bytes(one, key) for key, one in value.items())
    if isinstance(value, list) and name in _MERGE_KEYS:
        key = _MERGE_KEYS[name]
        return sum(
            _KEY_BYTES + len(json.dumps({key: one[key]})) + _managed_bytes(one)
            for one in value
            if isinstance(one, dict)
        )
    return 0
