"""Read the body of a request as JSON text: decoded and within its limits.

The HTTP server does not decode bodies (`auto_decompress` is off, see app.py): its own errors would have
another shape, and decompression must stop at the limit.
"""

import asyncio
import codecs
import re
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar

from aiohttp import ClientPayloadError, hdrs, web

from poiesis_api import metrics
from poiesis_api.config import Limits
from poiesis_api.errors import (
    BodyTooLarge,
    BodyTooSlow,
    InvalidTask,
    Loggable,
    MalformedBody,
    ServerBusy,
    UnsupportedEncoding,
    shown,
)

ENCODINGS = ("gzip", "deflate")
SMALL_BYTES = 64 * 1024  # checking a body of this size takes milliseconds; a longer one, seconds
JSON_VALUES = 300_000  # in one body; a parser needs about 100 bytes for each
PARSES = 2  # large bodies parsed at a time
_WAIT_SECONDS = 10.0  # until one of these is free
_SLICE_BYTES = 64 * 1024
_DEFLATE_METHOD = 8  # first byte of a zlib stream (RFC 1950, 2.2); some clients send bare DEFLATE data
_NOT_FINITE = (b"NaN", b"Infinity")  # accepted by the parser, but not JSON (RFC 8259, 6)
# A string; or a character that begins or separates values; or a word that is not JSON. Without backtracking.
_TOKEN = re.compile(rb'(?s)"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[\[{,]|NaN|Infinity')
_STRING = ord('"')
_SEPARATORS = frozenset(b"[{,")

Result = TypeVar("Result")


