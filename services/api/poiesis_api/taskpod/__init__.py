"""The Kubernetes objects of one task, as plain manifests. Pure: no connection, environment or clock.

`task_objects` is the entry. Each module imports only earlier ones of this list: `manifest`, `task`,
`filer_runs`, `layout`, `secrets`, `storage`, `volumes`, `containers`, `scheduling`, `objects`.
"""

from poiesis_api.taskpod.filer_runs import NoFiler
from poiesis_api.taskpod.manifest import Manifest, owned_by
from poiesis_api.taskpod.objects import TaskObjects, task_objects
from poiesis_api.taskpod.scheduling import KUEUE_QUEUE_LABEL
from poiesis_api.taskpod.task import RecorderPostgres, Task

__all__ = [
    "KUEUE_QUEUE_LABEL",
    "Manifest",
    "NoFiler",
    "RecorderPostgres",
    "Task",
    "TaskObjects",
    "owned_by",
    "task_objects",
]
