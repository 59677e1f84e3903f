"""The paths of a task in its containers, each with the field that names it. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from posixpath import dirname

from poiesis_models.tes import TesInput, TesOutput, TesTaskRequest

NamedPath = tuple[str, str]  # field of the document, and its path without trailing slashes


@dataclass(frozen=True, kw_only=True)
class TaskPaths:
    """The absolute container paths of a task, without trailing slashes.

    `every`: all paths; an output pattern is represented by the deepest directory without wildcards.
    `inputs`: one per input. `directories`: volumes, and inputs and outputs that are directories.
    `patterns`: the deepest directory without wildcards of each output pattern. `workdirs`: of executors.
    """

    every: tuple[NamedPath, ...]
    inputs: tuple[NamedPath, ...]
    directories: tuple[NamedPath, ...]
    patterns: tuple[NamedPath, ...]
    workdirs: tuple[NamedPath, ...]

    @classmethod
    def of(cls, task: TesTaskRequest) -> "TaskPaths":
        """Return the paths of a task in the order of its document."""
        inputs, outputs, executors = task.inputs or (), task.outputs or (), tuple(_of_executors(task))
        sources = tuple((f"inputs[{index}].path", normal(one.path)) for index, one in enumerate(inputs))
        targets = tuple(
            (f"outputs[{index}].path", normal(one.directory if one.wildcard else one.place))
            for index, one in enumerate(outputs)
        )
        volumes = tuple((f"volumes[{index}]", normal(one)) for index, one in enumerate(task.volumes or ()))
        return cls(
            every=(*sources, *targets, *volumes, *executors),
            inputs=sources,
            directories=(
                *volumes,
                *(named for named, one in zip(sources, inputs, strict=True) if is_directory_input(one)),
                *(named for named, one in zip(targets, outputs, strict=True) if is_directory_output(one)),
            ),
            patterns=tuple(named for named, one in zip(targets, outputs, strict=True) if one.wildcard),
            workdirs=tuple((field, path) for field, path in executors if field.endswith(".workdir")),
        )


def normal(path: str) -> str:
    """Return the path without trailing slashes."""
    return path.rstrip("/") or "/"


def is_inside(path: str, directory: str) -> bool:
    """Return whether `path` is `directory` or lies below it."""
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def ancestors(path: str) -> Iterator[str]:
    """Yield the directories above a path, nearest first: `/a/b/c` -> `/a/b`, `/a`, `/`."""
    while path != "/":
        path = dirname(path)
        yield path


def is_directory_input(source: TesInput) -> bool:
    """Return whether an input is certainly a directory."""
    return source.certain_type == "DIRECTORY"


def is_directory_output(output: TesOutput) -> bool:
    """Return whether an output is certainly a directory."""
    return not output.wildcard and (output.type == "DIRECTORY" or output.path.endswith("/"))


def _of_executors(task: TesTaskRequest) -> Iterator[NamedPath]:
    for index, executor in enumerate(task.executors):
        for name in ("workdir", "stdin", "stdout", "stderr"):
            path = getattr(executor, name)
            if path is not None:
                yield f"executors[{index}].{name}", normal(path)
