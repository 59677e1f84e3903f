"""The OpenAPI document and Swagger UI, served from this process only."""

import gzip
import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from aiohttp import ETag, hdrs, web

from poiesis_api.openapi import BASE

# The page uses its own files and this server only: no inline code, no other host, no frames.
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # revalidate each time; the response is 304 until a new release is deployed
    "Vary": "Accept-Encoding",
}
_DIRECTORY = files("poiesis_api") / "swagger_ui"
_ASSETS = {  # by the last part of the URL
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "page.js": "text/javascript",
    "page.css": "text/css",
}


@dataclass(frozen=True, kw_only=True)
class _File:
    """A static response."""

    content_type: str
    compressed: bytes
    etag: ETag

    async def respond(self, request: web.Request) -> web.Response:
        """Return the file, compressed if the client accepts that, or 304 if the client has it."""
        headers = {**_HEADERS, hdrs.ETAG: f'"{self.etag.value}"'}
        if request.if_none_match and self.etag in request.if_none_match:
            return web.Response(status=304, headers=headers)
        body = self.compressed
        if "gzip" in request.headers.get(hdrs.ACCEPT_ENCODING, "").lower():
            headers[hdrs.CONTENT_ENCODING] = "gzip"
        else:
            body = gzip.decompress(body)
        return web.Response(body=body, content_type=self.content_type, charset="utf-8", headers=headers)


def routes(document: dict[str, Any]) -> Collection[web.RouteDef]:
    """Return the routes of `/openapi.json`, `/ui` and the files that the page loads."""
    made = json.dumps(document, ensure_ascii=False).encode()
    return [
        web.get(f"{BASE}/openapi.json", _file("application/json", _compressed(made)).respond),
        web.get(f"{BASE}/ui", _asset("index.html", "text/html").respond),
        *(
            web.get(f"{BASE}/ui/{name}", _asset(name, content_type).respond)
            for name, content_type in _ASSETS.items()
        ),
    ]


@cache
def _asset(name: str, content_type: str) -> _File:
    """Return a file of the package; Swagger UI's are compressed (tools/poiesis_tools/swagger_ui.py)."""
    compressed = _DIRECTORY / f"{name}.gz"
    if compressed.is_file():
        return _file(content_type, compressed.read_bytes())
    return _file(content_type, _compressed((_DIRECTORY / name).read_bytes()))


def _file(content_type: str, compressed: bytes) -> _File:
    etag = ETag(value=hashlib.sha256(compressed).hexdigest())
    return _File(content_type=content_type, compressed=compressed, etag=etag)


def _compressed(body: bytes) -> bytes:
    return gzip.compress(body, mtime=0)
