"""Which signed access tokens count: JWT (RFC 7519) by the rules of RFC 8725 and RFC 9068. Pure.

Of a token's header only `alg`, `kid` and `typ` mean anything: keys come from the issuer's own document, never
from `jku`, `jwk`, `x5u` or `x5c`.
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
KEYS = 100  # of one issuer; any further ones are not looked at
_UNREADABLE = (JoseError, ValueError, TypeError, RecursionError)  # of bytes that anybody may have sent
_UNKNOWN_KEY = (JoseError, ValueError, TypeError, LookupError, UnsupportedAlgorithm)  # a curve, a shape
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


class TokenRefused(Exception):
    """str() is for the log. `sentence`: what the client is told."""

    def __init__(self, why: str, sentence: str = "the access token is not valid") -> None:
        super().__init__(why)
        self.sentence = sentence


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What a token must say. `audiences`: one of them; `leeway_seconds`: by which clocks may differ."""

    issuer: str
    audiences: tuple[str, ...]
    algorithms: frozenset[str]
    leeway_seconds: int


class _Registry(JWSRegistry):
    """Headers as long as real ones, parameters of any name, and no warning about `EdDSA`."""

    max_header_length = TOKEN_BYTES

    def __init__(self, algorithms: frozenset[str]) -> None:
        super().__init__(algorithms=algorithms, strict_check_header=False)
        self._asymmetric = algorithms & _KEY_OF.keys()

    def get_alg(self, name: str) -> Any:  # its type is not for others
        """RFC 9864 has a new name for EdDSA, but issuers have not."""
        if name not in self._asymmetric:
            raise TokenRefused(f"alg {name!r} is not allowed")
        return self.algorithms[name]


@dataclass(frozen=True, kw_only=True)
class Signed:
    """A token that has its shape, but nobody has looked at its signature. `header` is what it claims."""

    header: Mapping[str, Any]
    signature: CompactSignature
    registry: _Registry


def is_jwt(token: str) -> bool:
    """Whether it has the shape of one: three parts, of which the first is an object with `alg`."""
    try:
        return isinstance(_parts(token, _Registry(frozenset())).headers(), dict)
    except _UNREADABLE:
        return False


def parse(token: str, rules: Rules) -> Signed:
    """Raise TokenRefused."""
    registry = _Registry(rules.algorithms)
    try:
        signature = _parts(token, registry)
        header = signature.headers()
        if not isinstance(header, dict):
            raise TokenRefused("not a JWT: its header is no object")
        registry.check_header(header)
    except _UNREADABLE as error:
        raise TokenRefused(f"not a JWT: {error}") from error
    registry.get_alg(header["alg"])
    if header.keys() & {"crit", "b64"}:
        raise TokenRefused("has critical extensions, of which none is supported")
    kind = header.get("typ", "JWT")
    if kind.lower() not in _TYPES:
        raise TokenRefused(f"typ {kind!r} is not that of an access token")
    return Signed(header=header, signature=signature, registry=registry)


def _parts(token: str, registry: _Registry) -> CompactSignature:
    return jws.extract_compact(token.encode(), registry=registry)


def usable_keys(document: object) -> tuple[Key, ...] | None:
    """Of a JWK Set (RFC 7517). What is no key for signatures, or is too short, is left out. None: no set."""
    listed = document.get("keys") if isinstance(document, dict) else None
    return tuple(_import(listed[:KEYS])) if isinstance(listed, list) else None


def _import(listed: Sequence[object]) -> Iterator[Key]:
    for one in listed:
        if not isinstance(one, dict) or one.get("use", "sig") != "sig":
            continue
        if one.get("kty") not in {"RSA", "EC", "OKP"} or _is_short(one):
            continue
        try:
            # Of an Edwards curve there is one algorithm, but it has two names: the curve says enough.
            yield JWKRegistry.import_key(
                {name: one[name] for name in one if name != "alg" or one["kty"] != "OKP"}
            )
        except _UNKNOWN_KEY:
            continue  # its tokens find no key


def _is_short(key: Mapping[str, object]) -> bool:
    """Whether it is an RSA key that breaks too easily."""
    if key["kty"] != "RSA":
        return False
    text = str(key.get("n", ""))
    try:
        modulus = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        return True
    return int.from_bytes(modulus, "big").bit_length() < RSA_BITS


def fitting_keys(keys: Sequence[Key], header: Mapping[str, Any]) -> tuple[Key, ...]:
    """Those that may have signed it. Without a `kid` there must be one alone (OpenID Connect Core, 10.1)."""
    fitting = tuple(key for key in keys if _fits(key, header["alg"]))
    if "kid" in header:
        return tuple(key for key in fitting if key.kid == header["kid"])
    return fitting if len(fitting) == 1 else ()


def _fits(key: Key, algorithm: str) -> bool:
    """A key that is meant for one algorithm is for no other, whatever a token says (RFC 8725, 3.1)."""
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
    """Of a token that one of `keys` has signed and that is good at `now` (seconds since 1970).

    Raise TokenRefused.
    """
    if not keys:
        raise TokenRefused(f"no key of the issuer fits kid {token.header.get('kid')!r} and its alg")
    if not any(_is_signed(token, key) for key in keys):
        raise TokenRefused("the signature is wrong")
    claims = _payload(token)
    check_claims(claims, rules, now)
    return claims


def _is_signed(token: Signed, key: Key) -> bool:
    try:
        return jws.validate_compact(token.signature, key, registry=token.registry)
    except (JoseError, ValueError):  # a signature of a length or form that the algorithm does not have
        return False


def _payload(token: Signed) -> dict[str, Any]:
    try:
        claims = json.loads(token.signature.payload)
    except (ValueError, RecursionError) as error:
        raise TokenRefused(f"the payload is not JSON: {error}") from error
    if not isinstance(claims, dict):
        raise TokenRefused("the payload is no object")
    return claims


def check_claims(
    claims: Claims, rules: Rules, now: float, *, introspected: bool = False, audience: bool = True
) -> None:
    """Issuer, audience and times. Raise TokenRefused.

    Of an introspected token the issuer itself vouches for the times and for its own name (RFC 7662, 2.2), so
    that it may leave those out, and without `audience` also for whom it is; what it says still counts.
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
        raise TokenRefused("expired", "the access token has expired") from error
    except MissingClaimError as error:
        raise TokenRefused(f"lacks the claims {error.description}") from error
    except JoseError as error:
        raise TokenRefused(f"claim refused: {error}") from error
    if "cnf" in claims:
        raise TokenRefused("is bound to a key (cnf), so it is no bearer token")
