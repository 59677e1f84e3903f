"""Callers that want the same thing at the same time share one piece of work."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

from poiesis_api.errors import TesError

logger = logging.getLogger(__name__)

Key = TypeVar("Key", bound=Hashable)
Result = TypeVar("Result")


class TooManyFlights(Exception):
    """As much as may be is under way."""


class Flights(Generic[Key, Result]):
    """At most `most` pieces of work at a time, one a key. Work goes on when a caller is canceled."""

    def __init__(self, name: str, most: int) -> None:
        self._name = name
        self._most = most
        self._tasks: dict[Key, asyncio.Task[Result]] = {}

    def start(self, key: Key, work: Callable[[], Coroutine[Any, Any, Result]]) -> "asyncio.Task[Result]":
        """The work of this key, begun now if it is not under way. Raise TooManyFlights."""
        task = self._tasks.get(key)
        if task is None:
            if len(self._tasks) >= self._most:
                raise TooManyFlights(f"{self._name}: {self._most} are under way")
            task = asyncio.create_task(work(), name=self._name)
            self._tasks[key] = task
            task.add_done_callback(lambda done: self._landed(key, done))
        return task

    @property
    def is_busy(self) -> bool:
        """Whether any work is under way."""
        return bool(self._tasks)

    def is_under_way(self, key: Key) -> bool:
        """Whether `run` would join others."""
        return key in self._tasks

    async def run(self, key: Key, work: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        """Raise what the work raises, or TooManyFlights."""
        return await asyncio.shield(self.start(key, work))

    async def close(self) -> None:
        """Cancel what is under way."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _landed(self, key: Key, task: "asyncio.Task[Result]") -> None:
        del self._tasks[key]
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, TesError):  # which those who wait are told
            logger.error("a mistake in shared work", exc_info=error, extra={"work": self._name})
