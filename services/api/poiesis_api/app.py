"""The HTTP application: its routes, who may use them, and the one place where errors become responses."""

import logging
import time

from aiohttp import web
from aiohttp.typedefs import Handler

from poiesis_api import handlers
from poiesis_api.errors import HTTP_STATUS, NotAuthenticated, StorageUnavailable, TesError
from poiesis_api.handlers import CALLER, SERVICES, Services

logger = logging.getLogger(__name__)

BASE = "/ga4gh/tes/v1"

# Asked before there is anybody to ask: by probes, and by clients that look for a server (GA4GH service-info).
PUBLIC = frozenset({handlers.healthz, handlers.readyz, handlers.service_info, handlers.short_service_info})


def make_app(services: Services) -> web.Application:
    """Everything that is not listed here is 404: clients look for the right prefix by it."""
    app = web.Application(
        middlewares=[errors_to_http, identified], client_max_size=services.config.limits.body_bytes
    )
    app[SERVICES] = services
    app.add_routes(
        [
            web.post(f"{BASE}/tasks", handlers.create_task),
            web.get(f"{BASE}/tasks", handlers.list_tasks),
            web.get(f"{BASE}/service-info", handlers.service_info),
            web.get(f"{BASE}/tasks/service-info", handlers.short_service_info),
            web.get(f"{BASE}/tasks/{{id:[^/]+}}", handlers.get_task),
            web.post(f"{BASE}/tasks/{{id:[^/]+}}", handlers.cancel_task),
            web.get("/healthz", handlers.healthz),
            web.get("/readyz", handlers.readyz),
        ]
    )
    return app


@web.middleware
async def errors_to_http(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every refusal is {"error": sentence}, with the field that is to blame where one is."""
    try:
        return await handler(request)
    except TesError as error:
        if isinstance(error, StorageUnavailable):
            logger.warning("Postgres does not answer", extra={"error": repr(error.__cause__)})
        if isinstance(error, NotAuthenticated) and error.why is not None:
            logger.info("credentials were refused", extra={"why": error.why})
        body = {"error": str(error)} if error.field is None else {"error": str(error), "field": error.field}
        return web.json_response(body, status=HTTP_STATUS[type(error)], headers=error.headers)
    except web.HTTPException as error:
        headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
        sentence = f"{error.reason}: {request.method} {request.path}"
        return web.json_response({"error": sentence}, status=error.status, headers=headers)
    except Exception:
        logger.exception("a mistake in a handler", extra={"method": request.method, "path": request.path})
        return web.json_response({"error": "internal error"}, status=500)


@web.middleware
async def identified(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every route that is not PUBLIC has a caller, who keeps to the request rate."""
    if request.match_info.http_exception is None and request.match_info.handler not in PUBLIC:
        services = request.app[SERVICES]
        caller = await services.authenticator.caller(request.headers.getall("Authorization", []))
        services.rates.take(caller.name, time.monotonic())
        request[CALLER] = caller
    return await handler(request)
