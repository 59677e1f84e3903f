"""Servers of the stories leave no connection open."""

import asyncio
import gc
import socket
import ssl
import warnings

import trustme
from aiohttp import web

from poiesis_e2e.serving import port_of, serving

_HERE = "127.0.0.1"


async def _answer(_: web.Request) -> web.Response:
    return web.Response(text="heard")


def _keep_open(authority: trustme.CA, port: int) -> ssl.SSLSocket:
    """Open a connection, read one response, and leave it open without a TLS shutdown."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    connection = context.wrap_socket(socket.create_connection((_HERE, port)), server_hostname=_HERE)
    connection.sendall(b"GET / HTTP/1.1\r\nHost: story\r\n\r\n")
    assert connection.recv(1000).startswith(b"HTTP/1.1 200")
    return connection


def test_no_connection_outlives_its_server() -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(_HERE).configure_cert(context)
    application = web.Application()
    application.router.add_get("/", _answer)

    async def serve() -> ssl.SSLSocket:
        async with serving(application, _HERE, tls=context) as runner:
            return await asyncio.to_thread(_keep_open, authority, port_of(runner))

    with asyncio.Runner() as runner, warnings.catch_warnings(record=True) as left_open:
        warnings.simplefilter("always")
        connection = runner.run(serve())
        runner.close()
        gc.collect()
    connection.close()

    assert [str(one.message) for one in left_open] == []
