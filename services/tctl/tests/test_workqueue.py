"""Keys, delays and workers of the queue."""

import asyncio

from poiesis_models.backoff import Backoff
from poiesis_tctl.workqueue import WorkQueue

QUICK = Backoff(first=0.01, longest=0.05)


async def test_key_waits_once_and_has_one_worker():
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    queue.add("a")
    queue.add("b")
    assert [await queue.get(), await queue.get()] == ["a", "b"]
    queue.add("a")
    queue.add("a")
    assert len(queue) == 0
    queue.done("b")
    assert len(queue) == 0
    queue.done("a")
    assert await queue.get() == "a"
    queue.done("a")
    assert len(queue) == 0


async def test_queue_contains_waiting_keys():
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    assert "a" in queue
    assert await queue.get() == "a"
    assert "a" not in queue
    queue.add("a")
    assert "a" in queue
    queue.done("a")


async def test_earliest_delay_of_a_key_is_used():
    queue: WorkQueue[str] = WorkQueue()
    queue.add_after("a", 1000)
    queue.add_after("a", 0.01)
    queue.add_after("a", 500)
    async with asyncio.timeout(60):
        assert await queue.get() == "a"
    queue.add_after("a", 0.01)
    queue.close()


async def test_failures_increase_the_delay():
    queue: WorkQueue[str] = WorkQueue(QUICK)
    queue.add("a")
    waits = []
    for _ in range(5):
        async with asyncio.timeout(60):
            assert await queue.get() == "a"
        waits.append(queue.failed("a"))
    assert 0.005 <= waits[0] <= 0.01
    assert 0.025 <= waits[4] <= 0.05
    async with asyncio.timeout(60):
        await queue.get()
    queue.done("a")
    queue.add("a")
    await queue.get()
    assert queue.failed("a") <= 0.01
    queue.close()
