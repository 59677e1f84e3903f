"""Logging of the api: the common JSON lines, without the request lines that aiohttp cannot parse."""

import logging

from aiohttp.http_exceptions import HttpProcessingError

from poiesis_models import logs


def without_request(record: logging.LogRecord) -> bool:
    """Reduce the error of a request that cannot be parsed to its class. A logging filter.

    aiohttp's exception quotes the line, which may be that of an Authorization header.
    """
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, HttpProcessingError):
        record.exc_info = None
        record.error = type(error).__name__
    return True


def configure_logging() -> None:
    """Write log lines from INFO on to stderr."""
    logging.getLogger("aiohttp.server").addFilter(without_request)
    logs.configure_logging()
