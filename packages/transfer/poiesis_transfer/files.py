"""Files of the task volume: files that appear only when they are complete, and files to send.

Standard library only.
"""

import hashlib
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from poiesis_transfer.errors import Retryable, Unsendable, reading, writing
from poiesis_transfer.free_space import FreeSpace
from poiesis_transfer.progress import Progress

READ_BLOCK = 256 * 1024
ANYONE_FILE = 0o777  # executors have any uid, and may execute staged files
ANYONE_DIRECTORY = 0o777
Buffer = bytes | bytearray | memoryview


class Destination:
    """A file to stage: written under a temporary name and renamed when it is complete.

    `path` is the path for executors; `owner` as in `name_aside`. Several threads may write parts of the file.
    """

    in_order = False

    def __init__(
        self,
        local: Path,
        path: str,
        progress: Progress,
        *,
        free_space: FreeSpace | None = None,
        owner: int = 0,
    ) -> None:
        self._local = local
        self._temporary = local.with_name(name_aside(local.name, owner=owner))
        self._progress = progress
        self._free_space = free_space or FreeSpace()
        self._fd = -1
        self._kept = False
        self._lock = threading.Lock()
        self._held = self._written = 0
        self.path = path

    def __enter__(self) -> Self:
        with writing(self.path):
            self._create()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with writing(self.path):
            self._close()

    def announce(self, size: int) -> None:
        """Reserve space for a file of `size` bytes. Raise Permanent if the volume has too little."""
        if size > self._held:
            with writing(self.path):
                self._free_space.take(size - self._held, self._local.parent, self.path)
            self._held = size

    def write(self, data: Buffer, offset: int) -> None:
        """Write bytes at an offset. Raise Permanent if the volume is full."""
        self.announce(offset + len(data))
        with writing(self.path):
            _write_all(self._fd, data, offset)
        self._moved(len(data))

    def empty(self) -> None:
        """Discard what has been written; the whole file will be written again."""
        if self._written:
            with writing(self.path):
                os.ftruncate(self._fd, 0)
            self._moved(-self._written)

    def blocks(self) -> Iterator[bytes]:
        """Return what has been written, from the beginning."""
        offset = 0
        with writing(self.path):
            while block := os.pread(self._fd, READ_BLOCK, offset):
                yield block
                offset += len(block)

    def keep(self, size: int | None = None, *, modified: float | None = None) -> None:
        """Rename the file to its final name. Raise Retryable if its size is not `size`.

        `modified`: the time of the object in seconds since 1970. Tools compare the ages of a file and its
        index.
        """
        with writing(self.path):
            actual = os.fstat(self._fd).st_size
            if size is not None and actual != size:
                raise Retryable(f"{self.path}: received {actual} of {size} bytes")
            if modified is not None:
                os.utime(self._fd, (modified, modified))
            self._temporary.replace(self._local)
            self._kept = True
        self._progress.file_done()

    def _moved(self, count: int) -> None:
        with self._lock:
            self._written += count
        self._free_space.written(count)
        self._progress.moved(count)

    def _create(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._fd = os.open(self._temporary, flags, ANYONE_FILE)
        except (FileNotFoundError, FileExistsError):
            make_directories(self._local.parent)
            self._temporary.unlink(missing_ok=True)
            self._fd = os.open(self._temporary, flags, ANYONE_FILE)
        os.fchmod(self._fd, ANYONE_FILE)  # independent of the umask
        # Remove the file of an earlier start, so that the volume need not hold both. If an input without a
        # type was staged as a directory then, the first attempt to read it as an object must not fail here.
        with suppress(IsADirectoryError):
            self._local.unlink(missing_ok=True)

    def _close(self) -> None:
        try:
            os.close(self._fd)
        finally:
            if not self._kept:
                self._temporary.unlink(missing_ok=True)
                self._free_space.give_back(self._held, self._held - self._written)
                self._progress.moved(-self._written)


def name_aside(name: str, *, owner: int = 0) -> str:
    """Return the temporary name of a file.

    It is the same at every start, so the file of a killed filer is replaced. `owner` separates two inputs
    that name the same file.
    """
    digest = hashlib.sha256(f"{owner} {name}".encode("utf-8", "surrogateescape")).hexdigest()
    return f".poiesis-{digest[:20]}"


def make_directories(path: Path) -> None:
    """Create `path` and missing parents, writable for all users, independent of the umask."""
    missing: list[Path] = []
    while not path.is_dir():
        missing.append(path)
        path = path.parent
    for directory in reversed(missing):
        try:
            directory.mkdir()
        except FileExistsError:
            if not directory.is_dir():  # otherwise another transfer has created it
                raise
        else:
            directory.chmod(ANYONE_DIRECTORY)


class SourceFile:
    """A regular file to send; `path` is the path for executors."""

    def __init__(self, local: str, path: str) -> None:
        self._local = local
        self._fd = -1
        self.path = path
        self.size = 0

    def __enter__(self) -> Self:
        with reading(self.path):
            self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)

    def blocks(self, offset: int, count: int) -> Iterator[bytes]:
        """Return exactly `count` bytes; holes of a sparse file are zeros.

        Raise Retryable if there are fewer.
        """
        end = offset + count
        while offset < end:
            with reading(self.path):
                block = os.pread(self._fd, min(READ_BLOCK, end - offset), offset)
            if not block:
                raise self._changed()
            yield block
            offset += len(block)

    def check_size(self) -> None:
        """Raise Retryable if the size of the file has changed."""
        with reading(self.path):
            actual = os.fstat(self._fd).st_size
        if actual != self.size:
            raise self._changed()

    def _open(self) -> None:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a FIFO must not block
        fd = os.open(self._local, flags)
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            os.close(fd)
            raise Unsendable(f"output {self.path} is not a regular file")
        self._fd = fd
        self.size = status.st_size

    def _changed(self) -> Retryable:
        return Retryable(f"output {self.path} changed size while it was sent")


def _write_all(fd: int, data: Buffer, offset: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, offset)
        view, offset = view[count:], offset + count
