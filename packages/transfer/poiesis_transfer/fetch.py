"""One engine for everything that HTTP can fetch: plain pages, signed URLs and objects of S3.

The first request is for the whole: its answer says how long the body is, which version it is and what its
checksum is. A short body is read from it. Of a long one it gives the first part, and the others come at
the same time by ranges that hold for that version alone, each written to its place. A transfer that breaks
goes on where it was; an object that changed begins anew, unless its bytes went where none can be taken back.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from http.client import HTTPResponse
from typing import Protocol

from poiesis_transfer import checksums, pool
from poiesis_transfer.checksums import Expected, Running
from poiesis_transfer.errors import Changed, Retryable, Permanent, TransferError
from poiesis_transfer.files import READ_BLOCK, Buffer
from poiesis_transfer.retry import Retry
from poiesis_transfer.web import translated

MIB = 1024 * 1024
WHOLE_BYTES = 64 * MIB  # moved by one request; anything longer in parts
PART_BYTES = 32 * MIB
PARALLEL_PARTS = 8
_OK, _PARTIAL, _UNMET, _OUT_OF_RANGE = 200, 206, 412, 416
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


class Source(Protocol):
    """Something that can be asked for, whole or in parts. `what` begins messages."""

    @property
    def what(self) -> str: ...

    def get(self, headers: Mapping[str, str]) -> AbstractContextManager[HTTPResponse]:
        """One request; redirects are followed, if at all."""

    def failure(self, answer: HTTPResponse) -> TransferError:
        """What a status other than success means."""

    def version(self, answer: HTTPResponse) -> "Version":
        """What the first answer says of the whole."""


class Sink(Protocol):
    """Where the bytes go: a `Destination`, for one. All but `path` and `in_order` may raise TransferError.

    `in_order`: each byte follows the one before it, and none can be taken back.
    """

    path: str
    in_order: bool

    def empty(self) -> None:
        """Begin again."""

    def announce(self, size: int) -> None:
        """So many bytes will come."""

    def write(self, data: Buffer, offset: int) -> None:
        """They belong there."""

    def blocks(self) -> Iterator[bytes]:
        """What has been written, from the beginning; not asked of one that is `in_order`."""

    def keep(self, size: int | None = None, *, modified: float | None = None) -> None:
        """All has come, and it is right."""


@dataclass(frozen=True, kw_only=True)
class Version:
    """One state of an object. `condition` makes a range hold for it alone; None: it has no ranges."""

    size: int | None
    tag: str | None
    condition: Mapping[str, str] | None
    expected: Expected | None = None
    modified: float | None = None


@dataclass
class Part:
    """Bytes `start` to `stop`; the first `done` of them are in the file. Without `stop`, to the end."""

    start: int
    stop: int | None
    done: int = 0
    running: Running | None = field(default=None, repr=False)

    @property
    def position(self) -> int:
        """Where the next byte belongs."""
        return self.start + self.done


def fetch(source: Source, destination: Sink, retry: Retry) -> None:
    """The object, whole and right, becomes the destination's file. Raise TransferError."""
    retry.call(lambda: _fetch_once(source, destination, retry))


def _fetch_once(source: Source, destination: Sink, retry: Retry) -> None:
    transfer = _Transfer(source, destination, retry)
    try:
        transfer.run()
    except Retryable as failure:
        if destination.in_order and transfer.done:
            raise Permanent(f"{failure}; cannot retry: part of it has already been streamed") from failure
        raise


