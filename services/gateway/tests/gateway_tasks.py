"""Tasks in Postgres, as the api creates them."""

from uuid import UUID, uuid4

import asyncpg
from gateway_fakes import TOKEN


async def add_task(db: asyncpg.Connection, *, executors: int = 1, token: str = TOKEN) -> UUID:
    task_id = uuid4()
    await db.execute(
        "INSERT INTO task (id, owner, recorder_token_hash, submitted_at)"
        " VALUES ($1, 'alice', sha256($2), now())",
        task_id,
        token.encode(),
    )
    for index in range(executors):
        await db.execute(
            "INSERT INTO executor (task_id, index, image, command) VALUES ($1, $2, 'busybox', '{true}')",
            task_id,
            index,
        )
    return task_id


async def end_task(db: asyncpg.Connection, task_id: UUID, *, minutes_ago: int = 0) -> None:
    await db.execute(
        "SELECT finish_task(p_task => $1, p_state => 'COMPLETE', p_reason => NULL, p_message => NULL,"
        " p_container => NULL, p_by => 'controller', p_cancel_seen => false)",
        task_id,
    )
    await db.execute(
        "UPDATE task SET ended_at = now() - make_interval(mins => $2) WHERE id = $1", task_id, minutes_ago
    )
