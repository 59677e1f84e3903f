"""A value of somebody else's that is kept, renewed in time, and goes on to serve while nobody answers."""

import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from poiesis_api.errors import IdentityUnavailable
from poiesis_api.identity.flights import Flights

logger = logging.getLogger(__name__)

Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True)
class Times:
    """Seconds. `refresh`: after which a value is fetched anew, in the background.

    `stale`: after which it serves no more. `apart`: what is at least between two fetches.
    """

    refresh: float
    stale: float
    apart: float


class Refreshed(Generic[Value]):
    """`fetch` raises IdentityUnavailable if there is no answer; one call of it at a time."""

    def __init__(
        self,
        name: str,
        fetch: Callable[[], Coroutine[Any, Any, Value]],
        times: Times,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._fetch = fetch
        self._times = times
        self._clock = clock
        self._flights: Flights[str, Value] = Flights(name, most=1)
        self._value: Value | None = None
        self._fetched_at = -float("inf")
        self._tried_at = -float("inf")
        self._failure: IdentityUnavailable | None = None  # of the last fetch

    def warm(self) -> None:
        """Fetch the first value before anybody waits for it."""
        self._flights.start(self._name, self._renew)

    async def get(self) -> Value:
        """Raise IdentityUnavailable if there is none, or none that is fresh enough to serve."""
        age = self._clock() - self._fetched_at
        if self._value is None or age >= self._times.stale:
            return await self._renewed()
        if age >= self._times.refresh and not self._is_soon():
            self._flights.start(self._name, self._renew)
        return self._value

    async def newer(self) -> Value:
        """For one who has missed something in `get`'s answer: fetched anew, unless that was done just now.

        Raise IdentityUnavailable if it cannot be known whether there is anything newer.
        """
        if self._is_soon() and self._failure is None and self._value is not None:
            return self._value
        return await self._renewed()

    async def close(self) -> None:
        """End what is under way."""
        await self._flights.close()

    def _is_soon(self) -> bool:
        """Whether the last fetch has just ended."""
        just_tried = self._clock() - self._tried_at < self._times.apart
        return just_tried and not self._flights.is_under_way(self._name)

    async def _renewed(self) -> Value:
        if self._failure is not None and self._is_soon():
            raise IdentityUnavailable(str(self._failure)) from self._failure.__cause__
        return await self._flights.run(self._name, self._renew)

    async def _renew(self) -> Value:
        self._tried_at = self._clock()
        try:
            self._value = await self._fetch()
        except IdentityUnavailable as error:
            self._failure = error
            logger.warning(
                "cannot fetch", extra={"what": self._name, "error": repr(error.__cause__ or error)}
            )
            raise
        self._failure = None
        self._fetched_at = self._clock()
        return self._value
