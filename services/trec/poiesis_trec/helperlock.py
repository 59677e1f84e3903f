"""Whether the helper of a container lives: it holds an flock on `started` until it has gone.

An executor may put another file in its place, but cannot take that lock away: of an executor the file that
was seen first is the one that counts. A filer's helper may run again, on a new file.
"""

import fcntl
import logging
import os
from pathlib import Path

from poiesis_trec.regular import open_regular

logger = logging.getLogger(__name__)


class HelperLock:
    """`held`: True while the helper lives, False since it has gone.

    None if nobody can tell: there is no `started`, or the file system has no locks.
    """

    def __init__(self, path: Path, *, renewed: bool) -> None:
        self._path = path
        self._renewed = renewed  # whether a newer file counts
        self._fd: int | None = None
        self._seen: tuple[int, int] | None = None  # inode and time: an inode alone may be used again
        self.held: bool | None = None

    def look(self) -> None:
        """Open `started` if it is the one that counts."""
        if self._seen is not None and not self._renewed:
            return
        fd = open_regular(self._path)
        if fd is None:
            return
        found = os.fstat(fd)
        seen = (found.st_ino, found.st_mtime_ns)
        if seen == self._seen:
            os.close(fd)
            return
        self._close()
        self._fd, self._seen, self.held = fd, seen, None

    def check(self) -> bool | None:
        """Find out, and return, what `held` is now."""
        if self._fd is None:
            return self.held
        try:
            fcntl.flock(self._fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            self.held = True
        except OSError as error:
            logger.debug("cannot lock %s: %s", self._path, error)
            self.held = None
        else:
            self.held = False
            self._close()  # gives the lock back, too
        return self.held

    def _close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
