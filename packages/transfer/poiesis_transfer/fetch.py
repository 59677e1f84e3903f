"""One engine for all downloads over HTTP: web URLs, signed URLs and S3 objects.

The first request is for the whole object. Its response contains the length, the version and the checksum. A
short body is read from this response. A long body is read in parts: the first part from this response, the
others concurrently, by range requests that are valid only for the same version. A broken transfer resumes
where it stopped. If the object has changed, the download starts again, unless the sink is `in_order`.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from http.client import HTTPResponse
from typing import Protocol

from poiesis_transfer import checksums, pool
from poiesis_transfer.checksums import Expected, Running
from poiesis_transfer.errors import Changed, Permanent, Retryable, TransferError
from poiesis_transfer.files import READ_BLOCK, Buffer
from poiesis_transfer.retry import Retry
from poiesis_transfer.web import translated

MIB = 1024 * 1024
WHOLE_BYTES = 64 * MIB  # the largest object that one request transfers; longer ones are transferred in parts
PART_BYTES = 32 * MIB
PARALLEL_PARTS = 8
_OK, _PARTIAL, _UNMET, _OUT_OF_RANGE = 200, 206, 412, 416
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


class Source(Protocol):
    """An object that can be requested whole or in parts. Error messages start with `what`."""

    @property
    def what(self) -> str: ...

    def get(self, headers: Mapping[str, str]) -> AbstractContextManager[HTTPResponse]:
        """Send one GET. The source follows redirects if it supports them."""

    def failure(self, answer: HTTPResponse) -> TransferError:
        """Return the error for a status that is not a success."""

    def version(self, answer: HTTPResponse) -> "Version":
        """Return the version of the object that the first response describes."""


class Sink(Protocol):
    """Where downloaded bytes are written, for example a `Destination`. Methods may raise TransferError.

    `in_order`: bytes must be written in sequence, and written bytes cannot be discarded.
    """

    path: str
    in_order: bool

    def empty(self) -> None:
        """Discard what has been written."""

    def announce(self, size: int) -> None:
        """Set the number of bytes that will follow."""

    def write(self, data: Buffer, offset: int) -> None:
        """Write bytes at an offset."""

    def blocks(self) -> Iterator[bytes]:
        """Return what has been written, from the beginning. Not called if `in_order`."""

    def keep(self, size: int | None = None, *, modified: float | None = None) -> None:
        """Accept what was written as complete and correct."""


@dataclass(frozen=True, kw_only=True)
class Version:
    """One version of an object.

    `condition`: headers that make a range request valid only for this version; None: no range requests.
    """

    size: int | None
    tag: str | None
    condition: Mapping[str, str] | None
    expected: Expected | None = None
    modified: float | None = None


@dataclass
class Part:
    """The bytes from `start` up to `stop` (None: the end), of which `done` are written."""

    start: int
    stop: int | None
    done: int = 0
    running: Running | None = field(default=None, repr=False)

    @property
    def position(self) -> int:
        """Return the offset of the next byte."""
        return self.start + self.done


def fetch(source: Source, destination: Sink, retry: Retry) -> None:
    """Write the object to `destination` and accept it once it is complete and verified.

    Raise TransferError.
    """
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
    """The download of one version of the object."""

    def __init__(self, source: Source, destination: Sink, retry: Retry) -> None:
        self._source = source
        self._destination = destination
        self._retry = retry
        self._parts: list[Part] = []

    @property
    def done(self) -> int:
        """Return the number of bytes written."""
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
        """Read all parts, the first from `answer`, whose connection is released when the part is complete."""

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
        """Write the body until the part is complete. Raise Retryable if the body ends before."""
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
            answer.close()  # http.client detects the end of a body only at the next read

    def _check(self, parts: list[Part], version: Version) -> None:
        """Compare with the checksum from the store. Raise Retryable if they differ."""
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
    """Return a checksum to update as bytes arrive; None if it has to be computed from the complete file."""
    expected = version.expected
    if expected is None or (parts > 1 and not expected.of_parts):
        return None
    return Running(expected.algorithm)


def _tag(answer: HTTPResponse) -> str | None:
    return answer.headers.get("etag") or answer.headers.get("last-modified")
