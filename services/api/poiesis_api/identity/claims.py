"""What the claims of an access token that counts say of its bearer. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from poiesis_api.identity.caller import GROUPS, Caller, is_administrator, is_name
from poiesis_api.identity.tokens import TokenRefused


@dataclass(frozen=True, kw_only=True)
class ClaimRules:
    """Names of claims, and what makes an administrator."""

    user_claim: str
    groups_claim: str
    scopes: tuple[str, ...]
    administrator_users: frozenset[str]
    administrator_groups: frozenset[str]


def caller(claims: Mapping[str, Any], rules: ClaimRules) -> Caller:
    """Raise TokenRefused where the user's name is missing, or none that could be stored."""
    name = _claim(claims, rules.user_claim)
    if not is_name(name):
        raise TokenRefused(f"claim {rules.user_claim!r} is no user name: {str(name)[:100]!r}")
    groups = _groups(_claim(claims, rules.groups_claim))
    administrator = is_administrator(name, groups, rules.administrator_users, rules.administrator_groups)
    return Caller(name=name, groups=groups, administrator=administrator)


def missing_scopes(claims: Mapping[str, Any], rules: ClaimRules) -> tuple[str, ...]:
    """Of those that a token must have: `scope` of RFC 9068 and RFC 7662, or the `scp` of some issuers."""
    given = claims.get("scope", claims.get("scp", ""))
    granted = given.split() if isinstance(given, str) else given if isinstance(given, list) else []
    return tuple(scope for scope in rules.scopes if scope not in granted)


def _claim(claims: Mapping[str, Any], name: str) -> object:
    """`a.b` is the claim of that name, where there is one, or else b in the object a."""
    if name in claims or "." not in name:
        return claims.get(name)
    head, _, rest = name.partition(".")
    inner = claims.get(head)
    return _claim(inner, rest) if isinstance(inner, dict) else None


def _groups(value: object) -> tuple[str, ...]:
    """A list of names, or one name. What is none is no group."""
    listed: Sequence[object] = value if isinstance(value, list) else [value]
    return tuple(dict.fromkeys(group for group in listed if is_name(group)))[:GROUPS]
