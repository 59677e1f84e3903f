"""Transfer all files of the work list with rclone."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from poiesis_models import paths
from poiesis_models.globs import join_url
from poiesis_models.worklist import InputItem, WorkList, waves
from poiesis_rclone.answers import opening_failure
from poiesis_rclone.daemon import Rclone, running
from poiesis_rclone.remotes import Place, Remote, is_plain, parse, place_of, remote_of, secrets
from poiesis_staging.outputs import Found, join_encoded, send_all
from poiesis_transfer import pool
from poiesis_transfer.config import Config
from poiesis_transfer.contents import stage_content
from poiesis_transfer.errors import NotFound, Permanent, TransferError, Unsendable, writing
from poiesis_transfer.files import ANYONE_FILE, Destination, SourceFile, make_directories, name_aside
from poiesis_transfer.free_space import FreeSpace
from poiesis_transfer.progress import Progress
from poiesis_transfer.urls import shown

CONCURRENCY = 8
_METER_SECONDS = 1.0
_STATS_SECONDS = 10  # rclone runs in the same container


def move(env: Mapping[str, str], config: Config, work: WorkList, progress: Progress) -> None:
    """Transfer all inputs and outputs. Raise TransferError."""
    file = Path(env.get("POIESIS_SECRET") or paths.SECRET) / "rclone.conf"
    urls = [item.url for item in work.inputs if item.url is not None] + [item.url for item in work.outputs]
    remotes = parse(_text(file)) if urls else ()
    stores = {place_of(url, remotes).fs: url for url in urls}  # before any transfer
    free_space = FreeSpace(config.disk_bytes)
    if urls:
        with running(file, config.run, list(secrets(remotes)), env) as rclone:
            _open(rclone, stores)
            _move(rclone, remotes, free_space, work, progress)
    for number, item in enumerate(work.inputs):  # last: a file replaces one that came with a directory
        if item.content_file is not None:
            destination = Destination(
                Path(item.local), item.path, progress, free_space=free_space, owner=number
            )
            stage_content(config.work_list.parent / item.content_file, destination)
            progress.found(item, "FILE")


def _move(
    rclone: Rclone, remotes: tuple[Remote, ...], free_space: FreeSpace, work: WorkList, progress: Progress
) -> None:
    meter = Meter(rclone, progress)
    mover = Mover(rclone, remotes, free_space, progress, meter)
    with meter.running():
        for wave in waves(work.inputs):
            given = ((number, work.inputs[number]) for number in wave if work.inputs[number].url is not None)
            pool.for_each(given, mover.stage, concurrency=CONCURRENCY, interrupt=rclone.interrupt)
        send_all(
            work.outputs,
            mover.send,
            progress,
            concurrency=CONCURRENCY,
            interrupt=rclone.interrupt,
            join=mover.join,
        )


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Permanent(
            "there is no rclone.conf in the filer's Secret, or it cannot be read: storage.rclone.secretName"
        ) from error


def _open(rclone: Rclone, stores: Mapping[str, str]) -> None:
    """Open all stores, one after the other. `stores`: rclone's `fs` -> a URL in it.

    Concurrent first calls for one store would each open it. Both might then create the same directory, and
    the later one would fail.
    """
    for fs, url in stores.items():
        what = f"cannot open the store of {shown(url)}"
        rclone.call("operations/fsinfo", what, meaning=opening_failure, fs=fs)


class Meter:
    """Reports transferred bytes: the larger of rclone's count and the sizes of complete files."""

    def __init__(self, rclone: Rclone, progress: Progress) -> None:
        self._rclone = rclone
        self._progress = progress
        self._reported = 0
        self._whole = 0
        self._lock = threading.Lock()

    def file(self, size: int) -> None:
        """Count a complete file of `size` bytes."""
        with self._lock:
            self._whole += size

    @contextmanager
    def running(self) -> Iterator[None]:
        """Report every second, and at the end."""
        over = threading.Event()
        watch = threading.Thread(target=self._watch, args=(over,), name="meter", daemon=True)
        watch.start()
        try:
            yield
        finally:
            over.set()
            watch.join()
            self._report(self._whole)

    def _watch(self, over: threading.Event) -> None:
        what = "cannot read the number of bytes transferred"
        while not over.wait(_METER_SECONDS):
            try:
                answer = self._rclone.call("core/stats", what, timeout=_STATS_SECONDS)
            except (TransferError, pool.Cancelled):  # rclone has exited, which the transfers report
                return
            self._report(max(int(answer["bytes"]), self._whole))

    def _report(self, count: int) -> None:
        self._progress.moved(count - self._reported)
        self._reported = count


@dataclass(frozen=True)
class _Source:
    """A file to stage. `url` is for messages; `size` is -1 if the store does not report it."""

    place: Place
    url: str
    size: int

    @property
    def bytes(self) -> int:
        """Return the known size, 0 if unknown."""
        return max(self.size, 0)


