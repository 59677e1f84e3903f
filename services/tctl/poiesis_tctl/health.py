"""/healthz: the lease loop is alive. /readyz: it gets answers, and a leader's caches are complete.

/metrics: figures for Prometheus.
"""

import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager

from aiohttp import hdrs, web

from poiesis_tctl.metrics import CONTENT_TYPE


@asynccontextmanager
async def serve(
    port: int, *, healthy: Callable[[], bool], ready: Callable[[], bool], metrics: Callable[[], bytes]
) -> AsyncIterator[None]:
    """Answer 200 or 503, and scrapes, for as long as the block lasts."""
    app = web.Application()
    app.router.add_get("/healthz", _answer(healthy))
    app.router.add_get("/readyz", _answer(ready))
    app.router.add_get("/metrics", _scrape(metrics))
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.SockSite(runner, _listen(port)).start()
        yield
    finally:
        await runner.cleanup()


def _listen(port: int) -> socket.socket:
    """One socket for both families, so one port also where any may be taken."""
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))


def _answer(good: Callable[[], bool]) -> Callable[[web.Request], Coroutine[None, None, web.Response]]:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text="ok\n") if good() else web.Response(text="no\n", status=503)

    return answer


def _scrape(metrics: Callable[[], bytes]) -> Callable[[web.Request], Coroutine[None, None, web.Response]]:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=metrics(), headers={hdrs.CONTENT_TYPE: CONTENT_TYPE})

    return answer
