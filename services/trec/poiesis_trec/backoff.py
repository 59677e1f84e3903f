"""Delays between attempts: thousands of recorders must not retry at the same moment."""

from poiesis_models import backoff


class RetryDelay:
    """Delays in seconds, each between half and all of a step that doubles from `first` up to `most`."""

    def __init__(self, first: float, most: float) -> None:
        self._delays = backoff.Backoff(first=first, longest=most)
        self._failures = 0

    def next(self) -> float:
        """Return the delay before the next attempt."""
        self._failures += 1
        return self._delays.delay(self._failures)

    def reset(self) -> None:
        """Start from the shortest delay again, after a success."""
        self._failures = 0
