"""The bounded line of reports that wait for one of a few places."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from poiesis_gateway.errors import Busy


class Line:
    """At most `places` blocks run concurrently; at most `waiting` wait, each for at most `seconds`."""

    def __init__(self, *, places: int, waiting: int, seconds: float) -> None:
        self._most_waiting, self._seconds = waiting, seconds
        self._free = asyncio.Semaphore(places)  # serves waiters in their order
        self.waiting = 0
        self.in_use = 0

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Hold a place for the block. Raise Busy if the line is too long or did not advance in time."""
        if self._free.locked() and self.waiting >= self._most_waiting:
            raise Busy(f"too many reports are waiting for the database (the maximum is {self._most_waiting})")
        self.waiting += 1
        try:
            async with asyncio.timeout(self._seconds):
                await self._free.acquire()
        except TimeoutError:
            raise Busy(f"no database connection became free within {self._seconds:g} seconds") from None
        finally:
            self.waiting -= 1
        self.in_use += 1
        try:
            yield
        finally:
            self.in_use -= 1
            self._free.release()
