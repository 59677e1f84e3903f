"""Why tasks wait, on a real Postgres."""

import pytest

from poiesis_api import metrics, queue_db, queue_depth, tasks_db
from poiesis_api.config import UserLimits
from poiesis_api.limits import UNLIMITED
from poiesis_api.queue_depth import REASONS, Waiting, read_depth
from poiesis_api.tasks_db import NewTask
from poiesis_models.tes import TesTaskRequest

pytestmark = pytest.mark.integration

REQUEST = TesTaskRequest.model_validate({"executors": [{"image": "busybox", "command": ["true"]}]})


async def add(pool, owner="alice"):
    new = NewTask(owner=owner, request=REQUEST)
    return await tasks_db.create_task(pool, new, UserLimits())


async def counts(pool, most=UNLIMITED):
    return {reason: one.tasks for reason, one in (await read_depth(pool, most)).items() if one.tasks}


async def submit(pool, owner):
    task_id = await add(pool, owner)
    await queue_db.mark_submitted(pool, task_id, keep_lease=False)
    return task_id


async def test_empty_queue_has_a_value_for_each_reason(pool):
    assert await read_depth(pool, UNLIMITED) == dict.fromkeys(REASONS, Waiting())


async def test_due_tasks_wait_for_a_place(pool):
    await add(pool)
    await add(pool, "bob")
    assert await counts(pool) == {"place": 2}


async def test_tasks_over_the_limit_of_their_owner_wait_for_it(pool):
    await submit(pool, "alice")
    for _ in range(3):
        await add(pool, "alice")
    await add(pool, "bob")
    assert await counts(pool, most=2) == {"pod": 1, "place": 2, "owner_limit": 2}


async def test_refused_tasks_wait_for_the_next_attempt(pool):
    task_id = await add(pool)
    await pool.execute("UPDATE task SET submit_attempts = 1")
    await queue_db.postpone(pool, task_id, seconds=60, key="submit-403-Forbidden", message="m")
    assert await counts(pool) == {"refused": 1}


async def test_submitted_tasks_wait_for_kueue_or_a_pod(pool):
    await submit(pool, "alice")
    waiting = await submit(pool, "bob")
    await pool.execute(
        "INSERT INTO system_log (task_id, source, key, message) VALUES ($1, 'controller', $2, 'm')",
        waiting,
        "Kueue-Pending",
    )
    assert await counts(pool) == {"kueue": 1, "pod": 1}


async def test_running_and_ended_tasks_do_not_wait(pool):
    running, ended = await submit(pool, "alice"), await add(pool, "alice")
    await pool.execute("UPDATE task SET state = 'RUNNING' WHERE id = $1", running)
    await tasks_db.cancel_task(pool, tasks_db.Caller(name="alice"), ended)
    assert await counts(pool) == {}


async def test_age_is_that_of_the_oldest_task(pool):
    task_id = await add(pool)
    await add(pool)
    await pool.execute("UPDATE task SET created_at = now() - interval '1 hour' WHERE id = $1", task_id)
    assert (await read_depth(pool, UNLIMITED))["place"].oldest_age_seconds == pytest.approx(3600, abs=60)


async def test_metrics_show_the_queue(pool, config):
    await add(pool)
    await queue_depth.update(pool, config)
    assert metrics.REGISTRY.get_sample_value("poiesis_queue_tasks", {"reason": "place"}) == 1
