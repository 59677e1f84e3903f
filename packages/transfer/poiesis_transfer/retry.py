"""Retry attempts, in the one place that decides how often and how soon."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from poiesis_models.backoff import Backoff
from poiesis_transfer import pool
from poiesis_transfer.errors import Retryable

_T = TypeVar("_T")


def _nowhere() -> int:
    return 0


@dataclass(frozen=True, kw_only=True)
class Retry:
    """Exponential back-off with full jitter. Retry-After is respected up to `longest_seconds`."""

    attempts: int = 5
    first_seconds: float = 0.5
    longest_seconds: float = 30.0

    def call(self, attempt: Callable[[], _T], *, so_far: Callable[[], int] = _nowhere) -> _T:
        """Call `attempt` until it succeeds. Retry only Retryable; raise the error of the last attempt.

        `so_far` returns the bytes transferred. An attempt that got further than all earlier ones resets the
        count, so that a large object arrives over a bad connection as long as there is progress.
        """
        failed = 0
        furthest = so_far()
        while True:
            pool.check()
            try:
                return attempt()
            except Retryable as failure:
                failed = 1 if so_far() > furthest else failed + 1
                furthest = max(furthest, so_far())
                if failed >= self.attempts:
                    raise
                delay = self.delay(failed - 1, failure.retry_after)
            pool.wait(delay)

    def delay(self, count: int, retry_after: float | None) -> float:
        """Return the seconds to wait after attempt `count` (from 0)."""
        asked = min(retry_after or 0.0, self.longest_seconds)
        backoff = Backoff(first=self.first_seconds, longest=self.longest_seconds, jitter=1)
        return asked + backoff.delay(count + 1)
