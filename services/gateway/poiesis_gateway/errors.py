"""The errors of requests, with the tables of their HTTP statuses and of their outcomes in the metrics."""

import math
from collections.abc import Mapping


class GatewayError(Exception):
    """Base. The message is that of the response; `reason` is that of the log, without content of a report.

    `retry_after`: seconds until the client should repeat the request; None if that is useless.
    """

    retry_after: float | None = None

    def __init__(self, message: str, *, reason: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason or message

    @property
    def headers(self) -> Mapping[str, str]:
        """Return the headers of the response."""
        if self.retry_after is None:
            return {}
        return {"Retry-After": str(max(1, math.ceil(self.retry_after)))}


class MalformedReport(GatewayError):
    """The body is not a report that Postgres accepts; a retry does not change that."""


class UnknownToken(GatewayError):
    """No such task, or another token; the response does not show which."""

    def __init__(self) -> None:
        super().__init__("unknown task or token")


class BodyTooSlow(GatewayError):
    """The body did not arrive in time."""

    retry_after = 1.0


class BodyTooLarge(GatewayError):
    """The body is longer than the limit."""


class RateLimited(GatewayError):
    """Too many reports of one task."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class AddressLimited(RateLimited):
    """Too many invalid tokens of one address."""


class Busy(GatewayError):
    """Too many reports in progress."""

    retry_after = 2.0


class DatabaseUnavailable(GatewayError):
    """Postgres did not apply the report and may do so later."""

    retry_after = 5.0


HTTP_STATUS: Mapping[type[GatewayError], int] = {
    MalformedReport: 400,
    UnknownToken: 401,
    BodyTooSlow: 408,
    BodyTooLarge: 413,
    RateLimited: 429,
    AddressLimited: 429,
    Busy: 503,
    DatabaseUnavailable: 503,
}

OUTCOMES: Mapping[type[GatewayError], str] = {
    MalformedReport: "malformed",
    UnknownToken: "unauthorized",
    BodyTooSlow: "slow",
    BodyTooLarge: "too_large",
    RateLimited: "rate_limited",
    AddressLimited: "address_limited",
    Busy: "busy",
    DatabaseUnavailable: "unavailable",
}
