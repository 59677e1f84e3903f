"""Shared and exclusive use of the machine: stories share it, and timed stories may use it exclusively.

Both use locks on two files of the run (flock: locks of a dead worker are released). An exclusive user waits
for its turn, and later users wait for it.
"""

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path


class Machine:
    """The locks of one process, which runs one story at a time."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._turn, self._use = (
            os.open(folder / name, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC) for name in ("turn", "use")
        )

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Share the machine with other stories; exclude exclusive use."""
        self._take(fcntl.LOCK_SH)
        try:
            yield
        finally:
            fcntl.flock(self._use, fcntl.LOCK_UN)

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Use the machine exclusively, within `shared`, after the other stories have ended. Not reentrant."""
        fcntl.flock(self._use, fcntl.LOCK_UN)
        await asyncio.to_thread(self._take, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._use, fcntl.LOCK_SH)

    def _take(self, how: int) -> None:
        fcntl.flock(self._turn, fcntl.LOCK_EX)
        try:
            fcntl.flock(self._use, how)
        finally:
            fcntl.flock(self._turn, fcntl.LOCK_UN)
