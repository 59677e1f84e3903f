"""HTTP servers in the process of the tests, which Pods and the API server reach by this machine's address."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

_GRACE = 60  # seconds that requests may take which still run when the server ends


@asynccontextmanager
async def serving(
    application: web.Application, address: str, *, tls: ssl.SSLContext | None = None, grace: float = _GRACE
) -> AsyncIterator[web.AppRunner]:
    """Listens at `address` on a port of its own, which is in the runner's `addresses`.

    No connection outlives it: one with TLS would wait for its client's goodbye, be left open when the event
    loop of the test ends, and be found by another test.
    """
    runner = web.AppRunner(application, shutdown_timeout=grace)
    await runner.setup()
    try:
        await web.TCPSite(runner, address, 0, ssl_context=tls).start()
        yield runner
    finally:
        assert runner.server is not None
        transports = [one.transport for one in runner.server.connections]
        await runner.cleanup()
        for transport in transports:
            if isinstance(transport, asyncio.WriteTransport):
                transport.abort()
        await asyncio.sleep(0)  # the event loop closes aborted connections in its next round


def port_of(runner: web.AppRunner) -> int:
    """Where it listens."""
    port: int = runner.addresses[0][1]
    return port
