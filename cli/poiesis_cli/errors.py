"""Exit codes, and the errors that lead to them. Each error says what is wrong and what to do next."""

from enum import IntEnum
from typing import ClassVar


class Exit(IntEnum):
    """Exit codes, apart from those of executors (1 to 255), which `wait` and `run` pass on as they are.

    64 to 77 are those of sysexits.h, 124 is that of timeout(1), above 128 is 128 + signal: what programs in
    containers seldom use, so that 1 and 2 mean the executor.
    """

    OK = 0
    USAGE = 64  # the command line, a local file or the configuration
    REFUSED = 65  # the server says no: 400, 404 and the like
    UNREACHABLE = 69  # no answer, or 5xx, or 429, for as long as was tried
    PROTOCOL = 76  # an answer that is not TES
    AUTH = 77  # 401, 403, a login that has expired
    SYSTEM_ERROR = 120
    CANCELED = 121
    PREEMPTED = 122
    EXECUTOR_ERROR = 123  # of a task of which the server tells no exit code other than 0
    TIMED_OUT = 124  # --timeout is over; the task goes on
    INTERRUPTED = 130  # Ctrl-C; the task goes on
    OUTPUT_CLOSED = 141  # whoever read our output has gone


class CliError(Exception):
    """Base. `advice`: what to do next, a sentence or a command."""

    exit: ClassVar[Exit]

    def __init__(self, message: str, advice: str | None = None) -> None:
        super().__init__(message)
        self.advice = advice


class BadUsage(CliError):
    """An option, an argument, a local file or the configuration cannot be used."""

    exit = Exit.USAGE


class Refused(CliError):
    """The server understood and said no."""

    exit = Exit.REFUSED


class NotFound(Refused):
    """The server knows no such task, or no such page."""


class Unreachable(CliError):
    """The server did not answer, or said that it cannot, for as long as was tried."""

    exit = Exit.UNREACHABLE


class NotTes(CliError):
    """The server's answer is none that TES 1.1 knows."""

    exit = Exit.PROTOCOL


class AuthFailed(CliError):
    """Credentials are missing, wrong, expired or not enough."""

    exit = Exit.AUTH


class TimedOut(CliError):
    """The task did not end in time."""

    exit = Exit.TIMED_OUT


class Interrupted(CliError):
    """The user pressed Ctrl-C."""

    exit = Exit.INTERRUPTED


class OutputClosed(CliError):
    """Standard output is a pipe that nobody reads any more."""

    exit = Exit.OUTPUT_CLOSED
