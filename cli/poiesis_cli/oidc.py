"""The Device Authorization Grant (RFC 8628) of an issuer found by OpenID Connect Discovery 1.0."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from yarl import URL

from poiesis_cli.address import web_url
from poiesis_cli.errors import AuthFailed, NotTes, Rejected, Unreachable
from poiesis_cli.logins import Login
from poiesis_cli.timing import Timing
from poiesis_cli.web import Response, printable, send

_DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
_OK = 200
_SERVER_ERROR = 500
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@dataclass(frozen=True, kw_only=True)
class Issuer:
    """An OpenID provider and its endpoints."""

    name: str
    token_endpoint: URL
    device_endpoint: URL | None


@dataclass(frozen=True, kw_only=True)
class DeviceCode:
    """A device authorization response (RFC 8628 section 3.2); `interval` and `expires_in` in seconds."""

    device_code: str = field(repr=False)
    user_code: str
    verification_uri: str
    verification_uri_complete: str | None
    expires_in: float
    interval: float


async def discover(session: aiohttp.ClientSession, issuer: str) -> Issuer:
    """Read `/.well-known/openid-configuration`. Raise Unreachable, Rejected or NotTes."""
    url = web_url(issuer, "issuer")
    where = url.with_path(url.path.rstrip("/") + "/.well-known/openid-configuration")
    response = await send(session, "GET", where)
    if response.status >= _SERVER_ERROR:
        raise Unreachable(f"the issuer {url.origin()} returned {response.status}")
    if response.status != _OK:
        raise Rejected(
            f"{where} returned {response.status}", "check --issuer: it must equal the iss claim of the tokens"
        )
    document = _object(response, str(where))
    if str(document.get("issuer", "")).rstrip("/") != issuer.rstrip("/"):
        # OpenID Connect Discovery 1.0, section 4.3: otherwise one issuer could impersonate another.
        found = printable(str(document.get("issuer")))
        raise NotTes(f"{where} describes the issuer {found!r}, expected {issuer!r}")
    return Issuer(
        name=issuer,
        token_endpoint=_endpoint(document, "token_endpoint", url),
        device_endpoint=_endpoint(document, "device_authorization_endpoint", url)
        if "device_authorization_endpoint" in document
        else None,
    )


async def request_code(
    session: aiohttp.ClientSession, issuer: Issuer, client_id: str, scope: str, timing: Timing
) -> DeviceCode:
    """Request a device code (RFC 8628 section 3.1). Raise AuthFailed if the issuer rejects the request."""
    if issuer.device_endpoint is None:
        raise Rejected(
            f"{issuer.name} does not support the device grant",
            "obtain a token in another way and set POIESIS_TOKEN_FILE",
        )
    data = {"client_id": client_id, "scope": scope}
    response = await send(session, "POST", issuer.device_endpoint, data=data, headers=_FORM)
    if response.status != _OK:
        raise _rejection(response, issuer.name)
    document = _object(response, str(issuer.device_endpoint))
    return DeviceCode(
        device_code=_text(document, "device_code"),
        user_code=printable(_text(document, "user_code")),
        verification_uri=printable(_text(document, "verification_uri")),
        verification_uri_complete=_optional_text(document, "verification_uri_complete"),
        expires_in=_seconds(document, "expires_in") or 300.0,
        interval=_seconds(document, "interval") or timing.device_interval,
    )


async def poll_for_login(
    session: aiohttp.ClientSession,
    issuer: Issuer,
    code: DeviceCode,
    *,
    client_id: str,
    scope: str,
    timing: Timing,
) -> Login:
    """Poll until the user has logged in (RFC 8628 sections 3.4 and 3.5). Raise AuthFailed."""
    data = {"grant_type": _DEVICE_GRANT, "device_code": code.device_code, "client_id": client_id}
    deadline = time.monotonic() + code.expires_in
    interval = code.interval
    while time.monotonic() < deadline:
        await asyncio.sleep(interval)
        try:
            response = await send(session, "POST", issuer.token_endpoint, data=data, headers=_FORM)
        except Unreachable:
            interval *= 2  # section 3.5: back off when the connection times out
            continue
        if response.status == _OK:
            return _login(_object(response, "the token endpoint"), issuer.name, client_id, scope)
        match _error_code(response):
            case "authorization_pending":
                continue
            case "slow_down":
                interval += timing.slow_down
            case _:
                raise _rejection(response, issuer.name)
    raise AuthFailed("the login code expired", "run poiesis login again")


async def refresh(session: aiohttp.ClientSession, login: Login) -> Login:
    """Return a new access token (RFC 6749 section 6). Raise AuthFailed if a new login is required."""
    if login.refresh_token is None:
        raise AuthFailed("the login has expired", "run poiesis login again")
    issuer = await discover(session, login.issuer)
    data = {
        "grant_type": "refresh_token",
        "refresh_token": login.refresh_token,
        "client_id": login.client_id,
    }
    response = await send(session, "POST", issuer.token_endpoint, data=data, headers=_FORM)
    if response.status != _OK:
        raise _rejection(response, issuer.name)
    # Without a new refresh token, the old one remains valid (RFC 6749 section 6).
    renewed = {"refresh_token": login.refresh_token, **_object(response, "the token endpoint")}
    return _login(renewed, login.issuer, login.client_id, login.scope)


def _login(document: Mapping[str, Any], issuer: str, client_id: str, scope: str) -> Login:
    if _text(document, "token_type").lower() != "bearer":
        raise NotTes(f"{issuer} returned a token whose type is not Bearer")
    lifetime = _seconds(document, "expires_in")
    return Login(
        issuer=issuer,
        client_id=client_id,
        scope=scope,
        access_token=_text(document, "access_token"),
        refresh_token=_optional_text(document, "refresh_token"),
        expires_at=None if lifetime is None else time.time() + lifetime,
    )


def _rejection(response: Response, issuer: str) -> Exception:
    if response.status >= _SERVER_ERROR:
        return Unreachable(f"the issuer {issuer} returned {response.status}", "try again later")
    code = _error_code(response)
    known = {
        "access_denied": ("the login was denied", None),
        "expired_token": ("the login code expired", "run poiesis login again"),
        "invalid_grant": ("the login has expired", "run poiesis login again"),
        "invalid_client": ("unknown client", "check --client-id"),
        "unauthorized_client": (
            "the device grant is not enabled for this client",
            "check the client at the issuer",
        ),
        "invalid_scope": ("the issuer does not grant this scope", "check --scope"),
    }
    message, advice = known.get(code, (f"the issuer returned {response.status} {code}".rstrip(), None))
    return AuthFailed(f"{issuer}: {message}", advice)


def _error_code(response: Response) -> str:
    """Return the error code (RFC 6749 section 5.2) or "". Its description may contain secrets."""
    try:
        document = response.json()
    except NotTes:
        return ""
    code = document.get("error") if isinstance(document, dict) else None
    return printable(code)[:100] if isinstance(code, str) else ""


def _object(response: Response, where: str) -> Mapping[str, Any]:
    document = response.json()
    if not isinstance(document, dict):
        raise NotTes(f"{where} must return a JSON object")
    return document


def _endpoint(document: Mapping[str, Any], key: str, issuer: URL) -> URL:
    url = web_url(_text(document, key), key)
    if issuer.scheme == "https" and url.scheme != "https":
        raise NotTes(f"the issuer's {key} must use https, got {url.origin()}")
    return url


def _text(document: Mapping[str, Any], key: str) -> str:
    value = document.get(key)
    if not isinstance(value, str) or not value:
        raise NotTes(f"the issuer's response has no {key}")
    return value


def _optional_text(document: Mapping[str, Any], key: str) -> str | None:
    value = document.get(key)
    return value if isinstance(value, str) and value else None


def _seconds(document: Mapping[str, Any], key: str) -> float | None:
    """Return a positive number, which some issuers send as a string."""
    try:
        value = float(document.get(key) or 0)
    except (TypeError, ValueError):
        return None
    return value if 0 < value < float("inf") else None
