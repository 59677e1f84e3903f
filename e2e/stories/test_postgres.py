"""As an operator I have many kinds of Postgres failures, and tasks keep their outcomes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from poiesis_e2e.documents import assert_ended, executor_logs, exit_codes, only_log, seconds, sh, stdout
from poiesis_e2e.kube import Kube, Node, Object, container_status
from poiesis_e2e.tes_client import Document, Task, TesClient, TesError
from poiesis_e2e.waiting import eventually
from poiesis_lab.images import Images

pytestmark = [pytest.mark.e2e, pytest.mark.disruptive]

_OBJECTS = "jobs,pods,secrets,serviceaccounts,persistentvolumeclaims"
_WAITING = "FROM pg_stat_activity WHERE usename = 'poiesis_recorder' AND wait_event_type = 'Lock'"
_LIMIT = "SELECT rolconnlimit FROM pg_roles WHERE rolname = 'poiesis_recorder'"
_CUT = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
 WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"""


def _counting(image: str) -> Document:
    """Return a task that prints numbers until SIGTERM, then the time."""
    script = "trap 'date +%s; exit 0' USR1; i=0; while :; do i=$((i + 1)); echo $i; sleep 0.5; done"
    return {"executors": [sh(image, script)]}


@pytest.mark.core
async def test_post_during_postgres_outage_creates_nothing(
    second_client: TesClient, second_kube: Kube, images: Images
) -> None:
    document: Document = {"executors": [sh(images.busybox, "echo made")]}
    tasks = await _newest(second_client)
    objects = await _objects(second_kube)

    async with second_kube.without("postgres"):
        assert await _refusal(second_client, document) == (
            503,
            '{"error": "the database does not answer; try again"}',
        )
    await eventually(second_client.answers, "a response of the api")

    assert await _newest(second_client) == tasks
    assert await _objects(second_kube) <= objects
    task = await second_client.run(document)
    assert_ended(task, "COMPLETE")
    assert stdout(task) == "made\n"
    assert (await _newest(second_client))[:2] == [task["id"], *tasks[:1]]


async def test_outcome_during_postgres_outage_keeps_its_time(
    second_client: TesClient, second_kube: Kube, node: Node, images: Images
) -> None:
    task_id = await second_client.create(_counting(images.busybox))
    await second_client.wait(task_id, until={"RUNNING"})

    async with second_kube.without("postgres"):
        outage = asyncio.create_task(asyncio.sleep(40))  # longer than a recorder keeps its connection
        await _end_executor(second_kube, node, task_id)
        await outage
    task = await _ended(second_client, task_id)

    _assert_counted(task)


async def test_repeatedly_cut_connections_duplicate_nothing(
    second_client: TesClient, second_kube: Kube, node: Node, images: Images
) -> None:
    task_id = await second_client.create(_counting(images.busybox))
    await second_client.wait(task_id, until={"RUNNING"})

    cut = 0
    for _ in range(20):
        cut += len((await second_kube.sql(_CUT)).splitlines())
        assert (await second_client.get(task_id))["state"] == "RUNNING"
    await _end_executor(second_kube, node, task_id)
    for _ in range(5):
        cut += len((await second_kube.sql(_CUT)).splitlines())
    task = await _ended(second_client, task_id)

    assert cut > 20
    _assert_counted(task)


async def test_read_only_database_rejects_posts_and_delays_outcomes(
    second_client: TesClient, second_kube: Kube, node: Node, images: Images
) -> None:
    task_id = await second_client.create(_counting(images.busybox))
    await second_client.wait(task_id, until={"RUNNING"})
    tasks = await _newest(second_client)
    objects = await _objects(second_kube)

    async with _changed(
        second_kube,
        "ALTER DATABASE poiesis SET default_transaction_read_only = on",
        "ALTER DATABASE poiesis RESET default_transaction_read_only",
    ):
        await second_kube.sql(_CUT, database="postgres")
        assert await _refusal(second_client, {"executors": [sh(images.busybox, "true")]}) == (
            503,
            '{"error": "the database is read-only; reads still work, try again later"}',
        )
        await _end_executor(second_kube, node, task_id)
        assert (await second_client.get(task_id))["state"] == "RUNNING"
        assert await _newest(second_client) == tasks
    task = await _ended(second_client, task_id)

    _assert_counted(task)
    assert await _objects(second_kube) <= objects


