"""Inputs with `s3://` URLs: objects, and directories, which are all objects below a prefix.

Some clients send keys as they are, others send URLs with percent escapes (RFC 3986). So the literal key is
requested first and, if nothing is there, the decoded one. That costs a request only where the literal key
does not exist.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, TypeVar

from poiesis_models.paths import names_all
from poiesis_models.worklist import FileType, InputItem
from poiesis_tif.clients import Clients
from poiesis_tif.steps import Staging, Step, Target
from poiesis_transfer import pool
from poiesis_transfer.errors import Denied, NotFound, Permanent, writing
from poiesis_transfer.files import make_directories
from poiesis_transfer.progress import Progress
from poiesis_transfer.urls import S3Url, parse_s3

if TYPE_CHECKING:
    from poiesis_transfer import fetch
    from poiesis_transfer.s3 import S3Object
    from poiesis_transfer.stores import S3Stores

_MAYBE_ABSENT = (NotFound, Denied)
_Result = TypeVar("_Result")


class Kind(Enum):
    """What is at an S3 URL, according to the task."""

    FILE = "FILE"
    DIRECTORY = "DIRECTORY"
    UNKNOWN = "UNKNOWN"


_KINDS: Mapping[str | None, Kind] = {"FILE": Kind.FILE, "DIRECTORY": Kind.DIRECTORY, None: Kind.UNKNOWN}


def s3_input(target: Target, item: InputItem) -> Step:
    """Return the step for an input. Raise Permanent if its URL names no bucket."""
    return _input(target, parse_s3(item.url or ""), _KINDS[item.type])


def _input(target: Target, url: S3Url, kind: Kind) -> S3Input:
    names_directory = not url.key or url.key.endswith("/")
    return S3Input(target, url, Kind.DIRECTORY if names_directory else kind)


@dataclass(frozen=True)
class S3Input(Step):
    """An object, or all objects below a prefix."""

    url: S3Url
    kind: Kind

    @property
    def decoded(self) -> S3Input | None:
        """Return the same input with its key percent-decoded; None if that is no other key."""
        url = self.url.decoded
        return None if url is None else _input(self.target, url, self.kind)

    def read(self, clients: Clients, sink: fetch.Sink, progress: Progress) -> None:
        """Write the object at either key to `sink`."""
        self._at_either_key(lambda one: clients.s3.download(one.url, sink), progress)

    def stage(self, staging: Staging) -> FileType:
        """Stage the object or the directory at either key."""
        try:
            return self._at_either_key(lambda one: one._stage(staging), staging.progress)  # noqa: SLF001
        except NotFound as failure:
            for one in filter(None, (self, self.decoded)):
                one._check_type(staging.clients.s3, failure)  # noqa: SLF001
            raise

    def _at_either_key(self, attempt: Callable[[S3Input], _Result], progress: Progress) -> _Result:
        """Return the result of `attempt` for the literal key or, if nothing is there, for the decoded one.

        The use of the decoded key is recorded as a warning. If there is nothing at either, raise the error of
        the literal key with both keys in its message.
        """
        try:
            return attempt(self)
        except _MAYBE_ABSENT as failure:
            decoded = self.decoded
            if decoded is None:
                raise
            result = _at_decoded(decoded, attempt, failure)
            progress.warning(
                f"input {self.target.path}: nothing readable at {self.url}; "
                f"used its percent-decoded key instead: {decoded.url}"
            )
            return result

    def _stage(self, staging: Staging) -> FileType:
        """Return what is there. Raise NotFound if nothing is."""
        store = staging.clients.s3
        if self.kind is not Kind.DIRECTORY:
            try:
                self._object(self.url, self.target, staging)
            except NotFound:
                if self.kind is Kind.FILE or not store.is_directory(self.url):
                    raise
            else:
                return "FILE"
        self._directory(staging)
        return "DIRECTORY"

    def _check_type(self, store: S3Stores, failure: NotFound) -> None:
        """Raise Permanent if something of the other type is there."""
        url, path = self.url, self.target.path
        if self.kind is Kind.FILE and _holds(store.is_directory, url):
            raise Permanent(
                f"{failure}; there are objects below {url}/: declare input {path} as DIRECTORY"
            ) from failure
        names_object = url.key and not url.key.endswith("/")
        if self.kind is Kind.DIRECTORY and names_object and _holds(store.is_object, url):
            raise Permanent(f"{url} is an object, but input {path} is declared as DIRECTORY") from failure

    def _object(self, url: S3Url, target: Target, staging: Staging) -> None:
        with staging.destination(target) as destination:
            staging.clients.s3.download(url, destination)

    def _directory(self, staging: Staging) -> None:
        url = self.url
        found = 0

        def one(entry: S3Object) -> None:
            nonlocal found
            found += 1  # concurrent additions may count as one, which is enough to know that there are some
            self._member(entry, staging)

        try:
            pool.for_each(staging.clients.s3.list(url), one, interrupt=staging.clients.interrupt)
        except _MAYBE_ABSENT as failure:
            if found:  # the directory exists, and one object of it cannot be read
                raise Permanent(str(failure)) from failure
            raise
        if not found:
            raise NotFound(
                f"cannot read {url.with_key(url.prefix)} (input {self.target.path}): "
                "no objects with this prefix"
            )

    def _member(self, entry: S3Object, staging: Staging) -> None:
        relative = relative_path(entry.key, self.url.prefix)
        path = f"{self.target.path.rstrip('/')}/{relative}"
        local = self.target.local / relative
        if relative and not relative.endswith("/"):
            member = Target(local=local, path=path, number=self.target.number)
            self._object(self.url.with_key(entry.key), member, staging)
            return
        if entry.size:
            raise Permanent(
                f"cannot stage {self.url.with_key(entry.key)}: its key names a directory, but it has content"
            )
        with writing(path):
            make_directories(local)


def relative_path(key: str, prefix: str) -> str:
    """Return the path of an object below its directory. Raise Permanent if no file can have that name."""
    relative = key.removeprefix(prefix)
    if relative and ("\0" in relative or not names_all(relative.removesuffix("/"))):
        raise Permanent(f"cannot stage key {key!r} below {prefix!r}: a segment is empty, '.' or '..'")
    return relative


def _at_decoded(
    decoded: S3Input, attempt: Callable[[S3Input], _Result], literal: NotFound | Denied
) -> _Result:
    try:
        return attempt(decoded)
    except _MAYBE_ABSENT as failure:
        raise type(literal)(f"{literal}; with its percent escapes decoded: {failure}") from failure


def _holds(check: Callable[[S3Url], bool], url: S3Url) -> bool:
    """Return the result of `check`; False if access is denied, because the first failure explains more."""
    try:
        return check(url)
    except Permanent:
        return False
