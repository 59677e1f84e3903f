"""Who else has the machine: stories share it, and what is measured by the clock may have it for itself.

Both know each other by locks on two files of the run (flock: those of a worker that dies are free). Who wants
the machine alone waits for its turn, and nobody who comes later gets past.
"""

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path


class Machine:
    """As one process sees it, which runs one story at a time."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._turn, self._use = (
            os.open(folder / name, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC) for name in ("turn", "use")
        )

    @contextmanager
    def shared(self) -> Iterator[None]:
        """With others, but with nobody who has it alone."""
        self._take(fcntl.LOCK_SH)
        try:
            yield
        finally:
            fcntl.flock(self._use, fcntl.LOCK_UN)

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Within `shared`: when the others have ended what they do. Not to be had twice at a time."""
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
