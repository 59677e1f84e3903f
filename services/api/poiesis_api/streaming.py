"""Which inputs are streamed: an executor reads them from a FIFO while they are downloaded. Pure.

A FIFO can be read once, from beginning to end, by one process. An input is streamed only if the task allows
it (TES 1.1, `streamable`) and nothing but the task's only executor can open the FIFO. All other inputs are
staged.
"""

from collections.abc import Iterator
from urllib.parse import urlsplit

from poiesis_api.mounts import MountPlan
from poiesis_api.task_paths import is_inside, normal
from poiesis_models.tes import TesInput, TesTaskRequest

MOST = 8  # streams of one task; each occupies a thread and a connection while it is read


def streamable_inputs(task: TesTaskRequest, mounts: MountPlan) -> frozenset[int]:
    """Return the indexes of the first MOST inputs of a validated task that a FIFO can replace."""
    asked = {
        index: normal(source.path)
        for index, source in enumerate(task.inputs or ())
        if _is_streamable_file(source)
    }
    if not asked or len(task.executors) != 1:  # a second one would find the FIFO empty
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
    """Return whether a URL names an object; other S3 URLs name directories."""
    path = urlsplit(source.url or "").path
    return bool(path.strip("/")) and not path.endswith("/")


def _is_met(index: int, path: str, task: TesTaskRequest) -> bool:
    """Return whether another path of the task contains this one, or is inside it."""
    around = (*_read_by_filers(index, task), *_opened_by_the_helper(task))
    return any(is_inside(path, one) or is_inside(one, path) for one in around) or any(
        is_inside(normal(volume), path) for volume in task.volumes or ()
    )


def _read_by_filers(index: int, task: TesTaskRequest) -> Iterator[str]:
    """Yield the paths of other inputs and of outputs: filers write or read all that is below them."""
    for number, source in enumerate(task.inputs or ()):
        if number != index:
            yield normal(source.path)
    for output in task.outputs or ():
        yield normal(output.directory if output.wildcard else output.place)


def _opened_by_the_helper(task: TesTaskRequest) -> Iterator[str]:
    """Yield the executors' streams: the helper treats a FIFO without a writer as an empty file."""
    for executor in task.executors:
        yield from filter(None, (executor.stdin, executor.stdout, executor.stderr))
