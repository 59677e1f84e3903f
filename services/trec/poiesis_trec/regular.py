"""Open files in directories where an executor may have put anything: symlinks, FIFOs, devices, gigabytes."""

import errno
import logging
import os
import stat
from pathlib import Path
from typing import NamedTuple

logger = logging.getLogger(__name__)

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_NOTHING = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO})  # absent, or not a file
_told: set[tuple[Path, int | None]] = set()  # what has been logged: paths are few, once each is enough


class Signature(NamedTuple):
    """Changes whenever a file does."""

    inode: int
    size: int
    mtime_ns: int


def signature(path: Path) -> Signature | None:
    """None if there is no regular file of this name."""
    try:
        found = os.lstat(path)
    except OSError as error:
        _log(path, error)
        return None
    return _signature(found) if _is_regular(found) else None


def open_regular(path: Path) -> int | None:
    """A file descriptor, or None if there is no readable regular file of this name."""
    if signature(path) is None:  # a device is not opened at all: that alone may have effects
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
    """At most the first `limit` bytes, and what the file looked like just before; None if there is none."""
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
    if error.errno not in _NOTHING and (path, error.errno) not in _told:
        _told.add((path, error.errno))
        logger.warning("cannot read %s: %s", path, error.strerror)
