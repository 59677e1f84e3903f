"""Failures of a transfer, in words for the user whose task it was.

A message names the store, the bucket or URL without query and userinfo, the key and what the store said;
it never carries a credential or a signature, so texts of HTTP libraries are not repeated.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

from poiesis_models import worklist


class TransferError(Exception):
    """The base of both kinds; `exit_code` is the filer's."""

    exit_code: ClassVar[int]


class Permanent(TransferError):
    """Trying again cannot help."""

    exit_code = worklist.EXIT_PERMANENT


class NotFound(Permanent):
    """The object, the prefix or the page is not there; the store itself answered."""


class Denied(Permanent):
    """The store does not let these credentials read it. Without the right to list, S3 answers so, too, for
    what is not there."""


class Unsendable(Permanent):
    """One output file cannot be sent because of what it is; others can."""


class Refused(Permanent):
    """The operator does not let users' URLs lead there."""


class Retryable(TransferError):
    """Trying again may help, at the earliest after `retry_after` seconds if the store asked for that."""

    exit_code = worklist.EXIT_PASSING

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Changed(Retryable):
    """The object is not the one any more of which some bytes have come: begin anew."""


_FULL = {errno.ENOSPC, errno.EDQUOT}
_TWO_KINDS = {errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENOTEMPTY}
_DENIED = {errno.EACCES, errno.EPERM}
_MAY_PASS = {errno.EIO, errno.ESTALE, errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ETIMEDOUT}


def volume_full(path: str) -> Permanent:
    """There is no room for `path`, as executors call it."""
    return Permanent(
        f"the task's volume is full: no space left to write {path}; request more with resources.disk_gb"
    )


def writing_error(error: OSError, path: str) -> TransferError:
    """Why `path`, as executors call it, could not be written to the task volume."""
    if error.errno in _FULL:
        return volume_full(path)
    if error.errno in _TWO_KINDS:
        return Permanent(f"cannot write {path}: the inputs name it both as a file and as a directory")
    if error.errno == errno.ENAMETOOLONG:
        return Permanent(f"cannot write {path}: the file name is too long")
    return _other(error, f"cannot write {path}")


def reading_error(error: OSError, path: str) -> TransferError:
    """Why `path`, as executors call it, could not be read from the task volume."""
    if error.errno in _DENIED:
        return Unsendable(
            f"cannot read output {path}: permission denied; executors must leave outputs readable "
            "(and directories searchable) for every user"
        )
    failure = _other(error, f"cannot read output {path}")
    return failure if isinstance(failure, Retryable) else Unsendable(str(failure))


def _other(error: OSError, what: str) -> TransferError:
    message = f"{what}: {(error.strerror or type(error).__name__).lower()}"
    return Retryable(message) if error.errno in _MAY_PASS else Permanent(message)


@contextmanager
def writing(path: str) -> Iterator[None]:
    """OSError becomes ours."""
    try:
        yield
    except OSError as error:
        raise writing_error(error, path) from error


@contextmanager
def reading(path: str) -> Iterator[None]:
    """OSError becomes ours."""
    try:
        yield
    except OSError as error:
        raise reading_error(error, path) from error
