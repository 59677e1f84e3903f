"""One for each `auth.mode`: what a request's Authorization headers make of it."""

import asyncio
import hmac
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from cachetools import LRUCache, TTLCache

from poiesis_api.config import Administrators, Auth, ConfigError, IdentityFiles, Oidc
from poiesis_api.errors import InsufficientScope, LimitReached, NotAuthenticated
from poiesis_api.identity import claims as bearer
from poiesis_api.identity import credentials, tokens
from poiesis_api.identity.caller import ANONYMOUS, Caller, is_administrator
from poiesis_api.identity.claims import ClaimRules
from poiesis_api.identity.flights import Flights, TooManyFlights
from poiesis_api.identity.htpasswd import NOBODY, BadUsers, is_password, parse_users
from poiesis_api.identity.introspection import Introspector
from poiesis_api.identity.issuer import Issuer, open_issuer
from poiesis_api.identity.tokens import Rules, TokenRefused

logger = logging.getLogger(__name__)

Clock = Callable[[], float]

_WRONG_SECONDS = 10.0  # for which an invalid password is remembered
_PASSWORDS = 10_000  # of each kind that are remembered
_HASHES = 2  # at once: they take a processor each
_OF_ONE_USER = 2  # passwords that are checked or wait; all names that do not exist are one user
_RETRY_SECONDS = 1.0
_MOUNTED = IdentityFiles()


class Authenticator(Protocol):
    """Tells who asks."""

    async def caller(self, authorization: Sequence[str]) -> Caller:
        """By all Authorization headers.

        Raise NotAuthenticated, NotAllowed, LimitReached or IdentityUnavailable.
        """


class NoAuthenticator:
    """Everybody is the same user: for development."""

    async def caller(self, authorization: Sequence[str]) -> Caller:  # noqa: ARG002
        """Whatever the headers say."""
        return ANONYMOUS


class BasicAuthenticator:
    """User names and passwords (RFC 7617) of a file, which is read again when it has changed."""

    def __init__(self, path: Path, administrators: Administrators, clock: Clock = time.monotonic) -> None:
        self._path = path
        self._administrators = administrators
        self._stamp = self._file_stamp()
        self._users = self._read_users()
        self._key = secrets.token_bytes(32)  # of this process: what is remembered is no use elsewhere
        # Apart, so that no flood of invalid passwords can push out valid ones. The key contains the hash in
        # the file: a valid password stays so until that changes.
        self._valid: LRUCache[bytes, bool] = LRUCache(_PASSWORDS)
        self._invalid: TTLCache[bytes, bool] = TTLCache(_PASSWORDS, _WRONG_SECONDS, timer=clock)
        self._hashing = asyncio.Semaphore(_HASHES)
        self._flights: dict[str | None, Flights[bytes, bool]] = {}  # by user; None: all that do not exist

    async def caller(self, authorization: Sequence[str]) -> Caller:
        """Raise NotAuthenticated, or LimitReached while other passwords of the same user are checked."""
        given = credentials.password(authorization)
        self._follow_the_file()
        hashed = self._users.get(given.user, NOBODY)
        key = hmac.digest(self._key, b"\0".join((hashed, given.password.encode())), "sha256")
        right = self._valid.get(key) or (False if key in self._invalid else None)
        if right is None:
            user = given.user if given.user in self._users else None
            flights = self._flights.setdefault(user, Flights("password", most=_OF_ONE_USER))
            try:
                right = await flights.run(key, lambda: self._check(key, given.password, hashed))
            except TooManyFlights as error:
                sentence = "too many unverified passwords of this user at once; try again"
                raise LimitReached(sentence, _RETRY_SECONDS) from error
        if not right or given.user not in self._users:
            why = f"wrong user name or password: {given.user[:100]!r}"
            raise NotAuthenticated("wrong user name or password", credentials.BASIC_CHALLENGE, why)
        users, groups = self._administrators.users, self._administrators.groups
        return Caller(name=given.user, administrator=is_administrator(given.user, (), users, groups))

    async def close(self) -> None:
        """End what is under way."""
        await asyncio.gather(*(flights.close() for flights in self._flights.values()))

    async def _check(self, key: bytes, password: str, hashed: bytes) -> bool:
        async with self._hashing:
            right = await asyncio.to_thread(is_password, password, hashed)
        if right:
            self._valid[key] = True
        else:
            self._invalid[key] = True
        return right

    def _follow_the_file(self) -> None:
        """A file that cannot be used any more is said once, and what was read of the former one stays."""
        try:
            stamp = self._file_stamp()
            if stamp == self._stamp:
                return
            self._stamp = stamp
            self._users = self._read_users()
            self._flights = {user: some for user, some in self._flights.items() if some.is_busy}
        except ConfigError as error:
            logger.error("users stay as they were", extra={"error": str(error)})  # noqa: TRY400
        else:
            logger.info("users were read anew", extra={"users": len(self._users)})

    def _file_stamp(self) -> tuple[int, int, int]:
        try:
            stat = self._path.stat()
        except OSError as error:
            raise ConfigError(
                f"auth.basic.usersSecret: cannot read {self._path}: {error.strerror}"
            ) from error
        return stat.st_ino, stat.st_mtime_ns, stat.st_size

    def _read_users(self) -> Mapping[str, bytes]:
        try:
            return parse_users(self._path.read_text())
        except OSError as error:
            raise ConfigError(
                f"auth.basic.usersSecret: cannot read {self._path}: {error.strerror}"
            ) from error
        except (BadUsers, UnicodeDecodeError) as error:
            raise ConfigError(f"auth.basic.usersSecret: {self._path}: {error}") from error


