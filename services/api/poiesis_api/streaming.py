"""Which inputs are streamed: an executor reads them from a FIFO while they are downloaded. Pure.

A FIFO is read once, from its beginning to its end, by one process. So an input is streamed only where the
task says that this will do (TES 1.1, `streamable`) and where nothing but its one executor can come across
the FIFO; every other input is staged, whatever it says.
"""

from collections.abc import Iterator
from urllib.parse import urlsplit

from poiesis_api.mounts import MountPlan
from poiesis_api.task_paths import is_inside, normal
from poiesis_models.tes import TesInput, TesTaskRequest

MOST = 8  # of one task: each holds a thread and a connection as long as it is read


def streamable_inputs(task: TesTaskRequest, mounts: MountPlan) -> frozenset[int]:
    """Return the indexes of the first MOST inputs of a validated task that a FIFO can replace."""
    asked = {
        index: normal(source.path)
        for index, source in enumerate(task.inputs or ())
        if _is_streamable_file(source)
    }
    if not asked or len(task.executors) != 1:  # a second one would find nothing left
        return frozenset()
    outside = {*mounts.placed, *mounts.files}  # outside every mounted directory: copied or mounted alone
    found = [index for index, path in asked.items() if path not in outside and not _is_met(index, path, task)]
    return frozenset(found[:MOST])


def _is_streamable_file(source: TesInput) -> bool:
    return (
        source.streamable is True
        and source.type == "FILE"
        and source.literal is None
        and _names_a_file(source)
    )


def _names_a_file(source: TesInput) -> bool:
    """Of S3 the rest are directories."""
    path = urlsplit(source.url or "").path
    return bool(path.strip("/")) and not path.endswith("/")


def _is_met(index: int, path: str, task: TesTaskRequest) -> bool:
    """Whether anything else that the task names leads to it, or lies where it lies."""
    around = (*_read_by_filers(index, task), *_opened_by_the_helper(task))
    return any(is_inside(path, one) or is_inside(one, path) for one in around) or any(
        is_inside(normal(volume), path) for volume in task.volumes or ()
    )


def _read_by_filers(index: int, task: TesTaskRequest) -> Iterator[str]:
    """A directory that is sent holds it, and one that is staged may bring the same file."""
    for number, source in enumerate(task.inputs or ()):
        if number != index:
            yield normal(source.path)
    for output in task.outputs or ():
        yield normal(output.directory if output.wildcard else output.place)


def _opened_by_the_helper(task: TesTaskRequest) -> Iterator[str]:
    """It takes a FIFO that nobody writes yet for an empty one."""
    for executor in task.executors:
        yield from filter(None, (executor.stdin, executor.stdout, executor.stderr))
