"""Stored and assembled documents are the same, and every change of a task's rows is visible at once."""

import asyncio
import json
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from poiesis_api import stored_documents, tasks_db
from poiesis_api.config import UserLimits
from poiesis_api.errors import StorageUnavailable
from poiesis_api.identity.caller import Caller
from poiesis_api.queries import ListQuery
from poiesis_api.stored_documents import MOST_BYTES, store_documents
from poiesis_api.tasks_db import NewTask
from poiesis_documents.documents import ASSEMBLED, DOCUMENT, REQUEST, View
from poiesis_models.tes import TesTaskRequest

pytestmark = pytest.mark.integration

ME = Caller(name="me")
VIEWS = (View.BASIC, View.FULL)
TASK = {
    "name": "one",
    "inputs": [{"url": "s3://b/i", "path": "/i"}, {"content": "text", "path": "/c"}],
    "outputs": [{"url": "s3://b/o", "path": "/o"}],
    "executors": [{"image": "busybox", "command": ["true"], "env": {"A": "1"}}],
    "tags": {"k": "v"},
}
LOGS = (
    "INSERT INTO task_log (task_id, attempt, pod_uid, pod_name, node) VALUES ($1, 0, 'uid', 'pod', 'node')",
    """INSERT INTO executor_log (task_id, attempt, executor_index, start_time, end_time, exit_code,
                                 stdout)
       VALUES ($1, 0, 0, now(), now(), 0, 'output')""",
    """INSERT INTO filer_log (task_id, attempt, container, start_time, end_time, files, bytes,
                              bytes_per_second)
       VALUES ($1, 0, 'tif-0', now(), now(), 1, 2, 3)""",
    "INSERT INTO output_file_log VALUES ($1, 0, '/o', 's3://b/o', 5)",
    """INSERT INTO system_log (task_id, attempt, source, key, message)
       VALUES ($1, 0, 'recorder', 'k', 'a line')""",
)
FINISH = "SELECT finish_task($1, 'COMPLETE', NULL, NULL, NULL, 'recorder', true)"
CHANGES = {
    "log": ("UPDATE task_log SET node = 'moved' WHERE task_id = $1", "moved"),
    "attempt": (
        """INSERT INTO task_log (task_id, attempt, pod_uid, pod_name, node)
           VALUES ($1, 1, 'u2', 'second', 'n')""",
        "second",
    ),
    "end of an executor": ("UPDATE executor_log SET exit_code = 77 WHERE task_id = $1", "77"),
    "text": ("UPDATE executor_log SET stdout = 'longer' WHERE task_id = $1", "longer"),
    "piece of a text": (
        "INSERT INTO executor_log_more VALUES ($1, 0, 0, 'stdout', 6, 9, 'and more')",
        "outputand more",
    ),
    "output": ("INSERT INTO output_file_log VALUES ($1, 0, '/o2', 's3://b/late', 5)", "s3://b/late"),
    "size of an output": ("UPDATE output_file_log SET size_bytes = 4711 WHERE task_id = $1", "4711"),
    "filer": ("UPDATE filer_log SET files = 4711 WHERE task_id = $1", "4711"),
    "line": (
        """INSERT INTO system_log (task_id, attempt, source, key, message)
           VALUES ($1, 0, 'api', 'x', 'late line')""",
        "late line",
    ),
    "type of an input": (
        "UPDATE input SET type = 'DIRECTORY' WHERE task_id = $1 AND path = '/i'",
        "DIRECTORY",
    ),
}


async def create(pool, task) -> UUID:
    request = TesTaskRequest.model_validate(task)
    return await tasks_db.create_task(pool, NewTask(owner="me", request=request), UserLimits())


async def finished(pool, task=TASK) -> UUID:
    task_id = await create(pool, task)
    for statement in LOGS:
        await pool.execute(statement, task_id)
    await pool.execute(FINISH, task_id)
    return task_id


async def read(pool, task_id, expression):
    document = await pool.fetchval(f"SELECT {expression} FROM task t WHERE id = $1", task_id)  # noqa: S608
    return json.loads(document)


async def stored(pool, task_id):
    return await pool.fetchrow("SELECT request, document, full_document FROM task WHERE id = $1", task_id)


async def test_ended_task_is_stored_once(pool):
    task_id = await finished(pool)
    assert await store_documents(pool) == 1
    assert await store_documents(pool) == 0
    request, document, full = await stored(pool, task_id)
    assert request is None
    assert "a line" not in document
    assert "a line" in full


@pytest.mark.parametrize("failure", [StorageUnavailable(), RuntimeError("a defect")])
async def test_documents_are_stored_after_a_failure(pool, monkeypatch, failure):
    task_id = await finished(pool)
    failures, stop = [failure], asyncio.Event()

    async def sometimes(pool):
        if failures:
            raise failures.pop()
        stop.set()
        return await store_documents(pool)

    monkeypatch.setattr(stored_documents, "store_documents", sometimes)
    monkeypatch.setattr(stored_documents, "_RETRY_SECONDS", 0)
    await stored_documents.keep_stored(pool, stop)
    assert (await stored(pool, task_id))["document"]


