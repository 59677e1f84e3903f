"""The Device Authorization Grant (RFC 8628) of an issuer found by OpenID Connect Discovery 1.0."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from yarl import URL

from poiesis_cli.address import web_url
from poiesis_cli.errors import AuthFailed, NotTes, Refused, Unreachable
from poiesis_cli.logins import Login
from poiesis_cli.timing import Timing
from poiesis_cli.web import Answer, printable, send

_DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
_OK = 200
_SERVER_ERROR = 500
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@dataclass(frozen=True, kw_only=True)
class Issuer:
    """Who gives tokens, and where."""

    name: str
    token_endpoint: URL
    device_endpoint: URL | None


@dataclass(frozen=True, kw_only=True)
class DeviceCode:
    """RFC 8628 section 3.2. `interval` and `expires_in` in seconds."""

    device_code: str = field(repr=False)
    user_code: str
    verification_uri: str
    verification_uri_complete: str | None
    expires_in: float
    interval: float


async def discover(session: aiohttp.ClientSession, issuer: str) -> Issuer:
    """Read `/.well-known/openid-configuration`. Raise Unreachable, Refused or NotTes."""
    url = web_url(issuer, "issuer")
    where = url.with_path(url.path.rstrip("/") + "/.well-known/openid-configuration")
    answer = await send(session, "GET", where)
    if answer.status >= _SERVER_ERROR:
        raise Unreachable(f"the issuer {url.origin()} answers {answer.status}")
    if answer.status != _OK:
        raise Refused(f"{where} answers {answer.status}", "is --issuer right? It is what the tokens call iss")
    document = _object(answer, str(where))
    if str(document.get("issuer", "")).rstrip("/") != issuer.rstrip("/"):
        # OpenID Connect Discovery 1.0, section 4.3: else anybody could pass for anybody.
        raise NotTes(f"{where} speaks for {printable(str(document.get('issuer')))!r}, not for {issuer!r}")
    return Issuer(
        name=issuer,
        token_endpoint=_endpoint(document, "token_endpoint", url),
        device_endpoint=_endpoint(document, "device_authorization_endpoint", url)
        if "device_authorization_endpoint" in document
        else None,
    )


async def ask_for_code(
    session: aiohttp.ClientSession, issuer: Issuer, client_id: str, scope: str, timing: Timing
) -> DeviceCode:
    """RFC 8628 section 3.1. Raise AuthFailed if the issuer refuses."""
    if issuer.device_endpoint is None:
        raise Refused(
            f"{issuer.name} has no device login", "get a token in another way and set POIESIS_TOKEN_FILE"
        )
    data = {"client_id": client_id, "scope": scope}
    answer = await send(session, "POST", issuer.device_endpoint, data=data, headers=_FORM)
    if answer.status != _OK:
        raise _refusal(answer, issuer.name)
    document = _object(answer, str(issuer.device_endpoint))
    return DeviceCode(
        device_code=_text(document, "device_code"),
        user_code=printable(_text(document, "user_code")),
        verification_uri=printable(_text(document, "verification_uri")),
        verification_uri_complete=_optional_text(document, "verification_uri_complete"),
        expires_in=_seconds(document, "expires_in") or 300.0,
        interval=_seconds(document, "interval") or timing.device_interval,
    )


async def wait_for_login(
    session: aiohttp.ClientSession,
    issuer: Issuer,
    code: DeviceCode,
    *,
    client_id: str,
    scope: str,
    timing: Timing,
) -> Login:
    """Ask until the user has decided (RFC 8628 sections 3.4 and 3.5). Raise AuthFailed."""
    data = {"grant_type": _DEVICE_GRANT, "device_code": code.device_code, "client_id": client_id}
    deadline = time.monotonic() + code.expires_in
    interval = code.interval
    while time.monotonic() < deadline:
        await asyncio.sleep(interval)
        try:
            answer = await send(session, "POST", issuer.token_endpoint, data=data, headers=_FORM)
        except Unreachable:
            interval *= 2  # section 3.5: back off when the connection times out
            continue
        if answer.status == _OK:
            return _login(_object(answer, "the token endpoint"), issuer.name, client_id, scope)
        match _error_code(answer):
            case "authorization_pending":
                continue
            case "slow_down":
                interval += timing.slow_down
            case _:
                raise _refusal(answer, issuer.name)
    raise AuthFailed("nobody has entered the code in time", "run poiesis login again")


async def refresh(session: aiohttp.ClientSession, login: Login) -> Login:
    """A new access token (RFC 6749 section 6). Raise AuthFailed if the issuer wants a new login."""
    if login.refresh_token is None:
        raise AuthFailed("the login has expired", "run poiesis login again")
    issuer = await discover(session, login.issuer)
    data = {
        "grant_type": "refresh_token",
        "refresh_token": login.refresh_token,
        "client_id": login.client_id,
    }
    answer = await send(session, "POST", issuer.token_endpoint, data=data, headers=_FORM)
    if answer.status != _OK:
        raise _refusal(answer, issuer.name)
    # An issuer that gives no new refresh token leaves the old one good (RFC 6749 section 6).
    renewed = {"refresh_token": login.refresh_token, **_object(answer, "the token endpoint")}
    return _login(renewed, login.issuer, login.client_id, login.scope)


def _login(document: Mapping[str, Any], issuer: str, client_id: str, scope: str) -> Login:
    if _text(document, "token_type").lower() != "bearer":
        raise NotTes(f"{issuer} gave a token of a type that TES does not know")
    lifetime = _seconds(document, "expires_in")
    return Login(
        issuer=issuer,
        client_id=client_id,
        scope=scope,
        access_token=_text(document, "access_token"),
        refresh_token=_optional_text(document, "refresh_token"),
        expires_at=None if lifetime is None else time.time() + lifetime,
    )


def _refusal(answer: Answer, issuer: str) -> Exception:
    if answer.status >= _SERVER_ERROR:
        return Unreachable(f"the issuer {issuer} answers {answer.status}", "try again later")
    code = _error_code(answer)
    known = {
        "access_denied": ("the login was refused", None),
        "expired_token": ("nobody has entered the code in time", "run poiesis login again"),
        "invalid_grant": ("the login has expired", "run poiesis login again"),
        "invalid_client": ("the issuer does not know this client", "check --client-id"),
        "unauthorized_client": ("this client may not log in by device", "check the client at the issuer"),
        "invalid_scope": ("the issuer does not give this scope", "check --scope"),
    }
    message, advice = known.get(code, (f"the issuer answers {answer.status} {code}".rstrip(), None))
    return AuthFailed(f"{issuer}: {message}", advice)


def _error_code(answer: Answer) -> str:
    """RFC 6749 section 5.2; empty if the body is none such. Its description could repeat what was sent."""
    try:
        document = answer.json()
    except NotTes:
        return ""
    code = document.get("error") if isinstance(document, dict) else None
    return printable(code)[:100] if isinstance(code, str) else ""


def _object(answer: Answer, where: str) -> Mapping[str, Any]:
    document = answer.json()
    if not isinstance(document, dict):
        raise NotTes(f"{where} should answer with a JSON object")
    return document


def _endpoint(document: Mapping[str, Any], key: str, issuer: URL) -> URL:
    url = web_url(_text(document, key), key)
    if issuer.scheme == "https" and url.scheme != "https":
        raise NotTes(f"the issuer names a {key} without encryption: {url.origin()}")
    return url


def _text(document: Mapping[str, Any], key: str) -> str:
    value = document.get(key)
    if not isinstance(value, str) or not value:
        raise NotTes(f"the issuer's answer has no {key}")
    return value


def _optional_text(document: Mapping[str, Any], key: str) -> str | None:
    value = document.get(key)
    return value if isinstance(value, str) and value else None


def _seconds(document: Mapping[str, Any], key: str) -> float | None:
    """A positive number, also as a string: some issuers send that."""
    try:
        value = float(document.get(key) or 0)
    except (TypeError, ValueError):
        return None
    return value if 0 < value < float("inf") else None
