"""The errors of requests, and the one table of their HTTP statuses."""

import math
from collections.abc import Mapping

from poiesis_api.outages import Outage

RETRY_AFTER = {"Retry-After": "5"}  # seconds; for errors that are likely to pass


class TesError(Exception):
    """Base. `field`: dotted path of the field at fault, if there is one. `headers`: of the response."""

    def __init__(
        self, message: str, field: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.field = field
        self.headers = headers or {}


class InvalidTask(TesError):
    """The body of a create violates TES 1.1, or requests something that this server does not support."""


class InvalidQuery(TesError):
    """A query parameter is invalid."""


class InvalidHeader(TesError):
    """A request header is invalid."""


class IdempotencyKeyReused(TesError):
    """The key was used for a different task (draft-ietf-httpapi-idempotency-key-header, 2.7)."""


class MalformedBody(TesError):
    """The body is not JSON in UTF-8."""


class NotAuthenticated(TesError):
    """No valid credentials. `challenge`: the WWW-Authenticate header (RFC 9110, 11.6.1).

    `why`: for the log, with more detail than the response. Neither contains the credentials.
    """

    def __init__(self, message: str, challenge: str, why: str | None = None) -> None:
        super().__init__(message, headers={"WWW-Authenticate": challenge})
        self.why = why


class NotAllowed(TesError):
    """The caller is known and lacks the permission."""


class InsufficientScope(NotAllowed):
    """The access token lacks a scope. `challenge`: names the required scopes (RFC 6750, 3.1)."""

    def __init__(self, message: str, challenge: str) -> None:
        super().__init__(message, headers={"WWW-Authenticate": challenge})


class ForeignOrigin(NotAllowed):
    """A browser sent the request from a page of another site."""


class TaskNotFound(TesError):
    """The task does not exist or is not visible to the caller."""

    def __init__(self, task_id: str) -> None:
        super().__init__(f"no such task: {shown(task_id)}", "id")


class BodyTooLarge(TesError):
    """The body is longer than `limits.bodyBytes`."""


class BodyTooSlow(TesError):
    """The body did not arrive within `limits.bodySeconds`."""


class UnsupportedEncoding(TesError):
    """The Content-Encoding of the body is not supported."""


class LimitReached(TesError):
    """The user has reached a limit; the same request may succeed after `seconds`."""

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message, headers={"Retry-After": str(max(1, math.ceil(seconds)))})


class IdentityUnavailable(TesError):
    """The credentials could not be checked, because the issuer does not answer."""

    def __init__(self, message: str) -> None:
        super().__init__(message, headers=RETRY_AFTER)


class ServerBusy(TesError):
    """This replica has reached its limit of buffered bytes or concurrent work."""

    def __init__(self, message: str) -> None:
        super().__init__(message, headers=RETRY_AFTER)


class StorageUnavailable(TesError):
    """Postgres did not execute a statement that may succeed later."""

    def __init__(self, outage: Outage = Outage.AWAY) -> None:
        super().__init__(outage.value, headers=RETRY_AFTER)
        self.outage = outage


SHOWN_CHARACTERS = 200


def shown(value: object) -> str:
    """Return the repr of a client's value for messages, cut to SHOWN_CHARACTERS."""
    text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"


HTTP_STATUS: Mapping[type[TesError], int] = {
    InvalidTask: 400,
    InvalidQuery: 400,
    InvalidHeader: 400,
    IdempotencyKeyReused: 422,
    MalformedBody: 400,
    NotAuthenticated: 401,
    NotAllowed: 403,
    InsufficientScope: 403,
    ForeignOrigin: 403,
    TaskNotFound: 404,
    BodyTooSlow: 408,
    BodyTooLarge: 413,
    UnsupportedEncoding: 415,
    LimitReached: 429,
    IdentityUnavailable: 503,
    ServerBusy: 503,
    StorageUnavailable: 503,
}
