"""Run the loops of one process until they end, or until one of them fails.

asyncio.TaskGroup ignores a child that ends with a CancelledError, and continues without it. Libraries may let
one escape, for example if a timeout and a response occur in the same iteration of the event loop. A service
would then run without one of its loops.
"""

import asyncio
from collections.abc import Coroutine, Iterable


class UnexpectedCancel(RuntimeError):
    """A loop was canceled, although its caller was not."""


async def run_all(
    works: Iterable[Coroutine[None, None, None]], helpers: Iterable[Coroutine[None, None, None]] = ()
) -> None:
    """Run all `works` to their end, and `helpers` until then.

    The first failure cancels all others. Raise it, or UnexpectedCancel.
    """
    main = [asyncio.create_task(work) for work in works]
    tasks = (*main, *(asyncio.create_task(helper) for helper in helpers))
    try:
        while not all(task.done() for task in main):
            running = [task for task in tasks if not task.done()]
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            _raise_failure(done)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _raise_failure(done: Iterable["asyncio.Task[None]"]) -> None:
    for task in done:
        if task.cancelled():
            raise UnexpectedCancel(task.get_name())
        task.result()
