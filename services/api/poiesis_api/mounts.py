"""Where a task's data is mounted in its executors. Pure.

Whole directories of the task volume are mounted, so that an index file can be next to its input and executors
can share the files that they write. A directory that the task names starts empty. A directory that the task
names only through a file in it, or as `workdir`, is first filled from the executor's image. Where nothing can
be mounted (`/`, `/etc`, ...), the helper copies single files there and back. ADR 0016.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from posixpath import dirname

from poiesis_api.task_paths import (
    TaskPaths,
    ancestors,
    is_directory_input,
    is_directory_output,
    is_inside,
    normal,
)
from poiesis_models import paths
from poiesis_models.tes import TesExecutor, TesTaskRequest

RESERVED = (paths.POIESIS,)

# Mounts must not hide anything below these.
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
# Mounts must not hide these directories; those below may be mounted.
_SYSTEM_DIRECTORIES = frozenset(
    {"/", "/home", "/opt", "/root", "/var", "/var/cache", "/var/lib", "/var/log", "/var/run", "/var/spool"}
)
# These contain programs and libraries as well: a mount would break the image.
_VITAL_DIRECTORIES = frozenset(
    f"{prefix}/{name}"
    for prefix in ("/usr", "/usr/local")
    for name in ("bin", "lib", "lib32", "lib64", "libexec", "libx32", "local", "sbin", "share")
)
_NOT_A_DISK = ("/proc", "/sys")  # container runtimes reject mounts below these


MOST_DIRECTORIES = 64  # mounts per executor; if there are more, their common parents are mounted


@dataclass(frozen=True, kw_only=True)
class MountPlan:
    """The mounts of a task's executors. Paths are absolute container paths without a trailing slash.

    `directories` are mounted in every executor; none is inside another. Those in `filled` get the image's
    files, except in and below `fresh`. `placed` are files that the helper copies to their place and back;
    `files` are inputs mounted one by one because the helper could not. `made` are the directories created
    before the first executor.
    """

    directories: tuple[str, ...] = ()
    filled: tuple[str, ...] = ()
    fresh: tuple[str, ...] = ()
    placed: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    made: tuple[str, ...] = ()


def is_system_directory(directory: str) -> bool:
    """Return whether a mount there, needed for one file only, could hide files that the image needs."""
    return directory in _SYSTEM_DIRECTORIES or any(is_inside(directory, tree) for tree in _SYSTEM_TREES)


def is_unmountable(directory: str) -> bool:
    """Return whether it cannot be mounted even if the task names it as a directory."""
    return (
        directory in _SYSTEM_DIRECTORIES
        or directory in _SYSTEM_TREES
        or directory in _VITAL_DIRECTORIES
        or any(is_inside(directory, tree) for tree in _NOT_A_DISK)
    )


def needs_volume(task: TesTaskRequest) -> bool:
    """Return whether the task needs a volume. Creating one may take seconds."""
    return not is_scratch(task) or bool(_workdirs(task)) or _shares_streams(task)


def is_scratch(task: TesTaskRequest) -> bool:
    """Return whether a volume would contain only working directories and streams between executors."""
    disk = task.resources.disk_gb if task.resources else None
    return not (task.inputs or task.outputs or task.volumes or disk)


def plan_mounts(task: TesTaskRequest, *, may_place: bool = True) -> MountPlan:
    """Return the mounts of a validated task. `may_place`: executors may be root and write anywhere."""
    if not needs_volume(task):
        return MountPlan()
    task_paths = TaskPaths.of(task)
    named = {path for _, path in task_paths.directories}
    patterns = {path for _, path in task_paths.patterns}
    inputs = {normal(one.path) for one in task.inputs or () if not is_directory_input(one)}
    outputs = {
        normal(one.place) for one in task.outputs or () if not one.wildcard and not is_directory_output(one)
    }
    streams = set(_streams(task.executors))
    around = {
        *map(dirname, (*inputs, *outputs, *streams)),
        *patterns,
        *_workdirs(task),
    }
    known = {path for path in around if not is_system_directory(path)}
    wanted = named | known | patterns
    directories = few(outermost(wanted))
    mounted = frozenset(directories)
    filled = tuple(path for path in directories if path not in named)
    inherited = frozenset(filled)
    alone = {path for path in inputs | outputs | streams if not _covered(path, mounted)}
    return MountPlan(
        directories=directories,
        filled=filled,
        fresh=outermost(path for path in named if _covered(path, inherited)),
        placed=tuple(sorted(alone if may_place else alone - inputs)),
        files=() if may_place else tuple(sorted(alone & inputs)),
        made=_made(task, directories, outputs | streams, patterns),
    )


def _made(
    task: TesTaskRequest, directories: Sequence[str], files: Iterable[str], patterns: Collection[str]
) -> tuple[str, ...]:
    """Return the directories created before the first executor: mounts, and directories of the task in them.

    Output directories below a volume are left to the programs.
    """
    volumes, mounted = frozenset(normal(path) for path in task.volumes or ()), frozenset(directories)
    made = {*directories, *volumes, *_workdirs(task)}
    made |= {normal(one.path) for one in task.inputs or () if is_directory_input(one)}
    made |= {parent for parent in map(dirname, files) if _covered(parent, mounted)}
    results = {normal(one.place) for one in task.outputs or () if is_directory_output(one)}
    results |= set(patterns)
    made |= {path for path in results if not any(above in volumes for above in ancestors(path))}
    return tuple(sorted(made))


def few(directories: tuple[str, ...], most: int = MOST_DIRECTORIES) -> tuple[str, ...]:
    """Return at most `most` directories, as deep as possible, that contain all of these.

    More remain if only a system directory is their common parent. Each is a mount of every executor.
    """
    depth = max((path.count("/") for path in directories), default=0)
    while len(directories) > most and depth > 1:
        directories = outermost(
            dirname(path) if path.count("/") == depth and not is_system_directory(dirname(path)) else path
            for path in directories
        )
        depth -= 1
    return directories


def _workdirs(task: TesTaskRequest) -> set[str]:
    """Return the mountable working directories."""
    found = (normal(one.workdir) for one in task.executors if one.workdir is not None)
    return {path for path in found if not is_system_directory(path) and not is_unmountable(path)}


def _shares_streams(task: TesTaskRequest) -> bool:
    return len(task.executors) > 1 and any(True for _ in _streams(task.executors))


def outermost(directories: Iterable[str]) -> tuple[str, ...]:
    """Return the directories that are not inside another one, sorted."""
    kept: dict[str, None] = {}
    for directory in sorted(set(directories)):
        if not _covered(directory, kept):
            kept[directory] = None
    return tuple(kept)


def _streams(executors: Sequence[TesExecutor]) -> Iterator[str]:
    for executor in executors:
        for path in (executor.stdin, executor.stdout, executor.stderr):
            if path is not None and not is_inside(path, "/dev") and not is_inside(path, "/proc"):
                yield normal(path)


def _covered(path: str, directories: Collection[str]) -> bool:
    return path in directories or any(ancestor in directories for ancestor in ancestors(path))
