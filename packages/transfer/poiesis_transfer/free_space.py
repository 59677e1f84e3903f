"""How much the task's volume may still take. Standard library only."""

import os
import threading
from pathlib import Path

from poiesis_transfer.errors import volume_full


class FreeSpace:
    """Files ask for room before they are written, so that a volume that is too small is known at once.

    Two things limit it: `limit_bytes`, what the task asked for (disk_gb), whether or not the volume enforces
    it, and what the file system says is free, less what other transfers have still to write there.
    """

    def __init__(self, limit_bytes: int | None = None) -> None:
        self._limit = limit_bytes
        self._held = 0  # what files have or will have
        self._coming = 0  # of that, what is not written yet
        self._lock = threading.Lock()

    def take(self, count: int, directory: Path, path: str) -> None:
        """Hold room for `count` bytes more of the file `path`; raise Permanent if there is none."""
        with self._lock:
            within_limit = self._limit is None or self._held + count <= self._limit
            if not within_limit or count > _free(directory) - self._coming:
                raise volume_full(path)
            self._held += count
            self._coming += count

    def written(self, count: int) -> None:
        """What was to come is there, so the file system counts it itself."""
        with self._lock:
            self._coming -= count

    def give_back(self, held: int, coming: int) -> None:
        """A file is given up; of the bytes it held, `coming` were never written."""
        with self._lock:
            self._held -= held
            self._coming -= coming


def _free(directory: Path) -> float:
    """Bytes; infinite for file systems that do not count them."""
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize if status.f_blocks else float("inf")
