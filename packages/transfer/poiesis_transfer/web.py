"""Bytes over HTTP: one session, a bounded number of requests, failures in our words.

What aiohttp says of a failure is not repeated, because its texts contain URLs and so signatures.
"""

import asyncio
import email.utils
import os
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from yarl import URL

from poiesis_transfer import pool
from poiesis_transfer.errors import NotFound, Passing, Permanent, TransferError
from poiesis_transfer.files import BLOCK, Landing, SourceFile
from poiesis_transfer.progress import Progress
from poiesis_transfer.retry import Retry
from poiesis_transfer.urls import shown

_READ_BUFFER = 128 * 1024  # aiohttp holds up to twice this for each connection
_SEND_BLOCK = 256 * 1024
_MAX_REDIRECTS = 10
_OK = 200
_PASSING_STATUS = {408, 425, 429}
_GONE_STATUS = {404, 410}
_WORDS = {
    400: "the server refuses the request",
    401: "the server wants credentials",
    403: "access denied",
    404: "not found",
    410: "it is gone",
    429: "the server asks to come back later",
    503: "the server is not available",
}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Seconds. `idle`: without a byte in either direction, and for a server to begin its answer."""

    connect: float = 15.0
    idle: float = 60.0


LIMITS = Limits()
RETRY = Retry()


@dataclass(frozen=True, kw_only=True)
class Web:
    """Shared by all transfers of a filer: at most `pool.AT_ONCE` requests carry bytes at any time."""

    session: aiohttp.ClientSession
    limits: Limits = LIMITS
    retry: Retry = RETRY
    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(pool.AT_ONCE))

    @classmethod
    @asynccontextmanager
    async def open(cls, *, limits: Limits = LIMITS, retry: Retry = RETRY) -> AsyncIterator[Self]:
        """HTTP(S)_PROXY and NO_PROXY are respected. Bodies stay as they are sent: nothing is decompressed."""
        async with aiohttp.ClientSession(
            auto_decompress=False,
            headers={"Accept-Encoding": "identity", "User-Agent": "poiesis"},
            connector=aiohttp.TCPConnector(limit=2 * pool.AT_ONCE),
            read_bufsize=_READ_BUFFER,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=limits.connect, sock_read=limits.idle),
            trust_env=True,
        ) as session:
            yield cls(session=session, limits=limits, retry=retry)

    @asynccontextmanager
    async def request(
        self, method: str, url: URL, what: str, **options: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One request, whatever its status. `what` begins the message of a failure."""
        async with self.slots:
            with translated(what):
                async with self.session.request(
                    method, url, max_redirects=_MAX_REDIRECTS, **options
                ) as response:
                    yield response

    async def fetch(self, url: str, landing: Landing) -> None:
        """GET a page into a file. Redirects are followed; the length is checked if the server told it."""
        what = f"cannot fetch {shown(url)}"
        try:
            target = URL(url, encoded=url.isascii() and " " not in url)
            _ = target.port  # parsed, and refused, when it is first asked for
        except ValueError as error:
            raise Permanent(f"{what}: it is not a valid URL") from error
        await self.retry.call(lambda: self._fetch_once(target, what, landing))

    async def _fetch_once(self, url: URL, what: str, landing: Landing) -> None:
        await landing.empty()
        async with self.request("GET", url, what) as response:
            if response.status != _OK:
                raise status_error(what, response.status, response.headers)
            received = await pour(response, landing, what, expected=response.content_length)
        await landing.keep(received)


async def pour(
    response: aiohttp.ClientResponse, landing: Landing, what: str, *, offset: int = 0, expected: int | None
) -> int:
    """Write the body into the file from `offset`; the number of bytes, which has to be the expected one.

    When it fails, the bytes are taken back from the progress: they will come again.
    """
    written = 0
    try:
        async for block in _blocks(response):
            _check_length(what, written + len(block), expected, whole=False)
            await landing.write(block, offset + written)
            written += len(block)
        _check_length(what, written, expected, whole=True)
    except BaseException:
        landing.forget(written)
        raise
    return written


async def _blocks(response: aiohttp.ClientResponse) -> AsyncIterator[bytearray]:
    """The body, gathered until a write is worth its while."""
    block = bytearray()
    async for chunk in response.content.iter_any():
        block += chunk
        if len(block) >= BLOCK:
            yield block
            block = bytearray()
    if block:
        yield block


def _check_length(what: str, came: int, expected: int | None, *, whole: bool) -> None:
    if expected is not None and (came > expected or (whole and came < expected)):
        raise Passing(f"{what}: {came} of {expected} bytes came")