@dataclass(frozen=True)
class Mover:
    """Transfers one input or output file per call. Calls may be concurrent."""

    rclone: Rclone
    remotes: tuple[Remote, ...]
    free_space: FreeSpace
    progress: Progress
    meter: Meter

    def stage(self, numbered: tuple[int, InputItem]) -> None:
        """Stage one input. Raise TransferError."""
        number, item = numbered
        url = item.url or ""
        place = place_of(url, self.remotes)
        size = self._size(item, place)
        if size is None:
            self._directory(item, place, number)
        else:
            self._file(_Source(place, shown(url), size), Path(item.local), item.path, number)
        self.progress.found(item, "DIRECTORY" if size is None else "FILE")

    def _size(self, item: InputItem, place: Place) -> int | None:
        """Return the size in bytes (-1: not reported by the store), None for a directory.

        Raise NotFound, or Permanent if it does not have the type of the input.
        """
        what = f"cannot read {shown(item.url or '')}"
        if not place.path:
            if item.type == "FILE":
                raise Permanent(f"{what}: it is a directory, but input {item.path} is declared as FILE")
            return None
        answer = self.rclone.call("operations/stat", what, fs=place.fs, remote=place.path)
        found = answer["item"]
        if found is None:
            raise NotFound(f"{what} (input {item.path}): not found")
        directory = bool(found["IsDir"])
        if item.type == "FILE" and directory:
            raise Permanent(f"{what}: it is a directory, but input {item.path} is declared as FILE")
        if not directory and (item.type == "DIRECTORY" or place.directory):
            raise Permanent(f"{what}: it is a file, but input {item.path} is declared as DIRECTORY")
        return None if directory else int(found["Size"])

    def _directory(self, item: InputItem, place: Place, number: int) -> None:
        url = shown(item.url or "").rstrip("/")
        answer = self.rclone.call(
            "operations/list",
            f"cannot list {url}",
            fs=place.fs,
            remote=place.path,
            opt={"recurse": True, "noMimeType": True, "noModTime": True},
        )
        with writing(item.path):
            make_directories(Path(item.local))

        def one(entry: dict[str, Any]) -> None:
            name = str(entry["Path"]).removeprefix(f"{place.path}/" if place.path else "")
            if not is_plain(name):
                raise Permanent(
                    f"cannot stage {url}/{name}: a segment of its name is empty, '.' or '..', "
                    "or decoded as one by rclone"
                )
            local, path = Path(item.local, name), f"{item.path.rstrip('/')}/{name}"
            if entry["IsDir"]:
                with writing(path):
                    make_directories(local)
            else:
                source = _Source(place.below(name), f"{url}/{name}", int(entry["Size"]))
                self._file(source, local, path, number)

        pool.for_each(answer["list"], one, concurrency=CONCURRENCY, interrupt=self.rclone.interrupt)

    def _file(self, source: _Source, local: Path, path: str, number: int) -> None:
        """Stage one file:

        rclone writes it under a temporary name, then it is renamed and opened to all users.
        """
        aside = local.with_name(name_aside(local.name, owner=number))
        with writing(path):
            make_directories(local.parent)
            local.unlink(missing_ok=True)  # left by an earlier start; the volume need not hold both
            self.free_space.take(source.bytes, local.parent, path)
        self.rclone.call(
            "operations/copyfile",
            f"cannot fetch {source.url} (input {path})",
            srcFs=source.place.fs,
            srcRemote=source.place.path,
            dstFs=str(local.parent),
            dstRemote=aside.name,
        )
        with writing(path):
            size = _publish(aside, local)
        self.free_space.written(source.bytes)
        self.meter.file(size)
        self.progress.file_done()

    def join(self, url: str, relative: str) -> str:
        """Return the URL of a member of a directory: keys are literal, paths on a host percent-encoded."""
        on_host = remote_of(url, self.remotes).authority is not None
        return join_encoded(url, relative) if on_host else join_url(url, relative)

    def send(self, found: Found) -> int:
        """Send one output file and return its size in bytes. Raise TransferError."""
        try:
            place = place_of(found.url, self.remotes)
        except (
            Permanent
        ) as failure:  # because of the name of this file: the URL of the output was checked before
            raise Unsendable(str(failure)) from failure
        if not place.path:
            raise Unsendable(
                f"output {found.path} is a file, but its URL {shown(found.url)} names a directory"
            )
        with SourceFile(found.local, found.path) as source:
            self.rclone.call(
                "operations/copyfile",
                f"cannot send {found.path} to {shown(found.url)}",
                srcFs="/",
                srcRemote=found.local.lstrip("/"),
                dstFs=place.fs,
                dstRemote=place.path,
            )
            source.check_size()
            self.meter.file(source.size)
            return source.size


def _publish(aside: Path, local: Path) -> int:
    aside.chmod(ANYONE_FILE)
    aside.replace(local)
    return local.stat().st_size
