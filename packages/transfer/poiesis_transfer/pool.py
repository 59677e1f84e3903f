"""Many things at once, but not too many; one failure ends the rest."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import ParamSpec, TypeVar

from poiesis_transfer.errors import Passing, Permanent

AT_ONCE = 16  # files, and requests that carry bytes

_T = TypeVar("_T")
_P = ParamSpec("_P")
_END = object()


async def for_each(
    source: AsyncIterator[_T], work: Callable[[_T], Awaitable[None]], *, at_once: int = AT_ONCE
) -> None:
    """Work on everything that `source` yields, which is asked for more only when a hand is free.

    The first failure cancels the rest. Of several, one that cannot pass is raised before one that may.
    """
    turn = asyncio.Lock()

    async def hand() -> None:
        while True:
            async with turn:
                try:
                    thing = await anext(source)
                except StopAsyncIteration:
                    return
            await work(thing)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(hand())
    except BaseExceptionGroup as failures:
        raise _worst(failures) from None


async def threaded(source: Iterable[_T]) -> AsyncIterator[_T]:
    """The same, with what `source` does to find the next (reading directories) kept off the event loop."""
    iterator = iter(source)
    while (thing := await in_thread(next, iterator, _END)) is not _END:
        yield thing  # type: ignore[misc]  # _END is an object


async def as_async(source: Iterable[_T]) -> AsyncIterator[_T]:
    """The same, for a source that does no I/O."""
    for thing in source:
        yield thing


async def in_thread(function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Like asyncio.to_thread, but cancelling waits for the call: it may use a descriptor closed next."""
    future = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait([future])
        raise


def _worst(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    leaves: list[BaseException] = []
    stack: list[BaseException] = [failures]
    while stack:
        failure = stack.pop()
        if isinstance(failure, BaseExceptionGroup):
            stack.extend(reversed(failure.exceptions))
        else:
            leaves.append(failure)
    return min(leaves, key=_badness)


def _badness(failure: BaseException) -> int:
    if isinstance(failure, Passing):
        return 2
    return 1 if isinstance(failure, Permanent) else 0
