"""Client of an OpenID Provider: discovery (OpenID Connect Discovery 1.0), keys and introspection."""

import json
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus, urlsplit

import aiohttp
from joserfc.jwk import Key

from poiesis_api.config import ConfigError, Oidc
from poiesis_api.errors import IdentityUnavailable, Loggable, shown
from poiesis_api.identity import tokens
from poiesis_api.identity.refreshing_cache import RefreshingCache, Times

_RESPONSE_BYTES = 1024 * 1024
_DISCOVERY = "/.well-known/openid-configuration"
_OK = 200
_UNREACHABLE = (aiohttp.ClientError, TimeoutError, OSError)


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """The endpoints used of the discovery document."""

    jwks_uri: str
    introspection_endpoint: str | None


class Issuer:
    """An issuer with cached metadata and keys. Methods raise IdentityUnavailable."""

    def __init__(self, session: aiohttp.ClientSession, config: Oidc, clock: Callable[[], float]) -> None:
        times = Times(
            refresh=config.refresh_seconds, stale=config.stale_seconds, apart=config.min_refresh_seconds
        )
        self._session = session
        self._url = config.issuer
        self._metadata = RefreshingCache("discovery", self._discover, times, clock)
        self._keys = RefreshingCache("keys", self._fetch_keys, times, clock)

    def warm(self) -> None:
        """Start to fetch metadata and keys."""
        self._keys.warm()

    async def close(self) -> None:
        """Cancel fetches in progress."""
        await self._keys.close()
        await self._metadata.close()

    async def keys_for(self, header: Mapping[str, Any]) -> tuple[Key, ...]:
        """Return the keys that may have signed a token with this header; refetch keys if none fits."""
        found = tokens.fitting_keys(await self._keys.get(), header)
        return found or tokens.fitting_keys(await self._keys.newer(), header)

    async def introspect(self, token: str, client_id: str, client_secret: str) -> Mapping[str, Any]:
        """Return the introspection response for a token (RFC 7662, 2.2)."""
        endpoint = (await self._metadata.get()).introspection_endpoint
        if endpoint is None:
            raise IdentityUnavailable(
                "{url} has no introspection_endpoint in its discovery document", url=Loggable(self._url)
            )
        # RFC 6749, 2.3.1: both are form-encoded before they become a user name and a password.
        credentials = aiohttp.encode_basic_auth(quote_plus(client_id), quote_plus(client_secret))
        form = {"token": token, "token_type_hint": "access_token"}
        headers = {"Authorization": credentials, "Accept": "application/json"}
        answer = await self._json("POST", endpoint, data=form, headers=headers)
        if not isinstance(answer, dict) or not isinstance(answer.get("active"), bool):
            raise IdentityUnavailable(
                "{url} returned no introspection response (RFC 7662)", url=Loggable(endpoint)
            )
        return answer

    async def _discover(self) -> Metadata:
        document = await self._json("GET", self._url.rstrip("/") + _DISCOVERY)
        return metadata(document, self._url)

    async def _fetch_keys(self) -> tuple[Key, ...]:
        url = (await self._metadata.get()).jwks_uri
        keys = tokens.usable_keys(await self._json("GET", url))
        if keys is None:
            raise IdentityUnavailable("{url} did not return a JWK Set", url=Loggable(url))
        return keys

    async def _json(self, method: str, url: str, **request: Any) -> object:
        """Return the JSON of a response, without redirects, so that the document is the issuer's own."""
        try:
            async with self._session.request(method, url, allow_redirects=False, **request) as response:
                if response.status != _OK:
                    raise IdentityUnavailable(
                        "{url} returned status {status}", url=Loggable(url), status=response.status
                    )
                body = bytearray()
                async for chunk in response.content.iter_chunked(65536):
                    body += chunk
                    if len(body) > _RESPONSE_BYTES:
                        raise IdentityUnavailable(
                            "{url} returned more than {limit} bytes", url=Loggable(url), limit=_RESPONSE_BYTES
                        )
                return json.loads(body)
        except _UNREACHABLE as error:
            raise IdentityUnavailable("the issuer of access tokens is not reachable; try again") from error
        except (ValueError, RecursionError) as error:
            raise IdentityUnavailable("{url} did not return JSON", url=Loggable(url)) from error


def metadata(document: object, issuer: str) -> Metadata:
    """Parse a discovery document. Raise IdentityUnavailable for another issuer (4.3) or a missing URL."""
    if not isinstance(document, dict) or document.get("issuer") != issuer:
        found = document.get("issuer") if isinstance(document, dict) else None
        raise IdentityUnavailable(
            "the discovery document of {issuer} names the issuer {found}",
            issuer=Loggable(issuer),
            found=shown(str(found)),
        )
    keys = _endpoint(document, "jwks_uri", issuer)
    if keys is None:
        raise IdentityUnavailable(
            "the discovery document of {issuer} has no jwks_uri", issuer=Loggable(issuer)
        )
    return Metadata(
        jwks_uri=keys, introspection_endpoint=_endpoint(document, "introspection_endpoint", issuer)
    )


def _endpoint(document: Mapping[str, Any], name: str, issuer: str) -> str | None:
    """Return an endpoint, or None. Endpoints of an https issuer must be https."""
    url = document.get(name)
    if url is None:
        return None
    schemes = {"https"} if urlsplit(issuer).scheme == "https" else {"http", "https"}
    if not isinstance(url, str) or urlsplit(url).scheme not in schemes:
        raise IdentityUnavailable(
            "the discovery document of {issuer} has an invalid {name}: {url}",
            issuer=Loggable(issuer),
            name=Loggable(name),
            url=shown(str(url)),
        )
    return url


@asynccontextmanager
async def open_issuer(
    config: Oidc, ca_file: Path | None, clock: Callable[[], float]
) -> AsyncIterator[Issuer]:
    """Yield the issuer, which may be unavailable. Raise ConfigError if the CA bundle is unreadable."""
    connector = aiohttp.TCPConnector(ssl=_trust(ca_file))
    timeout = aiohttp.ClientTimeout(total=config.timeout_seconds)
    # trust_env: use the proxy of the usual variables. The cookie jar stores nothing.
    async with aiohttp.ClientSession(
        connector=connector, timeout=timeout, trust_env=True, cookie_jar=aiohttp.DummyCookieJar()
    ) as session:
        issuer = Issuer(session, config, clock)
        issuer.warm()
        try:
            yield issuer
        finally:
            await issuer.close()


def _trust(ca_file: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca_file is not None:
        try:
            context.load_verify_locations(cafile=ca_file)
        except OSError as error:  # ssl.SSLError is one
            raise ConfigError(f"auth.oidc.caSecret: cannot use {ca_file}: {error}") from error
    return context
