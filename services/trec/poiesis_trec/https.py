"""HTTP/1.1 over TLS with asyncio only, for watch and reports; aiohttp would cost every task 12 MB.

One request at a time per connection. Everything that a server sends is bounded.
"""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_address

_CONNECT_SECONDS = 10.0
_RESPONSE_SECONDS = 10.0
_LINE_BYTES = 16 * 1024
_HEADERS = 100
_STATUS_DIGITS = 3
_NUMBER_DIGITS = 16
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

    @property
    def keeps_alive(self) -> bool:
        """Return whether the connection can be used again after the body."""
        delimited = "content-length" in self.headers or self._is_chunked
        return delimited and self.headers.get("connection", "").lower() != "close"

    @property
    def _is_chunked(self) -> bool:
        return self.headers.get("transfer-encoding", "").lower() == "chunked"

    async def body(self, limit: int = _BODY_BYTES) -> bytes:
        """Return the whole body. Raise HttpError if it is longer than `limit` bytes."""
        return b"".join([piece async for piece in _bounded(self._pieces(), limit)])

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
        if self._is_chunked:
            while size := _size((await _line(self.reader)).partition(";")[0], 16):
                async for piece in self._exactly(size):
                    yield piece
                if await _line(self.reader):
                    raise HttpError("a chunk is longer than its declared size")
            await _header_lines(self.reader)  # trailers
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


class Connection:
    """A connection for requests one after the other."""

    def __init__(
        self, host: str, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        name = f"[{host}]" if ":" in host else host
        self._host = f"{name}:{port}"
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, host: str, port: int, tls: ssl.SSLContext | None) -> "Connection":
        """Connect. Raise OSError, also for a timeout or a certificate that is not trusted."""
        failure = OSError(f"{host} has no address")
        async with asyncio.timeout(_CONNECT_SECONDS):
            for address in await _addresses(host, port):
                try:
                    return cls(host, port, *await _open(address, port, tls, host))
                except OSError as error:
                    failure = error
        raise failure

    async def request(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        *,
        body: bytes | None = None,
        seconds: float = _RESPONSE_SECONDS,
    ) -> Response:
        """Send a request, and read the head of its response within `seconds`. Raise OSError or HttpError.

        The caller limits the time of the body, and reads it before the next request.
        """
        lines = {"Host": self._host, "Accept": "application/json", "User-Agent": "poiesis-trec", **headers}
        if body is not None:
            lines |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        async with asyncio.timeout(seconds):
            self._writer.write(f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode() + (body or b""))
            await self._writer.drain()
            return await _head(self._reader)

    def abort(self) -> None:
        """Close the connection without waiting."""
        self._writer.transport.abort()


@asynccontextmanager
async def get(
    host: str, port: int, target: str, *, token: str, tls: ssl.SSLContext | None
) -> AsyncIterator[Response]:
    """Send one GET on a new connection. Raise OSError (also TimeoutError) or HttpError.

    The time until the response's headers is limited; the caller limits the time of the body.
    """
    connection = await Connection.open(host, port, tls)
    try:
        yield await connection.request("GET", target, {**bearer(token), "Connection": "close"})
    finally:
        connection.abort()


async def _addresses(host: str, port: int) -> list[str]:
    """Resolve a name: as bytes, because the tables of IDNA are as large as the recorder."""
    try:
        return [str(ip_address(host))]
    except ValueError:
        found = await asyncio.get_running_loop().getaddrinfo(host.encode(), port, type=socket.SOCK_STREAM)
        return [str(address[0]) for *_, address in found]


async def _open(
    address: str, port: int, tls: ssl.SSLContext | None, name: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to an address whose certificate must be for `name`: as bytes, for the reason above."""
    if tls is None:
        return await asyncio.open_connection(address, port)
    return await asyncio.open_connection(address, port, ssl=tls, server_hostname=name.encode())


def bearer(token: str) -> dict[str, str]:
    """Return the header of a bearer token. Raise HttpError if it cannot be sent."""
    if not token.isascii() or not token.isprintable():
        raise HttpError("the token is not printable ASCII")
    return {"Authorization": f"Bearer {token}"}


async def _head(reader: asyncio.StreamReader) -> Response:
    version, _, rest = (await _line(reader)).partition(" ")
    status, _, reason = rest.partition(" ")
    if not version.startswith("HTTP/1.") or not _is_number(status, 10) or len(status) != _STATUS_DIGITS:
        raise HttpError("not an HTTP/1 response")
    headers = {}
    for line in await _header_lines(reader):
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    return Response(status=int(status), reason=reason, headers=headers, reader=reader)


async def _header_lines(reader: asyncio.StreamReader) -> list[str]:
    """Return the lines up to an empty one."""
    lines: list[str] = []
    while line := await _line(reader):
        lines.append(line)
        if len(lines) > _HEADERS:
            raise HttpError("too many headers")
    return lines


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
    if not _is_number(text.strip(), base):
        raise HttpError(f"not a number: {text[:40]!r}")
    return int(text.strip(), base)


def _is_number(text: str, base: int) -> bool:
    """Return whether the text is digits only; `int` also accepts signs, spaces and underscores."""
    return 0 < len(text) <= _NUMBER_DIGITS and set(text.lower()) <= set("0123456789abcdef"[:base])


async def _bounded(pieces: AsyncIterator[bytes], limit: int) -> AsyncIterator[bytes]:
    total = 0
    async for piece in pieces:
        total += len(piece)
        if total > limit:
            raise HttpError(f"a body longer than {limit} bytes")
        yield piece
