"""Concurrent calls with the same key share one execution (single flight)."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

from poiesis_api.errors import TesError

logger = logging.getLogger(__name__)

Key = TypeVar("Key", bound=Hashable)
Result = TypeVar("Result")


class TooManyFlights(Exception):
    """The maximum number of executions is in progress."""


class SingleFlight(Generic[Key, Result]):
    """Runs at most `most` pieces of work at a time, one per key. Work continues if a caller is canceled."""

    def __init__(self, name: str, most: int) -> None:
        self._name = name
        self._most = most
        self._tasks: dict[Key, asyncio.Task[Result]] = {}

    def start(self, key: Key, work: Callable[[], Coroutine[Any, Any, Result]]) -> "asyncio.Task[Result]":
        """Return the work of this key, started now if it is not in progress. Raise TooManyFlights."""
        task = self._tasks.get(key)
        if task is None:
            if len(self._tasks) >= self._most:
                raise TooManyFlights(f"{self._name}: {self._most} in progress (the maximum)")
            task = asyncio.create_task(work(), name=self._name)
            self._tasks[key] = task
            task.add_done_callback(lambda done: self._finished(key, done))
        return task

    @property
    def is_busy(self) -> bool:
        """Whether any work is in progress."""
        return bool(self._tasks)

    def is_running(self, key: Key) -> bool:
        """Return whether work of this key is in progress."""
        return key in self._tasks

    async def run(self, key: Key, work: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        """Return the result of the work of this key. Raise its errors, or TooManyFlights."""
        return await asyncio.shield(self.start(key, work))

    async def close(self) -> None:
        """Cancel all work in progress."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _finished(self, key: Key, task: "asyncio.Task[Result]") -> None:
        del self._tasks[key]
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, TesError):  # which `run` raises for its callers
            logger.error("unhandled exception in shared work", exc_info=error, extra={"work": self._name})
