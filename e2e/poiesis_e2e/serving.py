"""HTTP servers in the process of the tests; Pods and the API server reach them by this machine's address."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

_GRACE = 60  # seconds for requests that still run when the server ends


@asynccontextmanager
async def serving(
    application: web.Application, address: str, *, tls: ssl.SSLContext | None = None, grace: float = _GRACE
) -> AsyncIterator[web.AppRunner]:
    """Listen at `address` on a free port, which is in the runner's `addresses`.

    No connection outlives the server: a TLS connection would wait for its client's shutdown, stay open when
    the event loop of the test ends, and cause a warning in another test.
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
        await asyncio.sleep(0)  # the event loop closes aborted connections in its next iteration


def port_of(runner: web.AppRunner) -> int:
    """Return the port of a server."""
    port: int = runner.addresses[0][1]
    return port
