"""Loops of one process that live and die together.

asyncio.TaskGroup passes over a child that ends by a CancelledError, and goes on without it. Libraries let
one out now and then, where a timer and the answer come in the same turn of the loop: a controller would be
without one of its eyes from then on, and say that it is well.
"""

import asyncio
from collections.abc import Coroutine, Iterable


class CancelledByNobody(RuntimeError):
    """A loop was cancelled, and not because its caller was."""


async def together(
    works: Iterable[Coroutine[None, None, None]], helpers: Iterable[Coroutine[None, None, None]] = ()
) -> None:
    """Run all `works` to their ends, with `helpers` beside them that end with the last of them at the latest.

    The first failure of any ends all. Raise it, or CancelledByNobody.
    """
    main = [asyncio.create_task(work) for work in works]
    beside = [asyncio.create_task(helper) for helper in helpers]
    everyone = (*main, *beside)
    try:
        while not all(task.done() for task in main):
            running = [task for task in everyone if not task.done()]
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            _raise_failure(done)
    finally:
        for task in everyone:
            task.cancel()
        await asyncio.gather(*everyone, return_exceptions=True)


def _raise_failure(done: Iterable["asyncio.Task[None]"]) -> None:
    for task in done:
        if task.cancelled():
            raise CancelledByNobody(task.get_name())
        task.result()
