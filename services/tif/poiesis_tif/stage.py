"""Carry the plan out. aiohttp and botocore, most of a filer's start, are loaded where an input needs them."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from poiesis_models.worklist import WorkList
from poiesis_tif.plan import Content, Kind, Page, Step, Stored, Target, plan, relative_path
from poiesis_transfer import pool
from poiesis_transfer.config import Config
from poiesis_transfer.errors import NotFound, Permanent, writing
from poiesis_transfer.files import Landing, make_directories
from poiesis_transfer.progress import Progress
from poiesis_transfer.urls import S3Url

if TYPE_CHECKING:
    from poiesis_transfer.s3 import S3Object, S3Store
    from poiesis_transfer.web import Web


async def stage(config: Config, work: WorkList, progress: Progress) -> None:
    """Stage every input; raise TransferError."""
    steps = plan(work.inputs)
    async with AsyncExitStack() as stack:
        sources = await _sources(config, steps, stack)
        stager = Stager(sources=sources, contents=config.work_list.parent, progress=progress)
        await pool.for_each(pool.as_async(steps), stager.stage)


@dataclass(frozen=True)
class Sources:
    """None where no input needs it."""

    web: Web | None
    s3: S3Store | None


async def _sources(config: Config, steps: list[Step], stack: AsyncExitStack) -> Sources:
    kinds = {type(step) for step in steps}
    if not kinds & {Page, Stored}:
        return Sources(None, None)
    from poiesis_transfer.web import Web

    web = await stack.enter_async_context(Web.open())
    if Stored not in kinds:
        return Sources(web, None)
    from poiesis_transfer.s3 import S3Store

    return Sources(web, await stack.enter_async_context(S3Store.open(config.s3, web)))


@dataclass(frozen=True, kw_only=True)
class Stager:
    """Stages one input at a time; many may run at once."""

    sources: Sources
    contents: Path
    progress: Progress

    async def stage(self, step: Step) -> None:
        """Raise TransferError."""
        match step, self.sources:
            case Content(), _:
                await self._content(step)
            case Page(), Sources(web=web) if web is not None:
                async with self._landing(step.target) as landing:
                    await web.fetch(step.url, landing)
            case Stored(), Sources(s3=store) if store is not None:
                await self._stored(step, store)
            case _:
                raise AssertionError(step)

    async def _content(self, step: Content) -> None:
        try:
            data = (self.contents / step.name).read_bytes()
        except OSError as error:
            raise Permanent(
                f"cannot read the content of input {step.target.path}: {error.strerror}"
            ) from error
        async with self._landing(step.target) as landing:
            await landing.write(data, 0)
            await landing.keep(len(data))

    async def _stored(self, step: Stored, store: S3Store) -> None:
        match step.kind:
            case Kind.FILE:
                await self._file(step.url, step.target, store)
            case Kind.DIRECTORY:
                await self._directory(step.url, step.target, store)
            case Kind.UNKNOWN:
                try:
                    await self._object(step.url, step.target, store)
                except NotFound:
                    if not await store.is_directory(step.url):
                        raise
                    await self._directory(step.url, step.target, store)

    async def _file(self, url: S3Url, target: Target, store: S3Store) -> None:
        try:
            await self._object(url, target, store)
        except NotFound as failure:
            if await self._is_directory(url, store):
                raise Permanent(
                    f"{failure}; there are objects below {url}/: declare the input {target.path} as DIRECTORY"
                ) from failure
            raise

    async def _is_directory(self, url: S3Url, store: S3Store) -> bool:
        """False also where listing is not allowed: that there is no object is then all there is to say."""
        try:
            return await store.is_directory(url)
        except Permanent:
            return False

    async def _object(self, url: S3Url, target: Target, store: S3Store) -> None:
        async with self._landing(target) as landing:
            await store.download(url, landing)

    async def _directory(self, url: S3Url, target: Target, store: S3Store) -> None:
        found = 0

        async def one(entry: S3Object) -> None:
            nonlocal found
            found += 1
            await self._member(url, entry, target, store)

        await pool.for_each(store.list(url), one)
        if not found:
            if url.key and not url.key.endswith("/") and await store.is_object(url):
                raise Permanent(f"{url} is an object, but the input {target.path} is declared as DIRECTORY")
            raise NotFound(
                f"cannot read {url.with_key(url.prefix)} (input {target.path}): there are no objects below it"
            )

    async def _member(self, url: S3Url, entry: S3Object, target: Target, store: S3Store) -> None:
        relative = relative_path(entry.key, url.prefix)
        path = f"{target.path.rstrip('/')}/{relative}"
        if not relative or relative.endswith("/"):
            if entry.size:
                raise Permanent(
                    f"cannot stage {url.with_key(entry.key)}: its key names a directory, but it has content"
                )
            with writing(path):
                await pool.in_thread(make_directories, target.local / relative)
            return
        member = Target(local=target.local / relative, path=path, number=target.number)
        await self._object(url.with_key(entry.key), member, store)

    def _landing(self, target: Target) -> Landing:
        return Landing(target.local, target.path, self.progress, owner=target.number)
