"""The controller's reads and writes in Postgres. Every write is conditional: two leaders do no harm."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from uuid import UUID

import asyncpg

from poiesis_models.outages import Outage, outage
from poiesis_models.report import executors_json
from poiesis_models.states import TesState
from poiesis_tctl.decide import Attempt, Finish, RequeueAttempt, SystemLog, TaskRow
from poiesis_tctl.metrics import DATABASE
from poiesis_tctl.podevents import PodLine
from poiesis_tctl.totals import BUCKETS, OTHER, PHASES, REASONS, Bucket, Outcome, Table, Totals
from poiesis_tctl.transfers import SILENCE, FilerRow, MetricsSnapshot, Moved, Place, Run

LINES_OF_A_POD = 50
UNFINISHED_STATES = (TesState.QUEUED, TesState.INITIALIZING, TesState.RUNNING, TesState.CANCELING)
_STATEMENT_SECONDS = 30.0
_CONNECT_SECONDS = 10.0
_COUNTED = 1_000  # ended tasks in one statement


class DatabaseUnavailable(Exception):
    """Postgres could not be reached, or rejected a statement."""


@asynccontextmanager
async def connect(dsn: str, *, connections: int, home: str) -> AsyncIterator["TasksDb"]:
    """Open a pool that connects when needed, for the tasks in the namespace `home`.

    No prepared statements outlive a transaction (PgBouncer).
    """
    pool = asyncpg.create_pool(
        dsn,
        min_size=0,
        max_size=connections,
        command_timeout=_STATEMENT_SECONDS,
        timeout=_CONNECT_SECONDS,
        statement_cache_size=0,
        server_settings={"application_name": "poiesis-tctl"},
    )
    async with pool:
        DATABASE.watch(pool)
        yield TasksDb(pool, home=home)


class TasksDb:
    """The statements of the controller about the tasks in one namespace.

    Tasks in other namespaces do not exist for it, so objects with their labels change nothing. `home`: the
    namespace of tasks that an earlier release stored without one. Every method raises DatabaseUnavailable.
    """

    def __init__(self, pool: asyncpg.Pool, *, home: str, namespace: str | None = None) -> None:
        self._pool = pool
        self.home = home
        self.namespace = namespace or home

    def within(self, namespace: str) -> "TasksDb":
        """Return the statements about the tasks in another namespace, on the same connections."""
        return TasksDb(self._pool, home=self.home, namespace=namespace)

    _LOAD = """
    SELECT state::text, cancel_requested_at IS NOT NULL AS cancel_requested, ended_at IS NOT NULL AS ended,
           submitted_at IS NOT NULL AS submitted, coalesce(claimed_until > now(), false) AS claimed,
           reported_by::text
      FROM task WHERE id = $1 AND coalesce(namespace, $2) = $3
    """

    async def load(self, task_id: UUID) -> TaskRow | None:
        """Return the row of a task, None if there is no such task in the namespace."""
        async with self.connection() as connection:
            row = await connection.fetchrow(self._LOAD, task_id, self.home, self.namespace)
        if row is None:
            return None
        return TaskRow(
            id=task_id,
            state=TesState(row["state"]),
            cancel_requested=row["cancel_requested"],
            ended=row["ended"],
            submitted=row["submitted"],
            claimed=row["claimed"],
            reported_by=row["reported_by"],
        )

    _UNFINISHED = """
    SELECT id FROM task
     WHERE ended_at IS NULL AND submitted_at < now() - interval '1 minute' AND coalesce(namespace, $1) = $2
     UNION
    SELECT id FROM task WHERE state = 'CANCELING' AND coalesce(namespace, $1) = $2
    """

    async def unfinished(self) -> list[UUID]:
        """Return the tasks that must have objects in the namespace, or have ended."""
        async with self.connection() as connection:
            rows = await connection.fetch(self._UNFINISHED, self.home, self.namespace)
        return [row["id"] for row in rows]

    _COUNT = """
    SELECT coalesce(namespace, $1) AS namespace, state::text, count(*) AS tasks
      FROM task WHERE ended_at IS NULL GROUP BY 1, 2
    """
    # A requeued attempt has ended although its task has not, and its filers may never report their end.
    _FILERS = """
    SELECT f.task_id, f.attempt, f.container, f.start_time, f.files, f.bytes, f.bytes_per_second,
           f.end_time IS NULL AND a.end_time IS NULL AND t.ended_at IS NULL AS moving
      FROM filer_log f JOIN task_log a USING (task_id, attempt) JOIN task t ON t.id = f.task_id
     WHERE f.told_at > now() - $1::interval
    """

    async def read_metrics(self, namespaces: Sequence[str]) -> MetricsSnapshot:
        """Return the number of unfinished tasks and the progress of the filers that are reported.

        Tasks are counted in every namespace that has any, and in those of `namespaces` that have none.
        """
        async with self.connection() as connection, connection.transaction():  # one now()
            at = await connection.fetchval("SELECT now()")
            counted = await connection.fetch(self._COUNT, self.home)
            filers = [_filer_row(row) for row in await connection.fetch(self._FILERS, SILENCE)]
        tasks = {Place(one, state): 0 for one in namespaces for state in UNFINISHED_STATES}
        tasks |= {Place(row["namespace"], TesState(row["state"])): row["tasks"] for row in counted}
        return MetricsSnapshot(at=at, tasks=tasks, filers=filers)

    # Each row of task_end is taken by one transaction, which adds it to both counters or to none.
    # queued: until the first Pod's recorder reports; initializing: of the last attempt, until its first
    # executor starts; running: from then on. A phase that was not reached is not counted.
    _COUNT_ENDED = """
    WITH taken AS (
        DELETE FROM task_end WHERE task_id = ANY (ARRAY(
            SELECT task_id FROM task_end LIMIT $1 FOR UPDATE SKIP LOCKED
        )) RETURNING task_id
    ), ended AS MATERIALIZED (
        SELECT t.state, t.created_at, t.ended_at, a.first, a.last, e.started,
               CASE WHEN t.reason IS NULL THEN '' WHEN t.reason = ANY ($2) THEN t.reason ELSE $3 END AS reason
          FROM taken JOIN task t ON t.id = taken.task_id
         CROSS JOIN LATERAL (
            SELECT min(start_time) AS first, max(start_time) AS last, max(attempt) AS attempt
              FROM task_log WHERE task_id = t.id
         ) a
         CROSS JOIN LATERAL (
            SELECT min(start_time) AS started
              FROM executor_log WHERE task_id = t.id AND attempt = a.attempt
         ) e
    ), outcomes AS (
        INSERT INTO outcome_count AS c (state, reason, tasks)
        SELECT state, reason, count(*) FROM ended GROUP BY 1, 2 ORDER BY 1, 2
        ON CONFLICT (state, reason) DO UPDATE SET tasks = c.tasks + excluded.tasks
    ), lasted AS (
        SELECT phase, greatest(0, extract(epoch FROM until - since))::double precision AS seconds
          FROM ended CROSS JOIN LATERAL (VALUES
               ('queued', created_at, coalesce(first, ended_at)),
               ('initializing', last, coalesce(started, ended_at)),
               ('running', started, ended_at)
          ) AS phases (phase, since, until)
         WHERE since IS NOT NULL
    ), phases AS (
        INSERT INTO phase_count AS c (phase, le, tasks, seconds)
        SELECT phase, (SELECT min(bound) FROM unnest($4::double precision[]) AS bound WHERE bound >= seconds),
               count(*), sum(seconds)
          FROM lasted GROUP BY 1, 2 ORDER BY 1, 2
        ON CONFLICT (phase, le) DO UPDATE SET tasks = c.tasks + excluded.tasks,
                                              seconds = c.seconds + excluded.seconds
    )
    SELECT count(*) FROM taken
    """

    async def count_ended(self) -> None:
        """Move tasks that have ended since the last call into the counters."""
        async with self.connection() as connection:
            moved = _COUNTED
            while moved == _COUNTED:
                moved = await connection.fetchval(
                    self._COUNT_ENDED, _COUNTED, sorted(REASONS), OTHER, list(map(float, BUCKETS))
                )

    _OUTCOMES = "SELECT state::text, reason, tasks FROM outcome_count"
    _PHASES = "SELECT phase, le, tasks, seconds FROM phase_count"
    _TABLES = """
    SELECT relname, greatest(reltuples, 0)::bigint AS rows, pg_total_relation_size(oid) AS bytes
      FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
    """
    _DATABASE = "SELECT pg_database_size(current_database())"

    async def read_totals(self) -> Totals:
        """Return the counters, and the sizes of the database and its tables."""
        async with self.connection() as connection:
            outcomes = await connection.fetch(self._OUTCOMES)
            phases = await connection.fetch(self._PHASES)
            tables = await connection.fetch(self._TABLES)
            database_bytes = await connection.fetchval(self._DATABASE)
        return Totals(
            outcomes={Outcome(TesState(row["state"]), row["reason"]): row["tasks"] for row in outcomes},
            phases={
                phase: [
                    Bucket(row["le"], row["tasks"], row["seconds"]) for row in phases if row["phase"] == phase
                ]
                for phase in PHASES
            },
            tables={row["relname"]: Table(row["rows"], row["bytes"]) for row in tables},
            database_bytes=database_bytes,
        )

    # The row is locked, so the result still holds for finish_task below.
    _MAY_FINISH = """
    SELECT ended_at IS NULL AND ($2 OR cancel_requested_at IS NULL) FROM task WHERE id = $1 FOR UPDATE
    """
    _FINISH = """
    SELECT finish_task(p_task => $1, p_state => $2::text::tes_state, p_reason => $3, p_message => $4,
                       p_container => $5, p_by => 'controller', p_cancel_seen => $6)
    """

    # It keeps what the recorder has reported.
    _RECORD_EXECUTORS = "SELECT record_executors(p_task => $1, p_attempt => $2, p_executors => $3)"

    async def finish(self, task_id: UUID, finish: Finish) -> bool:
        """Store the outcome and what the recorder did not report. Return whether it was stored.

        Nothing is stored if the task has already ended, or if a cancel was requested after the decision.
        """
        outcome = finish.outcome
        async with self.connection() as connection, connection.transaction():
            if not await connection.fetchval(self._MAY_FINISH, task_id, finish.cancel_seen):
                return False
            if finish.attempt is not None:
                attempt = await self._attempt(connection, task_id, finish.attempt)
                await connection.execute(
                    self._RECORD_EXECUTORS, task_id, attempt, executors_json(finish.executors)
                )
                if finish.note is not None:
                    await connection.execute(
                        _ADD_SYSTEM_LOG, task_id, attempt, "recorder-silent", finish.note
                    )
            stored = await connection.fetchval(
                self._FINISH,
                task_id,
                outcome.state.value,
                outcome.reason,
                outcome.message,
                outcome.container,
                finish.cancel_seen,
            )
        return bool(stored)

    _ADD_ATTEMPT = """
    INSERT INTO task_log (task_id, attempt, pod_uid, pod_name, node, start_time)
    SELECT $1, coalesce(max(attempt) + 1, 0), $2, $3, $4, coalesce($5, now()) FROM task_log WHERE task_id = $1
    ON CONFLICT (task_id, pod_uid) DO NOTHING
    """

    async def _attempt(self, connection: asyncpg.Connection, task_id: UUID, attempt: Attempt) -> int:
        await connection.execute(
            self._ADD_ATTEMPT, task_id, attempt.pod_uid, attempt.pod_name, attempt.node, attempt.start
        )
        number = await connection.fetchval(
            "SELECT attempt FROM task_log WHERE task_id = $1 AND pod_uid = $2", task_id, attempt.pod_uid
        )
        return int(number)

    _CLOSE = """
    UPDATE task_log SET end_time = now()
     WHERE task_id = $1 AND end_time IS NULL AND ($2::text IS NULL OR pod_uid = $2)
    RETURNING attempt
    """
    # Not if a newer attempt has begun, which determines the state. Never from CANCELING or a terminal state.
    _REQUEUE = """
    UPDATE task SET state = 'QUEUED'
     WHERE id = $1 AND state IN ('INITIALIZING', 'RUNNING')
       AND NOT EXISTS (SELECT FROM task_log WHERE task_id = $1 AND end_time IS NULL)
    """

    async def requeue(self, task_id: UUID, requeue: RequeueAttempt) -> None:
        """Close the attempt and wait for the next, unless the task has ended or the attempt is closed."""
        async with self.connection() as connection, connection.transaction():
            if not await connection.fetchval(self._MAY_FINISH, task_id, True):
                return
            for row in await connection.fetch(self._CLOSE, task_id, requeue.pod_uid):
                await connection.execute(
                    _ADD_SYSTEM_LOG, task_id, row["attempt"], "requeued", requeue.message
                )
            await connection.execute(self._REQUEUE, task_id)

    async def add_system_log(self, task_id: UUID, log: SystemLog) -> None:
        """Add a line to the system logs of a task without a Pod; once for each key."""
        async with self.connection() as connection:
            await connection.execute(_ADD_SYSTEM_LOG, task_id, None, log.key, log.message)

    # The lines of a Pod without an attempt belong to the next one, those of a claim to the last.
    # A known key is skipped.
    _ADD_POD_LINES = """
    WITH pod AS (
        SELECT coalesce((SELECT attempt FROM task_log WHERE task_id = $1 AND pod_uid = $2),
                        (SELECT max(attempt) + ($2::text IS NOT NULL)::int FROM task_log WHERE task_id = $1),
                        0) AS attempt
          FROM task WHERE id = $1 AND coalesce(namespace, $7) = $8
    ), known AS (
        SELECT key FROM system_log JOIN pod USING (attempt)
         WHERE task_id = $1 AND source = 'controller' AND starts_with(key, 'event/')
    ), new AS (
        SELECT *, row_number() OVER (ORDER BY at) + (SELECT count(*) FROM known) AS number
          FROM (SELECT DISTINCT ON (key) *
                  FROM unnest($3::timestamptz[], $4::text[], $5::text[]) AS given (at, key, message)
                 ORDER BY key, at) AS distinct_lines
         WHERE key NOT IN (SELECT key FROM known)
    )
    INSERT INTO system_log (task_id, attempt, at, source, key, message)
    SELECT $1, attempt, coalesce(at, now()), 'controller',
           CASE WHEN number < $6 THEN key ELSE 'event/more' END,
           CASE WHEN number < $6 THEN message ELSE 'further events of this Pod are not recorded' END
      FROM new, pod WHERE number <= $6
    ON CONFLICT (task_id, attempt, source, key) DO NOTHING
    """

    async def add_pod_lines(self, task_id: UUID, pod_uid: str | None, lines: Sequence[PodLine]) -> None:
        """Add lines to the attempt of a Pod, or to the last attempt (`pod_uid` None).

        Each key is stored once, and at most LINES_OF_A_POD keys. The state of the task does not matter.
        Lines of a task that is not in the namespace are dropped.
        """
        async with self.connection() as connection:
            await connection.execute(
                self._ADD_POD_LINES,
                task_id,
                pod_uid,
                [line.at for line in lines],
                [line.key for line in lines],
                [line.message for line in lines],
                LINES_OF_A_POD,
                self.home,
                self.namespace,
            )

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[asyncpg.Connection]:
        """Take a connection of the pool. Its errors become DatabaseUnavailable."""
        with _errors():
            async with DATABASE.connection(self._pool, _STATEMENT_SECONDS) as connection:
                yield connection


def _filer_row(row: asyncpg.Record) -> FilerRow:
    return FilerRow(
        run=Run(row["task_id"], row["attempt"], row["container"], row["start_time"]),
        moved=Moved(row["files"], row["bytes"]),
        bytes_per_second=row["bytes_per_second"],
        moving=row["moving"],
    )


_ADD_SYSTEM_LOG = """
INSERT INTO system_log (task_id, attempt, source, key, message) VALUES ($1, $2, 'controller', $3, $4)
ON CONFLICT (task_id, attempt, source, key) DO NOTHING
"""


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except (
        asyncpg.PostgresError,
        asyncpg.InterfaceError,
        asyncpg.InternalClientError,  # the driver met the server's farewell on an idle connection
        TimeoutError,
        OSError,
    ) as error:
        code = error.sqlstate if isinstance(error, asyncpg.PostgresError) else None
        DATABASE.failed(outage(code) or Outage.AWAY)
        raise DatabaseUnavailable(f"{type(error).__name__}: {error}") from error
