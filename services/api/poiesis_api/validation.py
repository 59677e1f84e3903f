"""What a create must satisfy beyond the shape of its document: what cannot work is refused at once. Pure.

Every refusal is an InvalidTask that names the field, the value and what would do instead.
"""

import re
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from poiesis_api import parameters
from poiesis_api.config import Filer, Sharing, TaskPodConfig
from poiesis_api.errors import InvalidTask, MalformedBody, shown
from poiesis_api.identity.caller import Caller
from poiesis_api.mounts import (
    RESERVED,
    ancestors,
    is_directory_input,
    is_inside,
    is_system_directory,
    is_unmountable,
    named_directories,
    normal,
    wildcard_directories,
)
from poiesis_models import shared
from poiesis_models.tes import TesTaskRequest

# Kept within what an index row of Postgres holds; no file system has longer paths in practice.
PATH_BYTES = 1024
OUTPUT_URL_BYTES = 1536
INPUT_URL_BYTES = 65536  # presigned URLs are long; a work list must fit a Secret
TAG_KEY_BYTES = 512
TAG_VALUE_BYTES = 2048
ENV_NAME_BYTES = 1024
NAME_BYTES = 255  # of one segment of a path: Linux
SHOWN_PROBLEMS = 5

_ENV_NAME = re.compile(r"[ -<>-~]+")
_IMAGE = re.compile(r"[!-~]+")
_PREFIX_OF_PYDANTIC = re.compile(r"^(Value error|Assertion failed), ")


def parse_task(body: bytes) -> TesTaskRequest:
    """Raise MalformedBody or InvalidTask."""
    try:
        return TesTaskRequest.model_validate_json(body)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False)
    if problems[0]["type"] == "json_invalid":
        raise MalformedBody(f"the body is not JSON: {problems[0]['msg']}")
    sentences = [_sentence(problem) for problem in problems[:SHOWN_PROBLEMS]]
    if len(problems) > SHOWN_PROBLEMS:
        sentences.append(f"and {len(problems) - SHOWN_PROBLEMS} more")
    raise InvalidTask("; ".join(sentences), field_path(problems[0]["loc"]) or None)


def field_path(location: tuple[int | str, ...]) -> str:
    """('executors', 0, 'image') -> `executors[0].image`."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part != "[key]":
            path += f".{part}" if path else part
    return path.rstrip(".")


def validate(task: TesTaskRequest, config: TaskPodConfig) -> tuple[TesTaskRequest, list[str]]:
    """The task as it will run, and warnings for its system_logs. Raise InvalidTask."""
    _check_sizes(task)
    _check_executors(task)
    _check_reserved(task)
    _check_directories(task)
    _check_files(task)
    _check_urls(task, config)
    task, ignored = _with_backend_parameters(task, config)
    return task, [*_inferred_prefixes(task), *_double_stars(task), *ignored]


def container_paths(task: TesTaskRequest) -> Iterator[tuple[str, str]]:
    """Every path of the task with its field; of patterns their literal directory."""
    for index, source in enumerate(task.inputs or ()):
        yield f"inputs[{index}].path", normal(source.path)
    for index, output in enumerate(task.outputs or ()):
        yield f"outputs[{index}].path", normal(output.directory if output.wildcard else output.path)
    for index, volume in enumerate(task.volumes or ()):
        yield f"volumes[{index}]", normal(volume)
    for index, executor in enumerate(task.executors):
        for name in ("workdir", "stdin", "stdout", "stderr"):
            path = getattr(executor, name)
            if path is not None:
                yield f"executors[{index}].{name}", normal(path)


def _sentence(problem: ErrorDetails) -> str:
    field = field_path(problem["loc"]) or "the body"
    message = _PREFIX_OF_PYDANTIC.sub("", problem["msg"])
    value = problem["input"]
    told = problem["type"] == "missing" or (repr(value) in message and problem["type"] == "value_error")
    if told or not isinstance(value, str | int | float):
        return f"{field}: {message}"
    return f"{field}: {message}, got {shown(value)}"


def _check_sizes(task: TesTaskRequest) -> None:
    for field, path in container_paths(task):
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
        _at_most(f"tags.{key}", value, TAG_VALUE_BYTES)


def _at_most(field: str, value: str, limit: int) -> None:
    size = len(value.encode())
    if size > limit:
        raise InvalidTask(f"{field}: {shown(value)} has {size} bytes; at most {limit} are possible", field)


def _check_executors(task: TesTaskRequest) -> None:
    for index, executor in enumerate(task.executors):
        field = f"executors[{index}].image"
        if not _IMAGE.fullmatch(executor.image):
            raise InvalidTask(f"{field}: {shown(executor.image)} is not an image reference", field)
        for name in executor.env or ():
            field = f"executors[{index}].env"
            _at_most(field, name, ENV_NAME_BYTES)
            if not _ENV_NAME.fullmatch(name):
                raise InvalidTask(f"{field}: {shown(name)} is not the name of a variable", field)


def _check_reserved(task: TesTaskRequest) -> None:
    for field, path in container_paths(task):
        for directory in RESERVED:
            if is_inside(path, directory):
                raise InvalidTask(f"{field}: {path!r} lies in {directory}, which Poiesis uses itself", field)


def _check_directories(task: TesTaskRequest) -> None:
    named = dict(named_directories(task))
    for field, path in named.items():
        if is_unmountable(path):
            raise InvalidTask(
                f"{field}: {path!r} is a system directory of the image and cannot be replaced; "
                "name a directory of its own, for example /data",
                field,
            )
    served = frozenset(named.values())
    for field, path in wildcard_directories(task):
        if is_system_directory(path) and served.isdisjoint((path, *ancestors(path))):
            raise InvalidTask(
                f"{field}: files that match a pattern in the system directory {path!r} cannot be collected; "
                "write them to a directory of their own, or name that directory in volumes",
                field,
            )


def _check_files(task: TesTaskRequest) -> None:
    """No two inputs for one path, and nothing below an input that is a file."""
    sources: dict[str, str] = {}
    files: dict[str, str] = {}
    for index, source in enumerate(task.inputs or ()):
        field, path = f"inputs[{index}].path", normal(source.path)
        if path in sources:
            raise InvalidTask(f"{field}: {path!r} is the path of {sources[path]} too", field)
        sources[path] = field
        if not is_directory_input(source):
            files[path] = field
    directories = (*named_directories(task), *wildcard_directories(task))
    for field, path in directories:
        _refuse_below_file(field, (path, *ancestors(path)), files)
    for field, path in container_paths(task):
        _refuse_below_file(field, ancestors(path), files)


def _refuse_below_file(
    field: str, chain: "Iterator[str] | tuple[str, ...]", files: Mapping[str, str]
) -> None:
    for path in chain:
        if path in files:
            raise InvalidTask(
                f"{field}: {path!r} would be a directory, but {files[path]} makes it a file", field
            )


def _check_urls(task: TesTaskRequest, config: TaskPodConfig) -> None:
    input_schemes, output_schemes = sorted(config.input_filers), sorted(config.output_filers)
    for index, source in enumerate(task.inputs or ()):
        if source.literal is None:
            field, url = f"inputs[{index}].url", source.url or ""
            _check_scheme(field, url, input_schemes)
            _check_shared(field, url, config.input_filers[url_scheme(url)], writing=False)
        elif config.literal_filer is None:
            raise InvalidTask(
                f"inputs[{index}].content: no filer is configured for inputs", f"inputs[{index}].content"
            )
    for index, output in enumerate(task.outputs or ()):
        field = f"outputs[{index}].url"
        _check_scheme(field, output.url, output_schemes)
        _check_shared(field, output.url, config.output_filers[url_scheme(output.url)], writing=True)


def _check_shared(field: str, url: str, filer: Filer, *, writing: bool) -> None:
    """A file:// URL has to name what lies in a shared volume of its filer, if that has any."""
    if url_scheme(url) != "file" or not filer.shared_volumes:
        return
    try:
        volume = shared.volume_of(shared.file_path(url), filer.shared)
    except shared.NotAFileUrl as error:
        raise InvalidTask(f"{field}: {shown(url)} is no file: {error}", field) from error
    usable = [one.prefix for one in filer.shared if one.writable or not writing]
    if volume is None or volume.prefix not in usable:
        what = "can be written" if writing else "can be read"
        raise InvalidTask(
            f"{field}: {shown(url)} is not below a path that {what}: {', '.join(usable) or 'there is none'}",
            field,
        )


