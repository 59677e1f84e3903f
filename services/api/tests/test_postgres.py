"""What a Postgres that cuts connections looks like to the api: away, and never a mistake of ours."""

import asyncio
from collections import Counter
from contextlib import nullcontext

import asyncpg
import pytest

from poiesis_api import tasks_db
from poiesis_api.config import Database, UserLimits
from poiesis_api.errors import StorageUnavailable
from poiesis_api.identity.caller import Caller
from poiesis_api.postgres import Pool, fetch, open_pool, transaction
from poiesis_api.tasks_db import NewTask
from poiesis_documents.documents import View
from poiesis_models.outages import Outage
from poiesis_models.tes import TesTaskRequest

pytestmark = pytest.mark.integration

CUT = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
 WHERE application_name = 'poiesis-api' AND datname = current_database() AND pid <> pg_backend_pid()
"""
UNDER = """
SELECT pid FROM pg_stat_activity
 WHERE datname = current_database() AND state = 'active' AND query LIKE $1
   AND pid <> ALL($2::int[]) AND pid <> pg_backend_pid() AND pg_terminate_backend(pid)
"""
SLOW = "SELECT pg_sleep(1)"
TASK = TesTaskRequest.model_validate({"executors": [{"image": "busybox", "command": ["true"]}]})


async def test_cut_connections_are_an_outage(pool, postgres_dsn):
    outcomes: Counter[str] = Counter()

    async def work() -> None:
        while outcomes["cuts"] < 60:
            try:
                task_id = await tasks_db.create_task(pool, NewTask(owner="me", request=TASK), UserLimits())
                await tasks_db.read_task(pool, Caller(name="me"), task_id, View.MINIMAL)
            except StorageUnavailable:
                outcomes["away"] += 1
            else:
                outcomes["well"] += 1
            await asyncio.sleep(0)

    async def cut() -> None:
        owner = await asyncpg.connect(postgres_dsn)
        while outcomes["cuts"] < 60:
            await owner.execute(CUT)
            outcomes["cuts"] += 1
            await asyncio.sleep(0.02)
        await owner.close()

    await asyncio.gather(cut(), *(work() for _ in range(6)))

    assert outcomes["away"] > 0
    assert outcomes["well"] > 0


async def test_read_survives_two_cut_connections(pool, postgres_dsn):
    reading = asyncio.create_task(fetch(pool, f"{SLOW}, 'answered' AS word"))
    await _cut_under(postgres_dsn, SLOW, times=2)

    assert [row["word"] for row in await reading] == ["answered"]


class AnswerLost:
    """A pool whose first statement is carried out, and its connection cut before the answer."""

    def __init__(self, pool):
        self.pool = pool
        self.statements = 0

    def acquire(self, **how):
        return self.pool.acquire(**how) if self.statements else nullcontext(self)

    async def fetch(self, *arguments):
        self.statements += 1
        await self.pool.fetch(*arguments)
        raise asyncpg.ConnectionDoesNotExistError("cut")

    async def expire_connections(self):
        await self.pool.expire_connections()


async def test_create_with_lost_response_is_stored_once(pool):
    cut = AnswerLost(pool)
    task_id = await tasks_db.create_task(cut, NewTask(owner="me", request=TASK), UserLimits())

    assert [row["id"] for row in await pool.fetch("SELECT id FROM task")] == [task_id]
    assert await pool.fetchval("SELECT count(*) FROM executor") == 1
    assert cut.statements == 1


async def test_slow_statement_is_canceled_and_rolled_back(postgres_dsn):
    async with open_pool(postgres_dsn, Database(timeout_seconds=0.3)) as pool:
        await pool.execute("CREATE TABLE slow (n integer)")
        with pytest.raises(StorageUnavailable) as raised:
            await fetch(pool, "INSERT INTO slow SELECT 1 FROM pg_sleep(5)")
        assert raised.value.outage is Outage.BUSY
        assert await pool.fetchval("SELECT count(*) FROM slow") == 0


async def test_a_deadlock_is_an_outage(pool):
    await pool.execute(
        "CREATE TABLE pair (n integer PRIMARY KEY, v integer); INSERT INTO pair VALUES (1), (2)"
    )

    async def lock(first: int, second: int, both: asyncio.Barrier) -> None:
        async with transaction(pool) as db:
            await db.execute("UPDATE pair SET v = 0 WHERE n = $1", first)
            await both.wait()
            await db.execute("UPDATE pair SET v = 0 WHERE n = $1", second)

    both = asyncio.Barrier(2)
    outcomes = await asyncio.gather(lock(1, 2, both), lock(2, 1, both), return_exceptions=True)
    (lost,) = (one for one in outcomes if one is not None)
    assert isinstance(lost, StorageUnavailable)
    assert lost.outage is Outage.BUSY


async def test_read_cut_three_times_is_an_outage(pool, postgres_dsn):
    reading = asyncio.create_task(fetch(pool, SLOW))
    await _cut_under(postgres_dsn, SLOW, times=3)

    with pytest.raises(StorageUnavailable):
        await reading


async def test_one_broken_connection_replaces_all(pool, postgres_dsn):
    old = await _backends(pool, 4)
    reading = asyncio.create_task(fetch(pool, SLOW))
    await _cut_under(postgres_dsn, SLOW, times=1)
    await reading

    new = await _backends(pool, 4)

    assert len(old) == len(new) == 4
    assert not old & new


async def _cut_under(dsn: str, statement: str, *, times: int) -> None:
    """End the backend that runs the statement, and the next that does."""
    owner = await asyncpg.connect(dsn)
    cut: set[int] = set()
    async with asyncio.timeout(60):
        while len(cut) < times:
            pids = await owner.fetch(UNDER, f"{statement}%", list(cut))
            cut.update(row["pid"] for row in pids)
            await asyncio.sleep(0.01)
    await owner.close()


async def _backends(pool: Pool, count: int) -> set[int]:
    """Of that many connections, open at once."""
    connections = [await pool.acquire() for _ in range(count)]
    pids = {connection.get_server_pid() for connection in connections}
    for connection in connections:
        await pool.release(connection)
    return pids
