"""Which filer containers a task gets, and the work list of each."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TypeVar

from poiesis_api.config import Filer, FilerSide, StorageCredentials, TaskPodConfig
from poiesis_api.grants import needed_by
from poiesis_api.mounts import MountPlan
from poiesis_api.storage_urls import url_scheme
from poiesis_api.streaming import streamable_inputs
from poiesis_api.task_paths import normal
from poiesis_api.taskpod.task import Task
from poiesis_models import labels, paths
from poiesis_models.tes import TesInput, TesOutput, TesTaskRequest
from poiesis_models.worklist import FileType, InputItem, OutputItem, WorkList, waves

_Item = TypeVar("_Item", InputItem, OutputItem)

WORK_LIST_BYTES = 400 * 1024  # of one container's work list, which must fit a Secret


class NoFiler(Exception):
    """No configured filer serves this URL: the configuration has changed since the task was created."""


@dataclass(frozen=True, kw_only=True)
class FilerRun:
    """One filer container: its program, its work list and what it needs for that.

    `key`: of the work list in the task's Secrets. `credentials`: S3 credentials in addition to the
    deployment's own. `contents`: literal contents that it writes, by key in the task's Secrets.
    """

    name: str
    filer: Filer
    side: FilerSide
    key: str
    work_list: WorkList
    credentials: Sequence[StorageCredentials] = ()
    contents: Mapping[str, str] = field(default_factory=dict)


def streamed_inputs(request: TesTaskRequest, mounts: MountPlan, config: TaskPodConfig) -> frozenset[int]:
    """Return the indexes of the inputs that are streamed to the executor. Raise NoFiler."""
    return frozenset(
        index
        for index in streamable_inputs(request, mounts)
        if _input_filer((request.inputs or ())[index], config)[1].stream_command is not None
    )


def stream_runs(task: Task, config: TaskPodConfig, streamed: frozenset[int]) -> tuple[FilerRun, ...]:
    """Return one sidecar for each filer that streams inputs."""
    groups = _group_by_filer(
        (_input_filer(source, config), _input_item(index, source))
        for index, source in enumerate(task.request.inputs or ())
        if index in streamed
    )
    return tuple(
        FilerRun(
            name=labels.stream_name(number),
            filer=filer,
            side=side,
            key=f"streams-{number}.json",
            work_list=WorkList(task=str(task.id), inputs=tuple(items)),
            credentials=needed_by(items, (), granted_credentials(task, filer, config)),
        )
        for number, (filer, side, items) in enumerate(groups)
    )


def input_runs(task: Task, config: TaskPodConfig, *, streamed: frozenset[int]) -> tuple[FilerRun, ...]:
    """Return the containers that stage inputs, in the order in which they run. Raise NoFiler."""
    contents: dict[str, str] = {}
    served: list[tuple[tuple[Filer, FilerSide], InputItem]] = []
    for index, source in enumerate(task.request.inputs or ()):
        if index in streamed:
            continue
        item = _input_item(index, source)
        if item.content_file is not None:
            contents[item.content_file] = source.literal or ""
        served.append((_input_filer(source, config), item))
    return tuple(
        FilerRun(
            name=labels.tif_name(number),
            filer=filer,
            side=side,
            key=f"inputs-{number}.json",
            work_list=WorkList(task=str(task.id), inputs=tuple(items)),
            credentials=needed_by(items, (), granted_credentials(task, filer, config)),
            contents={item.content_file: contents[item.content_file] for item in items if item.content_file},
        )
        for number, (filer, side, items) in enumerate(_split(_group_in_staging_order(served)))
    )


def output_runs(task: Task, config: TaskPodConfig) -> tuple[FilerRun, ...]:
    """Return the containers that send outputs: one per filer and work list. Raise NoFiler."""
    groups = _group_by_filer(
        (_output_filer(output, config), _output_item(output)) for output in task.request.outputs or ()
    )
    return tuple(
        FilerRun(
            name=labels.tof_name(number),
            filer=filer,
            side=side,
            key=f"outputs-{number}.json",
            work_list=WorkList(task=str(task.id), outputs=tuple(items)),
            credentials=needed_by((), items, granted_credentials(task, filer, config)),
        )
        for number, (filer, side, items) in enumerate(_split(groups))
    )


def granted_credentials(task: Task, filer: Filer, config: TaskPodConfig) -> list[StorageCredentials]:
    """Return the task's S3 credentials as configured now; those since removed are left out."""
    if not filer.object_storage:
        return []
    return [entry for entry in config.storage.s3.credentials if entry.name in task.credentials]


