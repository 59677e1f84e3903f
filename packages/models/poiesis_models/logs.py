"""Log lines of all services: one JSON object per line, with the same keys. Needs the standard library alone.

docs/reference/logs.md lists the keys. Secrets must not be passed to a logger. As a second line of defence,
what looks like a credential is masked.
"""

import json
import logging
import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

_VALUE_CHARACTERS = 16 * 1024  # of one value; a traceback keeps its end
_RECORD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_MASK = "***"
_NO_FIELDS: Mapping[str, str] = MappingProxyType({})
_context: ContextVar[Mapping[str, str]] = ContextVar("log fields", default=_NO_FIELDS)
_SECRETS = re.compile(
    r"(?P<userinfo>://[^\s/:@\"']*:)[^\s/@\"']+(?=@)"
    r"|(?P<header>\bauthorization\W{1,4}(?:\w+ +)?)[^\s\"']+"
    r"|(?P<bearer>\bbearer +)[A-Za-z0-9._~+/=-]{16,}"
    r"|(?P<query>[?&](?:X-Amz-(?:Signature|Credential|Security-Token)|Signature|sig|token|access_token)=)"
    r"[^&\s\"']+",
    re.IGNORECASE,
)


class JsonFormatter(logging.Formatter):
    """`time`, `level`, `logger`, `message`, then `fields`, those of `log_context` and the record's `extra`.

    An exception adds `error` (unless the record has one) and `traceback`.
    """

    def __init__(self, **fields: str) -> None:
        super().__init__()
        self._fields = fields

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **self._fields,
            **_context.get(),
            **{key: value for key, value in vars(record).items() if key not in _RECORD_FIELDS},
        }
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            line.setdefault("error", f"{type(error).__name__}: {error}")
            line["traceback"] = "".join(traceback.format_exception(error))
        return json.dumps({key: _bounded(value) for key, value in line.items()}, ensure_ascii=False)


def configure_logging(level: str = "INFO", **fields: str) -> None:
    """Write log lines from `level` on to stderr. `fields` are in each, for example the recorder's `task`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(**fields))
    logging.basicConfig(level=level, handlers=[handler], force=True)


@contextmanager
def log_context(**fields: str) -> Iterator[None]:
    """Add fields to all lines of this block and of the asyncio tasks that it starts."""
    token = _context.set({**_context.get(), **fields})
    try:
        yield
    finally:
        _context.reset(token)


def masked(text: str) -> str:
    """Return `text` without passwords of URLs, tokens of headers and signatures of signed URLs."""
    return _SECRETS.sub(lambda match: next(group for group in match.groups() if group) + _MASK, text)


def _bounded(value: object) -> object:
    """Return what JSON has a type for; anything else as text, masked and at most _VALUE_CHARACTERS long."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, list | tuple | set | frozenset):
        return [_bounded(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _bounded(item) for key, item in value.items()}
    text = masked(str(value))
    return text if len(text) <= _VALUE_CHARACTERS else "…" + text[-_VALUE_CHARACTERS:]
