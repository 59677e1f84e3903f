"""Time limits and delays in one value, so that tests can shorten them; and when to retry. Pure."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
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
    refresh: float = 2.0  # of `list --watch`
    device_interval: float = 5.0  # RFC 8628 section 3.2, the default
    slow_down: float = 5.0  # RFC 8628 section 3.5
    early: float = 30.0  # a token that expires within this time is renewed before the request


TIMING = Timing()
_AGE = re.compile(r"(\d{1,6})([smhd])")
_AGE_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


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


def parse_since(text: str, now: datetime) -> datetime:
    """Return the time of an age such as 30m or 7d, or of RFC 3339 text (UTC without an offset).

    Raise ValueError with the text in the message.
    """
    if match := _AGE.fullmatch(text):
        return now - timedelta(seconds=int(match[1]) * _AGE_UNITS[match[2]])
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"must be an age such as 90s, 30m, 2h or 7d, or a time such as 2026-11-29T12:00:00Z, got {text!r}"
        ) from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)
