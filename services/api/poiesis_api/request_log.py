"""One log line, one observation and perhaps one line of the audit log per request.

The logger `audit` has who created and canceled tasks, who read as administrator, and who was refused. Its
level does not depend on POIESIS_LOG_LEVEL.
"""

import logging
import time
from collections.abc import Mapping
from typing import TypedDict

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from poiesis_api import handlers, metrics
from poiesis_api.errors import SHOWN_CHARACTERS
from poiesis_api.handlers import CALLER, TASK
from poiesis_documents.documents import View

logger = logging.getLogger(__name__)
audit = logging.getLogger("audit")

OPERATIONS: Mapping[Handler, str] = {
    handlers.create_task: "create_task",
    handlers.list_tasks: "list_tasks",
    handlers.get_task: "get_task",
    handlers.cancel_task: "cancel_task",
    handlers.service_info: "service_info",
    handlers.short_service_info: "service_info",
}
OTHER = "other"  # pages, and paths that do not exist
_PROBES = frozenset({handlers.healthz, handlers.readyz})
_READS = frozenset({"get_task", "list_tasks"})
_REFUSED = frozenset({401, 403})
_FIRST_ERROR = 400


class _From(TypedDict):
    """Where a request came from. `forwarded_for` is trustworthy only if a proxy of the operator sets it."""

    address: str | None
    forwarded_for: str | None


def audit_event(operation: str, status: int, *, administrator: bool) -> str | None:
    """Return the message of the audit log; None: the request is not recorded there."""
    if status in _REFUSED:
        return "refused request"
    if status >= _FIRST_ERROR:
        return None
    if operation in _READS:
        return "read as administrator" if administrator else None
    return {"create_task": "created task", "cancel_task": "requested cancel"}.get(operation)


@web.middleware
async def observed(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Log and measure a request. Probes are logged at DEBUG, and not measured."""
    start = time.monotonic()
    response = await handler(request)
    seconds = time.monotonic() - start
    found = request.match_info.http_exception is None
    is_probe = found and request.match_info.handler in _PROBES
    operation = OPERATIONS.get(request.match_info.handler, OTHER) if found else OTHER
    if not is_probe:
        status_class = f"{response.status // 100}xx"
        metrics.REQUESTS.labels(operation, _view(request, operation), status_class).observe(seconds)
    caller = request.get(CALLER)
    user = caller.name if caller else None
    fields = {
        "method": request.method,
        "route": _route(request),
        "status": response.status,
        "user": user,
        "task": str(request[TASK]) if TASK in request else None,
        **_from(request),
    }
    logger.log(
        logging.DEBUG if is_probe else logging.INFO,
        "request",
        extra={**fields, "milliseconds": round(seconds * 1000, 1)},
    )
    administrator = caller is not None and caller.administrator
    event = audit_event(operation, response.status, administrator=administrator)
    if event is not None:
        audit.info(event, extra={**fields, "operation": operation, "administrator": administrator})
    return response


def _view(request: web.Request, operation: str) -> str:
    """Return the requested or default view of a read. Return an empty text for other operations."""
    if operation not in _READS:
        return ""
    view = request.query.get("view", View.MINIMAL)
    return View(view) if view in set(View) else "invalid"


def _route(request: web.Request) -> str | None:
    """Return the path with `{id}` in place of an id; None: no such path."""
    resource = request.match_info.route.resource
    return None if resource is None else resource.canonical


def _from(request: web.Request) -> _From:
    forwarded = request.headers.get(hdrs.X_FORWARDED_FOR)
    return {
        "address": request.remote,
        "forwarded_for": forwarded[:SHOWN_CHARACTERS] if forwarded else None,
    }
