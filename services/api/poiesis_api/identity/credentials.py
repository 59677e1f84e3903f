"""The Authorization header, and the challenges for invalid ones (RFC 9110, 6750, 7617). Pure."""

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from poiesis_api.errors import Loggable, NotAuthenticated

TOKEN_BYTES = 16 * 1024
HEADER_BYTES = 2 * TOKEN_BYTES  # the HTTP server rejects longer headers
_REALM = 'realm="poiesis"'
BASIC_CHALLENGE = f'Basic {_REALM}, charset="UTF-8"'
BEARER_CHALLENGE = f"Bearer {_REALM}"
_B64TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*")  # RFC 6750, 2.1


@dataclass(frozen=True, kw_only=True)
class Password:
    """User name and password of a request."""

    user: str
    password: str = field(repr=False)


def bearer_token(headers: Sequence[str]) -> str:
    """Return the access token. Raise NotAuthenticated, without an error code if there are no credentials."""
    token = _credentials(headers, "bearer", BEARER_CHALLENGE)
    if len(token) > TOKEN_BYTES:
        raise invalid_token(f"the access token is longer than {TOKEN_BYTES} bytes")
    if not _B64TOKEN.fullmatch(token):
        raise invalid_token("the access token is malformed")
    return token


def password(headers: Sequence[str]) -> Password:
    """Return user name and password. Raise NotAuthenticated."""
    encoded = _credentials(headers, "basic", BASIC_CHALLENGE)
    try:
        text = base64.b64decode(encoded, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise NotAuthenticated("the credentials are malformed", BASIC_CHALLENGE) from None
    user, colon, secret = text.partition(":")
    if not colon:
        raise NotAuthenticated("the credentials are malformed", BASIC_CHALLENGE)
    return Password(user=user, password=secret)


def invalid_token(message: str, why: str | None = None) -> NotAuthenticated:
    """Return the error for an invalid token. `message`: for the client; `why`: for the log."""
    challenge = f'{BEARER_CHALLENGE}, error="invalid_token", error_description="{message}"'
    return NotAuthenticated("{message}", challenge, why, message=Loggable(message))


def scope_challenge(scopes: Sequence[str]) -> str:
    """Return the challenge that names all required scopes."""
    return f'{BEARER_CHALLENGE}, error="insufficient_scope", scope="{" ".join(scopes)}"'


def _credentials(headers: Sequence[str], scheme: str, challenge: str) -> str:
    """Return the credentials of a scheme; its name is case-insensitive. Raise NotAuthenticated."""
    if not headers:
        raise NotAuthenticated("authentication required", challenge)
    if len(headers) > 1:
        raise NotAuthenticated("the request has more than one Authorization header", challenge)
    given, _, credentials = headers[0].strip().partition(" ")
    credentials = credentials.strip()
    if given.lower() != scheme or not credentials:
        raise NotAuthenticated(
            "authentication scheme {scheme} required", challenge, scheme=Loggable(scheme.capitalize())
        )
    return credentials
