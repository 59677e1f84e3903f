"""What can go wrong for a client, and the one table that makes HTTP of it."""

from collections.abc import Mapping


class TesError(Exception):
    """Base. `field`: dotted path in the request, where one is to blame."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


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


class TaskNotFound(TesError):
    """No such task, or not this owner's."""

    def __init__(self, task_id: str) -> None:
        super().__init__(f"no task {shown(task_id)}", "id")


class BodyTooLarge(TesError):
    """More bytes than `limits.bodyBytes`."""


class UnsupportedEncoding(TesError):
    """A Content-Encoding that is not undone here."""


class StorageUnavailable(TesError):
    """Postgres does not answer."""


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
    TaskNotFound: 404,
    BodyTooLarge: 413,
    UnsupportedEncoding: 415,
    StorageUnavailable: 503,
}
