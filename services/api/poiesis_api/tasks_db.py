"""Tasks in Postgres: create, read, list, cancel. Whoever calls sees documents, never rows."""

import hashlib
import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any
from uuid import UUID, uuid4

from poiesis_api.documents import DOCUMENT, View
from poiesis_api.errors import IdempotencyKeyReused, shown
from poiesis_api.postgres import Connection, Pool, fetch, transaction
from poiesis_api.queries import Filter, ListQuery, page_token
from poiesis_models.states import Ending, TesState
from poiesis_models.tes import TesTaskRequest

_IS_READY = """
SELECT to_regclass('system_log') IS NOT NULL AND to_regproc('finish_task') IS NOT NULL
"""


async def is_ready(pool: Pool) -> bool:
    """Whether Postgres answers and has the schema. Raise StorageUnavailable."""
    (row,) = await fetch(pool, _IS_READY)
    return bool(row[0])


# Create

# Nothing if it is there already: the statement may be sent again, and so may the request, with its key.
_INSERT_TASK = """
INSERT INTO task (id, owner, name, description, has_resources, cpu_cores, preemptible, ram_gb, disk_gb, zones,
                  backend_parameters_strict, recorder_token, recorder_token_hash, idempotency_key,
                  request_digest)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
ON CONFLICT DO NOTHING RETURNING id
"""

_THERE_ALREADY = """
SELECT id, request_digest FROM task WHERE id = $1 OR (owner = $2 AND idempotency_key = $3)
"""

# One statement with a part for each kind of thing that the task has; %d is the number of its JSON array.
_INSERT_PARTS = {
    "executor": """
INSERT INTO executor (task_id, index, image, command, workdir, stdin, stdout, stderr, ignore_error, has_env)
SELECT made.id, r.* FROM made, jsonb_to_recordset($%d::jsonb) AS r (
    index integer, image text, command text[], workdir text, stdin text, stdout text, stderr text,
    ignore_error boolean, has_env boolean)""",
    "executor_env": """
INSERT INTO executor_env (task_id, executor_index, name, value)
SELECT made.id, r.* FROM made, jsonb_to_recordset($%d::jsonb) AS r (
    executor_index integer, name text, value text)""",
    "input": """
INSERT INTO input (task_id, index, name, description, url, path, type, content, streamable)
SELECT made.id, r.* FROM made, jsonb_to_recordset($%d::jsonb) AS r (
    index integer, name text, description text, url text, path text, type tes_file_type, content text,
    streamable boolean)""",
    "output": """
INSERT INTO output (task_id, index, name, description, url, path, path_prefix, type)
SELECT made.id, r.* FROM made, jsonb_to_recordset($%d::jsonb) AS r (
    index integer, name text, description text, url text, path text, path_prefix text, type tes_file_type)""",
    "volume": """
INSERT INTO volume (task_id, index, path)
SELECT made.id, r.* FROM made, jsonb_to_recordset($%d::jsonb) AS r (index integer, path text)""",
    "task_tag": """
INSERT INTO task_tag (task_id, key, value)
SELECT made.id, r.* FROM made, jsonb_to_recordset($%d::jsonb) AS r (key text, value text)""",
    "backend_parameter": """
INSERT INTO backend_parameter (task_id, key, value)
SELECT made.id, r.* FROM made, jsonb_to_recordset($%d::jsonb) AS r (key text, value text)""",
    "system_log": """
INSERT INTO system_log (task_id, source, key, message)
SELECT made.id, 'api', r.* FROM made, jsonb_to_recordset($%d::jsonb) AS r (key text, message text)""",
}


@dataclass(frozen=True, kw_only=True)
class Idempotency:
    """What tells a create that is sent again from a new one: the client's key, and the digest of its task."""

    key: str
    digest: bytes


