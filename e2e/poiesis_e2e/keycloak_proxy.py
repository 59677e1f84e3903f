"""A proxy in front of the lab's Keycloak, as sites have one: it can be down, and it issues opaque tokens.

It runs in the process of the tests; Pods and this machine reach it by this machine's address in docker's
network. Keycloak uses the address of the request as its issuer, so that address is the issuer. Keycloak
itself issues no opaque tokens: the proxy issues one for an access token, and replaces it again when it is
introspected (the phantom token pattern).
"""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import parse_qsl, urlencode

import aiohttp
from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy

from poiesis_e2e.serving import serving

# Headers of a single connection (RFC 9110, 7.6.1), or of the encoding of a forwarded body.
_OWN = ("Connection", "Keep-Alive", "Transfer-Encoding", "Content-Encoding", "Content-Length")
_INTROSPECTION = "/token/introspect"


class _Behind:
    """Keycloak."""

    def __init__(self, keycloak: str, http: aiohttp.ClientSession) -> None:
        self._keycloak = keycloak
        self._http = http
        self._tokens: dict[str, str] = {}  # access tokens by opaque ones

    def opaque(self, token: str) -> str:
        """Return an opaque token for an access token."""
        made = secrets.token_urlsafe(32)
        self._tokens[made] = token
        return made

    async def forward(self, request: web.Request) -> web.Response:
        """Forward a request to Keycloak with its original Host, and return the response."""
        body = await request.read()
        if request.path.endswith(_INTROSPECTION):
            body = self._unwrapped(body)
        async with self._http.request(
            request.method,
            self._keycloak + request.path_qs,
            headers=_others(request.headers),
            data=body,
            allow_redirects=False,
        ) as answer:
            content = await answer.read()
            return web.Response(status=answer.status, headers=_others(answer.headers), body=content)

    def _unwrapped(self, form: bytes) -> bytes:
        fields = parse_qsl(form.decode(), keep_blank_values=True)
        return urlencode([(name, self._tokens.get(value, value)) for name, value in fields]).encode()


class KeycloakProxy:
    """A running proxy; create it with `keycloak_proxy`."""

    def __init__(self, behind: _Behind, runner: web.AppRunner) -> None:
        self.opaque = behind.opaque
        self._runner = runner

    @property
    def url(self) -> str:
        host, port = self._runner.addresses[0]
        return f"http://{host}:{port}"

    @asynccontextmanager
    async def away(self) -> AsyncIterator[None]:
        """Refuse connections in the meantime."""
        host, port = self._runner.addresses[0]
        for site in list(self._runner.sites):
            await site.stop()
        assert self._runner.server is not None
        await self._runner.server.shutdown(timeout=0)  # closes keep-alive connections
        try:
            yield
        finally:
            await web.TCPSite(self._runner, host, port, reuse_address=True).start()


@asynccontextmanager
async def keycloak_proxy(address: str, keycloak: str) -> AsyncIterator[KeycloakProxy]:
    """Listen at `address` on a free port; `keycloak`: the URL of Keycloak."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http:
        behind = _Behind(keycloak, http)
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", behind.forward)
        async with serving(application, address) as runner:
            yield KeycloakProxy(behind, runner)


def _others(headers: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    kept = CIMultiDict(headers)
    for name in _OWN:
        kept.popall(name, None)
    return kept
