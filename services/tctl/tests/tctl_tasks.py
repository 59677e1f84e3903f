"""Tasks in Postgres, created as the api does and reported as the recorder does."""

import hashlib
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import asyncpg

from poiesis_models.report import ExecutorReport, Report
from poiesis_models.states import TaskOutcome, TesState

TOKEN = "recorder-token"


async def add_task(
    connection: asyncpg.Connection,
    *,
    state: str = "QUEUED",
    executors: int = 2,
    submitted: bool = True,
    canceled: bool = False,
    age: int = 3600,
    namespace: str | None = None,
) -> UUID:
    task_id = uuid4()
    await connection.execute(
        """
        INSERT INTO task (id, owner, state, recorder_token_hash, submitted_at, cancel_requested_at,
                          cancel_requested_by, namespace)
        VALUES ($1, 'alice', $2::text::tes_state, $3, CASE WHEN $4 THEN now() - make_interval(secs => $6) END,
                CASE WHEN $5 THEN now() END, CASE WHEN $5 THEN 'alice' END, $7)
        """,
        task_id, state, hashlib.sha256(TOKEN.encode()).digest(), submitted, canceled, age, namespace,
    )  # fmt: skip
    for index in range(executors):
        await connection.execute(
            "INSERT INTO executor (task_id, index, image, command) VALUES ($1, $2, 'busybox', '{true}')",
            task_id,
            index,
        )
    return task_id


async def cancel(connection: asyncpg.Connection, task_id: UUID) -> None:
    await connection.execute(
        "UPDATE task SET state = 'CANCELING', cancel_requested_at = now(), cancel_requested_by = 'alice'"
        " WHERE id = $1",
        task_id,
    )


async def report(
    connection: asyncpg.Connection,
    task_id: UUID,
    *,
    pod_uid: str = "pod-uid-1",
    state: TesState | None = TesState.RUNNING,
    executors: tuple[ExecutorReport, ...] = (),
    outcome: TaskOutcome | None = None,
) -> None:
    """Report as the recorder does."""
    sent = Report(
        pod_uid=pod_uid,
        pod_name="the Pod",
        node="node-1",
        state=state,
        executors=executors,
        ending=outcome,
    )
    await connection.execute("SELECT ended FROM record_report($1, $2, $3)", task_id, TOKEN, sent.to_json())


async def report_filer(
    connection: asyncpg.Connection,
    task_id: UUID,
    container: str = "tif-0",
    *,
    attempt: int = 0,
    start: datetime | None = None,
    ended: bool = False,
    reported_ago: float = 0,
    files: int = 1,
    size: int = 100,
    rate: int = 10,
) -> None:
    """Report a filer as the recorder does, in a reported attempt. `start`: by default a minute ago."""
    await connection.execute(
        """
        INSERT INTO filer_log
        VALUES ($1, $2, $3, coalesce($4, now() - interval '1 minute'), CASE WHEN $5 THEN now() END,
                now() - make_interval(secs => $6), $7, $8, $9)
        ON CONFLICT (task_id, attempt, container) DO UPDATE
           SET start_time = excluded.start_time, end_time = excluded.end_time, told_at = excluded.told_at,
               files = excluded.files, bytes = excluded.bytes, bytes_per_second = excluded.bytes_per_second
        """,
        task_id, attempt, container, start, ended, reported_ago, files, size, rate,
    )  # fmt: skip


async def task_of(connection: asyncpg.Connection, task_id: UUID) -> dict[str, Any]:
    found = await connection.fetchrow(
        "SELECT state::text, reason, message, container, reported_by::text FROM task WHERE id = $1", task_id
    )
    return dict(found)


async def logs_of(connection: asyncpg.Connection, task_id: UUID) -> list[tuple[int | None, str, str]]:
    rows = await connection.fetch(
        "SELECT attempt, key, message FROM system_log WHERE task_id = $1 ORDER BY id", task_id
    )
    return [(row["attempt"], row["key"], row["message"]) for row in rows]


async def executors_of(connection: asyncpg.Connection, task_id: UUID) -> list[tuple[int, int, int | None]]:
    rows = await connection.fetch(
        "SELECT attempt, executor_index, exit_code FROM executor_log WHERE task_id = $1 ORDER BY 1, 2",
        task_id,
    )
    return [tuple(row) for row in rows]


async def attempts_of(connection: asyncpg.Connection, task_id: UUID) -> list[tuple[int, str, str, bool]]:
    rows = await connection.fetch(
        "SELECT attempt, pod_uid, node, end_time IS NOT NULL FROM task_log WHERE task_id = $1 ORDER BY 1",
        task_id,
    )
    return [tuple(row) for row in rows]
