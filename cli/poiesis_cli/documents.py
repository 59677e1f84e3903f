"""The body of a create: from the options of `run`, or from a JSON or YAML file. Pure."""

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from poiesis_cli.errors import BadUsage

_TASK = (
    *("id", "state", "name", "description", "inputs", "outputs", "resources", "executors"),
    *("volumes", "tags", "logs", "creation_time"),
)
_NESTED: Mapping[str, Sequence[str]] = {
    "inputs": ("name", "description", "url", "path", "type", "content", "streamable"),
    "outputs": ("name", "description", "url", "path", "path_prefix", "type"),
    "resources": (
        *("cpu_cores", "preemptible", "ram_gb", "disk_gb", "zones"),
        *("backend_parameters", "backend_parameters_strict"),
    ),
    "executors": ("image", "command", "workdir", "stdin", "stdout", "stderr", "env", "ignore_error"),
}


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """The options of `poiesis run`, with mappings as TES documents; sizes in GB = 10**9 bytes."""

    image: str
    command: Sequence[str]
    inputs: Sequence[Mapping[str, Any]] = ()
    outputs: Sequence[Mapping[str, Any]] = ()
    volumes: Sequence[str] = ()
    env: Mapping[str, str] | None = None
    tags: Mapping[str, str] | None = None
    backend_parameters: Mapping[str, str] | None = None
    name: str | None = None
    workdir: str | None = None
    stdin: str | None = None
    stdout: str | None = None
    stderr: str | None = None
    cpu_cores: int | None = None
    ram_gb: float | None = None
    disk_gb: float | None = None
    preemptible: bool | None = None


def task_document(request: RunRequest) -> dict[str, Any]:
    """Return a `tesTask` with one executor. Unset fields are left out: servers treat null differently."""
    executor = {
        "image": request.image,
        "command": list(request.command),
        "workdir": request.workdir,
        "stdin": request.stdin,
        "stdout": request.stdout,
        "stderr": request.stderr,
        "env": request.env,
    }
    resources = {
        "cpu_cores": request.cpu_cores,
        "ram_gb": request.ram_gb,
        "disk_gb": request.disk_gb,
        "preemptible": request.preemptible,
        "backend_parameters": request.backend_parameters,
    }
    return _without_unset(
        {
            "name": request.name,
            "inputs": list(request.inputs),
            "outputs": list(request.outputs),
            "resources": _without_unset(resources),
            "executors": [_without_unset(executor)],
            "volumes": list(request.volumes),
            "tags": request.tags,
        }
    )


def parse_document(data: bytes, source: str) -> dict[str, Any]:
    """Parse a task from JSON or YAML; values are not checked. Raise BadUsage with `source` in the message."""
    try:
        document = json.loads(data, parse_constant=_reject_constant)
    except (ValueError, RecursionError) as error:
        if data.lstrip()[:1] in {b"{", b"["}:
            raise BadUsage(f"{source} is not valid JSON: {error}") from error
        document = _parse_yaml(data, source)
    if not isinstance(document, dict):
        raise BadUsage(
            f"{source} must contain a task as an object, got {type(document).__name__}",
            'for example {"executors": [{"image": "busybox", "command": ["date"]}]}',
        )
    return document


def check_fields(document: Mapping[str, Any], source: str) -> None:
    """Raise BadUsage if the task has a field that TES 1.1 does not define: servers ignore these."""
    unknown = next(_unknown_fields(document), None)
    if unknown is None:
        return
    path, known = unknown
    name = path.rpartition(".")[2]
    similar = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {similar[0]!r}?" if similar else f"fields of TES 1.1: {', '.join(sorted(known))}"
    raise BadUsage(f"{source}: unknown field {path}", f"{hint}  To send it unchanged: --allow-unknown-fields")


class _YamlLoader(yaml.SafeLoader):
    """YAML with the types of JSON: dates stay strings."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (as in the base class)
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def _parse_yaml(data: bytes, source: str) -> Any:
    try:
        document = yaml.load(data, _YamlLoader)  # noqa: S506 (a safe loader)
        return json.loads(json.dumps(document, allow_nan=False))
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise BadUsage(f"{source} is neither valid JSON nor valid YAML: {reason}") from error


def _unknown_fields(document: Mapping[str, Any]) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield the path of each unknown field, and the known fields beside it."""
    yield from ((name, _TASK) for name in document if name not in _TASK)
    for parent, known in _NESTED.items():
        value = document.get(parent)
        items = {parent: value}
        if isinstance(value, list):
            items = {f"{parent}[{index}]": item for index, item in enumerate(value)}
        for path, item in items.items():
            if isinstance(item, dict):
                yield from ((f"{path}.{name}", known) for name in item if name not in known)


def _reject_constant(word: str) -> None:
    raise ValueError(f"{word} is not a JSON value")


def _without_unset(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value not in (None, [], {})}
