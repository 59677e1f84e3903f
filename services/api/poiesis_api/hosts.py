"""Which names of this server a request may address: `http.hosts`.

A web page can point its own host name at this server's address after it was loaded (DNS rebinding). Its
requests then pass the check of origins, because page and server have the same host; only the name in Host
reveals them. An IP address in Host is accepted: a page needs a name that it controls for this attack.
"""

from collections.abc import Collection
from ipaddress import ip_address
from urllib.parse import urlsplit

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from poiesis_api.errors import MisdirectedRequest, shown

ANY = "*"
_ALWAYS = frozenset({"localhost"})


def refuse_unknown(host: str | None, names: Collection[str]) -> None:
    """Raise MisdirectedRequest unless the Host header `host` has an IP address or one of `names`.

    `names`: lower case, without port; `*.example.org` has any first label, as in an Ingress. The port is not
    compared: forwarding and NodePorts change it.
    """
    name = _name(host or "")
    if name is None or not (_is_among(name, names) or name in _ALWAYS or _is_address(name)):
        raise MisdirectedRequest(
            "{field} must be a name or IP address of this server, got {host}; "
            "the operator can add names to config.http.hosts",
            hdrs.HOST,
            host=shown(host),
        )


def _name(host: str) -> str | None:
    """Return the lower-case name of a Host header without port and final dot; None if it is invalid."""
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port  # raises ValueError if it is invalid
    except ValueError:
        return None
    if parts.netloc != host or "@" in host or not parts.hostname:
        return None
    return parts.hostname.removesuffix(".")


def _is_among(name: str, names: Collection[str]) -> bool:
    return name in names or f"*.{name.partition('.')[2]}" in names


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def guard(hosts: Collection[str], exempt: Collection[Handler]) -> Middleware:
    """Reject requests to other names, except those to the handlers `exempt`."""
    names = frozenset(host.lower().removesuffix(".") for host in hosts)

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        if ANY not in names and request.match_info.handler not in exempt:
            given = request.headers.getall(hdrs.HOST, [])
            refuse_unknown(given[0] if len(given) == 1 else ", ".join(given), names)
        return await handler(request)

    return guarded
