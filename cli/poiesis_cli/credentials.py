"""What goes into the Authorization header of requests to one server."""

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
    """Somebody's, for one server."""

    async def header(self) -> str | None:
        """The header's value now; None to send none. Raise AuthFailed, or Unreachable for the issuer."""

    async def renew(self) -> bool:
        """The server has refused the last one: whether there is a fresh one now."""

    def refused(self) -> CliError:
        """What to tell the user when the server refuses them."""


@dataclass(frozen=True)
class Nobody:
    """No credentials. `withheld`: there are some, for another server."""

    withheld: bool = False

    async def header(self) -> str | None:
        return None

    async def renew(self) -> bool:
        return False

    def refused(self) -> CliError:
        if self.withheld:
            return AuthFailed(
                "the server wants credentials; those of the environment belong to POIESIS_SERVER",
                "set POIESIS_SERVER to this server too, or give it a section in the configuration",
            )
        return AuthFailed(
            "the server wants credentials",
            "run poiesis login, or set POIESIS_TOKEN_FILE, or POIESIS_USER and POIESIS_PASSWORD_FILE",
        )


@dataclass(frozen=True)
class Fixed:
    """A token or a password that the user has set."""

    value: str = field(repr=False)

    async def header(self) -> str | None:
        return self.value

    async def renew(self) -> bool:
        return False

    def refused(self) -> CliError:
        return AuthFailed(
            "the server refuses the credentials that are set",
            "check POIESIS_TOKEN, POIESIS_USER or the server's section in the configuration",
        )


@dataclass
class Device:
    """A login of `poiesis login`, renewed when it expires and when the server says so."""

    session: aiohttp.ClientSession
    logins: Logins
    server: str
    login: Login
    timing: Timing

    async def header(self) -> str | None:
        if self.login.expires_at is not None and self.login.expires_at < time.time() + self.timing.early:
            await self._renewed()
        return f"Bearer {self.login.access_token}"

    async def renew(self) -> bool:
        if self.login.refresh_token is None:
            return False
        await self._renewed()
        return True

    def refused(self) -> CliError:
        return AuthFailed("the server refuses the login", "run poiesis login again")

    async def _renewed(self) -> None:
        """Another command may have renewed it meanwhile: then that one's token is taken."""
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
            # Nothing has been sent to the server, whatever became of this.
            raise NoConnection(f"the login cannot be renewed: {error}", error.advice) from error


def find_credentials(
    config: Config, logins: Logins, session: aiohttp.ClientSession, timing: Timing
) -> Credentials:
    """What the user has set comes first, then the login at this server, then nothing."""
    if config.token is not None:
        return Fixed(f"Bearer {config.token}")
    if config.user is not None:
        pair = f"{config.user}:{config.password}".encode()
        return Fixed(f"Basic {base64.b64encode(pair).decode()}")
    server = str(config.base)
    login = logins.read(server)
    if login is not None:
        return Device(session, logins, server, login, timing)
    return Nobody(withheld=config.withheld)