class _Transfer:
    """One version of the object."""

    def __init__(self, source: Source, destination: Sink, retry: Retry) -> None:
        self._source = source
        self._destination = destination
        self._retry = retry
        self._parts: list[Part] = []

    @property
    def done(self) -> int:
        """Bytes that have been written."""
        return sum(part.done for part in self._parts)

    def run(self) -> None:
        self._destination.empty()
        with ExitStack() as first:
            answer = first.enter_context(self._source.get({}))
            self._check_status(answer)
            version = self._source.version(answer)
            if version.size is not None:
                self._destination.announce(version.size)
            parts = self._parts = _parts(version, in_order=self._destination.in_order)
            for part in parts:
                part.running = _running(version, len(parts))
            self._receive(parts, version, answer, first)
        self._check(parts, version)
        self._destination.keep(version.size, modified=version.modified)

    def _check_status(self, answer: HTTPResponse) -> None:
        if answer.status != _OK:
            raise self._source.failure(answer)

    def _receive(self, parts: list[Part], version: Version, answer: HTTPResponse, first: ExitStack) -> None:
        """The first part comes from the answer that is here; it is given back as soon as that is read."""

        def receive(part: Part) -> None:
            if part.start == 0:
                try:
                    self._pour(answer, part)
                except Retryable:
                    if version.condition is None:
                        raise
                finally:
                    first.close()
            if part.position != part.stop:
                self._retry.call(lambda: self._range(part, version), so_far=lambda: part.done)

        if len(parts) == 1:
            receive(parts[0])
        else:
            pool.for_each(parts, receive, concurrency=PARALLEL_PARTS)

    def _range(self, part: Part, version: Version) -> None:
        what = self._source.what
        stop, condition = part.stop or 0, version.condition or {}
        headers = {"range": f"bytes={part.position}-{stop - 1}", **condition}
        with self._source.get(headers) as answer:
            if answer.status in {_OK, _UNMET, _OUT_OF_RANGE}:
                raise Changed(f"{what}: the object changed while it was read")
            if answer.status != _PARTIAL:
                raise self._source.failure(answer)
            match = _CONTENT_RANGE.fullmatch(answer.headers.get("content-range", ""))
            if match is None or int(match[1]) != part.position or int(match[2]) >= stop:
                raise Retryable(f"{what}: the server returned a different range than requested")
            if int(match[3]) != version.size or _tag(answer) not in {version.tag, None}:
                raise Changed(f"{what}: the object changed while it was read")
            self._pour(answer, part)

    def _pour(self, answer: HTTPResponse, part: Part) -> None:
        """Write the body to its place until the part is there; raise Retryable if it ends before."""
        with translated(self._source.what):
            self._pour_untranslated(answer, part)

    def _pour_untranslated(self, answer: HTTPResponse, part: Part) -> None:
        left = None if part.stop is None else part.stop - part.position
        view = memoryview(bytearray(READ_BLOCK if left is None else max(1, min(READ_BLOCK, left))))
        while left is None or left > 0:
            pool.check()
            count = answer.readinto(view if left is None else view[:left])
            if not count:
                break
            block = view[:count]
            self._destination.write(block, part.position)
            if part.running is not None:
                part.running.update(block)
            part.done += count
            left = None if left is None else left - count
        if left is None:
            part.stop = part.position
        if left:
            came, whole = part.done, part.done + left
            raise Retryable(f"{self._source.what}: received {came} of {whole} bytes")
        if left == 0 and answer.length == 0:
            answer.close()  # http.client notes the end of a body only when it is asked for more

    def _check(self, parts: list[Part], version: Version) -> None:
        """Compare with the store's own checksum; raise Retryable: what came is not what is there."""
        expected = version.expected
        if expected is None:
            return
        running = [part.running for part in parts if part.running is not None]
        if not running:
            came = checksums.of_blocks(expected.algorithm, self._destination.blocks()).digest()
        elif len(running) == 1:
            came = running[0].digest()
        else:
            came = checksums.combined(expected.algorithm, running)
        if came != expected.digest:
            raise Retryable(
                f"{self._source.what}: checksum mismatch: downloaded data does not match the store's "
                f"{expected.algorithm.upper()}"
            )


def _parts(version: Version, *, in_order: bool) -> list[Part]:
    size = version.size
    if in_order or size is None or size <= WHOLE_BYTES or version.condition is None:
        return [Part(0, size)]
    return [Part(start, min(start + PART_BYTES, size)) for start in range(0, size, PART_BYTES)]


def _running(version: Version, parts: int) -> Running | None:
    """A checksum as the bytes come, unless only the finished file can tell it."""
    expected = version.expected
    if expected is None or (parts > 1 and not expected.of_parts):
        return None
    return Running(expected.algorithm)


def _tag(answer: HTTPResponse) -> str | None:
    return answer.headers.get("etag") or answer.headers.get("last-modified")
