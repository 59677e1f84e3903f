"""Validate a create beyond the shape of its document: a task that cannot work is rejected at once. Pure.

Every error is an InvalidTask with the field, the value, and the limit or the accepted values.
"""

import re
from collections.abc import Iterator, Mapping

from pydantic import ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from poiesis_api import image_names, limits, parameters
from poiesis_api.config import Document, Executors, Sharing, TaskPodConfig
from poiesis_api.errors import (
    InvalidTask,
    Loggable,
    MalformedBody,
    NotAllowed,
    Part,
    Text,
    joined,
    shown,
    text,
)
from poiesis_api.identity.caller import Caller
from poiesis_api.mounts import RESERVED, is_system_directory, is_unmountable
from poiesis_api.object_limits import check_strings
from poiesis_api.storage_urls import certain_type, check_urls, url_shown
from poiesis_api.task_paths import TaskPaths, ancestors, is_inside
from poiesis_models import globs
from poiesis_models.tes import InvalidValue, TesTaskRequest

# Must fit an index row of Postgres; in practice no file system has longer paths.
PATH_BYTES = 1024
OUTPUT_URL_BYTES = 1536
INPUT_URL_BYTES = 65536  # presigned URLs are long; a work list must fit a Secret
TAG_KEY_BYTES = 512
TAG_VALUE_BYTES = 16 * 1024
ENV_NAME_BYTES = 1024
NAME_BYTES = 255  # of one segment of a path: Linux
SHOWN_PROBLEMS = 5

