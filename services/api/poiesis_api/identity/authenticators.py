"""One authenticator for each `auth.mode`."""

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
from poiesis_api.errors import InsufficientScope, LimitReached, Loggable, NotAuthenticated
from poiesis_api.identity import claims as bearer
from poiesis_api.identity import credentials, tokens
from poiesis_api.identity.caller import ANONYMOUS, Caller, is_administrator
from poiesis_api.identity.claims import ClaimRules
from poiesis_api.identity.htpasswd import UNKNOWN_USER_HASH, BadUsers, is_password, parse_users
from poiesis_api.identity.introspection import Introspector
from poiesis_api.identity.issuer import Issuer, open_issuer
from poiesis_api.identity.single_flight import SingleFlight, TooManyFlights
from poiesis_api.identity.tokens import Rules, TokenRejected

logger = logging.getLogger(__name__)

Clock = Callable[[], float]

_INVALID_SECONDS = 10.0  # for which an invalid password is remembered
_PASSWORDS = 10_000  # remembered, valid and invalid ones each
_HASHES = 2  # computed at a time: each occupies a processor
_OF_ONE_USER = 2  # unverified passwords at a time; all unknown names count as one user
_RETRY_SECONDS = 1.0
_MOUNTED = IdentityFiles()


class Authenticator(Protocol):
    """Identifies the caller of a request."""

    async def caller(self, authorization: Sequence[str]) -> Caller:
        """Return the caller identified by the Authorization headers.

        Raise NotAuthenticated, NotAllowed, LimitReached or IdentityUnavailable.
        """


class NoAuthenticator:
    """Treats all callers as one user, for development."""

    async def caller(self, authorization: Sequence[str]) -> Caller:  # noqa: ARG002
        """Return the anonymous user."""
        return ANONYMOUS


class BasicAuthenticator:
    """Checks user names and passwords (RFC 7617) by a file, which is read again when it changes."""

    def __init__(self, path: Path, administrators: Administrators, clock: Clock = time.monotonic) -> None:
        self._path = path
        self._administrators = administrators
        self._stamp = self._file_stamp()
        self._users = self._read_users()
        self._key = secrets.token_bytes(
            32
        )  # of this process only, so that remembered hashes are useless elsewhere
        # Separate, so that a flood of invalid passwords does not evict valid ones. The key contains the hash
        # in the file, so an entry is valid until that changes.
        self._valid: LRUCache[bytes, bool] = LRUCache(_PASSWORDS)
        self._invalid: TTLCache[bytes, bool] = TTLCache(_PASSWORDS, _INVALID_SECONDS, timer=clock)
        self._hashing = asyncio.Semaphore(_HASHES)
        self._flights: dict[str | None, SingleFlight[bytes, bool]] = {}  # by user; None: all unknown names

    async def caller(self, authorization: Sequence[str]) -> Caller:
        """Return the user. Raise NotAuthenticated, or LimitReached for too many unverified passwords."""
        given = credentials.password(authorization)
        self._reload_if_changed()
        hashed = self._users.get(given.user, UNKNOWN_USER_HASH)
        key = hmac.digest(self._key, b"\0".join((hashed, given.password.encode())), "sha256")
        valid = self._valid.get(key) or (False if key in self._invalid else None)
        if valid is None:
            user = given.user if given.user in self._users else None
            flights = self._flights.setdefault(user, SingleFlight("password", most=_OF_ONE_USER))
            try:
                valid = await flights.run(key, lambda: self._check(key, given.password, hashed))
            except TooManyFlights as error:
                raise LimitReached(
                    "too many concurrent logins with unverified passwords for this user; try again",
                    _RETRY_SECONDS,
                    limit=_OF_ONE_USER,
                ) from error
        if not valid or given.user not in self._users:
            why = f"invalid user name or password: {given.user[:100]!r}"
            raise NotAuthenticated("invalid user name or password", credentials.BASIC_CHALLENGE, why)
        users, groups = self._administrators.users, self._administrators.groups
        return Caller(name=given.user, administrator=is_administrator(given.user, (), users, groups))

    async def close(self) -> None:
        """Cancel password checks in progress."""
        await asyncio.gather(*(flights.close() for flights in self._flights.values()))

    async def _check(self, key: bytes, password: str, hashed: bytes) -> bool:
        async with self._hashing:
            valid = await asyncio.to_thread(is_password, password, hashed)
        if valid:
            self._valid[key] = True
        else:
            self._invalid[key] = True
        return valid

    def _reload_if_changed(self) -> None:
        """Read the file if it has changed. If it is unusable, log that once and keep the former users."""
        try:
            stamp = self._file_stamp()
            if stamp == self._stamp:
                return
            self._stamp = stamp
            self._users = self._read_users()
            self._flights = {user: some for user, some in self._flights.items() if some.is_busy}
        except ConfigError as error:
            logger.error("cannot read users file, keeping the previous users", extra={"error": str(error)})  # noqa: TRY400
        else:
            logger.info("reloaded users file", extra={"users": len(self._users)})

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
    """Checks access tokens of one issuer: JWTs by their signature, opaque ones by introspection."""

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
        """Return the token's user. Raise NotAuthenticated, InsufficientScope or IdentityUnavailable."""
        token = credentials.bearer_token(authorization)
        try:
            claims = await self._claims(token)
            caller = bearer.caller(claims, self._claim_rules)
        except TokenRejected as rejected:
            raise credentials.invalid_token(rejected.message, str(rejected)) from rejected
        missing = bearer.missing_scopes(claims, self._claim_rules)
        if missing:
            raise InsufficientScope(
                "the access token lacks the scope {missing}",
                credentials.scope_challenge(self._claim_rules.scopes),
                missing=Loggable(" ".join(missing)),
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
            raise TokenRejected("the issuer reports that the token is not active")
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
    """Yield the authenticator of the mode. Raise ConfigError if a file is unusable.

    `clock`: seconds, any origin; `now`: seconds since 1970.
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
        logger.warning("authentication is disabled (auth.mode is none): all clients share one account")
        yield NoAuthenticator()
