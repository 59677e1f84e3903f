"""The Authorization header of requests to one server."""

import base64
import time
from dataclasses import dataclass, field
from typing import Protocol

import aiohttp

from poiesis_cli import oidc
from poiesis_cli.config import Config
from poiesis_cli.errors import AuthFailed, CliError, Unreachable
from poiesis_cli.logins import Login, Logins
from poiesis_cli.timing import Timing
from poiesis_cli.web import NoConnection


class Credentials(Protocol):
    """One user's credentials for one server."""

    async def header(self) -> str | None:
        """Return the current header value, None to send none.

        Raise AuthFailed, or Unreachable if the issuer does not respond.
        """

    async def renew(self) -> bool:
        """Return whether new credentials replace the ones that the server just rejected."""

    def rejected(self, reason: str) -> CliError:
        """Return the error for a 401; `reason` is the server's message."""


@dataclass(frozen=True)
class NoCredentials:
    """No credentials. `withheld`: the environment has some for another server."""

    withheld: bool = False

    async def header(self) -> str | None:
        return None

    async def renew(self) -> bool:
        return False

    def rejected(self, reason: str) -> CliError:
        if self.withheld:
            return AuthFailed(
                f"the server requires credentials: {reason};"
                " those of the environment belong to POIESIS_SERVER",
                "set POIESIS_SERVER to this server too, or add a section for it to the configuration",
            )
        return AuthFailed(
            f"the server requires credentials: {reason}",
            "run poiesis login, or set POIESIS_TOKEN_FILE, or POIESIS_USER and POIESIS_PASSWORD_FILE",
        )


@dataclass(frozen=True)
class StaticCredentials:
    """A token or password from the environment or the configuration."""

    value: str = field(repr=False)

    async def header(self) -> str | None:
        return self.value

    async def renew(self) -> bool:
        return False

    def rejected(self, reason: str) -> CliError:
        return AuthFailed(
            f"the server rejected the configured credentials: {reason}",
            "check POIESIS_TOKEN, POIESIS_USER or the server's section in the configuration",
        )


@dataclass
class LoginCredentials:
    """The token of `poiesis login`, renewed before it expires and when the server rejects it."""

    session: aiohttp.ClientSession
    logins: Logins
    server: str
    login: Login
    timing: Timing

    async def header(self) -> str | None:
        if self.login.expires_at is not None and self.login.expires_at < time.time() + self.timing.early:
            await self._renew()
        return f"Bearer {self.login.access_token}"

    async def renew(self) -> bool:
        if self.login.refresh_token is None:
            return False
        await self._renew()
        return True

    def rejected(self, reason: str) -> CliError:
        return AuthFailed(f"the server rejected the login: {reason}", "run poiesis login again")

    async def _renew(self) -> None:
        """Use the token of another command if that one has just renewed it."""
        async with self.logins.locked():
            stored = self.logins.read(self.server)
            if stored is not None and stored.access_token != self.login.access_token:
                self.login = stored
            else:
                self.login = await self._refreshed()
                self.logins.write(self.server, self.login)

    async def _refreshed(self) -> Login:
        try:
            return await oidc.refresh(self.session, self.login)
        except Unreachable as error:
            # The TES server has received nothing, so a create may be retried.
            raise NoConnection(f"cannot renew the login: {error}", error.advice) from error


def find_credentials(
    config: Config, logins: Logins, session: aiohttp.ClientSession, timing: Timing
) -> Credentials:
    """Return the configured token, else the configured password, else the login at this server."""
    if config.token is not None:
        return StaticCredentials(f"Bearer {config.token}")
    if config.user is not None:
        pair = f"{config.user}:{config.password}".encode()
        return StaticCredentials(f"Basic {base64.b64encode(pair).decode()}")
    server = str(config.base)
    login = logins.read(server)
    if login is not None:
        return LoginCredentials(session, logins, server, login, timing)
    return NoCredentials(withheld=config.withheld)
