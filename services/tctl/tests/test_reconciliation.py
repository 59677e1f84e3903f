"""Which tasks a comparison alone has brought up, and what came of it."""

import asyncio

from poiesis_tctl.reconciliation import Reconciliation


async def test_round_ends_when_each_task_has_been_looked_at():
    rounds = Reconciliation()
    waiting = asyncio.ensure_future(rounds.round(["a", "b"]))
    await asyncio.sleep(0)
    rounds.looked("a")
    rounds.looked("x")
    await asyncio.sleep(0)
    assert not waiting.done()
    rounds.looked("b")
    assert await waiting == 0


async def test_round_of_nothing_ends_at_once():
    assert await Reconciliation().round([]) == 0


async def test_mended_are_counted_once_also_those_between_two_rounds():
    rounds = Reconciliation()
    rounds.looked("a", mended=True)
    waiting = asyncio.ensure_future(rounds.round(["b", "c"]))
    await asyncio.sleep(0)
    rounds.looked("b", mended=True)
    rounds.looked("c")
    assert await waiting == 2
    assert await rounds.round([]) == 0


def test_only_what_nobody_told_of_was_found():
    rounds = Reconciliation()
    for task_id in ("a", "b", "c"):
        rounds.found(task_id)
    rounds.told("b")
    assert [rounds.take(task_id) for task_id in ("a", "b", "c", "d", "a")] == [
        True,
        False,
        True,
        False,
        False,
    ]
