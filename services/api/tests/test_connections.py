"""Connections that send no request, and more of them than there may be."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from poiesis_api.config import Http
from poiesis_api.connections import Connections

HALF = b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Never: "
WHOLE = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Served:
    """A server with one handler, a clock that the test turns, and raw connections to it."""

    def __init__(self, **config):
        self.now = 0.0
        self.connections = Connections(Http(**config), lambda: self.now)
        self.go = asyncio.Event()
        self.go.set()

    @asynccontextmanager
    async def running(self):
        async def handler(_):
            await self.go.wait()
            return web.Response(text="hello")

        app = web.Application(middlewares=[self.connections.watched])
        app.router.add_get("/", handler)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        loop = asyncio.get_running_loop()
        listening = await loop.create_server(self.connections.factory(runner.server), "127.0.0.1", 0)
        self.port = listening.sockets[0].getsockname()[1]
        self.writers = []
        yield
        for writer in self.writers:
            writer.close()
            await asyncio.gather(writer.wait_closed(), return_exceptions=True)
        listening.close()
        await runner.cleanup()

    async def send(self, data=b""):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        self.writers.append(writer)
        return reader, writer


async def answered(reader):
    async with asyncio.timeout(30):
        await reader.readuntil(b"hello")


async def closed(reader):
    async with asyncio.timeout(30):
        try:
            return await reader.read() == b""
        except ConnectionResetError:
            return True


async def until(condition):
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.fixture
async def served():
    server = Served(head_seconds=15, keep_alive_seconds=75, max_connections=3)
    async with server.running():
        yield server


@pytest.mark.parametrize("sent", [b"", HALF])
async def test_a_connection_without_a_complete_head_is_closed(served, sent):
    reader, _ = await served.send(sent)
    await until(lambda: len(served.connections._idle) == 1)
    served.now = 14
    served.connections.close_idle()
    assert len(served.connections._idle) == 1
    served.now = 15
    served.connections.close_idle()
    assert await closed(reader)


async def test_incomplete_head_after_request_is_closed_later(served):
    reader, writer = await served.send(WHOLE)
    await answered(reader)
    writer.write(HALF)
    served.now = 89
    served.connections.close_idle()
    writer.write(b"x\r\n\r\n" + HALF)
    await answered(reader)
    served.now += 90
    served.connections.close_idle()
    assert await closed(reader)


async def test_a_request_that_takes_long_is_not_idle(served):
    served.go.clear()
    reader, _ = await served.send(WHOLE)
    await until(lambda: served.connections._busy)
    served.now = 1_000_000
    served.connections.close_idle()
    served.go.set()
    await answered(reader)


async def test_new_connection_replaces_longest_idle_one(served):
    oldest, _ = await served.send(HALF)
    await until(lambda: len(served.connections._idle) == 1)
    served.now = 1
    others = [await served.send(HALF) for _ in range(2)]
    await until(lambda: len(served.connections._idle) == 3)
    served.now = 2
    reader, _ = await served.send(WHOLE)
    await answered(reader)
    assert await closed(oldest)
    assert len(others) == 2


async def test_new_connection_without_idle_one_is_rejected(served, caplog):
    served.go.clear()
    busy = [await served.send(WHOLE) for _ in range(3)]
    await until(lambda: len(served.connections._busy) == 3)
    reader, _ = await served.send(WHOLE)
    assert await closed(reader)
    assert "connection rejected" in caplog.text
    served.go.set()
    for one, _ in busy:
        await answered(one)


async def test_closed_connections_are_forgotten(served):
    _, writer = await served.send(HALF)
    await until(lambda: len(served.connections._idle) == 1)
    writer.close()
    await writer.wait_closed()
    served.now = 5

    def forgotten():
        served.connections.close_idle()
        return not served.connections._idle

    await until(forgotten)
