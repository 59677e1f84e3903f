"""Large responses: limits on concurrent reads from Postgres and on bytes buffered for slow clients.

A response is read from Postgres in parts, and the next part only while this replica buffers few enough bytes.
A client that does not read is disconnected after `sendSeconds`, or sooner if other responses need its memory.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from aiohttp import hdrs, web

from poiesis_api.config import Database, Limits
from poiesis_api.errors import ServerBusy

logger = logging.getLogger(__name__)

JSON = "application/json"
SLICE_BYTES = 64 * 1024  # written at a time; a smaller body is sent at once
WAIT_SECONDS = 10.0  # until a part may be read
STALLED_SECONDS = 2.0  # without progress, after which a client is disconnected if others need the memory
_LOOK_SECONDS = 0.5


def readers(database: Database) -> int:
    """Return how many parts may be read at a time, so that connections remain for other requests."""
    return max(1, database.max_connections // 2)


@dataclass(frozen=True, kw_only=True)
class Part:
    """Part of a response's body. `last`: no other part follows."""

    pieces: Sequence[bytes]
    last: bool

    @property
    def size(self) -> int:
        """The size in bytes."""
        return sum(map(len, self.pieces))


class Outgoing:
    """The budget of one replica for large responses: concurrent reads and buffered bytes."""

    def __init__(self, limits: Limits, readers: int) -> None:
        """`readers`: parts read at a time; one user may use all but one of them."""
        self._most_bytes = limits.outgoing_bytes
        self._send_seconds = limits.send_seconds
        self._turns = _Turns(readers, max(1, readers - 1))
        self._responses: set[_Held] = set()
        self._freed = asyncio.Event()

    @property
    def held_bytes(self) -> int:
        """Bytes buffered for all responses."""
        return sum(one.bytes for one in self._responses)

    @asynccontextmanager
    async def turn(self, user: str) -> AsyncIterator[None]:
        """Wait for memory and for permission to read one part. Raise ServerBusy after WAIT_SECONDS."""
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await self._free_memory()
                await self._turns.take(user)
        except TimeoutError:
            raise ServerBusy("too many large responses in progress; try again") from None
        try:
            yield
        finally:
            self._turns.give_back(user)

    @contextmanager
    def response(self, request: web.Request) -> Iterator["Sending"]:
        """Yield the sender of one response; its buffered bytes count until the end."""
        held = _Held(request.transport)
        self._responses.add(held)
        try:
            yield Sending(held, self._freed, self._send_seconds)
        finally:
            self._responses.discard(held)
            self._freed.set()

    async def _free_memory(self) -> None:
        """Wait until few enough bytes are buffered; disconnect the client that has stalled longest."""
        now = asyncio.get_running_loop().time
        while self.held_bytes >= self._most_bytes:
            slowest = min(self._responses, key=lambda one: one.since)
            if now() - slowest.since >= STALLED_SECONDS:
                slowest.cut_off()
            self._freed.clear()
            try:
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._freed.wait()
            except TimeoutError:
                continue


class _Held:
    """The buffered bytes of one response, and the time since its client last read."""

    def __init__(self, transport: asyncio.BaseTransport | None) -> None:
        self._transport = transport
        self.bytes = 0
        self.since = float("inf")  # while nothing is being written

    def cut_off(self) -> None:
        if isinstance(self._transport, asyncio.WriteTransport):
            self._transport.abort()


class Sending:
    """Writes one response in slices."""

    def __init__(self, held: _Held, freed: asyncio.Event, send_seconds: float) -> None:
        self._held, self._freed, self._send_seconds = held, freed, send_seconds

    def cut_off(self) -> None:
        """Close the connection immediately."""
        self._held.cut_off()

    async def write_all(
        self, request: web.Request, response: web.StreamResponse, first: Part, rest: AsyncIterator[Part]
    ) -> None:
        """Write all parts. Raise ConnectionError if the client disconnects or was disconnected."""
        self._held.bytes += first.size
        await response.prepare(request)
        await self._write(response, first.pieces)
        async for part in rest:
            self._held.bytes += part.size
            await self._write(response, part.pieces)
        await response.write_eof()

    async def _write(self, response: web.StreamResponse, pieces: Iterable[bytes]) -> None:
        loop = asyncio.get_running_loop()
        for part in slices(pieces):
            self._held.since = loop.time()
            try:
                async with asyncio.timeout(self._send_seconds):
                    await response.write(part)
            except TimeoutError:
                self._held.cut_off()
                raise ConnectionAbortedError("the client does not read") from None
            self._held.since = float("inf")
            self._held.bytes = max(0, self._held.bytes - len(part))
            self._freed.set()


class _Turns:
    """A first-come semaphore: `most` holders at a time, of which `most_of_one` may be one user."""

    def __init__(self, most: int, most_of_one: int) -> None:
        self._all = asyncio.Semaphore(most)
        self._most_of_one = most_of_one
        self._own: dict[str, asyncio.Semaphore] = {}
        self._users: dict[str, int] = {}  # holders and waiters

    async def take(self, user: str) -> None:
        self._users[user] = self._users.get(user, 0) + 1
        own = self._own.setdefault(user, asyncio.Semaphore(self._most_of_one))
        try:
            await own.acquire()
            try:
                await self._all.acquire()
            except BaseException:
                own.release()
                raise
        except BaseException:
            self._forget(user)
            raise

    def give_back(self, user: str) -> None:
        self._all.release()
        self._own[user].release()
        self._forget(user)

    def _forget(self, user: str) -> None:
        self._users[user] -= 1
        if self._users[user] == 0:
            del self._users[user], self._own[user]


def slices(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the same bytes in slices of about SLICE_BYTES."""
    part = bytearray()
    for piece in pieces:
        part += piece
        if len(part) >= SLICE_BYTES:
            yield bytes(part)
            part.clear()
    if part:
        yield bytes(part)


async def send(request: web.Request, outgoing: Outgoing, parts: AsyncIterator[Part]) -> web.StreamResponse:
    """Send JSON that is read in parts. Raise the errors of the first part."""
    first = await anext(parts)
    whole = first.last or request.method == hdrs.METH_HEAD
    if whole and (first.size <= SLICE_BYTES or request.method == hdrs.METH_HEAD):
        return web.Response(body=b"".join(first.pieces), content_type=JSON)
    response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: JSON})
    if first.last:
        response.headers[hdrs.CONTENT_LENGTH] = str(first.size)
    with outgoing.response(request) as sending:
        try:
            await sending.write_all(request, response, first, parts)
        except ConnectionError as error:
            logger.info("response cut off", extra={"path": request.path, "error": str(error)})
        except (
            Exception
        ):  # the status has been sent: disconnecting shows the client that the body is incomplete
            logger.exception("unexpected error while sending", extra={"path": request.path})
            sending.cut_off()
    return response