def _group_in_staging_order(
    served: Sequence[tuple[tuple[Filer, FilerSide], InputItem]],
) -> Iterator[tuple[Filer, FilerSide, list[InputItem]]]:
    """Yield the inputs of each filer: once per filer, unless inputs of different filers cover one another."""
    by_filer = list(_group_by_filer(served))
    first, *others = waves([item for _, item in served]) or [[]]
    if len(by_filer) == 1 or not others:
        yield from by_filer
        return
    for wave in (first, *others):
        yield from _group_by_filer(served[index] for index in wave)


def _group_by_filer(
    served: Iterable[tuple[tuple[Filer, FilerSide], _Item]],
) -> Iterable[tuple[Filer, FilerSide, list[_Item]]]:
    """Return the items of each filer, ordered by their first occurrence."""
    groups: dict[str, tuple[Filer, FilerSide, list[_Item]]] = {}
    for (filer, side), item in served:
        groups.setdefault(filer.name, (filer, side, []))[2].append(item)
    return groups.values()


def _input_filer(source: TesInput, config: TaskPodConfig) -> tuple[Filer, FilerSide]:
    if source.literal is not None:
        filer = config.literal_filer
    else:
        filer = config.input_filers.get(url_scheme(source.url or ""))
    if filer is None or filer.inputs is None:
        raise NoFiler(f"no filer is configured for the input {source.path}")
    return filer, filer.inputs


def _output_filer(output: TesOutput, config: TaskPodConfig) -> tuple[Filer, FilerSide]:
    filer = config.output_filers.get(url_scheme(output.url))
    if filer is None or filer.outputs is None:
        raise NoFiler(f"no filer is configured for the output {output.path}")
    return filer, filer.outputs


def _input_item(index: int, source: TesInput) -> InputItem:
    path = normal(source.path)
    literal = source.literal is not None
    return InputItem(
        path=path,
        local=paths.data_path(path),
        type=_file_type(source.type),
        url=None if literal else source.url,
        content_file=f"content-{index}" if literal else None,
    )


def _output_item(output: TesOutput) -> OutputItem:
    path = normal(output.place)
    return OutputItem(
        url=output.url,
        path=path,
        local=paths.data_path(path),
        type="DIRECTORY" if output.path.endswith("/") else _file_type(output.type),
        wildcard=output.wildcard,
        path_prefix=output.prefix,
    )


def _file_type(value: str | None) -> FileType | None:
    return "FILE" if value == "FILE" else "DIRECTORY" if value == "DIRECTORY" else None


def _split(
    groups: Iterable[tuple[Filer, FilerSide, list[_Item]]],
) -> Iterator[tuple[Filer, FilerSide, list[_Item]]]:
    """Yield the items of each filer in parts of at most WORK_LIST_BYTES, one part per container."""
    for filer, side, items in groups:
        for part in _split_work_list(items):
            yield filer, side, part


def _split_work_list(items: Sequence[_Item]) -> Iterator[list[_Item]]:
    """Yield the items in parts of at most WORK_LIST_BYTES."""
    part: list[_Item] = []
    size = 0
    for item in items:
        item_size = len(json.dumps(asdict(item), ensure_ascii=False).encode())
        if part and size + item_size > WORK_LIST_BYTES:
            yield part
            part, size = [], 0
        part.append(item)
        size += item_size
    if part:
        yield part
