"""Clients' connections to one replica: their number, and how long a connection may be idle.

A connection without a request in progress is idle, even if part of a request's head has arrived. Before its
first request it may be idle for `headSeconds`. Afterwards aiohttp closes it after `keepAliveSeconds`; this
module closes it a little later if a head remains incomplete. At the limit, a new connection replaces the one
that has been idle longest.
"""

import asyncio
import logging
import time
from collections.abc import Callable

from aiohttp import web
from aiohttp.typedefs import Handler
from aiohttp.web_protocol import RequestHandler

from poiesis_api.config import Http

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0


class Connections:
    """The open connections of one replica, by their protocols."""

    def __init__(self, config: Http, clock: Callable[[], float] = time.monotonic) -> None:
        self._config = config
        self._clock = clock
        self._busy: dict[asyncio.BaseProtocol, int] = {}  # requests in progress
        self._idle: dict[
            asyncio.BaseProtocol, tuple[float, float]
        ] = {}  # idle since, and for how long it may be

    def factory(self, server: web.Server) -> Callable[[], asyncio.Protocol]:
        """Return the protocol factory for `loop.create_server`."""

        def connect() -> asyncio.Protocol:
            if len(server.connections) >= self._config.max_connections and not self._close_oldest_idle():
                logger.warning("connection rejected", extra={"connections": len(server.connections)})
                return _Refused()
            protocol = server()
            self._idle[protocol] = self._clock(), self._config.head_seconds
            return protocol

        return connect

    @web.middleware
    async def watched(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Mark the request's connection as busy while its handler runs."""
        protocol = request.protocol
        self._idle.pop(protocol, None)
        self._busy[protocol] = self._busy.get(protocol, 0) + 1
        try:
            return await handler(request)
        finally:
            self._busy[protocol] -= 1
            if not self._busy[protocol]:
                del self._busy[protocol]
                most = self._config.keep_alive_seconds + self._config.head_seconds
                self._idle[protocol] = self._clock(), most

    async def watch(self) -> None:
        """Close connections that have been idle too long, until canceled."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            self.close_idle()

    def close_idle(self) -> None:
        """Close connections that have been idle too long, and forget closed ones."""
        now = self._clock()
        for protocol, (since, most) in list(self._idle.items()):
            if now - since >= most:
                self._close(protocol)
            elif _is_closed(protocol) and now - since >= _LOOK_SECONDS:
                del self._idle[protocol]

    def _close_oldest_idle(self) -> bool:
        open_ones = [one for one in self._idle if not _is_closed(one)]
        if not open_ones:
            return False
        self._close(min(open_ones, key=lambda one: self._idle[one][0]))
        return True

    def _close(self, protocol: asyncio.BaseProtocol) -> None:
        del self._idle[protocol]
        if isinstance(protocol, RequestHandler):
            protocol.force_close()


def _is_closed(protocol: asyncio.BaseProtocol) -> bool:
    transport = protocol.transport if isinstance(protocol, RequestHandler) else None
    return transport is None or transport.is_closing()


class _Refused(asyncio.Protocol):
    """Closes immediately: there is no capacity even for a response."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.WriteTransport):
            transport.abort()