class OidcAuthenticator:
    """Access tokens of one issuer: signed ones are verified here, opaque ones by asking the issuer."""

    def __init__(
        self,
        issuer: Issuer,
        introspector: Introspector | None,
        config: Oidc,
        administrators: Administrators,
        now: Clock = time.time,
    ) -> None:
        self._issuer = issuer
        self._introspector = introspector
        self._audience_required = config.introspection is None or config.introspection.audience_required
        self._now = now
        self._rules = Rules(
            issuer=config.issuer,
            audiences=tuple(config.audiences),
            algorithms=frozenset(config.algorithms),
            leeway_seconds=config.leeway_seconds,
        )
        self._claim_rules = ClaimRules(
            user_claim=config.user_claim,
            groups_claim=config.groups_claim,
            scopes=tuple(config.scopes),
            administrator_users=frozenset(administrators.users),
            administrator_groups=frozenset(administrators.groups),
        )

    async def caller(self, authorization: Sequence[str]) -> Caller:
        """Raise NotAuthenticated, InsufficientScope or IdentityUnavailable."""
        token = credentials.bearer_token(authorization)
        try:
            claims = await self._claims(token)
            caller = bearer.caller(claims, self._claim_rules)
        except TokenRefused as refused:
            raise credentials.invalid_token(refused.sentence, str(refused)) from refused
        missing = bearer.missing_scopes(claims, self._claim_rules)
        if missing:
            raise InsufficientScope(
                f"the access token lacks the scope {' '.join(missing)}",
                credentials.scope_challenge(self._claim_rules.scopes),
            )
        return caller

    async def _claims(self, token: str) -> Mapping[str, Any]:
        if self._introspector is not None and not tokens.is_jwt(token):
            return await self._introspected(self._introspector, token)
        signed = tokens.parse(token, self._rules)
        keys = await self._issuer.keys_for(signed.header)
        return tokens.verified_claims(signed, keys, self._rules, self._now())

    async def _introspected(self, introspector: Introspector, token: str) -> Mapping[str, Any]:
        claims = await introspector.claims(token)
        if claims is None:
            raise TokenRefused("the issuer says that it is not active")
        tokens.check_claims(
            claims, self._rules, self._now(), introspected=True, audience=self._audience_required
        )
        return claims


@asynccontextmanager
async def open_authenticator(
    config: Auth,
    files: IdentityFiles = _MOUNTED,
    *,
    clock: Clock = time.monotonic,
    now: Clock = time.time,
) -> AsyncIterator[Authenticator]:
    """Open the authenticator of the mode. Raise ConfigError if a file cannot be used.

    `clock`: seconds from anywhere; `now`: since 1970.
    """
    if config.mode == "basic":
        basic = BasicAuthenticator(files.users, config.administrators, clock)
        try:
            yield basic
        finally:
            await basic.close()
    elif config.mode == "oidc" and config.oidc is not None:
        ca = files.ca if config.oidc.ca_secret else None
        async with open_issuer(config.oidc, ca, clock) as issuer:
            asked = config.oidc.introspection
            introspector = None
            if asked is not None:
                timeout = config.oidc.timeout_seconds
                introspector = Introspector(
                    issuer, asked, files.client_secret, timeout_seconds=timeout, clock=clock, now=now
                )
            try:
                yield OidcAuthenticator(issuer, introspector, config.oidc, config.administrators, now)
            finally:
                if introspector is not None:
                    await introspector.close()
    else:
        logger.warning("auth.mode is none: everybody is one user")
        yield NoAuthenticator()
