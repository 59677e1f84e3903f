"""Files of the task volume: ones that appear whole, and ones that are read while nobody may change them."""

import hashlib
import os
import stat
from pathlib import Path
from types import TracebackType
from typing import Self

from poiesis_transfer.errors import Passing, Unsendable, reading, writing
from poiesis_transfer.pool import in_thread
from poiesis_transfer.progress import Progress

BLOCK = 1024 * 1024
ANYONE_FILE = 0o666  # executors may be any uid
ANYONE_DIRECTORY = 0o777


class Landing:
    """A file that is written beside its place and appears there when it is whole.

    `path` is what executors call it. The temporary name is the same at every start, so what a killed filer
    left is replaced; `owner` keeps two inputs that name the same file out of each other's way.
    """

    def __init__(self, local: Path, path: str, progress: Progress, *, owner: int = 0) -> None:
        digest = hashlib.sha256(f"{owner} {local.name}".encode("utf-8", "surrogateescape")).hexdigest()
        self._local = local
        self._temporary = local.with_name(f".poiesis-{digest[:20]}")
        self._progress = progress
        self._fd = -1
        self._kept = False
        self.path = path

    async def __aenter__(self) -> Self:
        with writing(self.path):
            self._fd = await in_thread(self._create)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with writing(self.path):
            await in_thread(self._close)

    async def write(self, data: bytes | bytearray, offset: int) -> None:
        """Raise Permanent when the volume is full."""
        with writing(self.path):
            await in_thread(_write_all, self._fd, data, offset)
        self._progress.moved(len(data))

    async def empty(self) -> None:
        """Begin again: what has been written so far is not part of the file."""
        with writing(self.path):
            await in_thread(os.ftruncate, self._fd, 0)

    def forget(self, count: int) -> None:
        """`count` bytes will come a second time."""
        self._progress.moved(-count)

    async def keep(self, size: int | None = None) -> None:
        """Give the file its name; raise Passing if its size is not the one that was announced."""
        with writing(self.path):
            actual = await in_thread(self._publish, size)
        if size is not None and actual != size:
            raise Passing(f"{self.path} has {actual} bytes, but {size} were announced")
        self._progress.file_done()

    def _create(self) -> int:
        make_directories(self._local.parent)
        self._temporary.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(self._temporary, flags, ANYONE_FILE)
        os.fchmod(fd, ANYONE_FILE)  # whatever the umask
        return fd

    def _publish(self, size: int | None) -> int:
        actual = os.fstat(self._fd).st_size
        if size is None or actual == size:
            self._temporary.replace(self._local)
            self._kept = True
        return actual

    def _close(self) -> None:
        try:
            os.close(self._fd)
        finally:
            if not self._kept:
                self._temporary.unlink(missing_ok=True)


def make_directories(path: Path) -> None:
    """Make `path` and what is missing above it, usable by anyone whatever the umask."""
    missing: list[Path] = []
    while not path.is_dir():
        missing.append(path)
        path = path.parent
    for directory in reversed(missing):
        try:
            directory.mkdir()
        except FileExistsError:
            if not directory.is_dir():  # else another transfer made it meanwhile
                raise
        else:
            directory.chmod(ANYONE_DIRECTORY)


class SourceFile:
    """A regular file to be sent; `path` is what executors call it."""

    def __init__(self, local: str, path: str) -> None:
        self._local = local
        self._fd = -1
        self.path = path
        self.size = 0

    async def __aenter__(self) -> Self:
        with reading(self.path):
            self._fd = await in_thread(self._open)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)

    async def read(self, offset: int, count: int) -> bytes:
        """Exactly `count` bytes."""
        with reading(self.path):
            data = await in_thread(os.pread, self._fd, count, offset)
        if len(data) != count:
            raise self._changed()
        return data

    async def check_size(self) -> None:
        """Raise Passing if the file is not as long as it was."""
        with reading(self.path):
            actual = (await in_thread(os.fstat, self._fd)).st_size
        if actual != self.size:
            raise self._changed()

    def _open(self) -> int:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a FIFO must not block
        fd = os.open(self._local, flags)
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            os.close(fd)
            raise Unsendable(f"output {self.path} is not a regular file")
        self.size = status.st_size
        return fd

    def _changed(self) -> Passing:
        return Passing(f"output {self.path} changed its size while it was sent")


def _write_all(fd: int, data: bytes | bytearray, offset: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, offset)
        view, offset = view[count:], offset + count
