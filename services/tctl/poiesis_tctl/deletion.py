"""Delete ended tasks, and what their executors wrote, when they are old enough."""

import asyncio
import logging
from collections.abc import Callable, Sequence

from poiesis_models.backoff import Backoff
from poiesis_tctl import retention
from poiesis_tctl.archive import Archive, ArchiveUnavailable
from poiesis_tctl.config import Retention
from poiesis_tctl.retention import FIRST, MOST_TASKS, Deletions, EndedTask, Sweep
from poiesis_tctl.retention_db import RetentionDb
from poiesis_tctl.tasks_db import DatabaseUnavailable

logger = logging.getLogger(__name__)

_ROUND_SECONDS = 300.0
_BACKOFF = Backoff(first=10.0, longest=_ROUND_SECONDS)


class Deletion:
    """The work of one leader. Two leaders do no harm: rows are deleted once, and objects are the same.

    `may_delete`: whether a task that is old enough has no object in Kubernetes that needs its row.
    """

    def __init__(
        self,
        db: RetentionDb,
        settings: Retention,
        *,
        may_delete: Callable[[EndedTask], bool],
        archive: Archive | None = None,
        round_seconds: float = _ROUND_SECONDS,
    ) -> None:
        self._db = db
        self._sweeps = tuple(retention.sweeps(settings))
        self._may_delete = may_delete
        self._archive = archive
        self._round_seconds = round_seconds
        self._size = MOST_TASKS
        self.counts = Deletions()

    async def run(self) -> None:
        """Work until cancelled. A failure ends a round, and the next one starts from the oldest task."""
        failures = 0
        while True:
            try:
                for sweep in self._sweeps:
                    await self.sweep(sweep)
            except (DatabaseUnavailable, ArchiveUnavailable) as error:
                failures += 1
                self.counts.failures += 1
                self._size = max(1, self._size // 2)
                seconds = _BACKOFF.delay(failures)
                logger.warning(
                    "cannot delete ended tasks, retrying", extra={"error": str(error), "in": seconds}
                )
            else:
                failures, seconds = 0, self._round_seconds
            await asyncio.sleep(seconds)

    async def sweep(self, sweep: Sweep) -> None:
        """Delete all that is due, in batches. Raise DatabaseUnavailable or ArchiveUnavailable."""
        after, count = FIRST, 0
        while tasks := await self._db.due(sweep, after, self._size):
            after, seconds = tasks[-1].place, 0.0
            if due := retention.batch(tasks, self._may_delete):
                archived = await self._archived(sweep, due)
                after = archived[-1].place
                deleted, seconds = await self._delete(sweep, archived)
                count += deleted
            await asyncio.sleep(retention.pause_seconds(seconds))
        if count:
            logger.info(
                "deleted ended tasks", extra={"kind": sweep.kind, "state": sweep.state, "tasks": count}
            )

    async def _archived(self, sweep: Sweep, due: Sequence[EndedTask]) -> Sequence[EndedTask]:
        """Return the first tasks of a batch, of which the archive has the documents; without one, all."""
        if self._archive is None:
            return due
        return await self._archive.store(sweep.kind, due, self._db.documents([task.id for task in due]))

    async def _delete(self, sweep: Sweep, tasks: Sequence[EndedTask]) -> tuple[int, float]:
        """Return the number of deleted tasks, and the seconds that it took."""
        clock = asyncio.get_running_loop().time
        start = clock()
        count = await self._db.delete(sweep, [task.id for task in tasks])
        seconds = clock() - start
        self.counts.deleted[sweep.kind] += count
        self._size = retention.next_size(self._size, seconds)
        return count, seconds
