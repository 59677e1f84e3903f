"""What a Postgres that cuts connections looks like to the api: away, and never a mistake of ours."""

import asyncio
from collections import Counter

import asyncpg
import pytest

from poiesis_api import tasks_db
from poiesis_api.documents import View
from poiesis_api.errors import StorageUnavailable
from poiesis_models.tes import TesTaskRequest

pytestmark = pytest.mark.integration

CUT = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
 WHERE application_name = 'poiesis-api' AND datname = current_database() AND pid <> pg_backend_pid()
"""
TASK = TesTaskRequest.model_validate({"executors": [{"image": "busybox", "command": ["true"]}]})


async def test_connections_that_are_cut_at_any_moment_are_a_database_that_is_away(pool, postgres_dsn):
    outcomes: Counter[str] = Counter()

    async def work() -> None:
        while outcomes["cuts"] < 60:
            try:
                task_id = await tasks_db.create_task(pool, "me", TASK, [])
                await tasks_db.read_task(pool, "me", task_id, View.MINIMAL)
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
