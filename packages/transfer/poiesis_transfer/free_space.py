"""The free space of the task's volume. Standard library only."""

import os
import threading
from pathlib import Path

from poiesis_transfer.errors import volume_full


class FreeSpace:
    """Space reserved before files are written, so that a volume that is too small is detected at once.

    There are two limits: `limit_bytes`, which the task requested (disk_gb) and the volume may not enforce;
    and the free space of the file system minus what other transfers have reserved and not yet written.
    """

    def __init__(self, limit_bytes: int | None = None) -> None:
        self._limit = limit_bytes
        self._held = 0  # reserved in total
        self._coming = 0  # reserved and not yet written
        self._lock = threading.Lock()

    def take(self, count: int, directory: Path, path: str) -> None:
        """Reserve `count` more bytes for the file `path`. Raise Permanent if there is too little space."""
        with self._lock:
            within_limit = self._limit is None or self._held + count <= self._limit
            if not within_limit or count > _free(directory) - self._coming:
                raise volume_full(path)
            self._held += count
            self._coming += count

    def written(self, count: int) -> None:
        """Subtract written bytes, which the file system now counts."""
        with self._lock:
            self._coming -= count

    def give_back(self, held: int, coming: int) -> None:
        """Release the `held` bytes of a discarded file, of which `coming` were never written."""
        with self._lock:
            self._held -= held
            self._coming -= coming


def _free(directory: Path) -> float:
    """Return the free bytes; infinity for file systems that do not report them."""
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize if status.f_blocks else float("inf")
