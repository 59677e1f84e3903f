import asyncio

import pytest

from poiesis_transfer.errors import Passing, Permanent
from poiesis_transfer.pool import as_async, for_each, in_thread, threaded


async def test_everything_is_worked_on_and_never_too_much_at_once():
    running = most = 0
    seen: list[int] = []
    meeting = asyncio.Barrier(5)

    async def work(number: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await meeting.wait()
        seen.append(number)
        running -= 1

    await for_each(threaded(range(100)), work, at_once=5)
    assert (sorted(seen), most) == (list(range(100)), 5)


async def test_a_failure_ends_the_rest_and_comes_without_a_group():
    finished = asyncio.Event()

    async def work(number: int) -> None:
        if number == 1:
            raise Permanent("one")
        try:
            await asyncio.Event().wait()
        finally:
            finished.set()

    with pytest.raises(Permanent, match="one"):
        await for_each(as_async(range(10)), work, at_once=2)
    assert finished.is_set()


async def test_of_several_failures_one_that_cannot_pass_is_raised():
    meeting = asyncio.Barrier(3)

    async def work(failure: Exception) -> None:
        await meeting.wait()
        raise failure

    with pytest.raises(Permanent):
        await for_each(as_async([Passing("a"), Permanent("b"), Passing("c")]), work, at_once=3)


async def test_what_the_source_raises_is_raised():
    def source():
        yield 1
        raise Permanent("listing")

    async def work(number: int) -> None:
        return

    with pytest.raises(Permanent, match="listing"):
        await for_each(threaded(source()), work)


async def test_cancelling_waits_for_the_thread():
    loop = asyncio.get_running_loop()
    begun, go, ended = asyncio.Event(), asyncio.Event(), False

    def slow() -> None:
        nonlocal ended
        loop.call_soon_threadsafe(begun.set)
        asyncio.run_coroutine_threadsafe(go.wait(), loop).result(timeout=10)
        ended = True

    task = asyncio.create_task(in_thread(slow))
    await begun.wait()
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended
