"""Which tasks only a comparison found, and how many were repaired."""

import asyncio

from poiesis_tctl.reconciliation import Reconciliation


async def test_round_ends_when_each_task_is_processed():
    rounds = Reconciliation()
    waiting = asyncio.ensure_future(rounds.round(["a", "b"]))
    await asyncio.sleep(0)
    rounds.processed("a")
    rounds.processed("x")
    await asyncio.sleep(0)
    assert not waiting.done()
    rounds.processed("b")
    assert await waiting == 0


async def test_empty_round_ends_immediately():
    assert await Reconciliation().round([]) == 0


async def test_each_repair_is_counted_once():
    rounds = Reconciliation()
    rounds.processed("a", repaired=True)
    waiting = asyncio.ensure_future(rounds.round(["b", "c"]))
    await asyncio.sleep(0)
    rounds.processed("b", repaired=True)
    rounds.processed("c")
    assert await waiting == 2
    assert await rounds.round([]) == 0


def test_observed_task_is_not_found():
    rounds = Reconciliation()
    for task_id in ("a", "b", "c"):
        rounds.found(task_id)
    rounds.observed("b")
    assert [rounds.take(task_id) for task_id in ("a", "b", "c", "d", "a")] == [
        True,
        False,
        True,
        False,
        False,
    ]
