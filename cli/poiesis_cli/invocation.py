"""One call of the command, and the options that every command has."""

import asyncio
import math
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import click

from poiesis_cli.address import unencrypted
from poiesis_cli.client import TesClient
from poiesis_cli.config import Config, logins_file, read_config
from poiesis_cli.credentials import Nobody, find_credentials
from poiesis_cli.errors import Interrupted
from poiesis_cli.follow import goes_on
from poiesis_cli.logins import Logins
from poiesis_cli.terminal import say
from poiesis_cli.timing import TIMING, Timing
from poiesis_cli.web import open_session

_T = TypeVar("_T")
_F = TypeVar("_F", bound=Callable[..., Any])


class _Positive(click.FloatRange):
    """A number above 0 that JSON can hold."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


POSITIVE = _Positive(min=0, min_open=True)


@dataclass(kw_only=True)
class Invocation:
    """One call of the command: the world around it, and the options that every command has."""

    environ: Mapping[str, str]
    timing: Timing = TIMING
    server: str | None = None
    config: str | None = None
    output: str | None = None
    quiet: bool = False
    task_id: str | None = field(default=None, init=False)

    @property
    def as_json(self) -> bool:
        """Documents: JSON if asked for, or if nobody reads it on a terminal."""
        return self.output == "json" or (self.output is None and not sys.stdout.isatty())

    def settings(self) -> Config:
        """Raise BadUsage."""
        return read_config(self.environ, server=self.server, file=self.config)

    def logins(self) -> Logins:
        """What `poiesis login` has kept."""
        return Logins(logins_file(self.environ))

    @asynccontextmanager
    async def client(self, *, patient: bool = False) -> AsyncIterator[TesClient]:
        """The server's; `patient`: one that is away for minutes is waited for."""
        config = self.settings()
        timing = self.timing
        async with open_session(timing) as session:
            credentials = find_credentials(config, self.logins(), session, timing)
            if unencrypted(config.base) and not isinstance(credentials, Nobody):
                say(f"poiesis: warning: your credentials go to {config.base.origin()} without encryption")
            yield TesClient(
                base=config.base,
                session=session,
                credentials=credentials,
                timing=timing,
                say=lambda text: say(f"poiesis: {text}"),
                patience=timing.patience_while_waiting if patient else timing.patience,
            )

    def run(self, work: Awaitable[_T]) -> _T:
        """Raise Interrupted on Ctrl-C: a task that this command knows of goes on."""

        async def main() -> _T:
            return await work

        try:
            return asyncio.run(main())
        except KeyboardInterrupt:
            if self.task_id is None:
                raise Interrupted("interrupted") from None
            raise Interrupted(f"left task {self.task_id}; it goes on", goes_on(self.task_id)) from None


def _remember(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    """Options that every command has may stand before it or after it; the last one counts."""
    if value is not None and value is not False and parameter.name is not None:
        setattr(context.find_object(Invocation), parameter.name, value)


def _option(*names: str, **settings: Any) -> Callable[[_F], _F]:
    return click.option(*names, expose_value=False, callback=_remember, **settings)


server_option = _option(
    "--server", metavar="URL|NAME", help="Base URL, or a name in the configuration [POIESIS_SERVER]."
)
config_option = _option("--config", metavar="FILE", help="Configuration [POIESIS_CONFIG].")
output_option = _option(
    "--output",
    type=click.Choice(["json", "table"]),
    help="Default: table on a terminal, else json.",
)
quiet_option = _option("-q", "--quiet", is_flag=True, help="Tell no progress.")
logs_option = click.option("--logs", is_flag=True, help="Print what the executors print, while they run.")
timeout_option = click.option(
    "--timeout",
    type=POSITIVE,
    metavar="SECONDS",
    help="Stop waiting then, with exit code 124; the task goes on.",
)


def common_options(command: _F) -> _F:
    return server_option(config_option(output_option(command)))