def _check_scheme(field: str, url: str, supported: list[str]) -> None:
    if url_scheme(url) not in supported:
        raise InvalidTask(
            f"{field}: {shown(url)} cannot be served; schemes that can: {', '.join(supported) or 'none'}",
            field,
        )


def url_scheme(url: str) -> str:
    """Lower case; "" if there is none. A bare absolute path is a file (TES 1.1, tesInput.url)."""
    if url.startswith("/"):
        return "file"
    try:
        return urlsplit(url).scheme
    except ValueError:  # brackets that are no IPv6 address
        return ""


def _inferred_prefixes(task: TesTaskRequest) -> Iterator[str]:
    for index, output in enumerate(task.outputs or ()):
        if output.wildcard and output.path_prefix is None:
            yield (
                f"outputs[{index}].path_prefix is missing, though path {shown(output.path)} has wildcards:"
                f" {shown(output.prefix)} is taken for it"
            )


def _double_stars(task: TesTaskRequest) -> Iterator[str]:
    for index, output in enumerate(task.outputs or ()):
        if output.wildcard and "**" in output.path:
            yield (
                f"outputs[{index}].path: ** in {shown(output.path)} is what * is, which does not cross /;"
                " for all below a directory send the directory"
            )


def _with_backend_parameters(task: TesTaskRequest, config: TaskPodConfig) -> tuple[TesTaskRequest, list[str]]:
    """Without those that are not supported: they are neither stored nor returned (TES 1.1, tesResources)."""
    resources = task.resources
    if resources is None or not resources.backend_parameters:
        return task, []
    counting, warnings = parameters.settle(resources, config.backend_parameters)
    parameters.check_together(config, counting)
    settled = resources.model_copy(update={"backend_parameters": counting or None})
    return task.model_copy(update={"resources": settled}), warnings


def sharing_group(task: TesTaskRequest, caller: Caller, sharing: Sharing) -> str | None:
    """The group that a task's tag names, whose members may see it. Raise InvalidTask."""
    group = (task.tags or {}).get(sharing.tag) if sharing.tag else None
    if not group:
        return None
    field = f"tags.{sharing.tag}"
    if group not in caller.groups:
        raise InvalidTask(f"{field}: you are no member of the group {shown(group)}", field)
    if sharing.groups and group not in sharing.groups:
        raise InvalidTask(f"{field}: {shown(group)} is none of the groups that tasks are shared with", field)
    return group
