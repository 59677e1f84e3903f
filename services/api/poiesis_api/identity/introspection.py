"""Opaque access tokens: the issuer is asked what they are (RFC 7662), and its answers are kept awhile."""

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
from poiesis_api.identity.flights import Flights, TooManyFlights
from poiesis_api.identity.issuer import Issuer

logger = logging.getLogger(__name__)

_NEVER = 2**40
_WAITING = 1000  # different tokens at a time, those included that are being asked for


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """`claims` is None for a token that does not count; `seconds`: how long the answer does."""

    claims: Mapping[str, Any] | None
    seconds: float


class Introspector:
    """Tokens themselves are not kept: answers are found by their SHA-256."""

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
        self._flights: Flights[bytes, _Answer] = Flights("introspection", most=_WAITING)
        self._answers: TLRUCache[bytes, _Answer] = TLRUCache(
            config.max_cached, ttu=lambda _, answer, now: now + answer.seconds, timer=clock
        )
        read_secret(secret_file)

    async def claims(self, token: str) -> Mapping[str, Any] | None:
        """What the issuer says of an active token; None if it is not. Raise IdentityUnavailable."""
        key = hashlib.sha256(token.encode()).digest()
        answer = self._answers.get(key)
        if answer is None:
            try:
                answer = await self._flights.run(key, lambda: self._ask(key, token))
            except TooManyFlights as error:
                raise IdentityUnavailable("too many unknown access tokens at once; try again") from error
        return answer.claims

    async def close(self) -> None:
        """End what is under way."""
        await self._flights.close()

    async def _ask(self, key: bytes, token: str) -> _Answer:
        config = self._config
        try:
            async with asyncio.timeout(self._timeout_seconds), self._requests:
                secret = read_secret(self._secret_file)
                said = await self._issuer.introspect(token, config.client_id, secret)
        except TimeoutError as error:
            raise IdentityUnavailable("the issuer of access tokens does not answer in time") from error
        except (IdentityUnavailable, ConfigError) as error:
            logger.warning("cannot introspect", extra={"error": repr(error.__cause__ or error)})
            raise IdentityUnavailable("the issuer of access tokens cannot be asked; try again") from error
        answer = _answer(said, config, self._now())
        self._answers[key] = answer
        return answer


def _answer(said: Mapping[str, Any], config: Introspection, now: float) -> _Answer:
    """An active token's answer is kept no longer than the token lasts."""
    if said["active"] is not True:
        return _Answer(claims=None, seconds=config.refused_seconds)
    ends = said.get("exp", _NEVER)
    left = ends - int(now) if isinstance(ends, int) else 0  # any other number: asked each time
    return _Answer(claims=said, seconds=max(0, min(config.cache_seconds, left)))


def read_secret(path: Path) -> str:
    """Raise ConfigError naming the file."""
    try:
        secret = path.read_text().strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"auth.oidc.introspection.clientSecret: cannot read {path}: {error}") from error
    if not secret:
        raise ConfigError(f"auth.oidc.introspection.clientSecret: {path} is empty")
    return secret
