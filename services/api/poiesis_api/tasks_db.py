"""Tasks in Postgres: create, read, list, cancel. Functions return TES documents, never rows."""

import hashlib
import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any
from uuid import UUID, uuid4

from poiesis_api import limits
from poiesis_api.config import UserLimits
from poiesis_api.errors import IdempotencyKeyReused, Loggable, shown
from poiesis_api.identity.caller import Caller
from poiesis_api.limits import NO_RESOURCES, Resources, Usage
from poiesis_api.postgres import Connection, Pool, driver_errors, fetch, transaction
from poiesis_api.queries import INDEXED_CHARACTERS, Filter, ListQuery, prefix_range
from poiesis_documents.documents import DOCUMENT, STORED, View, in_pieces
from poiesis_models.states import TaskOutcome, TesState
from poiesis_models.tes import TesTaskRequest

_STATE_OF_DATABASE = """
SELECT to_regproc('finish_task') IS NOT NULL
       AND to_regclass('outcome_count') IS NOT NULL AS has_schema, -- of the last migration
       current_setting('transaction_read_only')::boolean AS read_only
"""


@dataclass(frozen=True, kw_only=True)
class DatabaseState:
    """Whether Postgres has this release's schema and accepts writes."""

    has_schema: bool
    read_only: bool


async def read_state(pool: Pool) -> DatabaseState:
    """Return whether Postgres can serve this release. Raise StorageUnavailable."""
    (row,) = await fetch(pool, _STATE_OF_DATABASE)
    return DatabaseState(**dict(row))


# Create

# Returns no row if the task exists already: the driver may repeat the statement, and a client the request.
_INSERT_TASK = """
INSERT INTO task (id, owner, name, description, has_resources, cpu_cores, preemptible, ram_gb, disk_gb, zones,
                  backend_parameters_strict, recorder_token, recorder_token_hash, shared_with,
                  reserved_cpu_cores, reserved_ram_gb, reserved_disk_gb, reserved_gpus, idempotency_key,
                  request_digest, s3_credentials, namespace, request)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22,
        $23)
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
    """Identifies a repeated create: the client's key and the digest of its task."""

    key: str
    digest: bytes


@dataclass(frozen=True, kw_only=True)
class NewTask:
    """A validated task.

    `reserved`: what it counts against its owner's limits until it ends. `credentials`: names of the S3
    credentials that it may use. `namespace`: where it runs; None: in the api's. `waits_for`: why it cannot
    start yet.
    """

    owner: str
    request: TesTaskRequest
    warnings: Sequence[str] = ()
    waits_for: str | None = None
    shared_with: str | None = None
    reserved: Resources = NO_RESOURCES
    credentials: Sequence[str] = ()
    namespace: str | None = None
    idempotency: Idempotency | None = None


async def create_task(pool: Pool, new: NewTask, user_limits: UserLimits) -> UUID:
    """Store a task and return its id: that of the first create with the same idempotency key.

    Raise IdempotencyKeyReused, LimitReached, InvalidTask or StorageUnavailable.
    """
    task_id = uuid4()
    if limits.has_limits(user_limits) or limits.queues_excess(user_limits):
        made = await _insert_within(user_limits, pool, task_id, new)
    else:
        sql, values = _insert_statement(task_id, new)
        made = await fetch(pool, sql, *values)
    return task_id if made else await _there_already(pool, task_id, new)


async def _insert_within(user_limits: UserLimits, pool: Pool, task_id: UUID, new: NewTask) -> list[Any]:
    """Insert the task if its owner's limits allow it. A repeated create is not counted again."""
    async with transaction(pool) as db:
        if await db.fetchval(_LOCK_OWNER, new.owner) is None:
            await db.execute(_ADD_OWNER, new.owner)
            await db.fetchval(_LOCK_OWNER, new.owner)
        if new.idempotency and await db.fetch(_THERE_ALREADY, task_id, new.owner, new.idempotency.key):
            return []
        if limits.has_limits(user_limits):
            usage = Usage(**dict(await db.fetchrow(_USAGE, new.owner)))
            limits.check_limits(usage, new.reserved, user_limits)
        if limits.queues_excess(user_limits):
            most = limits.active_per_owner(user_limits)
            if await db.fetchval(_HAS_AS_MANY, new.owner, most):
                new = replace(new, waits_for=limits.queued_note(user_limits))
        sql, values = _insert_statement(task_id, new)
        return list(await db.fetch(sql, *values))


