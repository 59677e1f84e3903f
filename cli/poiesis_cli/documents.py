"""The body of a create: from the options of `run`, or from a file. Pure."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from poiesis_cli.errors import BadUsage


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """What `poiesis run` was asked for, its mappings already TES documents; sizes in GB = 10**9 bytes."""

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
    """A `tesTask` with one executor; what was not asked for is left out, because servers differ on null."""
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
    return _said(
        {
            "name": request.name,
            "inputs": list(request.inputs),
            "outputs": list(request.outputs),
            "resources": _said(resources),
            "executors": [_said(executor)],
            "volumes": list(request.volumes),
            "tags": request.tags,
        }
    )


def parse_document(data: bytes, source: str) -> dict[str, Any]:
    """A JSON object, sent as it stands: the server knows what a task may hold. Raise BadUsage."""
    try:
        document = json.loads(data, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise BadUsage(f"{source}: not JSON: {error}") from error
    if not isinstance(document, dict):
        raise BadUsage(f"{source}: a task is a JSON object", 'for example {"executors": [{"image": ...}]}')
    return document


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is no JSON")


def _said(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value not in (None, [], {})}
