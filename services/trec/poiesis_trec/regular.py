"""Open files safely where an executor may have created symlinks, FIFOs, devices or huge files."""

import errno
import logging
import os
import stat
from pathlib import Path
from typing import NamedTuple

logger = logging.getLogger(__name__)

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_NOTHING = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO})  # absent, or not a file
_logged: set[tuple[Path, int | None]] = set()  # already logged: once per path and error


class Signature(NamedTuple):
    """A value that changes whenever the file does."""

    inode: int
    size: int
    mtime_ns: int


def signature(path: Path) -> Signature | None:
    """Return the signature of a regular file; None if the path is not one."""
    try:
        found = os.lstat(path)
    except OSError as error:
        _log(path, error)
        return None
    return _signature(found) if _is_regular(found) else None


def open_regular(path: Path) -> int | None:
    """Return a file descriptor; None if there is no readable regular file of this name."""
    if signature(path) is None:  # opening a device may have side effects
        return None
    try:
        fd = os.open(path, _FLAGS)
    except OSError as error:
        _log(path, error)
        return None
    if _is_regular(os.fstat(fd)):
        return fd
    os.close(fd)
    return None


def read_regular(path: Path, limit: int) -> tuple[bytes, Signature] | None:
    """Return at most the first `limit` bytes and the signature before the read; None if there is no file."""
    fd = open_regular(path)
    if fd is None:
        return None
    try:
        before = _signature(os.fstat(fd))
        return _read(fd, limit), before
    except OSError as error:
        _log(path, error)
        return None
    finally:
        os.close(fd)


def _read(fd: int, limit: int) -> bytes:
    parts: list[bytes] = []
    left = limit
    while left > 0 and (part := os.read(fd, left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _is_regular(found: os.stat_result) -> bool:
    return stat.S_ISREG(found.st_mode)


def _signature(found: os.stat_result) -> Signature:
    return Signature(found.st_ino, found.st_size, found.st_mtime_ns)


def _log(path: Path, error: OSError) -> None:
    if error.errno not in _NOTHING and (path, error.errno) not in _logged:
        _logged.add((path, error.errno))
        logger.warning("cannot read %s: %s", path, error.strerror)
