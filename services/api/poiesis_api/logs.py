"""Logging of the api: the common JSON lines with a request id, without requests that cannot be parsed."""

import logging
import re
from uuid import uuid4

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler

from poiesis_models import logs

HEADER = "X-Request-ID"
REQUEST_ID = web.RequestKey("request_id", str)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def without_request(record: logging.LogRecord) -> bool:
    """Reduce the error of a request that cannot be parsed to its class. A logging filter.

    aiohttp's exception quotes the line, which may be that of an Authorization header.
    """
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, HttpProcessingError):
        record.exc_info = None
        record.error = type(error).__name__
    return True


@web.middleware
async def with_request_id(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Add `request_id` to the log lines of a request: a valid X-Request-ID of the client, else a new id."""
    given = request.headers.get(HEADER, "")
    request[REQUEST_ID] = request_id = given if _REQUEST_ID.fullmatch(given) else uuid4().hex
    with logs.log_context(request_id=request_id):
        return await handler(request)


async def return_request_id(request: web.Request, response: web.StreamResponse) -> None:
    """Add the header X-Request-ID. A handler of `on_response_prepare`."""
    if REQUEST_ID in request:
        response.headers[HEADER] = request[REQUEST_ID]


def configure_logging(level: str = "INFO") -> None:
    """Write log lines from `level` on to stderr, and all lines of the audit log."""
    logging.getLogger("aiohttp.server").addFilter(without_request)
    logging.getLogger("audit").setLevel(logging.INFO)
    logs.configure_logging(level)
