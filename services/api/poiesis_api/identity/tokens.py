"""Validation of signed access tokens: JWT (RFC 7519) by the rules of RFC 8725 and RFC 9068. Pure.

Only `alg`, `kid` and `typ` of a token's header are used: keys come from the issuer's own document, never from
`jku`, `jwk`, `x5u` or `x5c`.
"""

import base64
import binascii
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from joserfc import jws
from joserfc.errors import ExpiredTokenError, JoseError, MissingClaimError
from joserfc.jwk import ECKey, JWKRegistry, Key, OKPKey
from joserfc.jws import CompactSignature, JWSRegistry
from joserfc.jwt import JWTClaimsRegistry

from poiesis_api.identity.credentials import TOKEN_BYTES

Claims = Mapping[str, Any]

RSA_BITS = 2048  # RFC 7518, 3.3
KEYS = 100  # of one issuer; further ones are ignored
_UNREADABLE = (JoseError, ValueError, TypeError, RecursionError)  # errors of parsing untrusted bytes
_UNKNOWN_KEY = (
    JoseError,
    ValueError,
    TypeError,
    LookupError,
    UnsupportedAlgorithm,
)  # an unsupported curve or form
_TYPES = frozenset({"jwt", "at+jwt", "application/jwt", "application/at+jwt"})  # RFC 9068, 4

# Algorithm: kind of key, and its curve (RFC 7518, 3.1; RFC 8037; RFC 9864).
_KEY_OF: Mapping[str, tuple[str, str | None]] = {
    **{f"{family}{bits}": ("RSA", None) for family in ("RS", "PS") for bits in (256, 384, 512)},
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "ES512": ("EC", "P-521"),
    "EdDSA": ("OKP", "Ed25519"),
    "Ed25519": ("OKP", "Ed25519"),
}


