"""Jittered exponential back-off: thousands of recorders must not come back at the same moment."""

from random import uniform


class Backoff:
    """Delays in seconds: each between half and all of a step; the step doubles up to `most`."""

    def __init__(self, first: float, most: float) -> None:
        self._first, self._most = first, most
        self._step = first

    def next(self) -> float:
        """How long to wait now."""
        step, self._step = self._step, min(self._step * 2, self._most)
        return uniform(step / 2, step)  # noqa: S311 (spreads load, guards nothing)

    def reset(self) -> None:
        """It worked: begin with the shortest again."""
        self._step = self._first
