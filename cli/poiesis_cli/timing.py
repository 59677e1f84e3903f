"""How long and how often: one value, so that tests are quick; and when to try again. Pure."""

from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds. `patience`: how long a server may be away; a task that is waited for runs on meanwhile."""

    connect: float = 10.0
    request: float = 30.0  # a request that hangs is given up, and tried again if that is safe
    first_delay: float = 0.5
    longest_delay: float = 15.0
    patience: float = 10.0
    patience_while_waiting: float = 600.0
    poll: float = 1.0
    longest_poll: float = 5.0
    device_interval: float = 5.0  # RFC 8628 section 3.2, where the server says none
    slow_down: float = 5.0  # RFC 8628 section 3.5
    early: float = 30.0  # a token that expires so soon is renewed first


TIMING = Timing()


def next_try(
    timing: Timing, count: int, spent: float, patience: float, retry_after: float | None
) -> float | None:
    """Seconds until a request is tried again, after failure `count` (0-based); None to give up.

    `spent`: seconds since the first failure. A server's own Retry-After is obeyed, or the request given up.
    """
    delay = min(timing.first_delay * 2 ** min(count, 16), timing.longest_delay)
    if retry_after is not None:
        delay = max(delay, retry_after)
    return delay if spent + delay <= patience else None


def next_poll(timing: Timing, waited: float) -> float:
    """Seconds between two looks at a task that has been waited for so long: a twentieth of it, bounded."""
    return min(max(timing.poll, waited / 20), timing.longest_poll)


def retry_after_seconds(text: str | None, now: datetime) -> float | None:
    """Retry-After (RFC 9110 section 10.2.3): seconds or a date. What is neither is ignored."""
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
