"""Carry the work list out."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from poiesis_models.globs import join_url
from poiesis_models.worklist import InputItem, WorkList
from poiesis_rclone.daemon import Rclone, running
from poiesis_rclone.remotes import Place, Remote, parse, place_of, remote_of, secrets
from poiesis_staging.contents import stage_content
from poiesis_staging.outputs import Found, join_encoded, send_all
from poiesis_transfer import pool
from poiesis_transfer.config import Config
from poiesis_transfer.errors import NotFound, Passing, Permanent, Unsendable, writing
from poiesis_transfer.files import ANYONE_FILE, SourceFile, make_directories
from poiesis_transfer.progress import Progress
from poiesis_transfer.urls import shown

AT_ONCE = 8
_METER_SECONDS = 1.0
_NO_NAMES = {"", ".", ".."}


async def move(env: Mapping[str, str], config: Config, work: WorkList, progress: Progress) -> None:
    """Move all inputs and outputs; raise TransferError."""
    urls = [item.url for item in work.inputs if item.url is not None] + [item.url for item in work.outputs]
    if not urls:
        for number, item in enumerate(work.inputs):
            await stage_content(item, number, config.work_list.parent, progress)
        return
    file = Path(env.get("POIESIS_SECRET") or "/poiesis/secret") / "rclone.conf"
    remotes = parse(_text(file))
    for url in urls:
        place_of(url, remotes)  # before anything is moved
    async with running(file, config.run, list(secrets(remotes)), env) as rclone:
        meter = Meter(rclone, progress)
        mover = Mover(rclone, remotes, config.work_list.parent, progress, meter)
        async with meter.running():
            await pool.for_each(pool.as_async(enumerate(work.inputs)), mover.stage, at_once=AT_ONCE)
            await send_all(work.outputs, mover.send, progress, at_once=AT_ONCE, join=mover.join)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Permanent(
            "there is no rclone.conf in the filer's Secret, or it cannot be read: rclone.existingSecret"
        ) from error


class Meter:
    """Tells how many bytes have moved: rclone's count of those on their way, or the sizes of whole files."""

    def __init__(self, rclone: Rclone, progress: Progress) -> None:
        self._rclone = rclone
        self._progress = progress
        self._told = 0
        self._whole = 0

    def file(self, size: int) -> None:
        """One more file of so many bytes is where it belongs."""
        self._whole += size

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Tell every second, and at the end."""
        task = asyncio.create_task(self._watch(), name="meter")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
            self._tell(self._whole)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_METER_SECONDS)
            try:
                answer = await self._rclone.call("core/stats", "cannot tell what has moved")
            except Passing:  # rclone has ended: whoever waits for a file says so
                return
            self._tell(max(int(answer["bytes"]), self._whole))

    def _tell(self, count: int) -> None:
        self._progress.moved(count - self._told)
        self._told = count


@dataclass(frozen=True)
class Mover:
    """`contents`: where literal inputs lie."""

    rclone: Rclone
    remotes: tuple[Remote, ...]
    contents: Path
    progress: Progress
    meter: Meter

    async def stage(self, numbered: tuple[int, InputItem]) -> None:
        """One input; raise TransferError."""
        number, item = numbered
        if item.url is None:
            await stage_content(item, number, self.contents, self.progress)
            return
        place = place_of(item.url, self.remotes)
        if await self._is_directory(item, place):
            await self._directory(item, place, number)
        else:
            await self._file(place, f"{shown(item.url)}", Path(item.local), item.path, number)

    async def _is_directory(self, item: InputItem, place: Place) -> bool:
        """Raise NotFound, and Permanent if it is not of the type that the input has."""
        what = f"cannot read {shown(item.url or '')}"
        if not place.path:
            if item.type == "FILE":
                raise Permanent(f"{what}: it is a directory, but the input {item.path} is declared as FILE")
            return True
        answer = await self.rclone.call("operations/stat", what, fs=place.fs, remote=place.path)
        found = answer["item"]
        if found is None:
            raise NotFound(f"{what} (input {item.path}): there is nothing by that name")
        directory = bool(found["IsDir"])
        if item.type == "FILE" and directory:
            raise Permanent(f"{what}: it is a directory, but the input {item.path} is declared as FILE")
        if not directory and (item.type == "DIRECTORY" or place.directory):
            raise Permanent(f"{what}: it is a file, but the input {item.path} is declared as DIRECTORY")
        return directory

    async def _directory(self, item: InputItem, place: Place, number: int) -> None:
        url = shown(item.url or "").rstrip("/")
        answer = await self.rclone.call(
            "operations/list",
            f"cannot list {url}",
            fs=place.fs,
            remote=place.path,
            opt={"recurse": True, "noMimeType": True, "noModTime": True},
        )
        with writing(item.path):
            await pool.in_thread(make_directories, Path(item.local))

        async def one(entry: dict[str, Any]) -> None:
            name = str(entry["Path"]).removeprefix(f"{place.path}/" if place.path else "")
            if any(segment in _NO_NAMES for segment in name.split("/")):
                raise Permanent(f"cannot stage {url}/{name}: a segment of its name is empty, '.' or '..'")
            local, path = Path(item.local, name), f"{item.path.rstrip('/')}/{name}"
            if entry["IsDir"]:
                with writing(path):
                    await pool.in_thread(make_directories, local)
            else:
                await self._file(place.below(name), f"{url}/{name}", local, path, number)

        await pool.for_each(pool.as_async(answer["list"]), one, at_once=AT_ONCE)

    async def _file(self, place: Place, url: str, local: Path, path: str, number: int) -> None:
        """rclone writes beside the file, which then gets its name and may be used by any uid."""
        digest = hashlib.sha256(f"{number} {local.name}".encode()).hexdigest()
        aside = local.with_name(f".poiesis-{digest[:20]}")
        with writing(path):
            await pool.in_thread(make_directories, local.parent)
        await self.rclone.call(
            "operations/copyfile",
            f"cannot fetch {url} (input {path})",
            srcFs=place.fs,
            srcRemote=place.path,
            dstFs=str(local.parent),
            dstRemote=aside.name,
        )
        with writing(path):
            size = await pool.in_thread(_publish, aside, local)
        self.meter.file(size)
        self.progress.file_done()

    def join(self, url: str, relative: str) -> str:
        """The URL of what is below a directory: keys are literal, paths on a host percent-encoded."""
        on_host = remote_of(url, self.remotes).authority is not None
        return join_encoded(url, relative) if on_host else join_url(url, relative)

    async def send(self, found: Found) -> int:
        """The size in bytes; raise TransferError."""
        place = place_of(found.url, self.remotes)
        if not place.path:
            raise Unsendable(
                f"output {found.path} is a file, but its URL {shown(found.url)} names a directory"
            )
        async with SourceFile(found.local, found.path) as source:
            await self.rclone.call(
                "operations/copyfile",
                f"cannot send {found.path} to {shown(found.url)}",
                srcFs="/",
                srcRemote=found.local.lstrip("/"),
                dstFs=place.fs,
                dstRemote=place.path,
            )
            await source.check_size()
            self.meter.file(source.size)
            return source.size


def _publish(aside: Path, local: Path) -> int:
    aside.chmod(ANYONE_FILE)
    aside.replace(local)
    return local.stat().st_size
