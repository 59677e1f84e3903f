"""What the parts of one TaskPod must agree on: its containers, the plan of its mounts and its volume."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from poiesis_api.config import TaskPodConfig
from poiesis_api.mounts import MountPlan, is_scratch, needs_volume, plan_mounts
from poiesis_api.taskpod.filer_runs import (
    FilerRun,
    input_runs,
    output_runs,
    stream_runs,
    streamed_inputs,
)
from poiesis_api.taskpod.rescue import rescue_names
from poiesis_api.taskpod.task import Task
from poiesis_models import labels
from poiesis_models.plan import PodPlan
from poiesis_models.tes import TesExecutor, TesTaskRequest


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The decisions about one TaskPod that its manifests share.

    `volume`: `task` if there are inputs, outputs or other data of the task; `scratch` if executors only leave
    files for each other; None without a volume.
    """

    task: Task
    mounts: MountPlan
    inputs: tuple[FilerRun, ...]
    streams: tuple[FilerRun, ...]
    outputs: tuple[FilerRun, ...]
    plan: PodPlan
    volume: Literal["task", "scratch"] | None

    @property
    def name(self) -> str:
        """The name of the task's Job, ServiceAccount and PersistentVolumeClaim."""
        return labels.object_name(self.task.id)

    @property
    def filers(self) -> tuple[FilerRun, ...]:
        """All filer containers."""
        return (*self.inputs, *self.streams, *self.outputs)


def layout_of(task: Task, config: TaskPodConfig) -> Layout:
    """Return the layout of the task's Pod. Raise NoFiler."""
    request = task.request
    mounts = plan_mounts(request, may_place=_may_write_anywhere(config))
    streamed = streamed_inputs(request, mounts, config)
    inputs, streams = input_runs(task, config, streamed=streamed), stream_runs(task, config, streamed)
    outputs = output_runs(task, config)
    upload_on_error = bool(outputs) and config.executors.on_error == "upload"
    plan = PodPlan(
        inputs=tuple(run.name for run in inputs),
        executors=tuple(labels.executor_name(index) for index in range(len(request.executors))),
        ignore_error=tuple(bool(executor.ignore_error) for executor in request.executors),
        prepared=changed_images(request.executors) if mounts.filled else (),
        outputs=tuple(run.name for run in outputs),
        streams=tuple(run.name for run in streams),
        rescues=rescue_names(len(outputs), upload_on_error=upload_on_error, config=config),
        upload_on_error=upload_on_error,
        preemptible=bool(request.resources and request.resources.preemptible),
        files_only=config.recorder.files_only,
    )
    return Layout(
        task=task,
        mounts=mounts,
        inputs=inputs,
        streams=streams,
        outputs=outputs,
        plan=plan,
        volume=_volume_of(request),
    )


def changed_images(executors: Sequence[TesExecutor]) -> tuple[int, ...]:
    """Return the indexes of executors whose image differs from that of the executor before."""
    before: list[str | None] = [None, *(executor.image for executor in executors)]
    return tuple(index for index, executor in enumerate(executors) if executor.image != before[index])


def _volume_of(request: TesTaskRequest) -> Literal["task", "scratch"] | None:
    if not needs_volume(request):
        return None
    return "scratch" if is_scratch(request) else "task"


def _may_write_anywhere(config: TaskPodConfig) -> bool:
    """Return whether the operator lets executors be root on a writable root file system."""
    context = config.executors.effective_security_context
    is_other_user = bool(context.get("runAsNonRoot")) or context.get("runAsUser") not in {None, 0}
    return not (is_other_user or context.get("readOnlyRootFilesystem"))
