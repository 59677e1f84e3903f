"""The length of the queue by why its tasks wait, for the metrics.

Every replica exports the same values, because each knows the limits: use `max` over replicas. The statement
reads the indexes of waiting and active tasks, not those that have ended.
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass

from poiesis_api import metrics
from poiesis_api.config import Document
from poiesis_api.errors import StorageUnavailable
from poiesis_api.limits import active_per_owner
from poiesis_api.postgres import Pool, fetch

logger = logging.getLogger(__name__)

# refused: Kubernetes refused it, and the next attempt is due later. owner_limit: its owner has as many active
# tasks as one may have. place: it is due. kueue, pod: its Job exists, and waits for Kueue, or for a node, its
# images or its recorder.
REASONS = ("place", "owner_limit", "refused", "kueue", "pod")
READ_SECONDS = 15.0

# $1: active tasks at most of one owner. The oldest task over an owner's limit is not known, so the owner's
# oldest one stands for it.
_DEPTH = """
WITH submitted AS MATERIALIZED (
    SELECT id, owner, state, created_at FROM task WHERE submitted_at IS NOT NULL AND ended_at IS NULL
), active AS (
    SELECT owner, count(*) AS tasks FROM submitted GROUP BY owner
), queued AS (
    SELECT owner, submit_attempts > 0 AND next_submit_at > now() AS refused, count(*) AS tasks,
           min(created_at) AS oldest
      FROM task WHERE submitted_at IS NULL AND ended_at IS NULL AND cancel_requested_at IS NULL
     GROUP BY 1, 2
), due AS (
    SELECT q.tasks, q.oldest,
           least(q.tasks, greatest(0, q.tasks + coalesce(a.tasks, 0) - $1::bigint)) AS over_limit
      FROM queued q LEFT JOIN active a USING (owner) WHERE NOT refused
), started AS (
    SELECT CASE WHEN starts_with(last.key, 'Kueue-') THEN 'kueue' ELSE 'pod' END AS reason, created_at
      FROM submitted s LEFT JOIN LATERAL (
        SELECT key FROM system_log WHERE task_id = s.id ORDER BY at DESC, id DESC LIMIT 1
      ) last ON true
     WHERE s.state = 'QUEUED'
), depth AS (
    SELECT 'refused' AS reason, tasks, oldest FROM queued WHERE refused
     UNION ALL
    SELECT 'owner_limit', over_limit, oldest FROM due WHERE over_limit > 0
     UNION ALL
    SELECT 'place', tasks - over_limit, oldest FROM due WHERE tasks > over_limit
     UNION ALL
    SELECT reason, count(*), min(created_at) FROM started GROUP BY reason
)
SELECT reason, sum(tasks)::bigint AS tasks,
       extract(epoch FROM now() - min(oldest))::double precision AS oldest_age_seconds
  FROM depth GROUP BY reason
"""


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """Tasks that wait for one reason. `oldest_age_seconds`: since the creation of the oldest."""

    tasks: int = 0
    oldest_age_seconds: float = 0.0


async def read_depth(pool: Pool, max_active_per_owner: int) -> Mapping[str, Waiting]:
    """Return the waiting tasks by reason, with a value for each of REASONS. Raise StorageUnavailable."""
    rows = await fetch(pool, _DEPTH, max_active_per_owner)
    found = {
        row["reason"]: Waiting(tasks=row["tasks"], oldest_age_seconds=row["oldest_age_seconds"])
        for row in rows
    }
    return {reason: found.get(reason, Waiting()) for reason in REASONS}


async def follow(pool: Pool, config: Document) -> None:
    """Set the metrics periodically, until canceled."""
    while True:
        try:
            await update(pool, config)
        except StorageUnavailable as error:
            logger.warning("postgres unavailable, metrics not updated", extra={"outage": error.outage.name})
        await asyncio.sleep(READ_SECONDS)


async def update(pool: Pool, config: Document) -> None:
    """Set the metrics once. Raise StorageUnavailable."""
    depth = await read_depth(pool, active_per_owner(config.effective_user_limits))
    for reason, waiting in depth.items():
        metrics.QUEUE_TASKS.labels(reason).set(waiting.tasks)
        metrics.QUEUE_OLDEST.labels(reason).set(waiting.oldest_age_seconds)
    metrics.QUEUE_READ.set(time.time())