class TokenRejected(Exception):
    """The token is not valid. str(): for the log; `message`: for the client."""

    def __init__(self, why: str, message: str = "the access token is not valid") -> None:
        super().__init__(why)
        self.message = message


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Requirements of a token. `audiences`: it must have one; `leeway_seconds`: allowed clock difference."""

    issuer: str
    audiences: tuple[str, ...]
    algorithms: frozenset[str]
    leeway_seconds: int


class _Registry(JWSRegistry):
    """A registry that allows long headers and unknown parameters, and does not warn about `EdDSA`."""

    max_header_length = TOKEN_BYTES

    def __init__(self, algorithms: frozenset[str]) -> None:
        super().__init__(algorithms=algorithms, strict_check_header=False)
        self._asymmetric = algorithms & _KEY_OF.keys()

    def get_alg(self, name: str) -> Any:  # the type is private to joserfc
        """Return an allowed algorithm. RFC 9864 renames EdDSA, but issuers still use the old name."""
        if name not in self._asymmetric:
            raise TokenRejected(f"alg {name!r} is not allowed")
        return self.algorithms[name]


@dataclass(frozen=True, kw_only=True)
class Signed:
    """A parsed token whose signature has not been verified. `header`: unverified."""

    header: Mapping[str, Any]
    signature: CompactSignature
    registry: _Registry


def is_jwt(token: str) -> bool:
    """Return whether a token has the form of a JWT: three parts, the first an object with `alg`."""
    try:
        return isinstance(_parts(token, _Registry(frozenset())).headers(), dict)
    except _UNREADABLE:
        return False


def parse(token: str, rules: Rules) -> Signed:
    """Parse a token without verifying it. Raise TokenRejected."""
    registry = _Registry(rules.algorithms)
    try:
        signature = _parts(token, registry)
        header = signature.headers()
        if not isinstance(header, dict):
            raise TokenRejected("not a JWT: its header is not an object")
        registry.check_header(header)
    except _UNREADABLE as error:
        raise TokenRejected(f"not a JWT: {error}") from error
    registry.get_alg(header["alg"])
    if header.keys() & {"crit", "b64"}:
        raise TokenRejected("has unsupported critical extensions (crit, b64)")
    kind = header.get("typ", "JWT")
    if kind.lower() not in _TYPES:
        raise TokenRejected(f"typ {kind!r} is not a type of access tokens")
    return Signed(header=header, signature=signature, registry=registry)


def _parts(token: str, registry: _Registry) -> CompactSignature:
    return jws.extract_compact(token.encode(), registry=registry)


def usable_keys(document: object) -> tuple[Key, ...] | None:
    """Return the signature keys of a JWK Set (RFC 7517), without too short ones; None if it is no JWK Set."""
    listed = document.get("keys") if isinstance(document, dict) else None
    return tuple(_import(listed[:KEYS])) if isinstance(listed, list) else None


def _import(listed: Sequence[object]) -> Iterator[Key]:
    for one in listed:
        if not isinstance(one, dict) or one.get("use", "sig") != "sig":
            continue
        if one.get("kty") not in {"RSA", "EC", "OKP"} or _is_short(one):
            continue
        try:
            # An Edwards curve has one algorithm with two names, so `alg` is ignored.
            yield JWKRegistry.import_key(
                {name: one[name] for name in one if name != "alg" or one["kty"] != "OKP"}
            )
        except _UNKNOWN_KEY:
            continue  # tokens signed with it are rejected


def _is_short(key: Mapping[str, object]) -> bool:
    """Return whether it is an RSA key of fewer than RSA_BITS bits."""
    if key["kty"] != "RSA":
        return False
    text = str(key.get("n", ""))
    try:
        modulus = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        return True
    return int.from_bytes(modulus, "big").bit_length() < RSA_BITS


def fitting_keys(keys: Sequence[Key], header: Mapping[str, Any]) -> tuple[Key, ...]:
    """Return the keys that may have signed it. Without `kid`, one must fit (OpenID Connect Core, 10.1)."""
    fitting = tuple(key for key in keys if _fits(key, header["alg"]))
    if "kid" in header:
        return tuple(key for key in fitting if key.kid == header["kid"])
    return fitting if len(fitting) == 1 else ()


def _fits(key: Key, algorithm: str) -> bool:
    """Return whether the key is for this algorithm. The token must not choose (RFC 8725, 3.1)."""
    meant, operations = key.get("alg"), key.get("key_ops")
    if meant is not None and meant != algorithm:
        return False
    if operations is not None and "verify" not in operations:
        return False
    kind, curve = _KEY_OF[algorithm]
    return key.key_type == kind and (curve is None or _curve(key) == curve)


def _curve(key: Key) -> str | None:
    return key.curve_name if isinstance(key, ECKey | OKPKey) else None


def verified_claims(token: Signed, keys: Sequence[Key], rules: Rules, now: float) -> Claims:
    """Return the claims of a token signed with one of `keys` and valid at `now` (seconds since 1970).

    Raise TokenRejected.
    """
    if not keys:
        raise TokenRejected(f"no key of the issuer matches kid {token.header.get('kid')!r} and alg")
    if not any(_is_signed(token, key) for key in keys):
        raise TokenRejected("the signature is invalid")
    claims = _payload(token)
    check_claims(claims, rules, now)
    return claims


def _is_signed(token: Signed, key: Key) -> bool:
    try:
        return jws.validate_compact(token.signature, key, registry=token.registry)
    except (JoseError, ValueError):  # an invalid length or form for the algorithm
        return False


def _payload(token: Signed) -> dict[str, Any]:
    try:
        claims = json.loads(token.signature.payload)
    except (ValueError, RecursionError) as error:
        raise TokenRejected(f"the payload is not JSON: {error}") from error
    if not isinstance(claims, dict):
        raise TokenRejected("the payload is not an object")
    return claims


def check_claims(
    claims: Claims, rules: Rules, now: float, *, introspected: bool = False, audience: bool = True
) -> None:
    """Check issuer, audience and times. Raise TokenRejected.

    For an introspected token the issuer vouches for the times and its own name (RFC 7662, 2.2), so these
    claims may be absent, as may the audience if `audience` is false. Claims that are present are checked.
    """
    registry = JWTClaimsRegistry(
        now=int(now),
        leeway=rules.leeway_seconds,
        iss={"essential": not introspected, "value": rules.issuer},
        aud={"essential": audience, "values": list(rules.audiences)},
        exp={"essential": not introspected},
    )
    try:
        registry.validate(dict(claims))
    except ExpiredTokenError as error:
        raise TokenRejected("expired", "the access token has expired") from error
    except MissingClaimError as error:
        raise TokenRejected(f"missing claims: {error.description}") from error
    except JoseError as error:
        raise TokenRejected(f"invalid claim: {error}") from error
    if "cnf" in claims:
        raise TokenRejected("is bound to a key (cnf), so it is not a bearer token")
