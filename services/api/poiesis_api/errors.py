"""What can go wrong for a client, and the one table that makes HTTP of it."""

import math
from collections.abc import Mapping

from poiesis_api.outages import Outage

RETRY_AFTER = {"Retry-After": "5"}  # seconds, of what another attempt may not meet


class TesError(Exception):
    """Base. `field`: dotted path in the request, where one is to blame. `headers`: of the response."""

    def __init__(
        self, message: str, field: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.field = field
        self.headers = headers or {}


class InvalidTask(TesError):
    """The body of a create breaks TES 1.1, or asks for what this server cannot do."""


class InvalidQuery(TesError):
    """A parameter of the URL cannot be understood."""


class InvalidHeader(TesError):
    """A header cannot be understood."""


class IdempotencyKeyReused(TesError):
    """It came before, with another task (draft-ietf-httpapi-idempotency-key-header, 2.7)."""


class MalformedBody(TesError):
    """The body is not JSON in UTF-8."""


class NotAuthenticated(TesError):
    """No credentials, or none that count: `challenge` says which would (RFC 9110, 11.6.1).

    `why` is for the log, and says more than the client is told; neither holds the credentials.
    """

    def __init__(self, message: str, challenge: str, why: str | None = None) -> None:
        super().__init__(message, headers={"WWW-Authenticate": challenge})
        self.why = why


class NotAllowed(TesError):
    """Who asks is known, and may not do this."""


class InsufficientScope(NotAllowed):
    """The access token lacks a scope; `challenge` names those that are needed (RFC 6750, 3.1)."""

    def __init__(self, message: str, challenge: str) -> None:
        super().__init__(message, headers={"WWW-Authenticate": challenge})


class ForeignOrigin(NotAllowed):
    """A browser sent this from another site's page."""


class TaskNotFound(TesError):
    """No such task, or not this owner's."""

    def __init__(self, task_id: str) -> None:
        super().__init__(f"no task {shown(task_id)}", "id")


class BodyTooLarge(TesError):
    """More bytes than `limits.bodyBytes`."""


class BodyTooSlow(TesError):
    """It has not come whole within `limits.bodySeconds`."""


class UnsupportedEncoding(TesError):
    """A Content-Encoding that is not undone here."""


class LimitReached(TesError):
    """A limit of this user; the same request may succeed after `seconds`."""

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message, headers={"Retry-After": str(max(1, math.ceil(seconds)))})


class IdentityUnavailable(TesError):
    """Whoever could tell who asks does not answer: nothing is wrong with the credentials."""

    def __init__(self, message: str) -> None:
        super().__init__(message, headers=RETRY_AFTER)


class ServerBusy(TesError):
    """This replica holds as many bytes, or does as much at a time, as it may."""

    def __init__(self, message: str) -> None:
        super().__init__(message, headers=RETRY_AFTER)


class StorageUnavailable(TesError):
    """Postgres did not do what it was asked for, and may do so later."""

    def __init__(self, outage: Outage = Outage.AWAY) -> None:
        super().__init__(outage.value, headers=RETRY_AFTER)
        self.outage = outage


SHOWN_CHARACTERS = 200


def shown(value: object) -> str:
    """A client's value as messages show it."""
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
