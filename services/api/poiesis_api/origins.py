"""Which web pages may use this server: its own, and those of `http.allowedOrigins`.

A browser sends any page's requests with the access that the browser has: its network, its stored passwords,
or no authentication at all (`auth.mode: none`). It sends a POST that a form could send without asking the
server first. So requests that change something are rejected if they come from other sites' pages, and only
allowed pages can read responses.
"""

from collections.abc import Awaitable, Callable, Collection
from urllib.parse import urlsplit

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from poiesis_api.errors import ForeignOrigin, Loggable, shown

SAFE_METHODS = frozenset({hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_OPTIONS})  # RFC 9110, 9.2.1
FETCH_SITE = "Sec-Fetch-Site"
_REQUEST_HEADERS = "Authorization, Content-Encoding, Content-Type, Idempotency-Key"
_RESPONSE_HEADERS = "Retry-After, WWW-Authenticate"
_PREFLIGHT_SECONDS = "600"  # how long a browser caches the response
_DEFAULT_PORTS = {"http": 80, "https": 443}


def refuse_foreign(
    *, origin: str | None, fetch_site: str | None, host: str, allowed: Collection[str]
) -> None:
    """Raise ForeignOrigin if a page of another, not allowed site sent the request.

    Programs other than browsers send neither header.

    `Sec-Fetch-Site` is the browser's comparison of origins, correct even if a proxy changes Host; browsers
    send it only over TLS and to localhost. `Origin` is part of every POST of a page.
    """
    if origin is not None and origin in allowed:
        return
    if fetch_site is not None:
        if fetch_site in {"same-origin", "none"}:
            return
    elif origin is None or _same_host(origin, host):
        return
    field, value = (hdrs.ORIGIN, origin) if origin is not None else (FETCH_SITE, fetch_site)
    raise ForeignOrigin(
        "{field}: pages of another site ({site}) may not create or cancel tasks, "
        "unless the operator allows it (api.allowedOrigins)",
        field,
        site=Loggable(shown(value)),
    )


def _same_host(origin: str, host: str) -> bool:
    """Return whether Host and `origin` have the same host and port; the scheme may differ behind a proxy."""
    try:
        page = urlsplit(origin)
        here = urlsplit(f"{page.scheme}://{host}")
        default = _DEFAULT_PORTS.get(page.scheme)
        return bool(page.hostname) and (page.hostname, page.port or default) == (
            here.hostname,
            here.port or default,
        )
    except ValueError:  # an invalid port or IPv6 address
        return False


def guard(allowed: Collection[str]) -> Middleware:
    """Reject changes by pages of other sites, and answer CORS preflight requests of allowed ones."""

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.method not in SAFE_METHODS and request.match_info.http_exception is None:
            refuse_foreign(
                origin=_one(request, hdrs.ORIGIN),
                fetch_site=_one(request, FETCH_SITE),
                host=request.host,
                allowed=allowed,
            )
        methods = _preflight_methods(request, allowed)
        if methods is None:
            return await handler(request)
        headers = {
            hdrs.ACCESS_CONTROL_ALLOW_METHODS: methods,
            hdrs.ACCESS_CONTROL_ALLOW_HEADERS: _REQUEST_HEADERS,
            hdrs.ACCESS_CONTROL_MAX_AGE: _PREFLIGHT_SECONDS,
        }
        return web.Response(status=204, headers=headers)

    return guarded


def announce(allowed: Collection[str]) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    """Return a handler of `on_response_prepare` that lets allowed pages read responses and errors (CORS)."""

    async def announced(request: web.Request, response: web.StreamResponse) -> None:
        origin = _one(request, hdrs.ORIGIN)
        response.headers.add(hdrs.VARY, hdrs.ORIGIN)
        if origin is not None and origin in allowed:
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
            response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = _RESPONSE_HEADERS

    return announced


def _preflight_methods(request: web.Request, allowed: Collection[str]) -> str | None:
    """Return the allowed methods if the request is a CORS preflight of an allowed page, else None."""
    missing = request.match_info.http_exception
    asks = request.method == hdrs.METH_OPTIONS and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers
    if asks and isinstance(missing, web.HTTPMethodNotAllowed) and _one(request, hdrs.ORIGIN) in allowed:
        return ", ".join(sorted(missing.allowed_methods))
    return None


def _one(request: web.Request, name: str) -> str | None:
    """Return a header's value. Browsers never send it twice, so a joined value equals no allowed one."""
    values = request.headers.getall(name, [])
    return ", ".join(values) if values else None
