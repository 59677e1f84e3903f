"""Wait for something to become true, by looking, with a deadline."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


class NotInTime(TimeoutError):
    """What was waited for did not come true."""


async def eventually(
    look: Callable[[], Awaitable[T | None]], what: str, *, seconds: float = 120, every: float = 0.3
) -> T:
    """The first answer of `look` that is truthy; NotInTime, with the last answer, after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        answer = await look()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise NotInTime(f"{what}: not within {seconds:.0f} s; the last look said {answer!r}")
        await asyncio.sleep(every)
