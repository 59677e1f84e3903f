"""An upper bound of a Pod's size from counts, so that few tasks need their manifest to be checked. Pure.

Building the Pod of a task and counting its bytes takes longer than the rest of a create without the database.
The operator's share of a Pod is measured once, on a reference task that uses every filer; what a task adds is
estimated generously. A task that the bound does not accept is counted exactly (`object_limits`).
"""

from collections.abc import Collection
from dataclasses import dataclass

from poiesis_models.tes import TesTaskRequest

# Of a container, in addition to that of the reference: longer numbers and names, options that the reference
# lacks, its entries in the plan (twice) and its volume with one source per key.
CONTAINER_BYTES = 2048
MOUNT_BYTES = 512  # without its path, at most twice per path of the task and executor
# Of one byte of the task's JSON, per executor and once more. A path is twice in a mount, twice in its status,
# and its merge key in managedFields escapes a byte with six; `$` is doubled in a command.
TEXT_FACTOR = 12
MOST_TEXT = 32 * 1024  # fits one Secret with the work lists that repeat it
MOST_FILES = 128
_PLAN_BYTES = 64  # of one container's entries in the plan


@dataclass(frozen=True, kw_only=True)
class PodSize:
    """At most so many bytes: what counts against `limits.taskObjectBytes`, and the longest string."""

    stored: int
    longest: int


@dataclass(frozen=True, kw_only=True)
class PodBound:
    """The operator's share of every Pod in bytes: once, of each executor, input and output, of any string."""

    once: int
    executor: int
    input: int
    output: int
    string: int

    def size(self, task: TesTaskRequest, credentials: Collection[str]) -> PodSize | None:
        """Return an upper bound for a validated task; None for a task whose Pod may differ otherwise."""
        inputs, outputs = len(task.inputs or ()), len(task.outputs or ())
        files = inputs + outputs
        text = len(task.model_dump_json().encode())
        parameters = task.resources and task.resources.backend_parameters
        if credentials or parameters or files > MOST_FILES or text > MOST_TEXT:
            return None
        executors = len(task.executors)
        mounted = files + len(task.volumes or ()) + 4 * executors  # streams and workdir
        stored = (
            self.once
            + executors * self.executor
            + inputs * self.input
            + outputs * self.output
            + executors * mounted * 2 * MOUNT_BYTES
            + (executors + 1) * TEXT_FACTOR * text
        )
        containers = 2 * (executors + files)
        return PodSize(stored=stored, longest=self.string + text + containers * _PLAN_BYTES + CONTAINER_BYTES)
