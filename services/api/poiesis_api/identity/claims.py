"""The user that the claims of a valid access token identify. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from poiesis_api.identity.caller import GROUPS, Caller, is_administrator, is_name
from poiesis_api.identity.tokens import TokenRejected


@dataclass(frozen=True, kw_only=True)
class ClaimRules:
    """The configured claim names, required scopes and administrators."""

    user_claim: str
    groups_claim: str
    scopes: tuple[str, ...]
    administrator_users: frozenset[str]
    administrator_groups: frozenset[str]


def caller(claims: Mapping[str, Any], rules: ClaimRules) -> Caller:
    """Return the user. Raise TokenRejected if its name is missing or invalid."""
    name = _claim(claims, rules.user_claim)
    if not is_name(name):
        raise TokenRejected(f"claim {rules.user_claim!r} is not a valid user name: {str(name)[:100]!r}")
    groups = _groups(_claim(claims, rules.groups_claim))
    administrator = is_administrator(name, groups, rules.administrator_users, rules.administrator_groups)
    return Caller(name=name, groups=groups, administrator=administrator)


def missing_scopes(claims: Mapping[str, Any], rules: ClaimRules) -> tuple[str, ...]:
    """Return the required scopes not in `scope` (RFC 9068, RFC 7662), or in `scp` as some issuers name it."""
    given = claims.get("scope", claims.get("scp", ""))
    granted = given.split() if isinstance(given, str) else given if isinstance(given, list) else []
    return tuple(scope for scope in rules.scopes if scope not in granted)


def _claim(claims: Mapping[str, Any], name: str) -> object:
    """Return a claim: `a.b` is the claim of that name if there is one, or else `b` in the object `a`."""
    if name in claims or "." not in name:
        return claims.get(name)
    head, _, rest = name.partition(".")
    inner = claims.get(head)
    return _claim(inner, rest) if isinstance(inner, dict) else None


def _groups(value: object) -> tuple[str, ...]:
    """Return the groups in a list of names or a single name; invalid names are ignored."""
    listed: Sequence[object] = value if isinstance(value, list) else [value]
    return tuple(dict.fromkeys(group for group in listed if is_name(group)))[:GROUPS]