# Creates of one owner are serialized, so that two of them cannot both take the last place.
_LOCK_OWNER = "SELECT owner FROM owner_turn WHERE owner = $1 FOR UPDATE"
_ADD_OWNER = "INSERT INTO owner_turn (owner) VALUES ($1) ON CONFLICT DO NOTHING"
_USAGE = """
SELECT count(*) AS unfinished, count(*) FILTER (WHERE submitted_at IS NULL) AS queued,
       coalesce(sum(reserved_cpu_cores), 0) AS cpu_cores, coalesce(sum(reserved_ram_gb), 0) AS ram_gb,
       coalesce(sum(reserved_disk_gb), 0) AS disk_gb, coalesce(sum(reserved_gpus), 0) AS gpus
  FROM task WHERE owner = $1 AND ended_at IS NULL
"""
# Tasks are submitted in order, so earlier tasks get their places first. Counting stops at the limit, however
# long the queue is.
_HAS_AS_MANY = """
SELECT count(*) = $2 FROM (SELECT FROM task WHERE owner = $1 AND ended_at IS NULL LIMIT $2) counted
"""


def _insert_statement(task_id: UUID, new: NewTask) -> tuple[str, list[object]]:
    task = new.request
    token = secrets.token_urlsafe(32)
    resources = task.resources
    values: list[object] = [
        task_id,
        new.owner,
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
        new.shared_with,
        new.reserved.cpu_cores,
        new.reserved.ram_gb,
        new.reserved.disk_gb,
        new.reserved.gpus,
        new.idempotency and new.idempotency.key,
        new.idempotency and new.idempotency.digest,
        new.credentials,
        new.namespace,
        _json(_request_document(task)),
    ]
    parts = []
    for name, records in _records(task, _first_lines(new)).items():
        if records:
            values.append(_json(records))
            parts.append(f"{name}_rows AS ({_INSERT_PARTS[name] % len(values)})")
    sql = f"WITH made AS ({_INSERT_TASK}), {', '.join(parts)} SELECT id FROM made"  # noqa: S608
    return sql, values


async def _there_already(pool: Pool, task_id: UUID, new: NewTask) -> UUID:
    key, digest = (new.idempotency.key, new.idempotency.digest) if new.idempotency else (None, None)
    ((found, digest_found),) = await fetch(pool, _THERE_ALREADY, task_id, new.owner, key)
    if digest_found != digest:
        raise IdempotencyKeyReused(
            "{field} {key_shown} was already used for a different task ({found}); use a new key",
            "Idempotency-Key",
            key_shown=shown(key),
            found=Loggable(found),
        )
    return UUID(str(found))


def _records(task: TesTaskRequest, lines: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
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
        "system_log": list(lines),
    }


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _request_document(task: TesTaskRequest) -> dict[str, Any]:
    """Return the request as the view BASIC shows it: without null, empty lists and contents of inputs."""
    sent = task.model_dump(exclude_none=True, exclude={"inputs": {"__all__": {"content"}}})
    if not sent.get("resources", {}).get("backend_parameters", True):
        del sent["resources"]["backend_parameters"]
    kept = {"resources", "name", "description"}
    return {field: value for field, value in sent.items() if value or field in kept}


def _first_lines(new: NewTask) -> list[dict[str, Any]]:
    """Return the system logs of a create: its warnings, and what the task has to wait for."""
    lines = [{"key": f"create-{number}", "message": message} for number, message in enumerate(new.warnings)]
    return lines if new.waits_for is None else [*lines, {"key": "owner-limit", "message": new.waits_for}]


def _pairs(mapping: Mapping[str, str] | None) -> list[dict[str, Any]]:
    return [{"key": key, "value": value} for key, value in (mapping or {}).items()]


def _numbered(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"index": index, **record} for index, record in enumerate(records)]


# Read: tasks that the caller created or that are shared with one of their groups; for administrators all.

