"""Where a task's data lies in its executors: which directories of the task volume are mounted where. Pure.

Whole directories are mounted, so that an index file lies beside its input and executors can share what they
write. Where the directory is a system directory, that would hide the image: there an input is mounted as a
single file, and the helper copies an output to the volume when the process has ended ("collected").
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from posixpath import dirname

from poiesis_models import paths
from poiesis_models.tes import TesExecutor, TesInput, TesOutput, TesTaskRequest

RESERVED = (paths.POIESIS, paths.TASK)

# Nothing below these may be hidden.
_SYSTEM_TREES = (
    "/bin",
    "/dev",
    "/etc",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/proc",
    "/run",
    "/sbin",
    "/sys",
    "/usr",
)
# Only these directories themselves may not.
_SYSTEM_DIRECTORIES = frozenset(
    {"/", "/home", "/opt", "/root", "/var", "/var/cache", "/var/lib", "/var/log", "/var/run", "/var/spool"}
)
# Below the trees, these hold programs and libraries too: a mount would break the image.
_VITAL_DIRECTORIES = frozenset(
    f"{prefix}/{name}"
    for prefix in ("/usr", "/usr/local")
    for name in ("bin", "lib", "lib32", "lib64", "libexec", "libx32", "local", "sbin", "share")
)
_NOT_A_DISK = ("/proc", "/sys")  # container runtimes refuse mounts below these


@dataclass(frozen=True, kw_only=True)
class MountPlan:
    """All paths are container paths, absolute and without a trailing slash.

    `directories` are mounted in every executor; none lies in another. `files` are inputs mounted one by one.
    `made` exist before the first executor: `directories` and those that the task names inside them.
    `collected` are outputs that the helper copies out of an executor's own file system.
    """

    directories: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    made: tuple[str, ...] = ()
    collected: tuple[str, ...] = ()


def normal(path: str) -> str:
    """Without trailing slashes."""
    return path.rstrip("/") or "/"


def is_inside(path: str, directory: str) -> bool:
    """Whether `path` is `directory` or lies below it."""
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def is_system_directory(directory: str) -> bool:
    """Whether mounting over it for the sake of one file could hide what the image needs."""
    return directory in _SYSTEM_DIRECTORIES or any(is_inside(directory, tree) for tree in _SYSTEM_TREES)


def is_unmountable(directory: str) -> bool:
    """Whether it cannot be mounted even if the task names it as a directory."""
    return (
        directory in _SYSTEM_DIRECTORIES
        or directory in _SYSTEM_TREES
        or directory in _VITAL_DIRECTORIES
        or any(is_inside(directory, tree) for tree in _NOT_A_DISK)
    )


def is_directory_input(source: TesInput) -> bool:
    """Whether an input is certainly a directory."""
    return source.certain_type == "DIRECTORY"


def is_directory_output(output: TesOutput) -> bool:
    """Whether an output is certainly a directory."""
    return not output.wildcard and (output.type == "DIRECTORY" or output.path.endswith("/"))


def named_directories(task: TesTaskRequest) -> Iterator[tuple[str, str]]:
    """Directories that the task names as such, with the field that names them."""
    for index, path in enumerate(task.volumes or ()):
        yield f"volumes[{index}]", normal(path)
    for index, source in enumerate(task.inputs or ()):
        if is_directory_input(source):
            yield f"inputs[{index}].path", normal(source.path)
    for index, output in enumerate(task.outputs or ()):
        if is_directory_output(output):
            yield f"outputs[{index}].path", normal(output.place)


def wildcard_directories(task: TesTaskRequest) -> Iterator[tuple[str, str]]:
    """The deepest literal directory of each output pattern, with the field."""
    for index, output in enumerate(task.outputs or ()):
        if output.wildcard:
            yield f"outputs[{index}].path", normal(output.directory)


def needs_volume(task: TesTaskRequest) -> bool:
    """Whether there is anything to share or to keep; a volume can cost seconds."""
    disk = task.resources.disk_gb if task.resources else None
    return bool(task.inputs or task.outputs or task.volumes or disk)


def plan_mounts(task: TesTaskRequest) -> MountPlan:
    """Of a validated task."""
    if not needs_volume(task):
        return MountPlan()
    inputs = [normal(one.path) for one in task.inputs or () if not is_directory_input(one)]
    outputs = [
        normal(one.place) for one in task.outputs or () if not one.wildcard and not is_directory_output(one)
    ]
    named = [directory for _, directory in (*named_directories(task), *wildcard_directories(task))]
    parents = [
        directory
        for directory in map(dirname, (*inputs, *outputs, *_streams(task.executors)))
        if not is_system_directory(directory)
    ]
    made = sorted({*named, *parents})
    directories = outermost(made)
    mounted = frozenset(directories)
    return MountPlan(
        directories=directories,
        files=tuple(sorted(path for path in inputs if not _covered(path, mounted))),
        made=tuple(made),
        collected=tuple(sorted({path for path in outputs if not _covered(path, mounted)} - set(inputs))),
    )


def outermost(directories: Iterable[str]) -> tuple[str, ...]:
    """Those that lie in no other, sorted."""
    kept: dict[str, None] = {}
    for directory in sorted(set(directories)):
        if not _covered(directory, kept):
            kept[directory] = None
    return tuple(kept)


def ancestors(path: str) -> Iterator[str]:
    """`/a/b/c` -> `/a/b`, `/a`, `/`."""
    while path != "/":
        path = dirname(path)
        yield path


def _streams(executors: Sequence[TesExecutor]) -> Iterator[str]:
    for executor in executors:
        yield from filter(None, (executor.stdin, executor.stdout, executor.stderr))


def _covered(path: str, directories: Collection[str]) -> bool:
    return path in directories or any(ancestor in directories for ancestor in ancestors(path))
