"""The main function of a service: `--help`, its settings, its exit code, and its end by a signal."""

import argparse
import asyncio
import logging
import signal
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from poiesis_server.settings import ConfigError, Settings, variables

_Config = TypeVar("_Config", bound=Settings)


def run(
    settings: type[_Config],
    work: Callable[[_Config], Coroutine[Any, Any, None]],
    *,
    name: str,
    about: str | None,
    unusable: tuple[type[Exception], ...],
    arguments: Sequence[str] | None,
) -> int:
    """Read the settings, do the work until it ends, and return the exit code.

    `name`: of the package, which is also the name of the logger. `about`: the description in `--help`.
    `unusable`: errors of `work` that mean, like an invalid setting, that the program cannot start (code 2).
    """
    parser = argparse.ArgumentParser(
        prog=name,
        description=about,
        epilog=f"environment variables (name, default, meaning):\n{variables(settings)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.parse_args(arguments)
    cannot_start: tuple[type[Exception], ...] = (ConfigError, *unusable)
    try:
        asyncio.run(work(settings.from_env()))
    except cannot_start as error:
        # Without a traceback: it is not a defect.
        logging.getLogger(name).error("cannot start", extra={"error": str(error)})  # noqa: TRY400
        return 2
    return 0


def stop_event() -> asyncio.Event:
    """Return an event that SIGTERM and SIGINT set from now on. Call it in the event loop."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop
