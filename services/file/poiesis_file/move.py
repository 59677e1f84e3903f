"""Copy all files of the work list."""

import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from poiesis_file.volumes import Volumes, in_volume
from poiesis_models.globs import join_url
from poiesis_models.worklist import InputItem, WorkList, waves
from poiesis_staging.outputs import Empty, Finding, Found, Note, Refusal, join_encoded, send_all, walk
from poiesis_transfer import pool
from poiesis_transfer.config import Config
from poiesis_transfer.contents import stage_content
from poiesis_transfer.errors import Permanent, Retryable, Unsendable, writing
from poiesis_transfer.files import READ_BLOCK, Destination, SourceFile, make_directories, name_aside
from poiesis_transfer.free_space import FreeSpace
from poiesis_transfer.progress import Progress

CONCURRENCY = 4  # more concurrency seldom makes one file system faster


def move(env: Mapping[str, str], config: Config, work: WorkList, progress: Progress) -> None:
    """Copy all inputs and outputs. Raise TransferError."""
    copy_all(Volumes.from_env(env), config, work, progress)


def copy_all(volumes: Volumes, config: Config, work: WorkList, progress: Progress) -> None:
    """Check all URLs, then copy all inputs and outputs. Raise TransferError."""
    for item in work.inputs:
        if item.url is not None:
            volumes.path(item.url)
    for output in work.outputs:
        volumes.path(output.url, writing=True)
    stager = Stager(volumes, config, progress)
    for wave in waves(work.inputs):
        pool.for_each(((index, work.inputs[index]) for index in wave), stager.stage, concurrency=CONCURRENCY)
    send_all(work.outputs, Sender(volumes, progress).send, progress, concurrency=CONCURRENCY, join=join)


def join(url: str, relative: str) -> str:
    """Return the URL of a member of a directory. A bare path is literal, others are percent-encoded."""
    return join_url(url, relative) if url.startswith("/") else join_encoded(url, relative)


class Stager:
    """Copies inputs."""

    def __init__(self, volumes: Volumes, config: Config, progress: Progress) -> None:
        self._volumes = volumes
        self._contents = config.work_list.parent
        self._progress = progress
        self._free_space = FreeSpace(config.disk_bytes)

    def stage(self, numbered: tuple[int, InputItem]) -> None:
        """Stage one input. Raise TransferError."""
        number, item = numbered
        if item.url is None:
            destination = self._destination(Path(item.local), item.path, number)
            stage_content(self._contents / (item.content_file or ""), destination)
            self._progress.found(item, "FILE")
            return
        path = self._volumes.path(item.url)
        place = self._volumes.find(path)
        directory = stat.S_ISDIR(place.mode)
        if item.type == "FILE" and directory:
            raise Permanent(f"{path} is a directory, but input {item.path} is declared as FILE")
        if not directory and (item.type == "DIRECTORY" or item.url.endswith("/")):
            raise Permanent(f"{path} is a file, but input {item.path} is declared as DIRECTORY")
        if not directory:
            self._copy(path, place.real, Path(item.local), item.path, number)
            self._progress.found(item, "FILE")
            return
        with writing(item.path):
            make_directories(Path(item.local))

        def one(finding: Finding) -> None:
            self._member(finding, item, path, number)

        found = walk(self._volumes.tree, path, place, "")
        pool.for_each(found, one, concurrency=CONCURRENCY)
        self._progress.found(item, "DIRECTORY")

    def _member(self, finding: Finding, item: InputItem, path: str, number: int) -> None:
        match finding:
            case Note(message):
                self._progress.warning(message)
            case Refusal(error):
                raise Permanent(str(error)) from error
            case Empty(where):
                with writing(item.path + where.removeprefix(path)):
                    make_directories(Path(item.local + where.removeprefix(path)))
            case Found(where, local, _):
                below = where.removeprefix(path)
                real = local.removeprefix(str(self._volumes.root))
                if not self._volumes.holds(real):
                    self._progress.warning(f"{where} leads out of the shared volumes; left out")
                    return
                self._copy(where, real, Path(item.local + below), item.path + below, number)

    def _copy(self, path: str, real: str, local: Path, target: str, number: int) -> None:
        with in_volume(path):
            fd = self._volumes.open(real)
        try:
            before = os.fstat(fd)
            if not stat.S_ISREG(before.st_mode):
                raise Permanent(f"{path} is not a regular file")
            with self._destination(local, target, number) as destination:
                destination.announce(before.st_size)
                for offset in range(0, before.st_size, READ_BLOCK):
                    pool.check()
                    with in_volume(path):
                        data = os.pread(fd, READ_BLOCK, offset)
                    destination.write(data, offset)
                after = os.fstat(fd)
                if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
                    raise Retryable(f"{path} changed while it was copied")
                destination.keep(before.st_size, modified=before.st_mtime)
        finally:
            os.close(fd)

    def _destination(self, local: Path, path: str, number: int) -> Destination:
        return Destination(local, path, self._progress, free_space=self._free_space, owner=number)


class Sender:
    """Copies outputs; each gets its name when it is complete."""

    def __init__(self, volumes: Volumes, progress: Progress) -> None:
        self._volumes = volumes
        self._progress = progress

    def send(self, found: Found) -> int:
        """Copy one output file and return its size in bytes. Raise TransferError."""
        path = self._volumes.path(found.url, writing=True)
        folder, _, name = path.rpartition("/")
        aside = name_aside(name)
        with (
            SourceFile(found.local, found.path) as source,
            in_volume(path),
            self._volumes.directory(folder, make=True) as directory,
        ):
            try:
                self._write(source, directory, aside)
                _publish(directory, aside, name, path)
            finally:
                with suppress(FileNotFoundError):  # it was renamed
                    os.unlink(aside, dir_fd=directory)
            return source.size

    def _write(self, source: SourceFile, directory: int, aside: str) -> None:
        fd = _create(directory, aside)
        try:
            for data in source.blocks(0, source.size):
                pool.check()
                _write_all(fd, data)
                self._progress.moved(len(data))
            source.check_size()
            os.fsync(fd)
        finally:
            os.close(fd)


def _create(directory: int, aside: str) -> int:
    """Create a file, replacing one that a killed filer left."""
    with suppress(FileNotFoundError):
        os.unlink(aside, dir_fd=directory)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(aside, flags, 0o664, dir_fd=directory)
    os.fchmod(fd, 0o664)
    return fd


def _publish(directory: int, aside: str, name: str, path: str) -> None:
    try:
        os.rename(aside, name, src_dir_fd=directory, dst_dir_fd=directory)
    except IsADirectoryError as error:
        raise Unsendable(f"{path} is a directory, expected a file") from error


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
