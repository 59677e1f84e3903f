"""Carry the plan out. What an input does not need is not loaded: it would be a part of every task's start."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from poiesis_models.worklist import FileType, WorkList, waves
from poiesis_tif.keys import MAYBE_ABSENT, at_either_key
from poiesis_tif.plan import Content, Kind, Page, Step, Stored, Target, plan, relative_path
from poiesis_transfer import pool
from poiesis_transfer.config import Config, S3Config
from poiesis_transfer.contents import stage_content
from poiesis_transfer.errors import NotFound, Permanent, writing
from poiesis_transfer.files import Landing, make_directories
from poiesis_transfer.progress import Progress
from poiesis_transfer.room import Room
from poiesis_transfer.urls import S3Url

if TYPE_CHECKING:
    from poiesis_transfer.s3 import S3Object
    from poiesis_transfer.stores import S3Stores
    from poiesis_transfer.web import Web


def stage(config: Config, work: WorkList, progress: Progress) -> None:
    """Stage every input; raise TransferError."""
    steps = plan(work.inputs)
    with ExitStack() as stack:
        sources = sources_of(config, steps, stack)
        stager = Stager(
            sources=sources,
            contents=config.work_list.parent,
            progress=progress,
            room=Room(config.disk_bytes),
        )

        def one(index: int) -> None:
            progress.found(work.inputs[index], stager.stage(steps[index]))

        for wave in waves(work.inputs):
            pool.for_each(wave, one, interrupt=sources.interrupt)


@dataclass(frozen=True)
class Sources:
    """None where no input needs it."""

    web: Web | None
    s3: S3Stores | None

    def interrupt(self) -> None:
        """Nobody waits for the network any more."""
        if self.web is not None:
            self.web.interrupt()
        if self.s3 is not None:
            self.s3.interrupt()


def sources_of(config: Config, steps: list[Step], stack: ExitStack) -> Sources:
    """What the steps need; closed with the stack."""
    kinds = {type(step) for step in steps}
    web: Web | None = None
    store: S3Stores | None = None
    slots = pool.slots()
    if Page in kinds:
        from poiesis_transfer.web import Web

        web = Web(allowed=config.allowed, trusted=_trusted(config.s3), slots=slots)
        stack.callback(web.close)
    if Stored in kinds:
        from poiesis_transfer.stores import S3Stores

        store = stack.enter_context(S3Stores(config.s3, config.credentials, slots=slots))
    return Sources(web, store)


def _trusted(config: S3Config) -> frozenset[tuple[str, int]]:
    """The operator's own storage: users may have URLs of it that are signed."""
    from poiesis_transfer.web import Url

    if config.endpoint_url is None:
        return frozenset()
    url = Url.parse(config.endpoint_url)
    return frozenset({(url.host, url.port)})


@dataclass(frozen=True, kw_only=True)
class Stager:
    """Stages one input at a time; many may run at once."""

    sources: Sources
    contents: Path
    progress: Progress
    room: Room

    def stage(self, step: Step) -> FileType:
        """Return what the input is. Raise TransferError."""
        match step, self.sources:
            case Content(), _:
                stage_content(self.contents / step.name, self._landing(step.target))
                return "FILE"
            case Page(), Sources(web=web) if web is not None:
                from poiesis_transfer.pages import fetch_page

                with self._landing(step.target) as landing:
                    fetch_page(web, step.url, landing)
                return "FILE"
            case Stored(), Sources(s3=store) if store is not None:
                return self._stored(step, store)
            case _:
                raise AssertionError(step)

    def _stored(self, step: Stored, store: S3Stores) -> FileType:
        try:
            return at_either_key(step, lambda one: self._at(one, store), self.progress)
        except NotFound as failure:
            for one in filter(None, (step, step.decoded)):
                self._check_type(one, store, failure)
            raise

    def _at(self, step: Stored, store: S3Stores) -> FileType:
        """Return what is there. Raise NotFound if nothing is."""
        if step.kind is not Kind.DIRECTORY:
            try:
                self._object(step.url, step.target, store)
            except NotFound:
                if step.kind is Kind.FILE or not store.is_directory(step.url):
                    raise
            else:
                return "FILE"
        self._directory(step.url, step.target, store)
        return "DIRECTORY"

    def _check_type(self, step: Stored, store: S3Stores, failure: NotFound) -> None:
        """Raise Permanent if something of the other type is there."""
        url, path = step.url, step.target.path
        if step.kind is Kind.FILE and _answers(store.is_directory, url):
            raise Permanent(
                f"{failure}; there are objects below {url}/: declare the input {path} as DIRECTORY"
            ) from failure
        names_object = url.key and not url.key.endswith("/")
        if step.kind is Kind.DIRECTORY and names_object and _answers(store.is_object, url):
            raise Permanent(f"{url} is an object, but the input {path} is declared as DIRECTORY") from failure

    def _object(self, url: S3Url, target: Target, store: S3Stores) -> None:
        with self._landing(target) as landing:
            store.download(url, landing)

    def _directory(self, url: S3Url, target: Target, store: S3Stores) -> None:
        found = 0

        def one(entry: S3Object) -> None:
            nonlocal found
            found += 1  # whoever adds at the same time counts one of them, which is enough
            self._member(url, entry, target, store)

        try:
            pool.for_each(store.list(url), one, interrupt=self.sources.interrupt)
        except MAYBE_ABSENT as failure:
            if found:  # one object of it cannot be read: the directory is there
                raise Permanent(str(failure)) from failure
            raise
        if not found:
            raise NotFound(
                f"cannot read {url.with_key(url.prefix)} (input {target.path}): there are no objects below it"
            )

    def _member(self, url: S3Url, entry: S3Object, target: Target, store: S3Stores) -> None:
        relative = relative_path(entry.key, url.prefix)
        path = f"{target.path.rstrip('/')}/{relative}"
        if not relative or relative.endswith("/"):
            if entry.size:
                raise Permanent(
                    f"cannot stage {url.with_key(entry.key)}: its key names a directory, but it has content"
                )
            with writing(path):
                make_directories(target.local / relative)
            return
        member = Target(local=target.local / relative, path=path, number=target.number)
        self._object(url.with_key(entry.key), member, store)

    def _landing(self, target: Target) -> Landing:
        return Landing(target.local, target.path, self.progress, room=self.room, owner=target.number)


def _answers(question: Callable[[S3Url], bool], url: S3Url) -> bool:
    """False also where asking is not allowed: the failure that led here is then all that is known."""
    try:
        return question(url)
    except Permanent:
        return False
