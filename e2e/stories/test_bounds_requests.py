"""As an operator I have clients that send too much at once, and the api still serves the others."""

import asyncio
import gzip
import json
import socket
from contextlib import ExitStack
from urllib.parse import urlsplit

import aiohttp
import pytest

from poiesis_e2e.documents import assert_ended, sh
from poiesis_e2e.kube import Kube
from poiesis_e2e.pressure import reading, restarts
from poiesis_e2e.tes_client import TesClient
from poiesis_e2e.waiting import eventually
from poiesis_lab.images import Images

pytestmark = pytest.mark.e2e

_MOST = 8_300_000
_SIZE = "SELECT pg_database_size('poiesis')"
_HEADS = 300
_EXECUTOR = '{"image": "busybox", "command": ["true"]}'
_VARIABLES = ",".join(f'"{number:x}": ""' for number in range(925))
_BODIES = {
    "env": json.dumps({"executors": []})[:-2]
    + ",".join([f'{{"image": "b", "command": ["c"], "env": {{{_VARIABLES}}}}}'] * 700)
    + "]}",
    "nested": f'{{"executors": [{_EXECUTOR}], "x": [' + "[[]]," * (_MOST // 5) + "1]}",
    "NaN": f'{{"executors": [{_EXECUTOR}], "y": "NaN", "x": [' + "[]," * (_MOST // 3) + "1]}",
}


@pytest.mark.parametrize("kind", _BODIES)
async def test_concurrent_large_requests_crash_no_api(
    kind: str, second_client: TesClient, second_kube: Kube, images: Images
) -> None:
    body = gzip.compress(_BODIES[kind].encode())
    before, bytes_before = await restarts(second_kube), int(await second_kube.sql(_SIZE))
    timeout = aiohttp.ClientTimeout(total=120)
    async with reading(second_client) as reads, aiohttp.ClientSession(timeout=timeout) as http:

        async def send() -> int:
            headers = {"Content-Encoding": "gzip"}
            async with http.post(f"{second_client.base}/tasks", data=body, headers=headers) as answer:
                return answer.status

        statuses = await asyncio.gather(*(send() for _ in range(12)))

    assert set(statuses) <= {400, 503}
    assert 400 in statuses
    assert reads.errors == []
    assert max(reads.seconds) < 5
    assert await restarts(second_kube) == before
    assert int(await second_kube.sql(_SIZE)) < bytes_before + _MOST, "nothing of it is stored"
    assert_ended(await second_client.run({"executors": [sh(images.busybox, "true")]}), "COMPLETE")


async def test_ten_thousand_inputs_are_accepted(second_client: TesClient, images: Images) -> None:
    task_id = await second_client.create(
        {
            "executors": [sh(images.busybox, "true")],
            "inputs": [{"path": f"/in/{number}", "url": f"s3://none/{number}"} for number in range(10_000)],
        }
    )
    assert len((await second_client.get(task_id, "FULL"))["inputs"]) == 10_000
    await second_client.cancel(task_id)


async def test_unfinished_requests_time_out_and_others_succeed(
    second_client: TesClient, second_kube: Kube
) -> None:
    before = await restarts(second_kube)
    url = urlsplit(second_client.base)
    head = f"GET {url.path}/tasks HTTP/1.1\r\nHost: ".encode()
    with ExitStack() as stack:
        open_ones: set[socket.socket] = set()
        for _ in range(_HEADS):
            one = socket.create_connection((url.hostname or "", url.port or 80))
            open_ones.add(stack.enter_context(one))
            one.sendall(head)
            one.setblocking(False)

        async def all_cut_off() -> bool:
            open_ones.difference_update([one for one in open_ones if _is_closed(one)])
            return not open_ones

        async with reading(second_client) as reads:
            await eventually(all_cut_off, f"the end of {_HEADS} connections", seconds=60)

    assert reads.errors == []
    assert await restarts(second_kube) == before


def _is_closed(connection: socket.socket) -> bool:
    """Return whether the peer has closed the connection."""
    try:
        return connection.recv(4096) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True
