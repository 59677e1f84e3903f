"""Time limits and delays in one value, so that tests can shorten them; and when to retry. Pure."""

from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


@dataclass(frozen=True, kw_only=True)
class Timing:
    """All in seconds. `retry_for`: how long failed requests are retried."""

    connect: float = 10.0
    request: float = 30.0  # a request that takes longer is aborted, and retried if that is safe
    first_delay: float = 0.5
    longest_delay: float = 15.0
    retry_for: float = 10.0
    retry_for_while_waiting: float = 600.0  # while the command waits for a task, which runs on meanwhile
    poll: float = 1.0
    longest_poll: float = 5.0
    device_interval: float = 5.0  # RFC 8628 section 3.2, the default
    slow_down: float = 5.0  # RFC 8628 section 3.5
    early: float = 30.0  # a token that expires within this time is renewed before the request


TIMING = Timing()


def next_retry(
    timing: Timing, count: int, elapsed: float, limit: float, retry_after: float | None
) -> float | None:
    """Return the seconds until the retry after failure `count` (0-based); None to give up.

    `elapsed`: seconds since the first failure; `limit`: how many are allowed. A retry never comes before the
    server's Retry-After.
    """
    delay = min(timing.first_delay * 2 ** min(count, 16), timing.longest_delay)
    if retry_after is not None:
        delay = max(delay, retry_after)
    return delay if elapsed + delay <= limit else None


def next_poll(timing: Timing, waited: float) -> float:
    """Return the seconds until the next poll of a task: a twentieth of the time waited so far, bounded."""
    return min(max(timing.poll, waited / 20), timing.longest_poll)


def retry_after_seconds(text: str | None, now: datetime) -> float | None:
    """Parse Retry-After (RFC 9110 section 10.2.3), seconds or a date; None if it is neither."""
    if text is None:
        return None
    text = text.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, ((at if at.tzinfo else at.replace(tzinfo=UTC)) - now).total_seconds())
