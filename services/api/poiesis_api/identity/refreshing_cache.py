"""A cached remote value that is refreshed in the background and stays usable during an outage."""

import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from poiesis_api.errors import IdentityUnavailable
from poiesis_api.identity.single_flight import SingleFlight

logger = logging.getLogger(__name__)

Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True)
class Times:
    """Ages in seconds.

    `refresh`: a value is fetched again in the background. `stale`: it is no longer used. `apart`: the minimum
    between two fetches.
    """

    refresh: float
    stale: float
    apart: float


class RefreshingCache(Generic[Value]):
    """Caches the result of `fetch`, which raises IdentityUnavailable; one call of it at a time."""

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
        self._flights: SingleFlight[str, Value] = SingleFlight(name, most=1)
        self._value: Value | None = None
        self._fetched_at = -float("inf")
        self._tried_at = -float("inf")
        self._failure: IdentityUnavailable | None = None  # of the last fetch

    def warm(self) -> None:
        """Start to fetch the first value."""
        self._flights.start(self._name, self._renew)

    async def get(self) -> Value:
        """Return the value. Raise IdentityUnavailable if no value is fresh enough."""
        age = self._clock() - self._fetched_at
        if self._value is None or age >= self._times.stale:
            return await self._renewed()
        if age >= self._times.refresh and not self._is_soon():
            self._flights.start(self._name, self._renew)
        return self._value

    async def newer(self) -> Value:
        """Return a freshly fetched value, or the cached one if it was fetched just now.

        For callers that did not find something in the cached value. Raise IdentityUnavailable.
        """
        if self._is_soon() and self._failure is None and self._value is not None:
            return self._value
        return await self._renewed()

    async def close(self) -> None:
        """Cancel a fetch in progress."""
        await self._flights.close()

    def _is_soon(self) -> bool:
        """Return whether the last fetch ended less than `apart` seconds ago."""
        just_tried = self._clock() - self._tried_at < self._times.apart
        return just_tried and not self._flights.is_running(self._name)

    async def _renewed(self) -> Value:
        if self._failure is not None and self._is_soon():
            raise IdentityUnavailable("{failure}", failure=self._failure.text) from self._failure.__cause__
        return await self._flights.run(self._name, self._renew)

    async def _renew(self) -> Value:
        self._tried_at = self._clock()
        try:
            self._value = await self._fetch()
        except IdentityUnavailable as error:
            self._failure = error
            logger.warning(
                "fetch failed", extra={"what": self._name, "error": repr(error.__cause__ or error)}
            )
            raise
        self._failure = None
        self._fetched_at = self._clock()
        return self._value
