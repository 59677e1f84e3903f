"""Tell in system_logs what befell a task's Pods and its claim, from their events.

This holds nothing up: it has a queue and a worker of its own, changes no state, and without the right to
watch events, or with lines that Postgres will not have, the controller does everything else as ever.
"""

import logging
from collections import defaultdict
from uuid import UUID

from poiesis_models.together import together
from poiesis_tctl import podevents
from poiesis_tctl.informer import Informer, WatchTimes, WorkQueue
from poiesis_tctl.kube import Kube
from poiesis_tctl.podevents import PodLine
from poiesis_tctl.tasks_db import DatabaseUnavailable, TasksDb

logger = logging.getLogger(__name__)


class EventLog:
    """Lives as long as one leadership. The next leader lists the same events, and tells none twice."""

    def __init__(self, kube: Kube, tasks: TasksDb, *, watch_times: WatchTimes | None = None) -> None:
        self._tasks = tasks
        self._queue: WorkQueue[str] = WorkQueue()
        self._events = Informer(
            kube,
            kube.events_path,
            changed=self._queue.add,
            slim=podevents.slim_event,
            selector=podevents.SELECTOR,
            times=watch_times,
        )
        self._told: dict[str, frozenset[PodLine]] = {}  # of the events that still exist

    async def run(self) -> None:
        """Until cancelled."""
        try:
            await together([self._events.run(), self._work()])
        finally:
            self._queue.close()

    async def _work(self) -> None:
        while True:
            key = await self._queue.get()
            try:
                await self._tell(key)
            except DatabaseUnavailable as error:
                seconds = self._queue.failed(key)
                logger.warning(
                    "cannot tell events yet", extra={"task": key, "error": str(error), "seconds": seconds}
                )
            except Exception:  # events of one task must not cost those of the others
                seconds = self._queue.failed(key)
                logger.exception("cannot tell events", extra={"task": key, "seconds": seconds})
            else:
                self._queue.done(key)

    async def _tell(self, key: str) -> None:
        cache = self._events.cache
        cache.forget_gone(key)
        lines = frozenset(event["line"] for event in cache.of(key))
        for pod_uid, news in _by_pod(lines - self._told.get(key, frozenset())).items():
            await self._tasks.tell(UUID(key), pod_uid, news)
        if lines:
            self._told[key] = lines
        else:
            self._told.pop(key, None)


def _by_pod(lines: frozenset[PodLine]) -> dict[str | None, list[PodLine]]:
    pods: dict[str | None, list[PodLine]] = defaultdict(list)
    for line in lines:
        pods[line.pod_uid].append(line)
    return pods
