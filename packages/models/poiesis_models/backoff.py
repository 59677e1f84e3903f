"""How long to wait before the next attempt, in every service. Pure, but for the draw of `delay`."""

from dataclasses import dataclass
from random import random

_DOUBLINGS = 32  # more would only make the float overflow


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """Delays in seconds that double from `first` up to `longest`.

    `jitter` is the random share of each delay, so that clients that failed together do not retry together:
    0 none, 0.5 (the default) from half of the delay to all of it, 1 from nothing to all of it.
    """

    first: float
    longest: float
    jitter: float = 0.5

    def seconds(self, failures: int, chance: float) -> float:
        """Return the delay after `failures` failures in a row (from 1). `chance`: from 0 to 1."""
        whole = min(self.first * 2.0 ** min(max(failures - 1, 0), _DOUBLINGS), self.longest)
        return whole * (1 - self.jitter * (1 - chance))

    def delay(self, failures: int) -> float:
        """Return `seconds` by a random chance."""
        return self.seconds(failures, random())  # noqa: S311  # spreads load, protects nothing
