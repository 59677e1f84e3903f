"""Logging of the gateway: the common JSON lines, without requests that cannot be parsed."""

import logging

from aiohttp.http_exceptions import HttpProcessingError

from poiesis_models import logs


def is_of_the_gateway(record: logging.LogRecord) -> bool:
    """Drop aiohttp's line about a request that cannot be parsed. A logging filter.

    The line quotes the request, which may hold a token, and any client can cause as many as it likes.
    """
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError)


def configure_logging(level: str = "INFO") -> None:
    """Write log lines from `level` on to stderr."""
    logging.getLogger("aiohttp.server").addFilter(is_of_the_gateway)
    logs.configure_logging(level)
