"""The HTTP application: routes, authentication, and the one place where errors become responses."""

import logging
from collections.abc import Mapping, Sequence

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from poiesis_api import documentation, handlers, hosts, openapi, origins
from poiesis_api.errors import HTTP_STATUS, SHOWN_CHARACTERS, NotAuthenticated, StorageUnavailable, TesError
from poiesis_api.handlers import CALLER, SERVICES, Services
from poiesis_api.logs import return_request_id, with_request_id
from poiesis_api.openapi import BASE, USAGE_PATH, SecurityScheme
from poiesis_api.rejections import log_fields
from poiesis_api.request_log import observed

logger = logging.getLogger(__name__)

SCHEMES: Mapping[str, Sequence[SecurityScheme]] = {
    "none": (),
    "basic": (SecurityScheme.BASIC,),
    "oidc": (SecurityScheme.BEARER,),
}
PUBLIC = web.AppKey("public", frozenset[Handler])


def make_app(services: Services) -> web.Application:
    """Return the application. Other paths answer 404, by which clients find the right prefix."""
    config = services.config
    allowed = frozenset(config.http.allowed_origins)
    app = web.Application(
        middlewares=[
            services.connections.watched,
            with_request_id,
            observed,
            errors_to_http,
            hosts.guard(config.http.hosts, exempt={handlers.healthz, handlers.readyz}),
            origins.guard(allowed),
            identified,
        ],
        client_max_size=config.limits.body_bytes,
        handler_args={"auto_decompress": False},  # see bodies.py
    )
    app.on_response_prepare.append(return_request_id)
    if allowed:
        app.on_response_prepare.append(origins.announce(allowed))
    app[SERVICES] = services
    documented = documentation.routes(openapi.document(config.service_info, SCHEMES[config.auth.mode]))
    # Without credentials: probes, clients that look for a server, people with a browser.
    app[PUBLIC] = frozenset(
        {
            *(handlers.healthz, handlers.readyz, handlers.service_info, handlers.short_service_info),
            *(route.handler for route in documented),
        }
    )
    app.add_routes(
        [
            web.post(f"{BASE}/tasks", handlers.create_task),
            web.get(f"{BASE}/tasks", handlers.list_tasks),
            web.get(f"{BASE}/service-info", handlers.service_info),
            web.get(f"{BASE}/tasks/service-info", handlers.short_service_info),
            web.get(f"{BASE}/tasks/{{id:[^/]+}}", handlers.get_task),
            web.post(f"{BASE}/tasks/{{id:[^/]+}}", handlers.cancel_task),
            web.get(USAGE_PATH, handlers.get_usage),
            *documented,
            web.get("/healthz", handlers.healthz),
            web.get("/readyz", handlers.readyz),
        ]
    )
    return app


@web.middleware
async def errors_to_http(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer every error with {"error": message}, plus the field at fault if there is one."""
    try:
        return await handler(request)
    except TesError as error:
        _log(request, error)
        body = {"error": str(error)} if error.field is None else {"error": str(error), "field": error.field}
        return web.json_response(body, status=HTTP_STATUS[type(error)], headers=error.headers)
    except web.HTTPException as error:
        return _unrouted(request, error)
    except Exception:
        logger.exception(
            "unhandled exception in handler", extra={"method": request.method, "path": request.path}
        )
        return web.json_response({"error": "internal error"}, status=500)


def _log(request: web.Request, error: TesError) -> None:
    if isinstance(error, StorageUnavailable):
        request.app[SERVICES].write_health.failed(error.outage)
        logger.warning(
            "postgres unavailable", extra={"outage": error.outage.name, "error": repr(error.__cause__)}
        )
    if isinstance(error, NotAuthenticated) and error.why is not None:
        logger.info("rejected credentials", extra={"why": error.why})
    if request.match_info.http_exception is None and request.match_info.handler is handlers.create_task:
        fields = log_fields(
            error,
            user=request[CALLER].name if CALLER in request else None,
            user_agent=request.headers.get(hdrs.USER_AGENT),
        )
        logger.info("rejected create", extra=fields)


def _unrouted(request: web.Request, error: web.HTTPException) -> web.Response:
    """Answer a path or method that no operation has (RFC 9110, 15.5.6: with Allow)."""
    path = request.path[:SHOWN_CHARACTERS]
    match error:
        case web.HTTPMethodNotAllowed():
            allowed = ", ".join(sorted(error.allowed_methods))
            sentence = f"method {request.method} not allowed for {path} (allowed: {allowed})"
            headers = {"Allow": allowed}
        case web.HTTPNotFound():
            sentence = f"no such path: {path} (the TES API is at {BASE})"
            headers = {}
        case _:
            sentence = f"{error.reason}: {request.method} {path}"
            headers = {}
    return web.json_response({"error": sentence}, status=error.status, headers=headers)


@web.middleware
async def identified(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Authenticate the caller of every route that is not public, and apply the request rate limit."""
    if request.match_info.http_exception is None and request.match_info.handler not in request.app[PUBLIC]:
        request[CALLER] = await request.app[SERVICES].identify(request)
    return await handler(request)
