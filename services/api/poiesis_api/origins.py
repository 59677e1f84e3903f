"""Which web pages may use this server: its own, and those of `http.allowedOrigins`.

A browser sends a page's requests with whatever reaches this server only from where the browser is (a network,
a password that it keeps, no `auth.mode` at all), and a POST that a form could send it sends unasked. So what
changes something is refused to the pages of others, and only pages that are allowed read an answer.
"""

from collections.abc import Awaitable, Callable, Collection
from urllib.parse import urlsplit

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from poiesis_api.errors import ForeignOrigin, shown

SAFE_METHODS = frozenset({hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_OPTIONS})  # RFC 9110, 9.2.1
FETCH_SITE = "Sec-Fetch-Site"
_REQUEST_HEADERS = "Authorization, Content-Encoding, Content-Type, Idempotency-Key"
_ANSWER_HEADERS = "Retry-After, WWW-Authenticate"
_PREFLIGHT_SECONDS = "600"  # how long a browser need not ask again
_DEFAULT_PORTS = {"http": 80, "https": 443}


def refuse_foreign(
    *, origin: str | None, fetch_site: str | None, host: str, allowed: Collection[str]
) -> None:
    """Raise ForeignOrigin if a page sent this that is neither ours nor allowed. Programs send neither header.

    `Sec-Fetch-Site` is the browser's own word, in the terms of the page's address, which a proxy may have
    changed in Host; it is sent over TLS and to this machine only. `Origin` comes with every POST.
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
        f"{field}: {shown(value)} is another site: its pages may not create or cancel tasks here, "
        "unless the operator allows it (api.allowedOrigins)",
        field,
    )


def _same_host(origin: str, host: str) -> bool:
    """Whether Host names what `origin` does; the scheme may be another, where a proxy ends TLS."""
    try:
        page = urlsplit(origin)
        here = urlsplit(f"{page.scheme}://{host}")
        default = _DEFAULT_PORTS.get(page.scheme)
        return bool(page.hostname) and (page.hostname, page.port or default) == (
            here.hostname,
            here.port or default,
        )
    except ValueError:  # a port that is no number, brackets around no address
        return False


def guard(allowed: Collection[str]) -> Middleware:
    """Refuse what foreign pages send to an operation; answer browsers that ask for allowed ones (CORS)."""

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.method not in SAFE_METHODS and request.match_info.http_exception is None:
            refuse_foreign(
                origin=_one(request, hdrs.ORIGIN),
                fetch_site=_one(request, FETCH_SITE),
                host=request.host,
                allowed=allowed,
            )
        methods = _asked_for(request, allowed)
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
    """For `on_response_prepare`: allowed pages may see the answer, also if it is a refusal (CORS)."""

    async def announced(request: web.Request, response: web.StreamResponse) -> None:
        origin = _one(request, hdrs.ORIGIN)
        response.headers.add(hdrs.VARY, hdrs.ORIGIN)
        if origin is not None and origin in allowed:
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
            response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = _ANSWER_HEADERS

    return announced


def _asked_for(request: web.Request, allowed: Collection[str]) -> str | None:
    """The possible methods, if a browser asks which an allowed page may send; else None."""
    missing = request.match_info.http_exception
    asks = request.method == hdrs.METH_OPTIONS and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers
    if asks and isinstance(missing, web.HTTPMethodNotAllowed) and _one(request, hdrs.ORIGIN) in allowed:
        return ", ".join(sorted(missing.allowed_methods))
    return None


def _one(request: web.Request, name: str) -> str | None:
    """A header that stands twice is none that a browser sent: it equals nothing."""
    values = request.headers.getall(name, [])
    return ", ".join(values) if values else None
