"""Introspection of opaque access tokens (RFC 7662), with a cache of the responses."""

import asyncio
import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cachetools import TLRUCache

from poiesis_api.config import ConfigError, Introspection
from poiesis_api.errors import IdentityUnavailable
from poiesis_api.identity.issuer import Issuer
from poiesis_api.identity.single_flight import SingleFlight, TooManyFlights

logger = logging.getLogger(__name__)

_NEVER = 2**40
_WAITING = 1000  # different tokens that are introspected or wait for it


@dataclass(frozen=True, kw_only=True)
class _Result:
    """`claims`: None for an inactive token. `seconds`: for which the result is valid."""

    claims: Mapping[str, Any] | None
    seconds: float


class Introspector:
    """Introspects tokens. The cache contains only their SHA-256 digests."""

    def __init__(
        self,
        issuer: Issuer,
        config: Introspection,
        secret_file: Path,
        *,
        timeout_seconds: float,
        clock: Callable[[], float],
        now: Callable[[], float],
    ) -> None:
        self._issuer = issuer
        self._config = config
        self._secret_file = secret_file
        self._timeout_seconds = timeout_seconds
        self._now = now
        self._requests = asyncio.Semaphore(config.max_requests)
        self._flights: SingleFlight[bytes, _Result] = SingleFlight("introspection", most=_WAITING)
        self._results: TLRUCache[bytes, _Result] = TLRUCache(
            config.max_cached, ttu=lambda _, result, now: now + result.seconds, timer=clock
        )
        read_secret(secret_file)

    async def claims(self, token: str) -> Mapping[str, Any] | None:
        """Return the claims of an active token, None for an inactive one. Raise IdentityUnavailable."""
        key = hashlib.sha256(token.encode()).digest()
        result = self._results.get(key)
        if result is None:
            try:
                result = await self._flights.run(key, lambda: self._ask(key, token))
            except TooManyFlights as error:
                raise IdentityUnavailable("too many concurrent checks of access tokens; try again") from error
        return result.claims

    async def close(self) -> None:
        """Cancel introspections in progress."""
        await self._flights.close()

    async def _ask(self, key: bytes, token: str) -> _Result:
        config = self._config
        try:
            async with asyncio.timeout(self._timeout_seconds), self._requests:
                secret = read_secret(self._secret_file)
                response = await self._issuer.introspect(token, config.client_id, secret)
        except TimeoutError as error:
            raise IdentityUnavailable(
                "the issuer of access tokens did not respond in time; try again"
            ) from error
        except (IdentityUnavailable, ConfigError) as error:
            logger.warning("token introspection failed", extra={"error": repr(error.__cause__ or error)})
            raise IdentityUnavailable(
                "the access token could not be checked with its issuer; try again"
            ) from error
        result = _result(response, config, self._now())
        self._results[key] = result
        return result


def _result(response: Mapping[str, Any], config: Introspection, now: float) -> _Result:
    """Return the result of a response, valid no longer than the token."""
    if response["active"] is not True:
        return _Result(claims=None, seconds=config.refused_seconds)
    expires = response.get("exp", _NEVER)
    left = expires - int(now) if isinstance(expires, int) else 0  # not an integer: do not cache
    return _Result(claims=response, seconds=max(0, min(config.cache_seconds, left)))


def read_secret(path: Path) -> str:
    """Return the secret in a file. Raise ConfigError naming the file."""
    try:
        secret = path.read_text().strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"auth.oidc.introspection.clientSecret: cannot read {path}: {error}") from error
    if not secret:
        raise ConfigError(f"auth.oidc.introspection.clientSecret: {path} is empty")
    return secret