async def test_unfinished_task_is_not_stored(pool):
    task_id = await create(pool, TASK)
    assert await store_documents(pool) == 0
    request, document, _ = await stored(pool, task_id)
    assert document is None
    assert "content" not in request


@pytest.mark.parametrize("change", CHANGES)
async def test_late_change_is_visible_and_stored_again(pool, change):
    statement, shown = CHANGES[change]
    task_id = await finished(pool)
    await store_documents(pool)
    await pool.execute(statement, task_id)

    documents = await tasks_db.read_task(pool, ME, task_id, View.FULL)
    assert shown in documents.decode()
    assert await store_documents(pool) == 1
    assert await tasks_db.read_task(pool, ME, task_id, View.FULL) == documents


@pytest.mark.parametrize("view", VIEWS)
async def test_lists_and_gets_return_the_stored_document(pool, view):
    task_id = await finished(pool)
    before = await tasks_db.read_task(pool, ME, task_id, view)
    await store_documents(pool)
    part = await tasks_db.list_part(pool, ME, ListQuery(view=view), 1_000_000)
    assert await tasks_db.read_task(pool, ME, task_id, view) == before
    assert [b"".join(document) for document in part.documents] == [before]


async def test_task_with_a_change_in_progress_is_skipped(pool):
    task_id = await finished(pool)
    async with pool.acquire() as writer, writer.transaction():
        await writer.execute(CHANGES["line"][0], task_id)
        assert await store_documents(pool) == 0
    assert await store_documents(pool) == 1
    assert "late line" in (await stored(pool, task_id))["full_document"]


async def test_large_documents_are_not_stored(pool):
    task_id = await finished(pool)
    await pool.execute(
        "UPDATE executor_log SET stdout = repeat('x', $2) WHERE task_id = $1", task_id, MOST_BYTES
    )
    await store_documents(pool)
    _, document, full = await stored(pool, task_id)
    assert document
    assert full is None
    assert (await read(pool, task_id, DOCUMENT[View.FULL]))["logs"][0]["logs"][0][
        "stdout"
    ] == "x" * MOST_BYTES


async def test_task_of_an_earlier_release_is_assembled_and_stored(pool):
    task_id = await create(pool, TASK)
    new = [await read(pool, task_id, DOCUMENT[view]) for view in VIEWS]
    await pool.execute("UPDATE task SET request = NULL WHERE id = $1", task_id)
    assert [await read(pool, task_id, DOCUMENT[view]) for view in VIEWS] == new
    await pool.execute(FINISH, task_id)
    assert await store_documents(pool) == 1


text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
texts = st.dictionaries(text.filter(bool), text, max_size=2)
optional = st.one_of(st.none(), text)
paths = st.integers(0, 10_000).map("/p{}".format)
inputs = st.builds(
    dict,
    name=optional,
    path=paths,
    url=st.just("s3://b/i"),
    content=optional,
    streamable=st.none() | st.booleans(),
)
outputs = st.builds(dict, description=optional, path=paths, url=st.just("s3://b/o"), type=st.just("FILE"))
executors = st.builds(
    dict,
    image=st.just("busybox"),
    command=st.lists(text.filter(bool), min_size=1, max_size=2),
    workdir=st.none() | paths,
    env=st.none() | st.dictionaries(st.just("N"), text),
    ignore_error=st.none() | st.booleans(),
)
resources = st.builds(
    dict,
    cpu_cores=st.none() | st.integers(1, 9),
    ram_gb=st.none() | st.floats(1e-9, 1e9),
    disk_gb=st.none() | st.integers(0, 9),
    zones=st.none() | st.lists(text, max_size=2),
    backend_parameters=st.none() | texts,
    preemptible=st.none() | st.booleans(),
)
tasks = st.builds(
    dict,
    name=optional,
    description=optional,
    inputs=st.none() | st.lists(inputs, max_size=2, unique_by=lambda one: one["path"]),
    outputs=st.none() | st.lists(outputs, max_size=2),
    executors=st.lists(executors, min_size=1, max_size=2),
    volumes=st.none() | st.lists(paths, max_size=2),
    resources=st.none() | resources,
    tags=st.none() | texts,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(task=tasks, steps=st.integers(0, len(LOGS)), ends=st.booleans())
async def test_stored_and_assembled_documents_are_equal(pool, task, steps, ends):
    task_id = await create(pool, task)
    for statement in LOGS[:steps]:
        await pool.execute(statement, task_id)
    if ends:
        await pool.execute(FINISH, task_id)
        assert await store_documents(pool) == 1
    async with (
        pool.acquire() as db,
        db.transaction(),
    ):  # one now(), on which documents of waiting tasks depend
        shown = [await read(db, task_id, one) for one in (*(DOCUMENT[view] for view in VIEWS), REQUEST)]
        await db.execute(
            "UPDATE task SET request = NULL, document = NULL, full_document = NULL WHERE id = $1", task_id
        )
        assembled = [await read(db, task_id, one) for one in (*(ASSEMBLED[view] for view in VIEWS), REQUEST)]
    assert shown == assembled
    await pool.execute("DELETE FROM task")
