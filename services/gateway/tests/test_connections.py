"""Connections that send little or nothing, with real sockets."""

import asyncio
import logging
import ssl
import warnings

import pytest
from gateway_fakes import TASK, TOKEN, until

from poiesis_gateway.logs import is_of_the_gateway

HEAD = f"POST /v1/tasks/{TASK}/report HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n".encode()


async def opened(gateway, number, *, tls):
    return [await gateway.raw(tls=tls) for _ in range(number)]


async def close(connections):
    for _, writer in connections:
        writer.close()


async def closed(connection):
    reader, _ = connection
    async with asyncio.timeout(10):
        try:
            return await reader.read() == b""
        except ConnectionError:
            return True


@pytest.mark.parametrize("tls", [False, True], ids=["before the handshake", "before the head"])
async def test_half_open_connections_do_not_shut_out_others(start, database, tls):
    async with start(database, connections=40, connections_per_address=10) as gateway:
        held = await opened(gateway, 50, tls=tls)
        assert (await gateway.post()).status == 200
        assert await gateway.metric("poiesis_gateway_connections ") <= 10
        await close(held)


async def test_total_limit_evicts_the_greediest_address(start, database):
    async with start(database, connections=10, connections_per_address=100) as gateway:
        own = await gateway.post()
        others = [
            await asyncio.open_connection("127.0.0.1", gateway.config.port, local_addr=("127.0.0.2", 0))
            for _ in range(20)
        ]
        await until(lambda: gateway.metric("poiesis_gateway_connections "))
        assert await closed(others[0])
        assert (await gateway.post()).status == own.status == 200
        assert await gateway.metric("poiesis_gateway_connections ") <= 10
        await close(others)


@pytest.mark.parametrize("tls", [False, True])
async def test_connection_without_a_head_is_closed(start, database, tls):
    async with start(database, head_seconds=0.3) as gateway:
        silent = await gateway.raw(tls=tls)
        if tls:
            silent[1].write(HEAD)
        assert await closed(silent)
        silent[1].close()


async def test_idle_connection_is_closed(start, database):
    async with start(database, idle_seconds=0.3, head_seconds=0.3) as gateway:
        reader, writer = await gateway.raw()
        body = b"{}"
        writer.write(HEAD + b"Content-Length: 2\r\n\r\n" + body)
        assert b"200 OK" in await reader.readline()
        assert b"RUNNING" in await asyncio.wait_for(reader.read(), 10)
        writer.close()


async def test_all_busy_connections_reject_another(start, database):
    database.gate = asyncio.Event()
    async with start(database, connections_per_address=2) as gateway:
        busy = [asyncio.create_task(gateway.post()) for _ in range(2)]
        await until(lambda: database.concurrent == 2)
        with pytest.raises(ConnectionError):
            await gateway.raw()
        database.gate.set()
        assert [(await one).status for one in busy] == [200, 200]


async def test_plain_http_is_closed(gateway):
    reader, writer = await gateway.raw(tls=False)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert await closed((reader, writer))
    writer.close()
    assert (await gateway.post()).status == 200


@pytest.mark.parametrize(("version", "accepted"), [("TLSv1_1", False), ("TLSv1_2", True), ("TLSv1_3", True)])
async def test_tls_is_at_least_1_2(gateway, version, accepted):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 1.1 is deprecated here as well
        context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    gateway.trust = context
    try:
        _, writer = await gateway.raw()
    except OSError:
        assert not accepted
    else:
        writer.close()
        assert accepted


async def test_malformed_request_is_answered_without_a_log_of_it(gateway, caplog):
    log = logging.getLogger("aiohttp.server")
    log.addFilter(is_of_the_gateway)
    try:
        reader, writer = await gateway.raw()
        writer.write(b"POST / HTTP/1.1\r\nAuthorization: Bearer secret-token\x00\r\n\r\n")
        assert b"400" in await reader.readline()
        writer.close()
    finally:
        log.removeFilter(is_of_the_gateway)
    assert not any("secret-token" in str(vars(record)) for record in caplog.records)
