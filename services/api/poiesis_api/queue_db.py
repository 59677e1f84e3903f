"""The queue of tasks without a Job: leases of tasks to replicas, and the results of submissions.

The column `claimed_until` is the end of a lease.
"""

from dataclasses import dataclass, field
from uuid import UUID

from poiesis_api import tasks_db
from poiesis_api.limits import UNLIMITED
from poiesis_api.postgres import Pool, driver_errors, execute, fetch, transaction
from poiesis_documents.documents import REQUEST
from poiesis_models.states import TaskOutcome


@dataclass(frozen=True, kw_only=True)
class Lease:
    """A task that only this replica submits until the lease expires.

    `namespace`: where it runs; None: in the api's. `request`: its TES document as JSON. `s3_credentials`:
    names of the credentials granted to it.
    """

    id: UUID
    namespace: str | None
    attempts: int
    age_seconds: float
    request: str = field(repr=False)
    recorder_token: str = field(repr=False)
    s3_credentials: list[str]


@dataclass(frozen=True, kw_only=True)
class JobPlace:
    """A task and the namespace of its Job; None: the api's."""

    id: UUID
    namespace: str | None


# Replicas lease one after the other, so that no two assign the same last place. The lock is on a row, because
# any role of the database can take an advisory lock. Postgres ends the transaction of a replica that has
# vanished.
_LEASE_LOCK = "SELECT one FROM claim_turn FOR UPDATE"

# The next task is one of the owner with the fewest tasks. $1: tasks at most; $2: active tasks at most; $3:
# seconds; $4: active tasks at most of one owner. A task whose Pod has had no node for $5 seconds is stalled:
# perhaps no node is large enough. Stalled tasks get at most half of the places; an owner with that many gets
# no more tasks. $6: the namespace of tasks that an earlier release stored without one, unless it has tried to
# submit them: those may have a Job in the api's namespace.
_LEASE = f"""
WITH RECURSIVE active AS MATERIALIZED (
    SELECT owner, count(*) AS tasks, count(*) FILTER (WHERE stalls) AS stalled FROM (
        SELECT owner, state = 'QUEUED' AND submitted_at < now() - make_interval(secs => $5) AS stalls
          FROM task WHERE submitted_at IS NOT NULL AND ended_at IS NULL
        UNION ALL
        SELECT owner, false FROM task
         WHERE submitted_at IS NULL AND ended_at IS NULL AND claimed_until > now()
    ) a GROUP BY owner
), room AS MATERIALIZED (
    SELECT greatest(0, least($1::integer, $2::integer - coalesce(
               sum(tasks) - greatest(0, sum(stalled) - $2::integer / 2), 0))) AS tasks
      FROM active
), waiting AS ( -- the owners, found one by one on the index
    (SELECT owner FROM task WHERE submitted_at IS NULL AND ended_at IS NULL
        AND (SELECT tasks FROM room) > 0 ORDER BY owner LIMIT 1)
    UNION ALL
    SELECT (SELECT owner FROM task WHERE submitted_at IS NULL AND ended_at IS NULL
               AND owner > w.owner ORDER BY owner LIMIT 1)
      FROM waiting w WHERE w.owner IS NOT NULL
), candidate AS (
    SELECT due.id, due.next_submit_at,
           coalesce(active.tasks, 0)
           + row_number() OVER (PARTITION BY w.owner ORDER BY due.next_submit_at, due.seq) AS turn
      FROM waiting w LEFT JOIN active ON active.owner = w.owner
     CROSS JOIN LATERAL (
        SELECT id, seq, next_submit_at FROM task
         WHERE owner = w.owner AND submitted_at IS NULL AND ended_at IS NULL
           AND cancel_requested_at IS NULL AND next_submit_at <= now()
           AND (claimed_until IS NULL OR claimed_until <= now())
         ORDER BY next_submit_at, seq LIMIT $1
     ) due
     WHERE coalesce(active.stalled, 0) < greatest(1, $2::integer / 2)
), chosen AS ( -- except tasks that are being canceled now
    SELECT id FROM task
     WHERE id = ANY (ARRAY(
               SELECT id FROM candidate WHERE turn <= $4::bigint
                ORDER BY turn, next_submit_at LIMIT (SELECT tasks FROM room)))
       AND submitted_at IS NULL AND ended_at IS NULL AND cancel_requested_at IS NULL
       FOR UPDATE SKIP LOCKED
)
UPDATE task t
   SET claimed_until = now() + make_interval(secs => $3), submit_attempts = t.submit_attempts + 1,
       namespace = coalesce(t.namespace, CASE WHEN t.submit_attempts = 0 THEN $6::text END)
  FROM chosen WHERE t.id = chosen.id
RETURNING t.id, t.namespace, t.submit_attempts AS attempts, t.recorder_token, t.s3_credentials,
          {REQUEST} AS request,
          extract(epoch FROM now() - t.created_at)::double precision AS age_seconds
"""  # noqa: S608