async def create_task(
    pool: Pool,
    owner: str,
    task: TesTaskRequest,
    warnings: Sequence[str] = (),
    idempotency: Idempotency | None = None,
) -> UUID:
    """Store a validated task; from then on it is safe. The id is that of the first create with this key.

    Raise StorageUnavailable or IdempotencyKeyReused.
    """
    task_id = uuid4()
    token = secrets.token_urlsafe(32)
    resources = task.resources
    values: list[object] = [
        task_id,
        owner,
        task.name,
        task.description,
        resources is not None,
        resources and resources.cpu_cores,
        resources and resources.preemptible,
        resources and resources.ram_gb,
        resources and resources.disk_gb,
        resources and resources.zones,
        resources and resources.backend_parameters_strict,
        token,
        hashlib.sha256(token.encode()).digest(),
        idempotency and idempotency.key,
        idempotency and idempotency.digest,
    ]
    parts = []
    for name, records in _records(task, warnings).items():
        if records:
            values.append(json.dumps(records, ensure_ascii=False, separators=(",", ":")))
            parts.append(f"{name}_rows AS ({_INSERT_PARTS[name] % len(values)})")
    sql = f"WITH made AS ({_INSERT_TASK}), {', '.join(parts)} SELECT id FROM made"  # noqa: S608
    if not await fetch(pool, sql, *values):
        return await _there_already(pool, owner, task_id, idempotency)
    return task_id


async def _there_already(pool: Pool, owner: str, task_id: UUID, idempotency: Idempotency | None) -> UUID:
    key, digest = (idempotency.key, idempotency.digest) if idempotency else (None, None)
    ((found, digest_found),) = await fetch(pool, _THERE_ALREADY, task_id, owner, key)
    if digest_found != digest:
        raise IdempotencyKeyReused(
            f"Idempotency-Key: {shown(key)} came before with another task, which became {found};"
            " send a new key with a new task",
            "Idempotency-Key",
        )
    return UUID(str(found))


def _records(task: TesTaskRequest, warnings: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    executors = [
        {"index": index, **executor.model_dump(exclude={"env"}, exclude_none=True)}
        | {"has_env": executor.env is not None}
        for index, executor in enumerate(task.executors)
    ]
    env = [
        {"executor_index": index, "name": name, "value": value}
        for index, executor in enumerate(task.executors)
        for name, value in (executor.env or {}).items()
    ]
    return {
        "executor": executors,
        "executor_env": env,
        "input": _numbered([one.model_dump(exclude_none=True) for one in task.inputs or ()]),
        "output": _numbered([one.model_dump(exclude_none=True) for one in task.outputs or ()]),
        "volume": _numbered([{"path": path} for path in task.volumes or ()]),
        "task_tag": _pairs(task.tags),
        "backend_parameter": _pairs(task.resources.backend_parameters if task.resources else None),
        "system_log": [
            {"key": f"create-{number}", "message": message} for number, message in enumerate(warnings)
        ],
    }


def _pairs(mapping: Mapping[str, str] | None) -> list[dict[str, Any]]:
    return [{"key": key, "value": value} for key, value in (mapping or {}).items()]


def _numbered(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"index": index, **record} for index, record in enumerate(records)]


# Read

_READ_TASK = {
    view: f"SELECT {document} FROM task t WHERE t.id = $1 AND t.owner = $2"  # noqa: S608
    for view, document in DOCUMENT.items()
}


async def read_task(pool: Pool, owner: str, task_id: UUID, view: View) -> str | None:
    """The document as JSON. Raise StorageUnavailable."""
    rows = await fetch(pool, _READ_TASK[view], task_id, owner)
    return rows[0][0] if rows else None


async def list_tasks(pool: Pool, owner: str, query: ListQuery) -> str:
    """A ListTasksResponse as JSON, newest first. Raise StorageUnavailable."""
    if query.filter.state in _NEVER_STORED:
        return '{"tasks":[]}'
    sql, values = _list_statement(owner, query)
    rows = await fetch(pool, sql, *values)
    page = rows[: query.page_size]
    body = f'{{"tasks":[{",".join(row["document"] for row in page)}]'
    if len(rows) > query.page_size:
        body += f',"next_page_token":"{page_token(page[-1]["seq"], query.filter, owner)}"'
    return body + "}"


