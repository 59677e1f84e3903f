"""How many tasks a replica submits at a time: more while the API server answers quickly, fewer otherwise.

Additive increase and multiplicative decrease, as in TCP (RFC 5681): replicas that share an API server
converge to equal shares without communication (Chiu and Jain, 1989). No I/O; the clock is passed in.
"""

from collections.abc import Callable
from enum import Enum

from poiesis_kube.client import Answer

START = 8  # tasks at a time before the first answers, within the bounds
LONGEST_PAUSE_SECONDS = 60.0  # of a Retry-After
_DECREASE = 0.7  # factor of the limit at a sign of overload
_FREE_SHARE = 0.25  # of the limit, below which no tasks are leased: one statement leases several
_TOO_MANY_REQUESTS = 429
_ERRORS = 400
_SERVER_ERRORS = 500


class Sign(Enum):
    """The effect of one answer on the limit."""

    GROW = "grow"
    KEEP = "keep"
    SHRINK = "shrink"


def sign_of(answer: Answer, slow_seconds: float) -> Sign:
    """Return the effect of an answer: `slow_seconds` are slow, less than half of that is quick."""
    status = answer.status
    if status is None or status == _TOO_MANY_REQUESTS or status >= _SERVER_ERRORS:
        return Sign.SHRINK
    if answer.seconds >= slow_seconds:
        return Sign.SHRINK
    return Sign.KEEP if status >= _ERRORS or answer.seconds >= slow_seconds / 2 else Sign.GROW


class Pace:
    """The limit of concurrent submissions of one replica, and how many there are."""

    def __init__(self, clock: Callable[[], float], *, least: int, most: int, slow_seconds: float) -> None:
        self._clock, self._least, self._most, self._slow_seconds = clock, least, most, slow_seconds
        self._limit = float(min(max(START, least), most))
        self._at_work = 0
        self._decreased_at = self._paused_until = float("-inf")

    @property
    def limit(self) -> int:
        """The submissions that are allowed at a time."""
        return int(self._limit)

    def begin(self) -> None:
        """Count one more submission."""
        self._at_work += 1

    def end(self) -> None:
        """Count one submission less."""
        self._at_work -= 1

    def to_lease(self) -> int:
        """Return how many tasks to lease now; 0 during a Retry-After, and while too little is free."""
        free = self.limit - self._at_work
        if self._clock() < self._paused_until or free < self.limit * _FREE_SHARE:
            return 0
        return free

    def observe(self, answer: Answer) -> None:
        """Adapt the limit to one answer of the API server.

        An overload counts once per round trip: requests that were sent before the last decrease were sent at
        the former pace. A limit that is not used does not grow.
        """
        now = self._clock()
        if answer.retry_after is not None:
            self._paused_until = max(self._paused_until, now + min(answer.retry_after, LONGEST_PAUSE_SECONDS))
        match sign_of(answer, self._slow_seconds):
            case Sign.SHRINK if now - answer.seconds >= self._decreased_at:
                self._limit = max(self._limit * _DECREASE, self._least)
                self._decreased_at = now
            case Sign.GROW if self._at_work > self._limit / 2:
                self._limit = min(self._limit + 1 / self._limit, self._most)
