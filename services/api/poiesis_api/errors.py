"""The errors of requests, and the one table of their HTTP statuses."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from poiesis_models.outages import Outage

RETRY_AFTER = {"Retry-After": "5"}  # seconds; for errors that are likely to pass


_HIDDEN = "…"


class Loggable(str):
    """Text in a message that may be logged: the server's own, or a value that cannot be secret."""

    __slots__ = ()


@dataclass(frozen=True, kw_only=True)
class Text:
    """A text as the client gets it (`message`) and as the log gets it (`reason`: no value may be secret)."""

    message: str
    reason: str


Part = str | float | Text  # of a message


def text(template: str, /, **parts: Part) -> Text:
    """Return a template with its parts in the places of their names in braces.

    `reason` shows numbers, `Loggable` parts and the reasons of texts, and hides other parts. Every template
    is a literal (a test checks it), so no other value can get into `reason`.
    """
    messages = {name: part.message if isinstance(part, Text) else part for name, part in parts.items()}
    reasons = {name: _loggable(part) for name, part in parts.items()}
    return Text(message=template.format(**messages), reason=template.format(**reasons))


def joined(texts: Iterable[Text]) -> Text:
    """Return several texts as one, with semicolons between them."""
    several = tuple(texts)
    return Text(
        message="; ".join(one.message for one in several), reason="; ".join(one.reason for one in several)
    )


def _loggable(part: Part) -> str | float:
    match part:
        case Text():
            return part.reason
        case Loggable() | int() | float():
            return part
    return _HIDDEN


class TesError(Exception):
    """Base: the message of the response, and what may be logged of it.

    `template` and `parts` make the message, as in `text`; the parts `field` and `limit` are set here.
    `field`: dotted path of the field at fault, made of names and indexes of TES. `key`: the client's key in
    that field, if it is a map. `limit`: the violated limit. `headers`: of the response.
    """

    def __init__(
        self,
        template: str,
        /,
        field: str | None = None,
        *,
        key: str | None = None,
        limit: float | None = None,
        headers: Mapping[str, str] | None = None,
        **parts: Part,
    ) -> None:
        self.field = field if key is None else f"{field}.{key}"
        self.logged_field = field
        self.limit = limit
        self.headers = headers or {}
        if field is not None:
            parts["field"] = Text(message=self.field or "", reason=field)
        if limit is not None:
            parts["limit"] = limit
        self.text = text(template, **parts)
        super().__init__(self.text.message)


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

    def __init__(self, template: str, /, challenge: str, why: str | None = None, **parts: Part) -> None:
        super().__init__("{text}", headers={"WWW-Authenticate": challenge}, text=text(template, **parts))
        self.why = why


class NotAllowed(TesError):
    """The caller is known and lacks the permission."""


class InsufficientScope(NotAllowed):
    """The access token lacks a scope. `challenge`: names the required scopes (RFC 6750, 3.1)."""

    def __init__(self, template: str, /, challenge: str, **parts: Part) -> None:
        super().__init__("{text}", headers={"WWW-Authenticate": challenge}, text=text(template, **parts))


class ForeignOrigin(NotAllowed):
    """A browser sent the request from a page of another site."""


class MisdirectedRequest(TesError):
    """Host is not a name of this server (RFC 9110, 15.5.20)."""


class TaskNotFound(TesError):
    """The task does not exist or is not visible to the caller."""

    def __init__(self, task_id: str) -> None:
        super().__init__("no such task: {id}", "id", id=shown(task_id))


class BodyTooLarge(TesError):
    """The body is longer than `limits.bodyBytes`."""


class BodyTooSlow(TesError):
    """The body did not arrive within `limits.bodySeconds`."""


class UnsupportedEncoding(TesError):
    """The Content-Encoding of the body is not supported."""


class LimitReached(TesError):
    """The user has reached a limit; the same request may succeed after `seconds`."""

    def __init__(self, template: str, /, seconds: float, *, limit: float, **parts: Part) -> None:
        headers = {"Retry-After": str(max(1, math.ceil(seconds)))}
        super().__init__("{text}", limit=limit, headers=headers, text=text(template, limit=limit, **parts))


class IdentityUnavailable(TesError):
    """The credentials could not be checked, because the issuer does not answer."""

    def __init__(self, template: str, /, **parts: Part) -> None:
        super().__init__("{text}", headers=RETRY_AFTER, text=text(template, **parts))


class ServerBusy(TesError):
    """This replica has reached its limit of buffered bytes or concurrent work."""

    def __init__(self, template: str, /, **parts: Part) -> None:
        super().__init__("{text}", headers=RETRY_AFTER, text=text(template, **parts))


class StorageUnavailable(TesError):
    """Postgres did not execute a statement that may succeed later."""

    def __init__(self, outage: Outage = Outage.AWAY) -> None:
        super().__init__("{outage}", headers=RETRY_AFTER, outage=Loggable(outage.value))
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
    MisdirectedRequest: 421,
    LimitReached: 429,
    IdentityUnavailable: 503,
    ServerBusy: 503,
    StorageUnavailable: 503,
}
