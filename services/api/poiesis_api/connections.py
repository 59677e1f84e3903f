"""Clients' connections to one replica: how many there are, and how long one may send no request.

A connection without a request under way is idle, also while a part of a request's head has arrived. Before
its first request it may be idle for `headSeconds`; afterwards aiohttp closes it after `keepAliveSeconds`, or
this module a little later if it keeps a head unfinished. When all are in use, the one that has been idle for
longest makes room for a new one.
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
    """Knows them by their protocols."""

    def __init__(self, config: Http, clock: Callable[[], float] = time.monotonic) -> None:
        self._config = config
        self._clock = clock
        self._busy: dict[asyncio.BaseProtocol, int] = {}  # requests under way
        self._idle: dict[
            asyncio.BaseProtocol, tuple[float, float]
        ] = {}  # since when, and for how long it may be

    def factory(self, server: web.Server) -> Callable[[], asyncio.Protocol]:
        """For `loop.create_server`."""

        def connect() -> asyncio.Protocol:
            if len(server.connections) >= self._config.max_connections and not self._make_room():
                logger.warning("connection refused", extra={"connections": len(server.connections)})
                return _Refused()
            protocol = server()
            self._idle[protocol] = self._clock(), self._config.head_seconds
            return protocol

        return connect

    @web.middleware
    async def watched(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Its connection is not idle."""
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
        """Close what has been idle for too long, until canceled."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            self.close_idle()

    def close_idle(self) -> None:
        """And forget what has been closed."""
        now = self._clock()
        for protocol, (since, most) in list(self._idle.items()):
            if now - since >= most:
                self._close(protocol)
            elif _is_closed(protocol) and now - since >= _LOOK_SECONDS:
                del self._idle[protocol]

    def _make_room(self) -> bool:
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
    """Closes at once: there is no room even for an answer."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.WriteTransport):
            transport.abort()
