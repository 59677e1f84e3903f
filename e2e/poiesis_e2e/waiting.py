"""Poll until a condition is true, with a deadline."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


class NotInTime(TimeoutError):
    """A condition did not become true in time."""


async def eventually(
    look: Callable[[], Awaitable[T | None]], what: str, *, seconds: float = 120, every: float = 0.3
) -> T:
    """Return the first truthy result of `look`; raise NotInTime with the last result after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        answer = await look()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise NotInTime(f"{what}: not within {seconds:.0f} s; last result: {answer!r}")
        await asyncio.sleep(every)
