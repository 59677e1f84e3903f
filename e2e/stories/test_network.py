"""As a user of a shared cluster I know that no other user's task can read or forge data of my tasks."""

import asyncio
import base64
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from poiesis_e2e.documents import RunTask, assert_ended, executor_logs, sh
from poiesis_e2e.kube import CommandError, Kube, Node, run
from poiesis_e2e.tes_client import TesClient
from poiesis_lab.images import Images

pytestmark = pytest.mark.e2e

NET_RAW = 1 << 13  # capabilities(7), linux/capability.h
TLS_DATA = b"\x17\x03\x03"  # RFC 8446, section 5.1: a record of application data, and the version

# Prints the payload of every packet from and to an address's port 5432, a line of base64 for each.
_CAPTURE = """
import base64, socket, sys
server = socket.inet_aton(sys.argv[1])
packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
print("ready", flush=True)
while True:
    frame = packets.recv(65536)
    if frame[12:14] != b"\\x08\\x00" or frame[23] != 6 or server not in (frame[26:30], frame[30:34]):
        continue
    tcp = 14 + 4 * (frame[14] & 15)
    if (5432).to_bytes(2, "big") in (frame[tcp : tcp + 2], frame[tcp + 2 : tcp + 4]):
        print(base64.b64encode(frame[tcp + 4 * (frame[tcp + 12] >> 4) :]).decode(), flush=True)
"""


@pytest.mark.core
async def test_no_executor_can_open_a_raw_socket(run_task: RunTask, images: Images) -> None:
    """ARP spoofing and TCP session hijacking both need a raw socket."""
    attack = "grep CapBnd /proc/self/status; arping -c 1 -w 1 -I eth0 10.244.0.1 2>&1"
    task = await run_task(
        {
            "executors": [
                {**sh(image, attack), "ignore_error": True}
                for image in (images.busybox, images.busybox_nonroot)
            ]
        }
    )

    assert_ended(task, "COMPLETE")
    for log in executor_logs(task):
        bounding, refusal = log["stdout"].splitlines()[:2]
        assert int(bounding.split()[1], 16) & NET_RAW == 0
        assert "Operation not permitted" in refusal


@asynccontextmanager
async def _captured(node: Node, image: str, server: str) -> AsyncIterator[bytearray]:
    """Capture the traffic of the node's Pods with a Postgres, by a program with NET_RAW on their bridge."""
    name = f"poiesis-e2e-capture-{secrets.token_hex(4)}"
    process = await asyncio.create_subprocess_exec(
        *(node.docker, "run", "--rm", "--name", name, "--network", f"container:{node.container}"),
        *("--cap-add", "NET_RAW", image, "python3", "-c", _CAPTURE, server),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    captured = bytearray()
    assert await process.stdout.readline() == b"ready\n"

    async def collect(lines: asyncio.StreamReader) -> None:
        async for line in lines:
            captured.extend(base64.b64decode(line))

    collecting = asyncio.create_task(collect(process.stdout))
    try:
        yield captured
    finally:
        await run(node.docker, "kill", name)
        await collecting
        await process.wait()


@pytest.mark.core
async def test_postgres_traffic_is_encrypted_on_the_pod_network(
    third_client: TesClient, third_kube: Kube, images: Images, node: Node
) -> None:
    canary = secrets.token_hex(16)
    (postgres,) = await third_kube.of_component("pods", "postgres")
    async with _captured(node, images.python_base, postgres["status"]["podIP"]) as captured:
        task = await third_client.run(
            {"executors": [{**sh(images.busybox, 'echo "$CANARY"'), "env": {"CANARY": canary}}]}
        )

    assert_ended(task, "COMPLETE")
    assert executor_logs(task)[0]["stdout"] == f"{canary}\n"
    assert TLS_DATA in captured
    assert canary.encode() not in captured
    assert b"poiesis_recorder" not in captured


async def test_postgres_refuses_a_client_without_tls(third_kube: Kube) -> None:
    (service,) = await third_kube.of_component("services", "postgres")
    (pod,) = await third_kube.of_component("pods", "postgres")
    host = service["metadata"]["name"]
    with pytest.raises(CommandError, match="no encryption"):
        await third_kube.service.run(
            *("exec", pod["metadata"]["name"], "--", "psql", "--no-password"),
            f"host={host} user=poiesis_api dbname=poiesis sslmode=disable",
        )
