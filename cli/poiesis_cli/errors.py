"""Exit codes, and the errors that lead to them. Each error has a message and, if possible, an advice."""

from enum import IntEnum
from typing import ClassVar


class Exit(IntEnum):
    """The command's own exit codes. `wait` and `run` pass on exit codes of executors (1 to 255) unchanged.

    64 to 77 are from sysexits.h, 124 is from timeout(1), above 128 is 128 + signal. Programs in containers
    rarely use these, so 1 and 2 come from an executor.
    """

    OK = 0
    USAGE = 64  # the command line, a local file or the configuration
    REJECTED = 65  # the server rejected the request: 400, 404 and similar
    UNREACHABLE = 69  # no response, 5xx or 429, until the retries ended
    PROTOCOL = 76  # a response that is not TES
    AUTH = 77  # 401, 403, an expired login
    SYSTEM_ERROR = 120
    CANCELED = 121
    PREEMPTED = 122
    EXECUTOR_ERROR = 123  # the server returns no exit code other than 0
    TIMED_OUT = 124  # --timeout expired; the task continues
    INTERRUPTED = 130  # Ctrl-C; the task continues
    OUTPUT_CLOSED = 141  # the reader of standard output has exited


class CliError(Exception):
    """Base class. `advice`: what to do next, a sentence or a command."""

    exit: ClassVar[Exit]

    def __init__(self, message: str, advice: str | None = None) -> None:
        super().__init__(message)
        self.advice = advice


class BadUsage(CliError):
    """An option, an argument, a local file or the configuration is invalid."""

    exit = Exit.USAGE


class Rejected(CliError):
    """The server rejected the request."""

    exit = Exit.REJECTED


class NotFound(Rejected):
    """The server has no such task or path."""


class Unreachable(CliError):
    """The server did not respond, or reported a temporary failure, until the retries ended."""

    exit = Exit.UNREACHABLE


class NotTes(CliError):
    """The server's response does not follow TES 1.1."""

    exit = Exit.PROTOCOL


class AuthFailed(CliError):
    """Credentials are missing, invalid, expired or insufficient."""

    exit = Exit.AUTH


class TimedOut(CliError):
    """The task did not end in time."""

    exit = Exit.TIMED_OUT


class Interrupted(CliError):
    """The user pressed Ctrl-C."""

    exit = Exit.INTERRUPTED


class OutputClosed(CliError):
    """Standard output is a pipe without a reader."""

    exit = Exit.OUTPUT_CLOSED
