"""Log lines: one JSON object each, with the fields given as `extra`."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

from aiohttp.http_exceptions import HttpProcessingError

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """`time`, `level`, `logger`, `message`, the extra fields, and `exception` if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """As one line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {key: value for key, value in record.__dict__.items() if key not in _STANDARD}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def without_request(record: logging.LogRecord) -> bool:
    """A filter: of a request that cannot be parsed only the kind of mistake is told.

    aiohttp's exception quotes the line at hand, which may be that of an Authorization header.
    """
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, HttpProcessingError):
        record.exc_info = None
        record.error = type(error).__name__
    return True


def configure_logging() -> None:
    """To stderr, from INFO on."""
    logging.getLogger("aiohttp.server").addFilter(without_request)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
