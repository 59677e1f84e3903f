"""GET over HTTPS with asyncio only, which is enough for a watch; aiohttp would cost every task 12 MB."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

_RESPONSE_SECONDS = 10.0
_LINE_BYTES = 16 * 1024
_PIECE_BYTES = 64 * 1024
_BODY_BYTES = 8 * 1024 * 1024  # of a line or body; a Pod is far smaller


class HttpError(Exception):
    """The response is not valid HTTP/1.1."""


@dataclass(frozen=True, kw_only=True)
class Response:
    """A response whose body is read in pieces."""

    status: int
    reason: str
    headers: dict[str, str]
    reader: asyncio.StreamReader

    async def body(self) -> bytes:
        """Return the whole body. Raise HttpError if it is too long."""
        return b"".join([piece async for piece in _bounded(self._pieces())])

    async def lines(self) -> AsyncIterator[bytes]:
        """Yield non-empty lines as they arrive, without line ends."""
        rest = b""
        async for piece in self._pieces():
            *whole, rest = (rest + piece).split(b"\n")
            if len(rest) > _BODY_BYTES:
                raise HttpError(f"a line longer than {_BODY_BYTES} bytes")
            for line in whole:
                if line.strip():
                    yield line
        if rest.strip():
            yield rest

    async def _pieces(self) -> AsyncIterator[bytes]:
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            while size := _size((await _line(self.reader)).partition(";")[0], 16):
                async for piece in self._exactly(size):
                    yield piece
                if await _line(self.reader):
                    raise HttpError("a chunk is longer than its declared size")
        elif "content-length" in self.headers:
            async for piece in self._exactly(_size(self.headers["content-length"], 10)):
                yield piece
        else:
            while piece := await self.reader.read(_PIECE_BYTES):
                yield piece

    async def _exactly(self, size: int) -> AsyncIterator[bytes]:
        while size:
            piece = await self.reader.read(min(size, _PIECE_BYTES))
            if not piece:
                raise HttpError("the connection was closed in the middle of a response")
            size -= len(piece)
            yield piece


@asynccontextmanager
async def get(
    host: str, port: int, target: str, *, token: str, tls: ssl.SSLContext | None
) -> AsyncIterator[Response]:
    """Send one request on a new connection. Raise OSError (also TimeoutError) or HttpError.

    The time until the response's headers is limited; the caller limits the time of the body.
    """
    async with asyncio.timeout(_RESPONSE_SECONDS):
        reader, writer = await asyncio.open_connection(host, port, ssl=tls)
    try:
        async with asyncio.timeout(_RESPONSE_SECONDS):
            name = f"[{host}]" if ":" in host else host
            writer.write(
                f"GET {target} HTTP/1.1\r\nHost: {name}:{port}\r\nAuthorization: Bearer {token}\r\n"
                "Accept: application/json\r\nUser-Agent: poiesis-trec\r\nConnection: close\r\n\r\n".encode()
            )
            await writer.drain()
            response = await _head(reader)
        yield response
    finally:
        writer.transport.abort()


async def _head(reader: asyncio.StreamReader) -> Response:
    version, _, rest = (await _line(reader)).partition(" ")
    status, _, reason = rest.partition(" ")
    if not version.startswith("HTTP/1."):
        raise HttpError("not an HTTP/1 response")
    headers = {}
    while line := await _line(reader):
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    return Response(status=_size(status, 10), reason=reason, headers=headers, reader=reader)


async def _line(reader: asyncio.StreamReader) -> str:
    try:
        line = await reader.readuntil(b"\n")
    except asyncio.IncompleteReadError as error:
        raise HttpError("the connection was closed in the middle of a response") from error
    except asyncio.LimitOverrunError as error:
        raise HttpError("a header line is too long") from error
    if len(line) > _LINE_BYTES:
        raise HttpError("a header line is too long")
    return line.decode("latin-1").strip()


def _size(text: str, base: int) -> int:
    try:
        return int(text.strip(), base)
    except ValueError as error:
        raise HttpError(f"not a number: {text[:40]!r}") from error


async def _bounded(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    total = 0
    async for piece in pieces:
        total += len(piece)
        if total > _BODY_BYTES:
            raise HttpError(f"a body longer than {_BODY_BYTES} bytes")
        yield piece