_VISIBLE = "($2 OR owner = $3 OR shared_with = ANY ($4::text[]))"
_WHOLE_BYTES = 256 * 1024  # a longer document is read in pieces
_ONE = {
    view: f"SELECT 0 AS seq, convert_to({document}, 'UTF8') AS document FROM task t WHERE id = $1 AND {_VISIBLE} OFFSET 0"  # noqa: E501, S608
    for view, document in DOCUMENT.items()
}
# In a statement of its own: it is ten times as fast as one that could assemble the document.
_READ_STORED = {
    view: f"SELECT convert_to({stored}, 'UTF8') AS document FROM task t WHERE id = $1 AND {_VISIBLE}"  # noqa: S608
    for view, stored in STORED.items()
}
_READ_TASK = {
    view: f"SELECT CASE WHEN octet_length(document) <= {_WHOLE_BYTES} THEN document END AS document FROM ({one}) one"  # noqa: E501, S608
    for view, one in _ONE.items()
}
_READ_PIECES = {view: in_pieces(one) for view, one in _ONE.items()}
_PIECES = 256  # read at a time: 2 MiB at most


class TooLarge(Exception):
    """The document is too long to be read at once; use `read_large_task`."""


def _visible_to(caller: Caller) -> tuple[bool, str, Sequence[str]]:
    """Return the parameters $2 to $4 of _VISIBLE."""
    return caller.administrator, caller.name, caller.groups


async def read_task(pool: Pool, caller: Caller, task_id: UUID, view: View) -> bytes | None:
    """Return the document as JSON; None if no such task is visible to the caller.

    Raise TooLarge or StorageUnavailable.
    """
    found = await fetch(pool, _READ_STORED[view], task_id, *_visible_to(caller))
    if not found or found[0]["document"] is not None:
        return found[0]["document"] if found else None
    assembled = await fetch(pool, _READ_TASK[view], task_id, *_visible_to(caller))
    if assembled and assembled[0]["document"] is None:
        raise TooLarge
    return assembled[0]["document"] if assembled else None


async def read_large_task(pool: Pool, caller: Caller, task_id: UUID, view: View) -> list[bytes]:
    """Return the document in pieces; none if the task no longer exists. Raise StorageUnavailable."""
    async with transaction(pool, readonly=True) as db:
        cursor = await db.cursor(_READ_PIECES[view], task_id, *_visible_to(caller))
        pieces: list[bytes] = []
        while rows := await cursor.fetch(_PIECES):
            pieces += [row["piece"] for row in rows]
    return pieces


@dataclass(frozen=True, kw_only=True)
class TaskPart:
    """Tasks of a list, each document in pieces. `last`: seq of the last task; `more`: others follow."""

    documents: Sequence[Sequence[bytes]]
    last: int | None
    more: bool

    @property
    def size(self) -> int:
        """The size of the documents in bytes, without separators."""
        return sum(len(piece) for document in self.documents for piece in document)


_NOTHING = TaskPart(documents=(), last=None, more=False)


async def list_part(pool: Pool, caller: Caller, query: ListQuery, most_bytes: int) -> TaskPart:
    """Return the next tasks visible to the caller, newest first: at most `page_size`, or until `most_bytes`.

    The connection is released before they are sent. Raise StorageUnavailable.
    """
    if query.filter.state in _NEVER_STORED:
        return _NOTHING
    sql, values = _choice(caller, query)
    reading = _Reading(query.page_size, most_bytes)
    if query.view is View.MINIMAL:  # about 75 bytes each: one statement suffices
        reading.take(await fetch(pool, f"{_MINIMAL_PIECE} FROM ({sql}) t ORDER BY seq DESC", *values))
        return reading.part(ended=True)
    async with transaction(pool, readonly=True) as db:
        chosen = [row["seq"] for row in await db.fetch(sql, *values)]
        cursor = await db.cursor(_READ_CHOSEN[query.view], chosen)
        while reading.wants_more:
            reading.take(await cursor.fetch(_PIECES))
    return reading.part()


