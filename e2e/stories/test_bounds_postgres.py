"""As an operator I have a full disk, sessions that vanish and few connections, and the service continues."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import aiohttp
import pytest

from poiesis_e2e.documents import assert_ended, sh
from poiesis_e2e.kube import CommandError, Kube
from poiesis_e2e.pressure import reading, restarts
from poiesis_e2e.tes_client import Document, TesClient, TesError
from poiesis_e2e.waiting import eventually
from poiesis_lab.images import Images

pytestmark = [pytest.mark.e2e, pytest.mark.disruptive]

_SMALL = "/dev/shm/poiesis"  # the Pod's own memory, 64 MB
_TABLES = ("task", "executor", "system_log")
_HELD = "FROM pg_stat_activity WHERE application_name = 'vanished'"
_BEYOND_REPORTS = {
    "lock of the queue": "SELECT FROM claim_turn FOR UPDATE",
    "lock of an owner": "INSERT INTO owner_turn VALUES ('alice')",
    "tasks": "SELECT FROM task",
    "temporary table": "CREATE TEMPORARY TABLE mine (x integer)",
    "table": "CREATE TABLE public.mine (x integer)",
    "large object": "SELECT lo_from_bytea(0, 'x')",
}


@asynccontextmanager
async def _full_disk(kube: Kube) -> AsyncIterator[None]:
    """Move the tables that a create writes to a full file system."""
    (pod,) = await kube.of_component("pods", "postgres")

    async def shell(script: str) -> str:
        return await kube.service.run("exec", pod["metadata"]["name"], "--", "sh", "-c", script)

    await shell(f"mkdir -p -m 700 {_SMALL} && (chown postgres {_SMALL} || true)")
    await kube.sql(f"CREATE TABLESPACE small LOCATION '{_SMALL}'")
    try:
        for table in _TABLES:
            await kube.sql(f"ALTER TABLE {table} SET TABLESPACE small")
        await shell("head -c 100M /dev/zero > /dev/shm/fill || true")
        yield
    finally:
        await shell("rm -f /dev/shm/fill")
        for table in _TABLES:
            await kube.sql(f"ALTER TABLE {table} SET TABLESPACE pg_default")
        await kube.sql("DROP TABLESPACE small")


async def test_full_disk_rejects_creates_and_allows_reads(
    second_client: TesClient, second_kube: Kube, images: Images
) -> None:
    before = await restarts(second_kube)
    large: Document = {
        "name": "full",
        "description": "".join(map(str, range(20_000))),
        "executors": [sh(images.busybox, "true")],
    }
    async with reading(second_client) as reads, _full_disk(second_kube):

        async def refused() -> bool:
            try:
                await second_client.create(large)
            except TesError as refusal:
                return (refusal.status, "no free disk space" in refusal.body) == (503, True)
            return False

        await eventually(refused, "a create that finds no space")
        root = urlsplit(second_client.base)._replace(path="/readyz").geturl()

        async def noted() -> bool:
            async with aiohttp.ClientSession() as http, http.get(root) as answer:
                assert answer.status == 200
                return "no free disk space" in await answer.text()

        await eventually(noted, "a note in /readyz", seconds=30)

    assert reads.errors == []
    assert await restarts(second_kube) == before
    stored = await second_client.list_tasks(name_prefix="full")
    assert stored["tasks"] == [], "what was answered with 503 is not stored"
    assert_ended(await second_client.run({"executors": [sh(images.busybox, "true")]}), "COMPLETE")


async def test_vanished_lock_holder_blocks_queue_for_one_minute(
    second_client: TesClient, second_kube: Kube, images: Images
) -> None:
    (pod,) = await second_kube.of_component("pods", "postgres")
    session = "psql --username=poiesis_api --dbname=poiesis --no-psqlrc -q"
    words = "SET application_name = 'vanished'; BEGIN; SELECT FROM claim_turn FOR UPDATE;"
    command = f'(echo "{words}"; sleep 600) | {session}'
    name = pod["metadata"]["name"]
    holder = asyncio.create_task(second_kube.service.run("exec", name, "--", "sh", "-c", command))
    try:

        async def holds() -> str:
            return await second_kube.sql(f"SELECT pid {_HELD} AND state = 'idle in transaction'")

        await eventually(holds, "a session that holds the lock")
        task = await second_client.run({"executors": [sh(images.busybox, "true")]}, timeout=150)
    finally:
        await second_kube.sql(f"SELECT pg_terminate_backend(pid) {_HELD}")
        holder.cancel()
        await asyncio.wait({holder})

    assert_ended(task, "COMPLETE")


@pytest.mark.parametrize("what", _BEYOND_REPORTS)
async def test_recorder_login_may_only_report(second_kube: Kube, what: str) -> None:
    """Every TaskPod contains the DSN of this login."""
    with pytest.raises(CommandError, match="permission denied"):
        await second_kube.sql(_BEYOND_REPORTS[what], user="poiesis_recorder")


async def test_recorder_login_cannot_block_tasks_with_locks(
    second_client: TesClient, second_kube: Kube, images: Images
) -> None:
    """Earlier releases used these locks for the queue and for creates."""
    locks = "SELECT pg_advisory_lock(7053477), pg_advisory_lock(7053478, hashtext('anonymous'))"
    held = f"SET statement_timeout = 0; {locks}; SELECT pg_sleep(600)"
    holder = asyncio.create_task(second_kube.sql(held, user="poiesis_recorder"))
    sleeping = "FROM pg_stat_activity WHERE usename = 'poiesis_recorder' AND wait_event = 'PgSleep'"
    try:

        async def holds() -> str:
            return await second_kube.sql(f"SELECT pid {sleeping}")

        await eventually(holds, "a session that holds the locks")
        task = await second_client.run({"executors": [sh(images.busybox, "true")]})
        assert await holds(), "the locks were held until the task had ended"
    finally:
        await second_kube.sql(f"SELECT pg_terminate_backend(pid) {sleeping}")
        await asyncio.wait({holder})

    assert_ended(task, "COMPLETE")