class Incoming:
    """The budget of one replica for large bodies: bytes received and concurrent parses."""

    def __init__(self, limits: Limits) -> None:
        self._most_bytes = limits.incoming_bytes
        self._held_bytes = 0
        self._parses = asyncio.Semaphore(PARSES)

    @contextmanager
    def body(self) -> Iterator[Callable[[int], None]]:
        """Yield a function to call with the number of received bytes; it raises ServerBusy. Small is free."""
        held = 0

        def grow(size: int) -> None:
            nonlocal held
            more = max(0, size - SMALL_BYTES) - held
            if more > 0 and self._held_bytes + more > self._most_bytes:
                raise ServerBusy("too many large requests in progress; try again")
            held += more
            self._held_bytes += more

        try:
            yield grow
        finally:
            self._held_bytes -= held

    @asynccontextmanager
    async def _parse(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(_WAIT_SECONDS):
                await self._parses.acquire()
        except TimeoutError:
            raise ServerBusy("too many large requests in progress; try again") from None
        try:
            yield
        finally:
            self._parses.release()

    async def parsed(self, request: web.Request, limits: Limits, parse: Callable[[bytes], Result]) -> Result:
        """Return `parse` of the JSON text, computed in a thread unless the body is small.

        Raise the errors of `parse`, ServerBusy, BodyTooLarge, BodyTooSlow, UnsupportedEncoding or
        MalformedBody.
        """
        encoding = ", ".join(request.headers.getall(hdrs.CONTENT_ENCODING, []))

        def work() -> Result:
            return parse(json_text(decoded(sent, encoding, limits.body_bytes)))

        with metrics.BODIES.track_inprogress(), self.body() as grow:
            sent = await _read(request, limits, grow)
            if len(sent) <= SMALL_BYTES and not encoding:
                return work()
            async with self._parse():
                return await asyncio.to_thread(work)


async def _read(request: web.Request, limits: Limits, grow: Callable[[int], None]) -> bytes:
    """Return the body as sent. Raise ServerBusy, BodyTooLarge, BodyTooSlow or MalformedBody."""
    sent = bytearray()
    try:
        async with asyncio.timeout(limits.body_seconds):
            while part := await request.content.readany():
                sent += part
                if len(sent) > limits.body_bytes:
                    raise _too_large(limits.body_bytes)
                grow(len(sent))
    except TimeoutError as error:
        raise BodyTooSlow(
            "the body did not arrive within {limit:g} seconds", limit=limits.body_seconds
        ) from error
    except (
        ClientPayloadError,
        web.RequestPayloadError,
        ConnectionError,
    ) as error:  # the last: the client disconnected
        raise MalformedBody("cannot read the body: {error}", error=str(error)) from error
    return bytes(sent)


def decoded(sent: bytes, encoding: str, limit: int) -> bytes:
    """Undo the Content-Encoding (RFC 9110, 8.4). Raise BodyTooLarge, UnsupportedEncoding or MalformedBody."""
    match encoding.strip().lower():
        case "" | "identity":
            return sent
        case "gzip" | "x-gzip":
            return _inflated(sent, 16 + zlib.MAX_WBITS, "gzip", limit)
        case "deflate":
            wrapped = sent[:1] and sent[0] & 0xF == _DEFLATE_METHOD
            return _inflated(sent, zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS, "deflate", limit)
    raise UnsupportedEncoding(
        "unsupported Content-Encoding {encoding} (supported: {supported}, or none)",
        headers={"Accept-Encoding": ", ".join(ENCODINGS)},
        encoding=shown(encoding),
        supported=Loggable(", ".join(ENCODINGS)),
    )


def json_text(body: bytes) -> bytes:
    """Return `body` without byte order mark. Raise MalformedBody for other encodings, NaN and Infinity."""
    text = body.removeprefix(codecs.BOM_UTF8)
    if not text.strip():
        raise MalformedBody("the body is not JSON: it is empty")
    if text.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in text[:4]:
        raise MalformedBody(
            "the body is not JSON in UTF-8: it looks like UTF-16 or UTF-32 (RFC 8259, section 8.1)"
        )
    _check_utf8(text)
    _check_tokens(text)
    return text


def _check_utf8(text: bytes) -> None:
    """Decode in slices: the whole text as str would need several times its size."""
    if text.isascii():
        return
    decoder = codecs.getincrementaldecoder("utf-8")()
    for start in range(0, len(text), _SLICE_BYTES):
        pending, _ = decoder.getstate()
        try:
            decoder.decode(text[start : start + _SLICE_BYTES], final=start + _SLICE_BYTES >= len(text))
        except UnicodeDecodeError as error:
            offset = start - len(pending) + error.start
            raise MalformedBody(
                "the body is not JSON in UTF-8: byte {byte:#04x} at offset {offset}",
                byte=text[offset],
                offset=offset,
            ) from error


def _check_tokens(text: bytes) -> None:
    """Check the number of values, and reject NaN and Infinity, before a parser creates objects."""
    if sum(map(text.count, (b",", b"[", b"{"))) <= JSON_VALUES and not any(
        word in text for word in _NOT_FINITE
    ):
        return
    values = 0
    for tokens, match in enumerate(_TOKEN.finditer(text)):
        first = text[match.start()]
        if first in _SEPARATORS:
            values += 1
        elif first != _STRING:
            raise MalformedBody(
                "the body is not JSON: {word} at {place}",
                word=Loggable(match[0].decode()),
                place=Loggable(_place(text, match.start())),
            )
        if values > JSON_VALUES or tokens > 3 * JSON_VALUES:  # between two values are two strings at most
            raise InvalidTask("the body has too many JSON values (the maximum is {limit})", limit=JSON_VALUES)


def _place(text: bytes, offset: int) -> str:
    line = text.count(b"\n", 0, offset) + 1
    column = offset - text.rfind(b"\n", 0, offset)
    return f"line {line} column {column}"


def _inflated(sent: bytes, wbits: int, name: str, limit: int) -> bytes:
    """Decompress at most `limit` bytes, of one member only: thousands of empty members would take hours."""
    stream = zlib.decompressobj(wbits)
    try:
        body = stream.decompress(sent, limit + 1)
    except zlib.error as error:
        raise MalformedBody(
            "the body is not valid {name}, although Content-Encoding names it: {error}",
            name=Loggable(name),
            error=str(error),
        ) from error
    if len(body) > limit:
        raise _too_large(limit)
    if not stream.eof:
        raise MalformedBody("the body is truncated: its {name} stream does not end", name=Loggable(name))
    if stream.unused_data:
        raise MalformedBody("the body has data after the end of its {name} stream", name=Loggable(name))
    return body


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge("the body is longer than {limit} bytes (the maximum)", limit=limit)
