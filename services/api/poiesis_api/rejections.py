"""The log line of a rejected create, for users whose workflow engine discards the response. Pure."""

from poiesis_api.errors import HTTP_STATUS, SHOWN_CHARACTERS, TesError


def log_fields(error: TesError, *, user: str | None, user_agent: str | None) -> dict[str, object]:
    """Return the `extra` fields of the log line, without values that may be secret (see `errors.text`)."""
    return {
        "status": HTTP_STATUS[type(error)],
        "field": error.logged_field,
        "reason": error.text.reason,
        "limit": error.limit,
        "user": user,
        "user_agent": user_agent[:SHOWN_CHARACTERS] if user_agent else None,
    }
