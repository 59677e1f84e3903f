"""A queue of keys with delays and back-off, like client-go's workqueue."""

import asyncio
from collections import deque
from typing import Generic, TypeVar

from poiesis_models.backoff import Backoff

_Key = TypeVar("_Key")
_BACKOFF = Backoff(first=1.0, longest=300.0)


class WorkQueue(Generic[_Key]):
    """Keys that wait for work, each once, and each with one worker at a time.

    A key that is added while a worker has it is queued again when the worker is done.
    """

    def __init__(self, backoff: Backoff = _BACKOFF) -> None:
        self._backoff = backoff
        self._ready: deque[_Key] = deque()
        self._waiting: set[_Key] = set()  # in _ready, or to be put there when its worker is done
        self._active: set[_Key] = set()
        self._timers: dict[_Key, asyncio.TimerHandle] = {}
        self._failures: dict[_Key, int] = {}
        self._available = asyncio.Semaphore(0)

    def __len__(self) -> int:
        return len(self._ready)

    def __contains__(self, key: _Key) -> bool:
        return key in self._waiting

    def add(self, key: _Key) -> None:
        """Queue the key, if it is not queued yet."""
        if key in self._waiting:
            return
        self._waiting.add(key)
        if key not in self._active:
            self._push(key)

    def add_after(self, key: _Key, seconds: float) -> None:
        """Queue the key later. Of several times for one key the earliest is used."""
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= loop.time() + seconds:
                return
            timer.cancel()
        self._timers[key] = loop.call_later(seconds, self._due, key)

    async def get(self) -> _Key:
        """Wait for a key. The worker calls `done` or `failed` afterwards."""
        await self._available.acquire()
        key = self._ready.popleft()
        self._waiting.discard(key)
        self._active.add(key)
        return key

    def done(self, key: _Key) -> None:
        """Release the key and reset its back-off."""
        self._failures.pop(key, None)
        self._release(key)

    def failed(self, key: _Key) -> float:
        """Release the key and queue it again after its back-off. Return these seconds."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        seconds = self._backoff.delay(failures)
        self.add_after(key, seconds)
        self._release(key)
        return seconds

    def close(self) -> None:
        """Stop the timers."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _due(self, key: _Key) -> None:
        del self._timers[key]
        self.add(key)

    def _release(self, key: _Key) -> None:
        self._active.discard(key)
        if key in self._waiting:
            self._push(key)

    def _push(self, key: _Key) -> None:
        self._ready.append(key)
        self._available.release()
