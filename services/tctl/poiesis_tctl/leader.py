"""The work of one leadership: a controller for each namespace of tasks, deletion by age, and the metrics."""

import asyncio
import logging
from collections.abc import Mapping, Sequence

from poiesis_models.run_all import run_all
from poiesis_tctl.archive import Archive
from poiesis_tctl.config import Config
from poiesis_tctl.controller import Controller
from poiesis_tctl.deletion import Deletion
from poiesis_tctl.informer import WatchState, WatchTimes
from poiesis_tctl.kube import Kube
from poiesis_tctl.retention import Deletions, EndedTask
from poiesis_tctl.retention_db import RetentionDb
from poiesis_tctl.tasks_db import DatabaseUnavailable, TasksDb
from poiesis_tctl.totals import Totals
from poiesis_tctl.transfers import Figures, Transfers

logger = logging.getLogger(__name__)

_METRICS_SECONDS = 15.0


class Leader:
    """The controllers of all namespaces. One that cannot be read, or that was deleted, delays no other."""

    def __init__(
        self,
        kubes: Sequence[Kube],
        tasks: TasksDb,
        config: Config,
        *,
        archive: Archive | None = None,
        watch_times: WatchTimes | None = None,
        metrics_seconds: float = _METRICS_SECONDS,
    ) -> None:
        slots = asyncio.Semaphore(config.workers)
        self._tasks = tasks
        self._metrics_seconds = metrics_seconds
        self._controllers = [
            Controller(kube, tasks.within(kube.namespace), config, slots=slots, watch_times=watch_times)
            for kube in kubes
        ]
        self._deletion = Deletion(
            RetentionDb(tasks), config.retention, may_delete=self._may_delete, archive=archive
        )
        self.figures: Figures | None = None  # of the last read; None before the first
        self.totals: Totals | None = None  # read together with them

    @property
    def synced(self) -> Mapping[str, bool]:
        """Whether the caches of Pods and Jobs are complete, by namespace."""
        return {one.namespace: one.synced for one in self._controllers}

    @property
    def deletions(self) -> Deletions:
        """Return what was deleted since the leader started."""
        return self._deletion.counts

    @property
    def watches(self) -> Sequence[WatchState]:
        """Return the state of each informer."""
        return [state for one in self._controllers for state in one.watches]

    async def run(self) -> None:
        """Work until cancelled. A failure about one task or namespace is retried; any other ends the work."""
        await run_all(
            [*(one.run() for one in self._controllers), self._collect_metrics(), self._deletion.run()]
        )

    def _may_delete(self, task: EndedTask) -> bool:
        """Return False while the task has a Pod or a Job in a watched namespace."""
        return not any(
            one.namespace == task.namespace and one.has_objects(task.id) for one in self._controllers
        )

    async def _collect_metrics(self) -> None:
        """Read Postgres periodically for the metrics. Transfers are counted from the first read."""
        transfers = Transfers()
        namespaces = [one.namespace for one in self._controllers]
        while True:
            try:
                await self._tasks.count_ended()
                totals = await self._tasks.read_totals()
                self.figures = transfers.count(await self._tasks.read_metrics(namespaces))
                self.totals = totals
            except DatabaseUnavailable as error:
                logger.warning("postgres unavailable, metrics not updated", extra={"error": str(error)})
            await asyncio.sleep(self._metrics_seconds)