class _Reading:
    """Assembles rows of `in_pieces` into documents, until there are enough."""

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._documents: list[list[bytes]] = []
        self._seqs: list[int] = []
        self._bytes = 0
        self._ended = False

    @property
    def wants_more(self) -> bool:
        """Whether the last document may be incomplete, or another one is wanted."""
        whole_bytes = self._bytes - self._last_bytes
        return not self._ended and len(self._seqs) <= self._most and whole_bytes < self._most_bytes

    @property
    def _last_bytes(self) -> int:
        return sum(map(len, self._documents[-1])) if self._documents else 0

    def take(self, rows: Sequence[Any]) -> None:
        """Add rows. No rows: the end of the list."""
        self._ended = not rows
        for row in rows:
            if not self._seqs or row["seq"] != self._seqs[-1]:
                self._seqs.append(row["seq"])
                self._documents.append([])
            self._documents[-1].append(row["piece"])
            self._bytes += len(row["piece"])

    def part(self, *, ended: bool = False) -> TaskPart:
        """Return the complete documents, without the last one if it may be incomplete or exceeds the page."""
        count = len(self._seqs) if ended or self._ended else len(self._seqs) - 1
        count = min(count, self._most)
        return TaskPart(
            documents=self._documents[:count],
            last=self._seqs[count - 1] if count else None,
            more=count < len(self._seqs),
        )


_NEVER_STORED = {TesState.UNKNOWN, TesState.PAUSED}

_MINIMAL_PIECE = f"SELECT seq, convert_to({DOCUMENT[View.MINIMAL]}, 'UTF8') AS piece"
# Tasks are chosen by a statement of their own, because its plan depends on the filter's values, and planning
# a document takes longer than reading a page. The inner OFFSET looks the tasks up in the order of the array,
# the outer one computes each document once.
_READ_CHOSEN = {
    view: in_pieces(
        f"""
SELECT t.seq, convert_to({DOCUMENT[view]}, 'UTF8') AS document
  FROM unnest($1::bigint[]) AS chosen (seq)
 CROSS JOIN LATERAL (SELECT * FROM task WHERE task.seq = chosen.seq OFFSET 0) t
OFFSET 0
"""  # noqa: S608
    )
    for view in (View.BASIC, View.FULL)
}
_ALL = "SELECT {columns} FROM task WHERE true {conditions} ORDER BY seq DESC LIMIT $1"
_OWN = "SELECT {columns} FROM task WHERE owner = $2 {conditions} ORDER BY seq DESC LIMIT $1"
# A page of the caller's tasks and of each group's, by index, and the newest of these.
_OWN_AND_SHARED = """
(SELECT {columns} FROM task WHERE owner = $2 {conditions} ORDER BY seq DESC LIMIT $1)
UNION
SELECT shared.* FROM unnest($3::text[]) AS theirs (member_of) CROSS JOIN LATERAL (
    SELECT {columns} FROM task WHERE shared_with = member_of {conditions} ORDER BY seq DESC LIMIT $1
) shared
ORDER BY seq DESC LIMIT $1
"""


def _choice(caller: Caller, query: ListQuery) -> tuple[str, list[object]]:
    """Return the SQL that chooses the tasks of a page by their `seq`, and its values.

    There is one text per combination of filters.
    """
    values: list[object] = [query.page_size + 1]
    if caller.administrator:
        tasks = _ALL
    elif caller.groups:
        tasks = _OWN_AND_SHARED
        values += [caller.name, caller.groups]
    else:
        tasks = _OWN
        values.append(caller.name)
    conditions: list[str] = []
    for condition, value in _conditions(query.filter, query.before):
        if value is not None:
            values.append(value)
        conditions.append(condition.replace("$?", f"${len(values)}"))
    columns = "seq, id, state" if query.view is View.MINIMAL else "seq"
    return tasks.format(columns=columns, conditions=" ".join(conditions)), values


def _conditions(wanted: Filter, before: int | None) -> Iterator[tuple[str, object]]:
    """Yield each SQL condition with the value for its `$?`, or None."""
    if before is not None:
        yield "AND seq < $?", before
    if wanted.state is not None:
        yield "AND state = $?::text::tes_state", wanted.state.value
    if wanted.name_prefix:
        yield from _name_conditions(wanted.name_prefix)
    for number, (key, value) in enumerate(wanted.tags):
        # EXISTS becomes a join that can use the index by value, but planning dozens of joins takes minutes.
        one = "EXISTS (SELECT" if number == 0 else "(SELECT true"
        yield f"AND {one} FROM task_tag g WHERE g.task_id = task.id AND g.key = $?", key
        # The index has the beginning of a value (migration 0008).
        yield ("AND g.value = $? AND left(g.value, 256) = left($?, 256))", value) if value else (")", None)


