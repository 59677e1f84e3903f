"""Errors of a transfer. The owner of the task reads their messages.

A message names the store, the bucket or the URL without query and userinfo, the key, and the store's error.
It never contains a credential or a signature, so texts of HTTP libraries are not repeated.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

from poiesis_models import worklist


class TransferError(Exception):
    """A transfer failed. `exit_code` is the filer's exit code."""

    exit_code: ClassVar[int]


class Permanent(TransferError):
    """A retry cannot help."""

    exit_code = worklist.EXIT_PERMANENT


class NotFound(Permanent):
    """The store has no such object or prefix."""


class Denied(Permanent):
    """The credentials may not read the object.

    Without the right to list, S3 reports this for missing objects too.
    """


class Unsendable(Permanent):
    """One output file cannot be sent because of its name, type or mode; others can."""


class Refused(Permanent):
    """The operator does not allow URLs to this address."""


class Retryable(TransferError):
    """A retry may help. `retry_after`: seconds to wait first, if the store sent them."""

    exit_code = worklist.EXIT_RETRYABLE

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Changed(Retryable):
    """The object changed during the download, which has to start from scratch."""


_FULL = {errno.ENOSPC, errno.EDQUOT}
_TWO_KINDS = {errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENOTEMPTY}
_DENIED = {errno.EACCES, errno.EPERM}
_RETRYABLE = {
    errno.EIO,
    errno.ESTALE,
    errno.EAGAIN,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.ETIMEDOUT,
}


def volume_full(path: str) -> Permanent:
    """Return the error for a volume without space for `path`, the path for executors."""
    return Permanent(
        f"the task's volume is full: no space left to write {path}; request more with resources.disk_gb"
    )


def writing_error(error: OSError, path: str) -> TransferError:
    """Return the error for a failed write of `path`, the path for executors, to the task volume."""
    if error.errno in _FULL:
        return volume_full(path)
    if error.errno in _TWO_KINDS:
        return Permanent(f"cannot write {path}: the inputs name it both as a file and as a directory")
    if error.errno == errno.ENAMETOOLONG:
        return Permanent(f"cannot write {path}: the file name is too long")
    return _other(error, f"cannot write {path}")


def reading_error(error: OSError, path: str) -> TransferError:
    """Return the error for a failed read of `path`, the path for executors, from the task volume."""
    if error.errno in _DENIED:
        return Unsendable(
            f"cannot read output {path}: permission denied; executors must leave outputs readable "
            "(and directories searchable) for every user"
        )
    failure = _other(error, f"cannot read output {path}")
    return failure if isinstance(failure, Retryable) else Unsendable(str(failure))


def _other(error: OSError, what: str) -> TransferError:
    message = f"{what}: {(error.strerror or type(error).__name__).lower()}"
    return Retryable(message) if error.errno in _RETRYABLE else Permanent(message)


@contextmanager
def writing(path: str) -> Iterator[None]:
    """Convert OSError to TransferError."""
    try:
        yield
    except OSError as error:
        raise writing_error(error, path) from error


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Convert OSError to TransferError."""
    try:
        yield
    except OSError as error:
        raise reading_error(error, path) from error