async def test_outcome_waits_for_a_free_connection(
    second_client: TesClient, second_kube: Kube, node: Node, images: Images
) -> None:
    task_id = await second_client.create(_counting(images.busybox))
    await second_client.wait(task_id, until={"RUNNING"})
    limit = await second_kube.sql(_LIMIT)

    async with _changed(
        second_kube,
        "ALTER ROLE poiesis_recorder CONNECTION LIMIT 0",
        f"ALTER ROLE poiesis_recorder CONNECTION LIMIT {limit}",
    ):
        await second_kube.sql(f"{_CUT} AND usename = 'poiesis_recorder'")
        await _end_executor(second_kube, node, task_id)
        await _refused_connection(second_kube, task_id)
        assert (await second_client.get(task_id))["state"] == "RUNNING"
    task = await _ended(second_client, task_id)

    _assert_counted(task)
    assert await second_kube.sql(_LIMIT) == limit


async def test_outcome_waits_for_a_locked_row(
    second_client: TesClient, second_kube: Kube, node: Node, images: Images
) -> None:
    task_id = await second_client.create(_counting(images.busybox))
    await second_client.wait(task_id, until={"RUNNING"})

    async with _locked(second_kube, task_id):
        await _end_executor(second_kube, node, task_id)

        async def waits() -> str:
            return await second_kube.sql(f"SELECT pid {_WAITING}")

        await eventually(waits, "a recorder that waits for the lock")
        assert (await second_client.get(task_id))["state"] == "RUNNING"
    task = await _ended(second_client, task_id)

    _assert_counted(task)


# --- shared helpers ------------------------------------------------------------------------------------


@asynccontextmanager
async def _changed(kube: Kube, change: str, back: str) -> AsyncIterator[None]:
    """Change a setting from another database, whose sessions it does not affect."""
    try:
        await kube.sql(change, database="postgres")
        yield
    finally:
        await kube.sql(back, database="postgres")
        # Sessions keep their initial settings; end them, as a failover does.
        await kube.sql(_CUT, database="postgres")


@asynccontextmanager
async def _locked(kube: Kube, task_id: str) -> AsyncIterator[None]:
    """Lock the task's row in another transaction."""
    held = f"BEGIN; SELECT FROM task WHERE id = '{task_id}' FOR UPDATE; SELECT pg_sleep(600)"
    holder = asyncio.create_task(kube.sql(held))
    session = "FROM pg_stat_activity WHERE wait_event = 'PgSleep'"

    async def holds() -> str:
        return await kube.sql(f"SELECT pid {session}")

    try:
        await eventually(holds, "a lock")
        yield
    finally:
        await kube.sql(f"SELECT pg_terminate_backend(pid) {session}")
        await asyncio.wait({holder})


async def _refusal(client: TesClient, document: Document) -> tuple[int, str]:
    with pytest.raises(TesError) as refused:
        await client.create(document)
    return refused.value.status, refused.value.body


async def _newest(client: TesClient) -> list[str]:
    return [task["id"] for task in (await client.list_tasks(page_size=20))["tasks"]]


async def _objects(kube: Kube) -> set[tuple[str, str]]:
    """Return the Kubernetes objects of all tasks."""
    return {
        (found["kind"], found["metadata"]["name"]) for found in await kube.find(_OBJECTS, "poiesis.io/task")
    }


async def _ended(client: TesClient, task_id: str) -> Task:
    """Wait until a task ends; the api's Pods leave the Service while Postgres is unreachable."""
    await eventually(client.answers, "a response of the api")
    await client.wait(task_id, timeout=90)
    return await client.get(task_id, "FULL")


async def _end_executor(kube: Kube, node: Node, task_id: str) -> None:
    await node.kill_children(await kube.running_container(task_id, "executor-0"), "USR1")

    async def look() -> Object | None:
        status = container_status(await kube.pod(task_id), "executor-0")
        return status["state"].get("terminated") if status else None

    await eventually(look, "the end of the executor")


async def _refused_connection(kube: Kube, task_id: str) -> None:
    """Wait until the recorder logs that Postgres accepts no connection (SQLSTATE 53300)."""

    async def look() -> bool:
        pod = (await kube.pod(task_id))["metadata"]["name"]
        return "53300" in await kube.run("logs", pod, "--container=trec")

    await eventually(look, "a recorder without a connection")


def _assert_counted(task: Task) -> None:
    """Assert that every line is logged once, in one attempt and one log, with the true end time."""
    assert_ended(task, "COMPLETE")
    assert exit_codes(task) == [0]
    *lines, end = stdout(task).splitlines()
    assert lines == [str(number + 1) for number in range(len(lines))]
    end_time = seconds(executor_logs(task)[0]["end_time"])
    assert int(end) <= end_time < int(end) + 2
    lines = only_log(task).get("system_logs", [])
    assert len(lines) == len(set(lines))