def _name_conditions(prefix: str) -> Iterator[tuple[str, object]]:
    """Yield a range of the indexes by name, and the prefix itself only if the range does not decide.

    Postgres would multiply the estimates of both, and use the index although most names match.
    """
    first, after = prefix_range(prefix[:INDEXED_CHARACTERS])
    indexed = f"left(name, {INDEXED_CHARACTERS})"
    yield f"AND {indexed} ~>=~ $?", first
    if after is not None:
        yield f"AND {indexed} ~<~ $?", after
    if after is None or len(prefix) > INDEXED_CHARACTERS:
        yield "AND starts_with(name, $?)", prefix


# Cancel: the caller's own tasks; for administrators all.

_REQUEST_CANCEL = """
WITH requested AS (
    UPDATE task SET state = 'CANCELING', cancel_requested_at = now(), cancel_requested_by = $2
     WHERE id = $1 AND ($3 OR owner = $2) AND ended_at IS NULL AND cancel_requested_at IS NULL
    RETURNING id, submit_attempts = 0 AS untouched -- no replica has leased it: nothing exists in Kubernetes
), logged AS (
    INSERT INTO system_log (task_id, attempt, source, key, message)
    SELECT id, (SELECT max(attempt) FROM task_log WHERE task_id = id), 'api', 'cancel', 'cancel requested by ' || $2
      FROM requested
    ON CONFLICT DO NOTHING
)
SELECT untouched FROM requested
"""  # noqa: E501
_STATE = f"SELECT state::text, $2 OR owner = $3 AS theirs FROM task WHERE id = $1 AND {_VISIBLE}"  # noqa: S608


class Cancel(Enum):
    """The outcome of a cancel."""

    UNKNOWN = "unknown"  # no such task, or not visible to the caller
    NOT_THEIRS = "not theirs"  # visible, but owned by another user
    ENDED = "ended"  # earlier, or by this cancel
    CANCELING = "canceling"  # its Job must be deleted


async def cancel_task(pool: Pool, caller: Caller, task_id: UUID) -> Cancel:
    """Store the request; a task that no replica has leased is CANCELED at once. Raise StorageUnavailable.

    Only the first statement decides. The steps after it may be lost, since `canceling_tasks` finds the task.
    """
    found = await fetch(pool, _REQUEST_CANCEL, task_id, caller.name, caller.administrator)
    if not found:
        return await _found_by_cancel(pool, caller, task_id)
    if not found[0]["untouched"]:
        return Cancel.CANCELING
    with driver_errors():
        await finish_task(pool, task_id, CANCELED, cancel_seen=True)
    return Cancel.ENDED


async def _found_by_cancel(pool: Pool, caller: Caller, task_id: UUID) -> Cancel:
    found = await fetch(pool, _STATE, task_id, *_visible_to(caller))
    if not found:
        return Cancel.UNKNOWN
    if not found[0]["theirs"]:
        return Cancel.NOT_THEIRS
    return _cancel_again(found[0]["state"])


def _cancel_again(state: str) -> Cancel:
    """Return the result of a cancel that changed nothing: the task was CANCELING or had ended."""
    return Cancel.CANCELING if state == TesState.CANCELING else Cancel.ENDED


CANCELED = TaskOutcome(state=TesState.CANCELED, reason="Canceled", message="canceled on request")

_FINISH_TASK = "SELECT finish_task($1, $2::text::tes_state, $3, $4, $5, 'api', $6)"


async def finish_task(db: Connection, task_id: UUID, outcome: TaskOutcome, *, cancel_seen: bool) -> bool:
    """Store a task's outcome. Return False if it had ended, or if an unseen cancel was requested."""
    return bool(
        await db.fetchval(
            _FINISH_TASK,
            task_id,
            outcome.state.value,
            outcome.reason,
            outcome.message,
            outcome.container,
            cancel_seen,
        )
    )