_KERNEL_TREES = ("/proc", "/sys", "/dev")
_SHARED_MEMORY = "/dev/shm"  # noqa: S108  # an ordinary file system
_SOURCES = frozenset(f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom", "stdin"))
_SINKS = frozenset(f"/dev/{name}" for name in ("null", "zero", "full", "stdout", "stderr"))
_DEVICES: Mapping[str, frozenset[str]] = {"stdin": _SOURCES, "stdout": _SINKS, "stderr": _SINKS}
_STREAMS = tuple(_DEVICES)

_ENV_NAME = re.compile(r"[ -<>-~]+")
# Errors of pydantic whose messages consist of the model's constants and of sizes.
_MESSAGES_WITHOUT_INPUT = frozenset(
    {"missing", "literal_error", "finite_number", "string_type", "string_too_short", "string_too_long"}
    | {"string_unicode", "int_type", "int_parsing", "int_parsing_size", "int_from_float", "float_type"}
    | {"float_parsing", "bool_type", "bool_parsing", "list_type", "dict_type", "model_type", "too_long"}
    | {"too_short", "greater_than", "greater_than_equal", "less_than", "less_than_equal"}
)
_LIMITS = ("max_length", "min_length", "le", "lt", "ge", "gt")  # in the context of these errors
_MAPS = frozenset({"env", "tags", "backend_parameters"})  # fields with keys of the client
_NEVER_SECRET = frozenset(
    {"image", "workdir", "stdin", "stdout", "stderr", "path", "type", "volumes"}
    | {"cpu_cores", "ram_gb", "disk_gb", "preemptible"}
)


def parse_task(body: bytes) -> TesTaskRequest:
    """Parse the body of a create. Raise MalformedBody or InvalidTask."""
    try:
        return TesTaskRequest.model_validate_json(body)
    except ValidationError as error:
        problems = error.errors(include_url=False)
    if problems[0]["type"] == "json_invalid":  # the messages of the parser name a place, and no values
        raise MalformedBody("the body is not JSON: {problem}", problem=Loggable(problems[0]["msg"]))
    sentences = [_sentence(problem) for problem in problems[:SHOWN_PROBLEMS]]
    if len(problems) > SHOWN_PROBLEMS:
        sentences.append(text("and {count} more", count=len(problems) - SHOWN_PROBLEMS))
    field, key = _location(problems[0]["loc"])
    raise InvalidTask(
        "{problems}", field or None, key=key, limit=_limit(problems[0]), problems=joined(sentences)
    )


def field_path(location: tuple[int | str, ...]) -> str:
    """Return a pydantic location as a path: ('executors', 0, 'image') -> `executors[0].image`."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part != "[key]":
            path += f".{part}" if path else part
    return path.rstrip(".")


def validate(task: TesTaskRequest, config: Document) -> tuple[TesTaskRequest, list[str]]:
    """Return the task as it will run, and warnings for its system_logs. Raise InvalidTask or NotAllowed.

    `config`: reduced to what the caller may use (`grants.config_for`). Call `object_limits.check_objects`
    next, when the task's credentials are known.
    """
    paths = TaskPaths.of(task)
    _check_sizes(task, paths)
    _check_executors(task, config)
    _check_patterns(task)
    _check_reserved(paths)
    _check_kernel_trees(paths)
    _check_directories(paths)
    _check_files(task, paths, config)
    _check_streams(task, paths)
    check_urls(task, config)
    task, ignored = _with_backend_parameters(task, config)
    _check_resources(task, config)
    return task, [*_inferred_prefixes(task), *_doubtful_paths(task), *ignored]


def _location(parts: tuple[int | str, ...]) -> tuple[str, str | None]:
    """Return the field of a pydantic location, and the client's key if the field is a map."""
    for index, part in enumerate(parts):
        if part in _MAPS and index + 1 < len(parts):
            return field_path(parts[: index + 1]), field_path(parts[index + 1 :]) or None
    return field_path(parts), None


def _limit(problem: ErrorDetails) -> float | None:
    context = problem.get("ctx", {})
    return next((context[name] for name in _LIMITS if name in context), None)


def _sentence(problem: ErrorDetails) -> Text:
    field, key = _location(problem["loc"])
    value, error = problem["input"], problem.get("ctx", {}).get("error")
    if isinstance(error, InvalidValue):
        reason: str = Loggable(error.reason)
        value = value if error.value is None else error.value
    else:
        known = problem["type"] in _MESSAGES_WITHOUT_INPUT
        reason = Loggable(problem["msg"]) if known else problem["msg"]
    sentence = _with_field(field, key, reason)
    if problem["type"] == "missing" or not isinstance(value, str | int | float):
        return sentence
    got = url_shown(value) if isinstance(value, str) else shown(value)
    may_be_logged = key is None and _name(field) in _NEVER_SECRET
    return text("{sentence}, got {got}", sentence=sentence, got=Loggable(got) if may_be_logged else got)


def _with_field(field: str, key: str | None, reason: str) -> Text:
    """Put the field before a reason, or in the place of its name at the beginning of the reason."""
    path: Part = Loggable(field or "the body")
    if key is not None:
        path = text("{field}.{key}", field=path, key=key)
    first, _, rest = reason.partition(" ")
    if first == _name(field):
        return text("{path} {rest}", path=path, rest=Loggable(rest) if isinstance(reason, Loggable) else rest)
    return text("{path}: {reason}", path=path, reason=reason)


def _name(field: str) -> str:
    """Return the last name of a path: `executors[0].image` -> `image`, `volumes[0]` -> `volumes`."""
    return field.rpartition(".")[2].partition("[")[0]


def _check_sizes(task: TesTaskRequest, paths: TaskPaths) -> None:
    for field, path in paths.every:
        _at_most(field, path, PATH_BYTES)
        for segment in path.split("/"):
            _at_most(field, segment, NAME_BYTES)
    for index, source in enumerate(task.inputs or ()):
        _at_most(f"inputs[{index}].url", source.url or "", INPUT_URL_BYTES)
    for index, output in enumerate(task.outputs or ()):
        _at_most(f"outputs[{index}].path", output.path, PATH_BYTES)
        _at_most(f"outputs[{index}].url", output.url, OUTPUT_URL_BYTES)
    for key, value in (task.tags or {}).items():
        _at_most("tags", key, TAG_KEY_BYTES)
        _at_most("tags", value, TAG_VALUE_BYTES, key)


def _at_most(field: str, value: str, limit: int, key: str | None = None) -> None:
    size = len(value.encode())
    if size > limit:
        raise InvalidTask(
            "{field}: {value} is {size} bytes long; the maximum is {limit}",
            field,
            key=key,
            limit=limit,
            value=url_shown(value),
            size=size,
        )


def _check_executors(task: TesTaskRequest, config: Document) -> None:
    most = config.limits.executors
    if len(task.executors) > most:
        raise InvalidTask(
            "{field}: the task has {count}; the maximum is {limit} (limits.executors)",
            "executors",
            limit=most,
            count=len(task.executors),
        )
    check_strings(task)
    for index, executor in enumerate(task.executors):
        field = f"executors[{index}].image"
        problem = image_names.problem(executor.image)
        if problem is not None:
            raise InvalidTask(
                "{field}: {image} is not an image reference: {problem}",
                field,
                image=Loggable(shown(executor.image)),
                problem=Loggable(problem),
            )
        _check_image(field, executor.image, config.executors)
        for name in executor.env or ():
            field = f"executors[{index}].env"
            _at_most(field, name, ENV_NAME_BYTES)
            if not _ENV_NAME.fullmatch(name):
                raise InvalidTask("{field}: {name} is not a valid variable name", field, name=shown(name))


def _check_image(field: str, image: str, executors: Executors) -> None:
    """Reject an image that the caller may not use. Its name is compared as the container runtime reads it."""
    if executors.images is None:
        return
    name, prefixes = image_names.full_name(image), [entry.value for entry in executors.images]
    if not any(image_names.has_prefix(name, prefix) for prefix in prefixes):
        raise NotAllowed(
            "{field}: {image} is {name}, which you may not use (allowed: {prefixes})",
            field,
            image=Loggable(shown(image)),
            name=Loggable(name),
            prefixes=Loggable(", ".join(prefixes) or "none"),
        )


def _check_patterns(task: TesTaskRequest) -> None:
    for index, output in enumerate(task.outputs or ()):
        field, problem = f"outputs[{index}].path", globs.problem(output.path)
        if problem is not None:
            raise InvalidTask(
                "{field}: {path} is not a valid path or pattern: {problem}",
                field,
                path=Loggable(shown(output.path)),
                problem=Loggable(problem),
            )


def _check_reserved(paths: TaskPaths) -> None:
    for field, path in paths.every:
        for directory in RESERVED:
            if is_inside(path, directory):
                raise InvalidTask(
                    "{field}: {path} is in {directory}, which is reserved for Poiesis",
                    field,
                    path=Loggable(shown(path)),
                    directory=Loggable(directory),
                )


def _check_kernel_trees(paths: TaskPaths) -> None:
    """Reject paths in /proc, /sys and /dev: mounts fail, and a workdir may lead out of the container."""
    for field, path in paths.every:
        devices = _DEVICES.get(field.rpartition(".")[2], frozenset())
        tree = next((one for one in _KERNEL_TREES if is_inside(path, one)), None)
        if tree is None or is_inside(path, _SHARED_MEMORY) or path in devices:
            continue
        raise InvalidTask(
            "{field}: {path} is in the kernel file system {tree} (accepted there: {accepted})",
            field,
            path=Loggable(shown(path)),
            tree=Loggable(tree),
            accepted=Loggable(", ".join(sorted({*devices, _SHARED_MEMORY}))),
        )


def _check_directories(paths: TaskPaths) -> None:
    named = dict(paths.directories)
    for field, path in named.items():
        if is_unmountable(path):
            raise InvalidTask(
                "{field}: {path} is a system directory of the image and cannot be replaced; "
                "use another directory, for example /data",
                field,
                path=Loggable(shown(path)),
            )
    served = frozenset(named.values())
    for field, path in paths.patterns:
        if is_system_directory(path) and served.isdisjoint((path, *ancestors(path))):
            raise InvalidTask(
                "{field}: files that match a pattern in the system directory {path} cannot be collected; "
                "write them to another directory, or name the directory in volumes",
                field,
                path=Loggable(shown(path)),
            )


def _check_files(task: TesTaskRequest, paths: TaskPaths, config: TaskPodConfig) -> None:
    """Reject two inputs with the same path, and paths below an input that is certainly a file."""
    sources: dict[str, str] = {}
    files: dict[str, str] = {}
    for source, (field, path) in zip(task.inputs or (), paths.inputs, strict=True):
        if path in sources:
            raise InvalidTask(
                "{field}: {path} is also the path of {other}; input paths must differ",
                field,
                path=Loggable(shown(path)),
                other=Loggable(sources[path]),
            )
        sources[path] = field
        if certain_type(source, config) == "FILE":
            files[path] = field
    for field, path in (*paths.directories, *paths.patterns, *paths.workdirs):
        _refuse_below_file(field, (path, *ancestors(path)), files)
    for field, path in paths.every:
        _refuse_below_file(field, ancestors(path), files)


def _refuse_below_file(
    field: str, chain: "Iterator[str] | tuple[str, ...]", files: Mapping[str, str]
) -> None:
    for path in chain:
        if path in files:
            raise InvalidTask(
                "{field}: {path} must be a directory, but {other} is a file with this path",
                field,
                path=Loggable(shown(path)),
                other=Loggable(files[path]),
            )


def _check_streams(task: TesTaskRequest, paths: TaskPaths) -> None:
    """Reject streams whose path is a directory of the task or contains one of its inputs."""
    directories = {path: field for field, path in (*paths.directories, *paths.workdirs)}
    for field, path in paths.inputs:
        for above in ancestors(path):
            directories.setdefault(above, field)
    for index, executor in enumerate(task.executors):
        for name in _STREAMS:
            path = getattr(executor, name)
            if path is not None:
                _check_stream(f"executors[{index}].{name}", path, directories)


def _check_stream(field: str, path: str, directories: Mapping[str, str]) -> None:
    if path.endswith("/"):
        raise InvalidTask("{field} must name a file, got {path}", field, path=Loggable(shown(path)))
    if path in directories:
        raise InvalidTask(
            "{field}: {path} must be a file, but {other} makes it a directory",
            field,
            path=Loggable(shown(path)),
            other=Loggable(directories[path]),
        )


def _check_resources(task: TesTaskRequest, config: TaskPodConfig) -> None:
    """Reject requests that no node could satisfy: the task would wait indefinitely and occupy the queue."""
    asked, most = task.resources, config.executors.max_resources
    if asked is None:
        return
    for name in ("cpu_cores", "ram_gb", "disk_gb"):
        _refuse_more(f"resources.{name}", getattr(asked, name) or 0, getattr(most, name), name)
    if asked.backend_parameters:
        gpus = limits.gpus_of(asked, config)
        _refuse_more(parameters.FIELD, gpus, most.gpu_count, "gpu_count")


def _refuse_more(field: str, asked: float, most: float, name: str) -> None:
    if asked > most:
        raise InvalidTask(
            "{field} must be at most {limit:g} on this server ({setting}), got {asked:g}",
            field,
            limit=most,
            setting=Loggable(f"executors.maxResources.{to_camel(name)}"),
            asked=asked,
        )


def _inferred_prefixes(task: TesTaskRequest) -> Iterator[str]:
    for index, output in enumerate(task.outputs or ()):
        if output.wildcard and output.path_prefix is None:
            yield (
                f"outputs[{index}].path_prefix is not set for the pattern {shown(output.path)};"
                f" using {shown(output.directory)}"
            )


def _doubtful_paths(task: TesTaskRequest) -> Iterator[str]:
    """Yield a warning for each output path that may have been meant in another way."""
    for index, output in enumerate(task.outputs or ()):
        named = f"outputs[{index}].path {shown(output.path)}"
        reading, escape = globs.reading(output.path), globs.needless_escape(output.path)
        if reading is globs.Reading.PATTERN and "**" in output.path:
            yield f"{named}: '**' is treated as '*' and does not match '/'; to send a directory tree, name it"
        if reading is globs.Reading.EITHER and output.path_prefix is None:
            yield (
                f"{named} is used as a pattern, and as the name of a file if"
                f" {shown(globs.unescaped(output.path))} exists; write '\\[' and '\\]' for a name"
            )
        if escape is not None:
            yield f"{named}: the backslash in {shown(escape)} is removed (write two for a backslash)"


def _with_backend_parameters(task: TesTaskRequest, config: TaskPodConfig) -> tuple[TesTaskRequest, list[str]]:
    """Remove unsupported backend parameters: they are not stored (TES 1.1, tesResources)."""
    resources = task.resources
    if resources is None or not resources.backend_parameters:
        return task, []
    accepted, warnings = parameters.accepted_parameters(resources, config.backend_parameters)
    parameters.check_combination(config, accepted)
    updated = resources.model_copy(update={"backend_parameters": accepted or None})
    return task.model_copy(update={"resources": updated}), warnings


def sharing_group(task: TesTaskRequest, caller: Caller, sharing: Sharing) -> str | None:
    """Return the group that a task's tag shares it with, or None. Raise InvalidTask."""
    group = (task.tags or {}).get(sharing.tag) if sharing.tag else None
    if not group:
        return None
    field = f"tags.{sharing.tag}"
    if group not in caller.groups:
        raise InvalidTask("{field}: you are not a member of group {group}", field, group=shown(group))
    if sharing.groups and group not in sharing.groups:
        raise InvalidTask(
            "{field}: tasks cannot be shared with group {group} (auth.sharing.groups)",
            field,
            group=shown(group),
        )
    return group
