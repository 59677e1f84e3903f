"""Record the events of a task's Pods and its PersistentVolumeClaim in system_logs.

Nothing depends on it: it has its own queue and worker and changes no state. Without the right to watch
events, or while Postgres rejects lines, everything else in the controller works.
"""

import logging
from collections import defaultdict
from uuid import UUID

from poiesis_models.run_all import run_all
from poiesis_tctl import podevents
from poiesis_tctl.informer import Informer, WatchState, WatchTimes
from poiesis_tctl.kube import Kube
from poiesis_tctl.podevents import PodLine
from poiesis_tctl.tasks_db import DatabaseUnavailable, TasksDb
from poiesis_tctl.workqueue import WorkQueue

logger = logging.getLogger(__name__)


class EventLog:
    """The event log of one leadership. The next leader lists the same events; none is recorded twice."""

    def __init__(self, kube: Kube, tasks: TasksDb, *, watch_times: WatchTimes | None = None) -> None:
        self._tasks = tasks
        self._queue: WorkQueue[str] = WorkQueue()
        self._events = Informer(
            kube,
            kube.path("Event"),
            changed=self._queue.add,
            slim=podevents.slim_event,
            selector=podevents.SELECTOR,
            times=watch_times,
        )
        self._recorded: dict[str, frozenset[PodLine]] = {}  # of the events that still exist

    def watch(self, namespace: str) -> WatchState:
        """Return the state of the informer."""
        return self._events.state(namespace)

    async def run(self) -> None:
        """Record events until cancelled."""
        try:
            await run_all([self._events.run(), self._work()])
        finally:
            self._queue.close()

    async def _work(self) -> None:
        while True:
            key = await self._queue.get()
            try:
                await self._record(key)
            except DatabaseUnavailable as error:
                seconds = self._queue.failed(key)
                logger.warning(
                    "cannot record events, retrying", extra={"task": key, "error": str(error), "in": seconds}
                )
            except Exception:  # a defect that one task triggers must not stop the others
                seconds = self._queue.failed(key)
                logger.exception(
                    "unexpected error about events, retrying", extra={"task": key, "in": seconds}
                )
            else:
                self._queue.done(key)

    async def _record(self, key: str) -> None:
        cache = self._events.cache
        cache.forget_gone(key)
        lines = frozenset(event["line"] for event in cache.of(key))
        for pod_uid, news in _by_pod(lines - self._recorded.get(key, frozenset())).items():
            await self._tasks.add_pod_lines(UUID(key), pod_uid, news)
        if lines:
            self._recorded[key] = lines
        else:
            self._recorded.pop(key, None)


def _by_pod(lines: frozenset[PodLine]) -> dict[str | None, list[PodLine]]:
    pods: dict[str | None, list[PodLine]] = defaultdict(list)
    for line in lines:
        pods[line.pod_uid].append(line)
    return pods
