"""Trying again, in the one place that decides how often and how soon."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from poiesis_transfer.errors import Passing

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Retry:
    """Exponential back-off with full jitter. A store's own Retry-After is obeyed up to `longest_seconds`."""

    attempts: int = 5
    first_seconds: float = 0.5
    longest_seconds: float = 30.0

    async def call(self, attempt: Callable[[], Awaitable[_T]]) -> _T:
        """Call until it returns; what the last attempt raises is raised, and anything but Passing at once."""
        for count in range(self.attempts - 1):
            try:
                return await attempt()
            except Passing as failure:
                delay = self.delay(count, failure.retry_after)
            await asyncio.sleep(delay)
        return await attempt()

    def delay(self, count: int, retry_after: float | None) -> float:
        """Seconds to wait after attempt `count` (0-based)."""
        asked = min(retry_after or 0.0, self.longest_seconds)
        jitter = random.uniform(0, min(self.first_seconds * 2**count, self.longest_seconds))  # noqa: S311
        return asked + jitter
