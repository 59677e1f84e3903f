"""One call of the command, and the options that all commands share."""

import asyncio
import math
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

import aiohttp
import click
from yarl import URL

from poiesis_cli.address import unencrypted
from poiesis_cli.client import TesClient
from poiesis_cli.config import Config, logins_file, read_config
from poiesis_cli.credentials import Credentials, NoCredentials, find_credentials
from poiesis_cli.errors import BadUsage, Interrupted
from poiesis_cli.follow import next_steps
from poiesis_cli.logins import Logins
from poiesis_cli.terminal import message
from poiesis_cli.timing import TIMING, Timing, parse_since
from poiesis_cli.web import open_session

_T = TypeVar("_T")
_F = TypeVar("_F", bound=Callable[..., Any])


class _Positive(click.types.FloatParamType):
    """A number above 0 that JSON can represent."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not math.isfinite(number) or number <= 0:
            self.fail(f"must be a number above 0, got {value!r}", param, ctx)
        return number


class WholeNumber(click.types.IntParamType):
    """A whole number of at least `least`."""

    def __init__(self, least: int) -> None:
        self.least = least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value)
        if not text.isascii() or not text.isdigit() or int(text) < self.least:
            self.fail(f"must be a whole number, at least {self.least}, got {value!r}", param, ctx)
        return int(text)


class OneOf(click.Choice[str]):
    """One of several words."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:  # noqa: ARG002
        return f"must be one of {', '.join(self.choices)}, got {value!r}"


class _Since(click.ParamType[datetime]):
    """A time in the past: an age, or an RFC 3339 time."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        try:
            return value if isinstance(value, datetime) else parse_since(str(value), datetime.now(UTC))
        except ValueError as error:
            self.fail(str(error), param, ctx)


POSITIVE = _Positive()
SINCE = _Since()


@dataclass(kw_only=True)
class Invocation:
    """One call of the command: its environment, and the options that all commands share."""

    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    timing: Timing = TIMING
    server: str | None = None
    config: str | None = None
    output: str | None = None
    quiet: bool = False
    task_id: str | None = field(default=None, init=False)
    _warned: bool = field(default=False, init=False)

    @property
    def as_json(self) -> bool:
        """Whether to print documents as JSON: on request, and if standard output is not a terminal."""
        return self.output == "json" or (self.output is None and not sys.stdout.isatty())

    def settings(self) -> Config:
        """Read the configuration. Raise BadUsage."""
        return read_config(self.environ, server=self.server, file=self.config)

    def logins(self) -> Logins:
        """Return the stored logins."""
        return Logins(logins_file(self.environ))

    @asynccontextmanager
    async def client(self, *, waiting: bool = False) -> AsyncIterator[TesClient]:
        """Open a client of the server; `waiting`: retry failed requests for minutes."""
        config = self.settings()
        async with open_session(self.timing) as session:
            credentials = find_credentials(config, self.logins(), session, self.timing)
            if unencrypted(config.base) and not isinstance(credentials, NoCredentials) and not self._warned:
                self._warned = True
                message(f"poiesis: warning: sending credentials to {config.base.origin()} without encryption")
            yield self.client_with(session, config.base, credentials, waiting=waiting)

    def client_with(
        self, session: aiohttp.ClientSession, base: URL, credentials: Credentials, *, waiting: bool = False
    ) -> TesClient:
        """Return a client with these credentials; `waiting`: retry failed requests for minutes."""
        return TesClient(
            base=base,
            session=session,
            credentials=credentials,
            timing=self.timing,
            notify=lambda text: message(f"poiesis: {text}"),
            retry_for=self.timing.retry_for_while_waiting if waiting else self.timing.retry_for,
        )

    def run(self, work: Awaitable[_T]) -> _T:
        """Run a coroutine. Raise Interrupted on Ctrl-C; the task of `task_id` continues."""

        async def main() -> _T:
            return await work

        try:
            return asyncio.run(main())
        except KeyboardInterrupt:
            if self.task_id is None:
                raise Interrupted("interrupted") from None
            raise Interrupted(
                f"interrupted; task {self.task_id} continues", next_steps(self.task_id)
            ) from None


def _remember(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    """Store a shared option, which may come before or after the command; the last one is used."""
    if value is not None and value is not False and parameter.name is not None:
        setattr(context.find_object(Invocation), parameter.name, value)


def _option(*names: str, **settings: Any) -> Callable[[_F], _F]:
    return click.option(*names, expose_value=False, callback=_remember, **settings)


server_option = _option(
    "--server", metavar="URL|NAME", help="Base URL, or a name from the configuration [POIESIS_SERVER]."
)
config_option = _option("--config", metavar="FILE", help="Configuration file [POIESIS_CONFIG].")
output_option = _option(
    "--output",
    type=OneOf(["json", "table"]),
    help="Format of results. Default: table on a terminal and for list, otherwise json.",
)
quiet_option = _option("-q", "--quiet", is_flag=True, help="Print no progress.")
logs_option = click.option("--logs", is_flag=True, help="Print the executors' output while they run.")
tags_option = click.option(
    "--tag",
    "tags",
    multiple=True,
    metavar="KEY[=VALUE]",
    help="Only tasks with this tag; repeat for more tags.",
)
timeout_option = click.option(
    "--timeout",
    type=POSITIVE,
    metavar="SECONDS",
    help="Stop waiting after this time, with exit code 124; the task continues.",
)


def check_ids_or_tags(ids: Sequence[str], tags: Sequence[str]) -> None:
    """Raise BadUsage for neither ids nor tags, or for both."""
    if bool(ids) == bool(tags):
        command = click.get_current_context().command_path
        raise BadUsage("either IDs or --tag is required", f"see {command} --help")


def common_options(command: _F) -> _F:
    """Add --server, --config and --output."""
    return server_option(config_option(output_option(command)))
