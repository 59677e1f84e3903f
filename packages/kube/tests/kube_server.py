"""An HTTP server whose responses a test writes down, one per request."""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio.client import Configuration
from trustme import CA

from poiesis_kube.client import Client

Respond = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Seen:
    """A request that arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


@dataclass
class Server:
    """`responses` are used up in order; the last one answers all further requests."""

    responses: list[Respond]
    seen: list[Seen] = field(default_factory=list)
    url: str = ""
    port: int = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json() if request.can_read_body else None
        self.seen.append(Seen(request.method, request.path_qs, dict(request.headers), body))
        respond = self.responses.pop(0) if len(self.responses) > 1 else self.responses[0]
        return await respond(request)


def document(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Respond:
    async def respond(_: web.Request) -> web.StreamResponse:
        return web.json_response(content, status=status, headers=headers)

    return respond


def text(content: str, status: int = 200) -> Respond:
    async def respond(_: web.Request) -> web.StreamResponse:
        return web.Response(text=content, status=status)

    return respond


async def hang_up(request: web.Request) -> web.StreamResponse:
    """Break the connection."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


def stream(*pieces: bytes, then: Respond | None = None) -> Respond:
    async def respond(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
        if then is not None:
            await then(request)
        return response

    return respond


@asynccontextmanager
async def serving(*responses: Respond, **options: Any) -> AsyncIterator[tuple[Server, Client]]:
    server = Server(list(responses))
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    async with TestServer(app, shutdown_timeout=0.1) as running, aiohttp.ClientSession() as session:
        server.url = str(running.make_url("")).rstrip("/")
        yield server, Client(session, Configuration(host=server.url), **options)


@asynccontextmanager
async def serving_tls(ca: CA, *responses: Respond) -> AsyncIterator[Server]:
    server = Server(list(responses))
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    running = TestServer(app, scheme="https", shutdown_timeout=0.1)
    await running.start_server(ssl=context)
    try:
        server.port = running.port or 0
        yield server
    finally:
        await running.close()
