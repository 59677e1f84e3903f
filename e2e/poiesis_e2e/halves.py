"""A source of inputs that sends half of a file, and continues on request."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from poiesis_e2e.kube import Node
from poiesis_e2e.serving import port_of, serving

HALF = 512 * 1024  # more than the buffers of a pipe and a filer: a reader gets it before the rest is sent
Send = Callable[[web.Request, web.StreamResponse], Awaitable[None]]


def rest_when(asked: asyncio.Event, *, half: int = HALF) -> Send:
    """Send the second half when `asked` is set."""

    async def send(_: web.Request, response: web.StreamResponse) -> None:
        await asked.wait()
        await response.write(b"2" * half)

    return send


@asynccontextmanager
async def halves(node: Node, then: Send, *, half: int = HALF) -> AsyncIterator[str]:
    """Yield the URL of a file of two halves (`half` bytes): one is sent at once, the other by `then`."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(2 * half)})
        await response.prepare(request)
        await response.write(b"1" * half)
        await then(request, response)
        return response

    application = web.Application()
    application.router.add_get("/reads", answer)
    address = await node.host_address()
    async with serving(application, address, grace=1) as runner:
        yield f"http://{address}:{port_of(runner)}/reads"
