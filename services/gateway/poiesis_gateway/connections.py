"""Clients' connections to one replica: their number, in total and per address, and how long they are idle.

The api counts connections after they are open. Here a connection counts from its acceptance, before the TLS
handshake, because a client that never answers the handshake must not shut out others.

A connection without a request in progress is idle: during its handshake, while the head of a request is
incomplete, and between requests. At a limit, a new connection replaces the one that has been idle longest: of
its own address at the limit per address, of the address with the most connections at the total limit.
"""

import asyncio
import logging
import socket
import ssl
import time
from asyncio.sslproto import SSLProtocol
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from aiohttp import web
from aiohttp.typedefs import Handler
from aiohttp.web_protocol import RequestHandler

logger = logging.getLogger(__name__)

ADDRESS = web.RequestKey("address", str)  # of the client
LOOK_SECONDS = 1.0
BUFFER_BYTES = 32 * 1024  # received and not read yet, in each layer of a connection
_RETRY_SECONDS = 0.5  # after an error of accept, such as too many open files


# asyncio keeps a buffer of this size for each TLS connection. With its default of 256 KiB, here and below,
# 2000 clients that send a body without a token would take 800 MiB.
SSLProtocol.max_size = BUFFER_BYTES


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Limits of connections. `head`, `idle`: seconds before the first request, and after a request."""

    total: int
    per_address: int
    head: float
    idle: float


@dataclass(eq=False, kw_only=True)
class _Connection:
    address: str
    protocol: RequestHandler
    since: float  # idle since
    handshake: "asyncio.Task[None] | None" = None
    requests: int = 0  # in progress
    used: bool = False  # it has had a request

    @property
    def closed(self) -> bool:
        if self.handshake is not None and not self.handshake.done():
            return False
        transport = self.protocol.transport
        return transport is None or transport.is_closing()


class Connections:
    """The open connections, by address."""

    def __init__(self, bounds: Bounds, clock: Callable[[], float] = time.monotonic) -> None:
        self._bounds, self._clock = bounds, clock
        self._by_address: dict[str, set[_Connection]] = defaultdict(set)
        self._by_protocol: dict[asyncio.BaseProtocol, _Connection] = {}

    def __len__(self) -> int:
        return len(self._by_protocol)

    async def accept(
        self, listening: socket.socket, server: web.Server, context: Callable[[], ssl.SSLContext]
    ) -> None:
        """Accept connections until canceled. Handshakes in progress are then given up."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                try:
                    client, peer = await loop.sock_accept(listening)
                except OSError as error:
                    logger.warning("cannot accept a connection", extra={"error": str(error)})
                    await asyncio.sleep(_RETRY_SECONDS)
                    continue
                if not self._admit(str(peer[0])):
                    client.close()
                    continue
                self._open(client, str(peer[0]), server(), context())
        finally:
            for one in list(self._by_protocol.values()):
                if one.handshake is not None:
                    one.handshake.cancel()

    @web.middleware
    async def watched(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Mark the request's connection as busy while its handler runs."""
        connection = self._by_protocol.get(request.protocol)
        if connection is None:  # closed meanwhile, so there is no client any more
            raise ConnectionResetError
        request[ADDRESS] = connection.address
        connection.used = True
        connection.requests += 1
        try:
            return await handler(request)
        finally:
            connection.requests -= 1
            connection.since = self._clock()

    async def watch(self) -> None:
        """Close connections that have been idle too long, until canceled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.close_idle()

    def close_idle(self) -> None:
        """Close connections that have been idle too long, and forget closed ones."""
        now = self._clock()
        self._forget_closed(list(self._by_protocol.values()))
        for one in list(self._by_protocol.values()):
            # aiohttp closes at `idle` itself, unless part of a head has arrived.
            most = self._bounds.idle + self._bounds.head if one.used else self._bounds.head
            if not one.requests and now - one.since >= most:
                self._close(one)

    def _admit(self, address: str) -> bool:
        """Return whether a new connection of `address` fits, after closing an idle one if need be."""
        own = self._by_address.get(address, set())
        self._forget_closed(list(own))
        if len(own) >= self._bounds.per_address and not self._close_oldest(own):
            logger.debug("connection rejected", extra={"address": address, "connections": len(own)})
            return False
        if len(self) < self._bounds.total:
            return True
        self._forget_closed(list(self._by_protocol.values()))
        if len(self) < self._bounds.total:
            return True
        for several in sorted(self._by_address.values(), key=len, reverse=True):
            if self._close_oldest(several):
                return True
        logger.warning("connection rejected", extra={"address": address, "connections": len(self)})
        return False

    def _open(
        self, client: socket.socket, address: str, protocol: RequestHandler, context: ssl.SSLContext
    ) -> None:
        connection = _Connection(address=address, protocol=protocol, since=self._clock())
        self._by_address[address].add(connection)
        self._by_protocol[protocol] = connection
        connection.handshake = asyncio.create_task(self._shake_hands(client, connection, context))

    async def _shake_hands(
        self, client: socket.socket, connection: _Connection, context: ssl.SSLContext
    ) -> None:
        loop = asyncio.get_running_loop()
        client.setblocking(False)
        try:
            transport, _ = await loop.connect_accepted_socket(
                lambda: connection.protocol, client, ssl=context, ssl_handshake_timeout=self._bounds.head
            )
            transport.set_read_buffer_limits(high=BUFFER_BYTES)  # type: ignore[attr-defined]  # of TLS only
        except OSError as error:  # with ssl.SSLError and TimeoutError
            logger.debug("TLS handshake failed", extra={"address": connection.address, "error": str(error)})
            self._forget(connection)

    def _close_oldest(self, connections: Iterable[_Connection]) -> bool:
        idle = [one for one in connections if not one.requests]
        if not idle:
            return False
        self._close(min(idle, key=lambda one: one.since))
        return True

    def _close(self, connection: _Connection) -> None:
        self._forget(connection)
        if connection.handshake is not None and not connection.handshake.done():
            connection.handshake.cancel()
        else:
            connection.protocol.force_close()

    def _forget_closed(self, connections: Iterable[_Connection]) -> None:
        for one in connections:
            if one.closed and not one.requests:
                self._forget(one)

    def _forget(self, connection: _Connection) -> None:
        self._by_protocol.pop(connection.protocol, None)
        own = self._by_address.get(connection.address, set())
        own.discard(connection)
        if not own:
            self._by_address.pop(connection.address, None)
