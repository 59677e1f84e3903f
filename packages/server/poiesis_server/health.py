"""The port for operators: /metrics for Prometheus, and /healthz and /readyz by functions of the service."""

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager

from aiohttp import hdrs, web

from poiesis_server.sockets import listen

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"  # Prometheus' text format


@asynccontextmanager
async def serve(
    port: int,
    *,
    metrics: Callable[[], bytes],
    healthy: Callable[[], bool] | None = None,
    ready: Callable[[], bool] | None = None,
) -> AsyncIterator[None]:
    """Serve metrics and health (200 or 503) for as long as the block lasts. None: no such path."""
    app = web.Application()
    for path, good in (("/healthz", healthy), ("/readyz", ready)):
        if good is not None:
            app.router.add_get(path, _health(good))
    app.router.add_get("/metrics", _scrape(metrics))
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.SockSite(runner, listen(port)).start()
        yield
    finally:
        await runner.cleanup()


def _health(good: Callable[[], bool]) -> Callable[[web.Request], Coroutine[None, None, web.Response]]:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text="ok\n") if good() else web.Response(text="unavailable\n", status=503)

    return answer


def _scrape(metrics: Callable[[], bytes]) -> Callable[[web.Request], Coroutine[None, None, web.Response]]:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=metrics(), headers={hdrs.CONTENT_TYPE: METRICS_TYPE})

    return answer
