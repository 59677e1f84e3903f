"""An OpenID Provider that rotates keys, lies, hangs and stops on request, and counts requests."""

import asyncio
import base64
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer
from joserfc import jws
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

AUDIENCE = "https://tes.example.org"
CLIENT = ("tes server", "p:ss %wörd")
NOW = 1_800_000_000  # where the tests' clock stands

_MAKERS: Mapping[str, Any] = {
    "RS": lambda _: RSAKey.generate_key(2048),
    "PS": lambda _: RSAKey.generate_key(2048),
    "ES": lambda bits: ECKey.generate_key({"256": "P-256", "384": "P-384", "512": "P-521"}[bits]),
    "Ed": lambda _: OKPKey.generate_key("Ed25519"),
}


class _Anything(JWSRegistry):
    """Signs whatever a test wants."""

    max_header_length = max_payload_length = 10**6

    def __init__(self) -> None:
        super().__init__(strict_check_header=False)

    def get_alg(self, name: str) -> Any:
        return self.algorithms[name]

    def check_header(self, header: Any) -> None:
        pass


def make_key(algorithm: str, kid: str) -> Key:
    """A private key for it."""
    made = _MAKERS[algorithm[:2]](algorithm[2:])
    return type(made).import_key(made.as_dict(private=True) | {"kid": kid})


def sign(key: Key, header: Mapping[str, Any], claims: Any) -> str:
    """A compact JWS (RFC 7515, 7.1)."""
    payload = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    return jws.serialize_compact(dict(header), payload, key, registry=_Anything())


class FakeIssuer:
    """`keys` are published; `opaque` are the answers about tokens; `requests` counts paths."""

    audience = AUDIENCE
    client = CLIENT
    now = NOW
    make_key = staticmethod(make_key)
    sign = staticmethod(sign)

    def __init__(self) -> None:
        self.url = ""
        self.keys: dict[str, Key] = {}
        self.said_of_keys: dict[str, Any] = {}  # besides what they are
        self.metadata: dict[str, Any] = {}  # over the ordinary document
        self.opaque: dict[str, dict[str, Any]] = {}
        self.requests: Counter[str] = Counter()
        self.status = 200  # of every answer
        self.answers = asyncio.Event()  # cleared: requests hang
        self.answers.set()
        self.at_once = self.most_at_once = 0
        self.authorizations: set[str] = set()
        self._changed = asyncio.Condition()

    def rotate(self, algorithm: str = "ES256", kid: str = "first") -> Key:
        """Publish this key alone."""
        key = make_key(algorithm, kid)
        self.keys = {kid: key}
        return key

    def documents(self) -> list[dict[str, Any]]:
        """What is published of the keys."""
        return [key.as_dict(private=False) | self.said_of_keys for key in self.keys.values()]

    def claims(self, **changed: Any) -> dict[str, Any]:
        """Of alice, good for five minutes; None takes a claim away."""
        claims = {
            "iss": self.url,
            "aud": [AUDIENCE, "account"],
            "sub": "alice",
            "iat": NOW,
            "exp": NOW + 300,
            "scope": "openid tes",
            "groups": ["genomics"],
        }
        return {name: value for name, value in (claims | changed).items() if value is not None}

    def token(
        self,
        kid: str = "first",
        algorithm: str = "ES256",
        header: Mapping[str, Any] | None = None,
        **claims: Any,
    ) -> str:
        """Signed by the key of this name."""
        whole = {"alg": algorithm, "kid": kid, "typ": "at+jwt", **(header or {})}
        shown = {name: value for name, value in whole.items() if value is not None}
        return sign(self.keys[kid], shown, self.claims(**claims))

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.requests[request.path] += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self.answers.wait()
            if self.status != 200:
                return web.Response(status=self.status, headers={"Location": self.url})
            return await self._answer(request)
        finally:
            self.at_once -= 1
            async with self._changed:
                self._changed.notify_all()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Of what requests change; within seconds."""
        async with asyncio.timeout(20), self._changed:
            await self._changed.wait_for(condition)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/.well-known/openid-configuration":
            document = {
                "issuer": self.url,
                "jwks_uri": f"{self.url}/keys",
                "introspection_endpoint": f"{self.url}/introspect",
            }
            return web.json_response(document | self.metadata)
        if request.path == "/keys":
            return web.json_response({"keys": self.documents()})
        if request.path == "/introspect":
            self.authorizations.add(base64.b64decode(request.headers["Authorization"].split()[1]).decode())
            form = await request.post()
            return web.json_response(self.opaque.get(str(form["token"]), {"active": False}))
        return web.Response(status=404)


@asynccontextmanager
async def serve() -> AsyncIterator[FakeIssuer]:
    """On a free port of this machine."""
    fake = FakeIssuer()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", fake._handle)
    async with TestServer(app) as server:
        fake.url = str(server.make_url("")).rstrip("/")
        yield fake
        fake.answers.set()
