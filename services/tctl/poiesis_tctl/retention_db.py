"""Ended tasks in Postgres: find those that are due, read their documents, delete them or their logs."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from uuid import UUID

from poiesis_documents.documents import DOCUMENT, View, in_pieces
from poiesis_tctl.retention import EndedTask, Place, Sweep
from poiesis_tctl.tasks_db import TasksDb

_PIECES = 32  # read at a time: 256 KiB at most

_COLUMNS = "SELECT id, coalesce(namespace, $1) AS namespace, ended_at FROM task"
_OLDER = "ended_at < now() - $2::interval AND (ended_at, id) > ($3, $4) ORDER BY ended_at, id LIMIT $5"
_OLD_TASKS = f"{_COLUMNS} WHERE state = $6::text::tes_state AND {_OLDER}"
_OLD_LOGS = f"{_COLUMNS} WHERE NOT logs_deleted AND {_OLDER}"

# Documents do not contain the owner, who may ask for the erasure of the archive.
_ARCHIVED = f"""
SELECT t.id AS seq, convert_to(json_strip_nulls(json_build_object(
           'owner', t.owner, 'shared_with', t.shared_with, 'namespace', coalesce(t.namespace, $2),
           'task', ({DOCUMENT[View.FULL]})::json
       ))::text, 'UTF8') AS document
  FROM unnest($1::uuid[]) WITH ORDINALITY AS wanted (id, number) JOIN task t USING (id)
 ORDER BY number OFFSET 0
"""  # noqa: S608 - text of constants
_ARCHIVED_PIECES = in_pieces(_ARCHIVED)

_DELETE_TASKS = "SELECT delete_ended_tasks($1)"
_DELETE_LOGS = "SELECT delete_logs($1, $2)"

_RECENT = "ended_at > now() - interval '1 hour'"
_COUNT_OF = f"""
SELECT count(*) FILTER (WHERE ended_at IS NULL) AS unfinished, count(*) FILTER (WHERE {_RECENT}) AS recent,
       count(*) FILTER (WHERE ended_at IS NOT NULL) AS ended,
       (SELECT count(*) FROM task WHERE cancel_requested_by = $1 AND owner <> $1) AS canceled
  FROM task WHERE owner = $1
"""  # noqa: S608 - text of constants
_IDS_OF = f"SELECT id FROM task WHERE owner = $1 AND NOT coalesce({_RECENT}, true) LIMIT $2"  # noqa: S608
# An administrator may have canceled tasks of others. The api writes the name in this line.
_FORGET = """
WITH canceled AS (
    UPDATE task SET cancel_requested_by = 'erased' WHERE cancel_requested_by = $1 RETURNING id
), lines AS (
    UPDATE system_log SET message = 'cancel requested by an erased user'
      FROM canceled WHERE task_id = canceled.id AND source = 'api' AND key = 'cancel'
), accounts AS (
    DELETE FROM task_usage WHERE owner = $1
)
DELETE FROM owner_turn WHERE owner = $1
"""


@dataclass(frozen=True, kw_only=True)
class OwnersTasks:
    """Counts of one owner's tasks, and of `canceled` tasks of others.

    `recent`: ended less than an hour ago, so that they cannot be deleted.
    """

    unfinished: int
    recent: int
    ended: int
    canceled: int


class RetentionDb:
    """The statements about ended tasks in all namespaces. Every method raises DatabaseUnavailable."""

    def __init__(self, tasks: TasksDb) -> None:
        self._tasks = tasks

    async def due(self, sweep: Sweep, after: Place, most: int) -> list[EndedTask]:
        """Return the tasks that are older than the sweep's age, in order, after a place."""
        values: list[object] = [self._tasks.home, sweep.age, after.ended_at, after.id, most]
        async with self._tasks.connection() as connection:
            if sweep.state is None:
                rows = await connection.fetch(_OLD_LOGS, *values)
            else:
                rows = await connection.fetch(_OLD_TASKS, *values, sweep.state.value)
        return [EndedTask(**dict(row)) for row in rows]

    async def documents(self, ids: Sequence[UUID]) -> AsyncGenerator[tuple[UUID, bytes], None]:
        """Yield owner, namespace and FULL document of tasks as JSON in pieces, in the given order.

        Each piece has the id of its task. Close the iterator: it holds a transaction.
        """
        async with self._tasks.connection() as connection, connection.transaction(readonly=True):
            cursor = await connection.cursor(_ARCHIVED_PIECES, list(ids), self._tasks.home)
            while rows := await cursor.fetch(_PIECES):
                for row in rows:
                    yield row["seq"], row["piece"]

    async def delete(self, sweep: Sweep, ids: Sequence[UUID]) -> int:
        """Delete the tasks, or their logs, and return how many. Tasks that are locked are left out."""
        if sweep.kind == "tasks":
            return await self.delete_tasks(ids)
        days = sweep.age.total_seconds() / 86400
        message = f"stdout and stderr were deleted {days:g} days after the end of the task (retention)"
        async with self._tasks.connection() as connection:
            return len(await connection.fetch(_DELETE_LOGS, list(ids), message))

    async def delete_tasks(self, ids: Sequence[UUID]) -> int:
        """Delete the tasks that ended at least an hour ago and are not locked, and return how many."""
        async with self._tasks.connection() as connection:
            return len(await connection.fetch(_DELETE_TASKS, list(ids)))

    async def count_of(self, owner: str) -> OwnersTasks:
        """Count the tasks of an owner, and the tasks of others that this user canceled."""
        async with self._tasks.connection() as connection:
            return OwnersTasks(**dict(await connection.fetchrow(_COUNT_OF, owner)))

    async def ids_of(self, owner: str, most: int) -> list[UUID]:
        """Return tasks of an owner that can be deleted."""
        async with self._tasks.connection() as connection:
            return [row["id"] for row in await connection.fetch(_IDS_OF, owner, most)]

    async def forget(self, owner: str) -> None:
        """Remove the name of a user without tasks, and the accounts of the tasks that were deleted."""
        async with self._tasks.connection() as connection:
            await connection.execute(_FORGET, owner)