class Slice(aiohttp.Payload):
    """A part of a file as a request body. It can be sent again from its beginning.

    aiohttp sends a body in a task of its own and hides what fails there: that is kept in `failure`.
    """

    def __init__(
        self, source: SourceFile, offset: int, count: int, progress: Progress, idle_seconds: float
    ) -> None:
        super().__init__(source)
        self._size = count
        self._source = source
        self._offset = offset
        self._progress = progress
        self._idle_seconds = idle_seconds
        self.failure: TransferError | None = None
        self._told = 0

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """For aiohttp's text bodies; this is none."""
        del encoding, errors
        raise TypeError("a file is not text")

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Each block has to be taken within the idle limit: a stalled server does not hold us for ever."""
        self.take_back()
        self.failure = None
        count = self._size or 0
        position = 0
        try:
            while position < count:
                block = await self._source.read(self._offset + position, min(_SEND_BLOCK, count - position))
                async with asyncio.timeout(self._idle_seconds):
                    await writer.write(block)
                position += len(block)
                self._told += len(block)
                self._progress.moved(len(block))
        except TransferError as failure:
            self.failure = failure
            raise

    def take_back(self) -> None:
        """The bytes will be sent again, if at all."""
        if self._told:
            self._progress.moved(-self._told)
            self._told = 0


def status_error(what: str, status: int, headers: Mapping[str, str]) -> TransferError:
    """What an HTTP status means for a transfer."""
    words = _WORDS.get(status)
    message = f"{what}: {words} (HTTP {status})" if words else f"{what}: HTTP {status}"
    if status in _GONE_STATUS:
        return NotFound(message)
    if status >= 500 or status in _PASSING_STATUS:  # noqa: PLR2004
        return Passing(message, retry_after=retry_after(headers))
    return Permanent(message)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds; the header has a number or a date."""
    value = headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    date = email.utils.parsedate_to_datetime(value) if _is_date(value) else None
    return max(0.0, date.timestamp() - time.time()) if date else None


@contextmanager
def translated(what: str) -> Iterator[None]:
    """aiohttp's failures become ours."""
    try:
        yield
    except (aiohttp.ClientError, TimeoutError) as error:
        raise _ours(what, error) from error
    except UnicodeError as error:  # a host's name that DNS cannot have
        raise Permanent(f"{what}: it is not a valid URL") from error


_CAUSES: tuple[tuple[type[Exception], type[Permanent] | type[Passing], str], ...] = (
    (aiohttp.TooManyRedirects, Permanent, f"more than {_MAX_REDIRECTS} redirects"),
    (aiohttp.InvalidURL, Permanent, "it, or where it redirects to, is not a valid HTTP URL"),
    (aiohttp.NonHttpUrlClientError, Permanent, "it, or where it redirects to, is not a valid HTTP URL"),
    (aiohttp.ClientSSLError, Permanent, "TLS: the server's certificate or protocol is not accepted"),
    (aiohttp.ClientConnectorDNSError, Passing, "the host's name does not resolve"),
    (aiohttp.ClientConnectorError, Passing, "no connection"),
    (aiohttp.ServerDisconnectedError, Passing, "the server ended the connection"),
    (TimeoutError, Passing, "no answer in time"),
    (aiohttp.ClientPayloadError, Passing, "the connection ended before the whole body had come"),
    (aiohttp.ClientOSError, Passing, "the connection broke"),
    (aiohttp.ClientResponseError, Passing, "the answer is not valid HTTP"),
)


def _ours(what: str, error: Exception) -> TransferError:
    for kind, ours, words in _CAUSES:
        if isinstance(error, kind):
            said = _said(error, passing=ours is Passing)
            return ours(f"{what}: {words}" + (f" ({said})" if said else ""))
    return Passing(f"{what}: {type(error).__name__}")


def _said(error: Exception, *, passing: bool) -> str:
    """OpenSSL's or the system's own words, which hold no URL."""
    if isinstance(error, aiohttp.ClientSSLError):
        cause = getattr(error, "certificate_error", None) or getattr(error, "os_error", None)
        said = getattr(cause, "verify_message", None) or getattr(cause, "reason", None) or ""
        return str(said).replace("_", " ").lower()
    number = getattr(error, "errno", None) or 0
    return os.strerror(number).lower() if passing and number > 0 else ""


def _is_date(value: str) -> bool:
    return email.utils.parsedate_tz(value) is not None