async def lease_tasks(
    pool: Pool,
    *,
    most: int,
    max_active: int,
    seconds: float,
    max_active_per_owner: int = UNLIMITED,
    stalled_seconds: float = UNLIMITED,
    namespace: str | None = None,
) -> list[Lease]:
    """Lease due tasks up to the limit of active ones, fairly per owner. Raise StorageUnavailable."""
    async with transaction(pool) as db:
        await db.fetchval(_LEASE_LOCK)
        rows = await db.fetch(
            _LEASE, most, max_active, seconds, max_active_per_owner, stalled_seconds, namespace
        )
    return [Lease(**dict(row)) for row in rows]


# From here on the recorder may report. The claim is kept until the Job has been unsuspended as well.
_MARK_SUBMITTED = """
UPDATE task SET submitted_at = coalesce(submitted_at, now()), recorder_token = NULL,
                claimed_until = CASE WHEN $2 THEN claimed_until END
 WHERE id = $1 AND cancel_requested_at IS NULL AND ended_at IS NULL
RETURNING true
"""


async def mark_submitted(pool: Pool, task_id: UUID, *, keep_lease: bool) -> bool:
    """Record that the Job may run. Return False if the task was canceled before, or has ended."""
    return bool(await fetch(pool, _MARK_SUBMITTED, task_id, keep_lease))


_RELEASE = "UPDATE task SET claimed_until = NULL WHERE id = $1"
_RELEASE_AFTER = (
    "UPDATE task SET claimed_until = now() + make_interval(secs => $2) WHERE id = $1 AND ended_at IS NULL"
)


async def release(pool: Pool, task_id: UUID) -> None:
    """End the lease: this replica has finished with the task."""
    await execute(pool, _RELEASE, task_id)


async def release_after(pool: Pool, task_id: UUID, seconds: float) -> None:
    """End the lease after `seconds`; then any replica continues with the task."""
    await execute(pool, _RELEASE_AFTER, task_id, seconds)


_POSTPONE = """
WITH logged AS (
    INSERT INTO system_log (task_id, source, key, message) VALUES ($1, 'api', $3, $4) ON CONFLICT DO NOTHING
)
UPDATE task SET claimed_until = NULL, next_submit_at = now() + make_interval(secs => $2)
 WHERE id = $1 AND submitted_at IS NULL AND ended_at IS NULL
"""


async def postpone(pool: Pool, task_id: UUID, *, seconds: float, key: str, message: str) -> None:
    """Retry after `seconds`. The message is added to system_logs once per `key`."""
    await execute(pool, _POSTPONE, task_id, seconds, key, message)


_LEASE_HALF_SUBMITTED = """
UPDATE task SET claimed_until = now() + make_interval(secs => $1)
 WHERE id IN (
    SELECT id FROM task
     WHERE submitted_at IS NOT NULL AND ended_at IS NULL AND cancel_requested_at IS NULL
       AND claimed_until <= now()
     LIMIT $2 FOR UPDATE SKIP LOCKED
 )
RETURNING id, namespace
"""


async def lease_half_submitted(pool: Pool, *, seconds: float, most: int) -> list[JobPlace]:
    """Lease submitted tasks whose Job may still be suspended, because their replica died in between."""
    return [JobPlace(**dict(row)) for row in await fetch(pool, _LEASE_HALF_SUBMITTED, seconds, most)]


_CANCELING = """
SELECT id FROM task WHERE state = 'CANCELING' AND cancel_requested_at < now() - make_interval(secs => $1)
 ORDER BY random() LIMIT $2
"""


async def canceling_tasks(pool: Pool, *, older_than_seconds: float, most: int) -> list[UUID]:
    """Return canceled tasks whose Job should have been deleted by now."""
    return [row["id"] for row in await fetch(pool, _CANCELING, older_than_seconds, most)]


_NAMESPACE = "SELECT namespace FROM task WHERE id = $1"


async def namespace_of(pool: Pool, task_id: UUID) -> str | None:
    """Return the namespace of a task's Job; None: the api's."""
    return next((row["namespace"] for row in await fetch(pool, _NAMESPACE, task_id)), None)


_FINISH_UNSUBMITTED = """
SELECT id FROM task
 WHERE id = $1 AND state = 'CANCELING' AND submitted_at IS NULL
   AND (claimed_until IS NULL OR claimed_until <= now())
   FOR UPDATE
"""


async def finish_unsubmitted(pool: Pool, task_id: UUID) -> None:
    """End a canceled task that was never submitted and whose Job is deleted. The controller ends others."""
    async with transaction(pool) as db:
        if await db.fetchval(_FINISH_UNSUBMITTED, task_id) is not None:
            await tasks_db.finish_task(db, task_id, tasks_db.CANCELED, cancel_seen=True)


async def finish_canceled(pool: Pool, task_id: UUID) -> None:
    """End a canceled task, none of whose objects exist. A task that has ended is not changed."""
    with driver_errors():
        await tasks_db.finish_task(pool, task_id, tasks_db.CANCELED, cancel_seen=True)


async def finish_rejected(pool: Pool, task_id: UUID, outcome: TaskOutcome) -> None:
    """End a task that could not be submitted; a requested cancel takes precedence."""
    async with transaction(pool) as db:
        if not await tasks_db.finish_task(db, task_id, outcome, cancel_seen=False):
            canceled = await db.fetchval("SELECT state = 'CANCELING' FROM task WHERE id = $1", task_id)
            if canceled:
                await tasks_db.finish_task(db, task_id, tasks_db.CANCELED, cancel_seen=True)
