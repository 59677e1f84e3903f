"""resources.backend_parameters (TES 1.1): which are allowed, and what they change. Pure.

Keys are case-insensitive. A key is supported if the operator allows values for it (`backendParameters`).
Other keys and values are an error if `backend_parameters_strict` is set; otherwise they are removed with a
warning.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from poiesis_api.config import BackendParameters, TaskPodConfig
from poiesis_api.errors import InvalidTask, Loggable, Text, joined, shown, text
from poiesis_models.tes import TesResources

FIELD = "resources.backend_parameters"

_SEVERAL = frozenset({"node_selector", "tolerations"})  # a value may be a comma-separated list
_TOLERATION = re.compile(r"(?P<key>[^=:]+)(?:=(?P<value>[^:]*))?(?::(?P<effect>[A-Za-z]+))?")


def supported_keys(allowed: BackendParameters) -> list[str]:
    """Return the supported keys, sorted, as in service-info."""
    return sorted(name for name, values in allowed if values)


def accepted_parameters(
    resources: TesResources, allowed: BackendParameters
) -> tuple[dict[str, str], list[str]]:
    """Return the accepted parameters, with keys as sent, and warnings about the others. Raise InvalidTask."""
    given = resources.backend_parameters or {}
    _check_unique(given)
    problems = {key: problem for key, value in given.items() if (problem := _problem(key, value, allowed))}
    if problems and resources.backend_parameters_strict:
        raise InvalidTask("{field}: {problems}", FIELD, problems=joined(problems.values()))
    accepted = {key: value for key, value in given.items() if key not in problems}
    return accepted, [f"{problem.message}; it has been ignored" for problem in problems.values()]


def with_default_gpu(
    given: Mapping[str, str], theirs: BackendParameters, allowed: BackendParameters
) -> dict[str, str]:
    """Return accepted parameters with the kind of GPU, if the caller's default is not the first of all kinds.

    A task that only has a number of GPUs gets the first kind when it is submitted, as its caller is not known
    then. `theirs`: what the caller may use; `allowed`: what the operator allows.
    """
    names = {key.lower() for key in given}
    if "gpu_count" not in names or "gpu_resource" in names:
        return dict(given)
    kind = theirs.gpu_resource[0].value
    return dict(given) if kind == allowed.gpu_resource[0].value else {**given, "gpu_resource": kind}


def check_combination(config: TaskPodConfig, parameters: Mapping[str, str]) -> None:
    """Raise InvalidTask if accepted parameters exclude each other."""
    effective = with_parameters(config, parameters)
    if effective.queue.kueue_queue_name is not None and effective.volume.type == "pvc":
        raise InvalidTask(
            "{field}: a task in a queue needs volume_type ephemeral or emptyDir: Kueue may stop and restart"
            " it, and a volume of type pvc would keep the files of the first attempt",
            FIELD,
        )
    if effective.queue.kueue_queue_name is None and effective.queue.kueue_priority_class is not None:
        raise InvalidTask("{field}: queue_priority requires queue", FIELD)


def with_parameters(config: TaskPodConfig, parameters: Mapping[str, str]) -> TaskPodConfig:
    """Return the operator's configuration changed by one task's accepted parameters."""
    asked = {key.lower(): value for key, value in parameters.items()}
    changes = {
        "queue": _renamed(asked, queue="kueue_queue_name", queue_priority="kueue_priority_class"),
        "volume": _renamed(asked, volume_type="type", storage_class="storage_class"),
        "pod": _renamed(asked, priority_class="priority_class_name", runtime_class="runtime_class_name")
        | _pod(config, asked),
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
    """Parse `key[=value][:effect]` (kubectl's form of taints) into a Toleration. Raise ValueError."""
    match = _TOLERATION.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} must have the form key[=value][:effect]")
    given = {name: part for name, part in match.groupdict().items() if part is not None}
    return {**given, "operator": "Equal" if "value" in given else "Exists"}


def _check_unique(given: Mapping[str, str]) -> None:
    seen: dict[str, str] = {}
    for key in given:
        other = seen.setdefault(key.lower(), key)
        if other != key:
            raise InvalidTask(
                "{field}: {other} and {one} differ only in case", FIELD, other=shown(other), one=shown(key)
            )


def _problem(key: str, value: str, allowed: BackendParameters) -> Text | None:
    """Return why a parameter is not accepted, or None."""
    known = dict(allowed)
    values = known.get(key.lower())
    if not values:
        supported = Loggable(", ".join(supported_keys(allowed)) or "none")
        return text("{key} is not supported (supported: {supported})", key=shown(key), supported=supported)
    name, got = Loggable(shown(key)), shown(value)
    if isinstance(values, int):
        fits = _is_number(value, values)
        range_ = text("{name} must be between 1 and {most}, got {got}", name=name, most=values, got=got)
        return None if fits else range_
    allowed_values = [entry.value for entry in values]
    if all(part in allowed_values for part in _parts(key.lower(), value)):
        return None
    choices = Loggable(", ".join(allowed_values))
    return text("{name} must be one of {choices}, got {got}", name=name, choices=choices, got=got)


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
        changes["active_deadline_seconds"] = min(limit for limit in limits if limit)
    return changes


def _executors(config: TaskPodConfig, asked: Mapping[str, str]) -> dict[str, Any]:
    """Return the requested pull secret, and the requested GPUs: by default one, of the first kind."""
    changes: dict[str, Any] = {}
    if "image_pull_secret" in asked:
        changes["image_pull_secrets"] = [*config.pull_secrets, asked["image_pull_secret"]]
    if {"gpu_resource", "gpu_count"} & asked.keys():
        kind = asked.get("gpu_resource") or config.backend_parameters.gpu_resource[0].value
        count = asked.get("gpu_count", "1")
        changes["extended_resources"] = config.executors.extended_resources | {kind: count}
    return changes
