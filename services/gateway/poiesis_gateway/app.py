"""The HTTP application: its route, and the one place where errors become responses."""

import logging
import time
from collections.abc import Callable, Mapping

from aiohttp import web
from aiohttp.typedefs import Handler

from poiesis_gateway.connections import ADDRESS, Connections
from poiesis_gateway.errors import HTTP_STATUS, OUTCOMES, AddressLimited, GatewayError
from poiesis_gateway.metrics import REPORT_SECONDS, REPORTS
from poiesis_gateway.reports import Reports, task_of
from poiesis_gateway.reports_db import Result

logger = logging.getLogger(__name__)

REPORT_PATH = "/v1/tasks/{id}/report"
_GONE = 410


def make_app(reports: Reports, connections: Connections, stopping: Callable[[], bool]) -> web.Application:
    """Return the application. `stopping`: whether clients should use another replica from now on."""

    async def report(request: web.Request) -> web.Response:
        start = time.monotonic()
        result = await reports.apply(request, request[ADDRESS])
        if result.closed:
            REPORTS.labels("closed").inc()
            _log(request, _GONE, "the task has ended, or has a newer Pod")
            return _response(result, status=_GONE)
        REPORTS.labels("accepted").inc()
        REPORT_SECONDS.observe(time.monotonic() - start)
        return _response(result)

    @web.middleware
    async def errors_to_http(request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer every error with {"error": message}."""
        try:
            return await handler(request)
        except GatewayError as error:
            status = HTTP_STATUS[type(error)]
            REPORTS.labels(OUTCOMES[type(error)]).inc()
            # A flood of invalid tokens must not fill the log.
            level = logging.DEBUG if isinstance(error, AddressLimited) else logging.INFO
            _log(request, status, error.reason, level)
            return _error(status, str(error), error.headers)
        except web.HTTPException as error:
            return _error(error.status, f"{error.reason}: the only operation is POST {REPORT_PATH}")
        except Exception:
            REPORTS.labels("error").inc()
            logger.exception("unhandled exception in handler")
            return _error(500, "internal error", {"Retry-After": "5"})

    @web.middleware
    async def leaving(request: web.Request, handler: Handler) -> web.StreamResponse:
        """Close connections after their next response when this replica stops."""
        response = await handler(request)
        if stopping():
            response.force_close()
        return response

    app = web.Application(
        middlewares=[connections.watched, leaving, errors_to_http],
        handler_args={"auto_decompress": False},  # the limits hold for what was sent
    )
    app.router.add_post(REPORT_PATH, report)
    return app


def _response(result: Result, status: int = 200) -> web.Response:
    return web.Response(text=result.response.to_json(), status=status, content_type="application/json")


def _error(status: int, message: str, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.json_response({"error": message}, status=status, headers=headers)


def _log(request: web.Request, status: int, reason: str, level: int = logging.INFO) -> None:
    """Write the line of a rejected report."""
    task_id = task_of(request)
    fields = {"task": str(task_id) if task_id else None, "status": status, "reason": reason}
    logger.log(level, "rejected report", extra=fields)
