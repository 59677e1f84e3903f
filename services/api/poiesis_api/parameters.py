"""resources.backend_parameters (TES 1.1): which a task may use, and what they change of its objects. Pure.

Keys are case-insensitive and exist as far as the operator allows values for them (`backendParameters`). A key
or value that is not allowed refuses the task if it is strict, and is left out with a warning if it is not.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from poiesis_api.config import BackendParameters, TaskPodConfig
from poiesis_api.errors import InvalidTask, shown
from poiesis_models.tes import TesResources

FIELD = "resources.backend_parameters"

_SEVERAL = frozenset({"node_selector", "tolerations"})  # a value may hold several, with commas between
_TOLERATION = re.compile(r"(?P<key>[^=:]+)(?:=(?P<value>[^:]*))?(?::(?P<effect>[A-Za-z]+))?")


def supported(allowed: BackendParameters) -> list[str]:
    """The keys that exist here, for service-info."""
    return sorted(name for name, values in allowed if values)


def settle(resources: TesResources, allowed: BackendParameters) -> tuple[dict[str, str], list[str]]:
    """The parameters that count, with the keys as sent, and warnings about the others. Raise InvalidTask."""
    given = resources.backend_parameters or {}
    _refuse_twice(given)
    problems = {key: problem for key, value in given.items() if (problem := _problem(key, value, allowed))}
    if problems and resources.backend_parameters_strict:
        raise InvalidTask(f"{FIELD}: {'; '.join(problems.values())}", FIELD)
    counting = {key: value for key, value in given.items() if key not in problems}
    return counting, [f"{problem}; it has been ignored" for problem in problems.values()]


def check_together(config: TaskPodConfig, parameters: Mapping[str, str]) -> None:
    """Raise InvalidTask if parameters that are allowed each do not go together."""
    effective = configured(config, parameters)
    if effective.queue.kueue_queue_name is not None and effective.volume.type == "pvc":
        raise InvalidTask(
            f"{FIELD}: a task in a queue needs volume_type ephemeral or emptyDir: Kueue may stop it and begin"
            " it anew, and a volume of type pvc would still hold what its first attempt left",
            FIELD,
        )
    if effective.queue.kueue_queue_name is None and effective.queue.kueue_priority_class is not None:
        raise InvalidTask(f"{FIELD}: queue_priority needs queue, too", FIELD)


def configured(config: TaskPodConfig, parameters: Mapping[str, str]) -> TaskPodConfig:
    """The operator's configuration with what one task asks for in its place."""
    asked = {key.lower(): value for key, value in parameters.items()}
    changes = {
        "queue": _renamed(asked, queue="kueue_queue_name", queue_priority="kueue_priority_class"),
        "volume": _renamed(asked, volume_type="type", storage_class="storage_class"),
        "pod": _renamed(asked, priority_class="priority_class_name", runtime_class="runtime_class_name")
        | _pod(config, asked),
        "images": _images(config, asked),
        "executors": _executors(config, asked),
    }
    return config.model_copy(
        update={
            name: getattr(config, name).model_copy(update=update)
            for name, update in changes.items()
            if update
        }
    )


def toleration(text: str) -> dict[str, str]:
    """`key[=value][:effect]`, as kubectl writes taints, as a Kubernetes Toleration. Raise ValueError."""
    match = _TOLERATION.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not key[=value][:effect]")
    given = {name: part for name, part in match.groupdict().items() if part is not None}
    return {**given, "operator": "Equal" if "value" in given else "Exists"}


def _refuse_twice(given: Mapping[str, str]) -> None:
    seen: dict[str, str] = {}
    for key in given:
        other = seen.setdefault(key.lower(), key)
        if other != key:
            raise InvalidTask(f"{FIELD}: {shown(other)} and {shown(key)} differ in case alone", FIELD)


def _problem(key: str, value: str, allowed: BackendParameters) -> str | None:
    """What is wrong with it, in words for its sender."""
    known = dict(allowed)
    values = known.get(key.lower())
    if not values:
        return f"{shown(key)} is not supported; supported: {', '.join(supported(allowed)) or 'none'}"
    if isinstance(values, int):
        fits = _is_number(value, values)
        return None if fits else f"{shown(key)} must be a number from 1 to {values}, not {shown(value)}"
    if all(part in values for part in _parts(key.lower(), value)):
        return None
    return f"{shown(key)} must be one of {', '.join(values)}, not {shown(value)}"


def _is_number(text: str, most: int) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= len(str(most)) and 1 <= int(text) <= most


def _parts(name: str, value: str) -> Sequence[str]:
    return [part.strip() for part in value.split(",")] if name in _SEVERAL else [value]


def _renamed(asked: Mapping[str, str], **fields: str) -> dict[str, Any]:
    return {field: asked[name] for name, field in fields.items() if name in asked}


def _pod(config: TaskPodConfig, asked: Mapping[str, str]) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    if "node_selector" in asked:
        labels = [part.partition("=") for part in _parts("node_selector", asked["node_selector"])]
        changes["node_selector"] = config.pod.node_selector | {key: value for key, _, value in labels}
    if "tolerations" in asked:
        more = map(toleration, _parts("tolerations", asked["tolerations"]))
        changes["tolerations"] = [*config.pod.tolerations, *more]
    if "wall_time_seconds" in asked:
        limits = (config.pod.active_deadline_seconds, int(asked["wall_time_seconds"]))
        changes["active_deadline_seconds"] = min(limit for limit in limits if limit is not None)
    return changes


def _images(config: TaskPodConfig, asked: Mapping[str, str]) -> dict[str, Any]:
    if "image_pull_secret" not in asked:
        return {}
    return {"pull_secrets": [*config.images.pull_secrets, asked["image_pull_secret"]]}


def _executors(config: TaskPodConfig, asked: Mapping[str, str]) -> dict[str, Any]:
    """One GPU of the kind that is asked for, or as many as are of the first kind there is."""
    if not {"gpu_resource", "gpu_count"} & asked.keys():
        return {}
    kind = asked.get("gpu_resource") or config.backend_parameters.gpu_resource[0]
    count = asked.get("gpu_count", "1")
    return {"extended_resources": config.executors.extended_resources | {kind: count}}
