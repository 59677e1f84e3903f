"""The archive of what is deleted: JSON lines in S3 objects, one object per batch."""

import asyncio
import gzip
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self
from uuid import UUID

from poiesis_tctl.retention import EndedTask, Kind
from poiesis_transfer.config import S3Config
from poiesis_transfer.errors import TransferError
from poiesis_transfer.files import SourceFile
from poiesis_transfer.progress import Progress
from poiesis_transfer.retry import Retry
from poiesis_transfer.stores import S3Stores
from poiesis_transfer.urls import S3Url, parse_s3

MOST_BYTES = 64 * 1024 * 1024  # of an object before compression; its last document may exceed it
_RETRY = Retry(attempts=3, longest_seconds=5.0)  # the next round tries again, with back-off


class ArchiveUnavailable(Exception):
    """A batch could not be stored, so its tasks must not be deleted."""


class UnusableArchive(Exception):
    """The settings of the archive are invalid; the message names them."""


class Archive:
    """Stores documents below a directory of a bucket."""

    def __init__(self, directory: S3Url, s3: S3Config, *, most_bytes: int = MOST_BYTES) -> None:
        self._directory = directory
        self._s3 = s3
        self._most_bytes = most_bytes

    @classmethod
    def from_env(cls, url: str, env: Mapping[str, str]) -> Self:
        """Use a directory of the store that AWS_* and POIESIS_S3_* describe. Raise UnusableArchive."""
        try:
            directory, s3 = parse_s3(url), S3Config.from_env(env)
        except TransferError as error:
            raise UnusableArchive(f"POIESIS_RETENTION_ARCHIVE: {error}") from error
        if s3.access_key_id is None:
            raise UnusableArchive(
                "POIESIS_RETENTION_ARCHIVE needs AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )
        return cls(directory, s3)

    async def store(
        self, kind: Kind, tasks: Sequence[EndedTask], documents: AsyncGenerator[tuple[UUID, bytes], None]
    ) -> Sequence[EndedTask]:
        """Store one object with the documents of the first tasks, all of one day, and return these tasks.

        `documents`: pieces, in the order of `tasks`. The same tasks make the same object, so a batch may be
        repeated. Raise ArchiveUnavailable, or an error of `documents`.
        """
        with _errors(), TemporaryDirectory(prefix="poiesis-archive-") as directory:
            file = Path(directory) / "documents"
            async with aclosing(documents):
                last, complete = await self._write(file, documents)
            if last is None:
                return tasks  # deleted meanwhile
            stored = tasks if complete else _until(tasks, last)
            target = self._directory.with_key(self._directory.prefix + object_name(kind, stored))
            await self._upload(file, target)
        return stored

    async def _write(
        self, file: Path, documents: AsyncIterator[tuple[UUID, bytes]]
    ) -> tuple[UUID | None, bool]:
        """Write lines until there are enough bytes. Return the last task, and whether there is no other."""
        last: UUID | None = None
        size = 0
        with gzip.GzipFile(file, "wb", mtime=0) as lines:
            async for task_id, piece in documents:
                if task_id != last and last is not None:
                    lines.write(b"\n")
                    if size >= self._most_bytes:
                        return last, False
                last = task_id
                size += lines.write(piece)
            lines.write(b"\n")
        return last, True

    async def _upload(self, file: Path, target: S3Url) -> None:
        """Store a file, in a thread. If the caller is cancelled, the thread ends soon after."""
        with S3Stores(self._s3, retry=_RETRY) as stores:

            def upload() -> None:
                with SourceFile(str(file), file.name) as source, Progress(file.parent) as progress:
                    stores.upload(source, target, progress)

            try:
                await asyncio.to_thread(upload)
            except asyncio.CancelledError:
                stores.interrupt()
                raise


def object_name(kind: Kind, tasks: Sequence[EndedTask]) -> str:
    """Return kind/year/month/day/digest: the day (UTC) on which they ended, and a digest of their ids."""
    digest = hashlib.sha256(b"".join(task.id.bytes for task in tasks)).hexdigest()[:32]
    return f"{kind}/{tasks[0].day}/{digest}.jsonl.gz"


def _until(tasks: Sequence[EndedTask], last: UUID) -> Sequence[EndedTask]:
    ids = [task.id for task in tasks]
    return tasks[: ids.index(last) + 1]


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except (TransferError, OSError) as error:
        raise ArchiveUnavailable(str(error)) from error