_NEVER_STORED = {TesState.UNKNOWN, TesState.PAUSED}

_LIST_TASKS = """
SELECT t.seq, {document} AS document FROM (
    SELECT * FROM task WHERE owner = $1 {conditions} ORDER BY seq DESC LIMIT $2
) t ORDER BY t.seq DESC
"""


def _list_statement(owner: str, query: ListQuery) -> tuple[str, list[object]]:
    """Every value is a parameter; there are as many texts as combinations of filters."""
    values: list[object] = [owner, query.page_size + 1]
    conditions: list[str] = []
    for condition, value in _conditions(query.filter, query.before):
        if value is not None:
            values.append(value)
        conditions.append(condition.replace("$?", f"${len(values)}"))
    sql = _LIST_TASKS.format(document=DOCUMENT[query.view], conditions=" ".join(conditions))
    return sql, values


def _conditions(wanted: Filter, before: int | None) -> Iterator[tuple[str, object]]:
    """With the value for `$?`, if there is one."""
    if before is not None:
        yield "AND seq < $?", before
    if wanted.state is not None:
        yield "AND state = $?::text::tes_state", wanted.state.value
    if wanted.name_prefix:
        yield "AND starts_with(name, $?)", wanted.name_prefix
    for number, (key, value) in enumerate(wanted.tags):
        # EXISTS becomes a join, which the index by value may lead; to plan dozens of them takes minutes.
        one = "EXISTS (SELECT" if number == 0 else "(SELECT true"
        yield f"AND {one} FROM task_tag g WHERE g.task_id = task.id AND g.key = $?", key
        yield ("AND g.value = $?)", value) if value else (")", None)


# Cancel

_REQUEST_CANCEL = """
WITH requested AS (
    UPDATE task SET state = 'CANCELING', cancel_requested_at = now(), cancel_requested_by = $2
     WHERE id = $1 AND owner = $2 AND ended_at IS NULL AND cancel_requested_at IS NULL
    RETURNING id, submit_attempts = 0 AS untouched -- no replica has claimed it: there is nothing in Kubernetes
), said AS (
    INSERT INTO system_log (task_id, attempt, source, key, message)
    SELECT id, (SELECT max(attempt) FROM task_log WHERE task_id = id), 'api', 'cancel', 'cancel requested by ' || $2
      FROM requested
    ON CONFLICT DO NOTHING
)
SELECT untouched FROM requested
"""  # noqa: E501
_STATE = "SELECT state::text FROM task WHERE id = $1 AND owner = $2"


class Cancel(Enum):
    """What a cancel found."""

    UNKNOWN = "unknown"  # no such task
    ENDED = "ended"  # before, or by this cancel
    CANCELING = "canceling"  # its Job must be deleted


async def cancel_task(pool: Pool, owner: str, task_id: UUID) -> Cancel:
    """Store the intent; a task that nobody has touched is CANCELED at once. Raise StorageUnavailable."""
    async with transaction(pool) as db:
        untouched = await db.fetchval(_REQUEST_CANCEL, task_id, owner)
        if untouched:
            await finish_task(db, task_id, CANCELED, cancel_seen=True)
            return Cancel.ENDED
        if untouched is False:
            return Cancel.CANCELING
        state = await db.fetchval(_STATE, task_id, owner)
    if state is None:
        return Cancel.UNKNOWN
    return Cancel.CANCELING if state == TesState.CANCELING else Cancel.ENDED


CANCELED = Ending(state=TesState.CANCELED, reason="Canceled", message="canceled on request")

_FINISH_TASK = "SELECT finish_task($1, $2::text::tes_state, $3, $4, $5, 'api', $6)"


async def finish_task(db: Connection, task_id: UUID, ending: Ending, *, cancel_seen: bool) -> bool:
    """Store how a task ended. False if it had ended, or if a cancel was asked for and not `cancel_seen`."""
    return bool(
        await db.fetchval(
            _FINISH_TASK,
            task_id,
            ending.state.value,
            ending.reason,
            ending.message,
            ending.container,
            cancel_seen,
        )
    )
