"""As a user whose tool reads a file once I do not wait for its download."""

import asyncio

import pytest
from aiohttp import web

from poiesis_e2e.documents import assert_ended, exit_codes, only_log, sh, stdout, system_logs
from poiesis_e2e.halves import HALF, halves, rest_when
from poiesis_e2e.kube import Kube, Node, containers
from poiesis_e2e.storage import Bucket
from poiesis_e2e.tes_client import TesClient
from poiesis_e2e.waiting import eventually
from poiesis_lab.images import Images

pytestmark = pytest.mark.e2e


async def test_an_executor_reads_before_the_download_has_ended(
    third_client: TesClient, third_kube: Kube, node: Node, images: Images
) -> None:
    read = asyncio.Event()

    script = f"exec </in/reads; head -c {HALF} | wc -c; wc -c"
    async with halves(node, rest_when(read)) as url:
        task_id = await third_client.create(
            {
                "executors": [sh(images.busybox, script)],
                "inputs": [{"path": "/in/reads", "url": url, "type": "FILE", "streamable": True}],
            }
        )

        async def first_half_was_read() -> bool:
            task = await third_client.get(task_id, "FULL")
            metadata = task["logs"][-1].get("metadata", {}) if task.get("logs") else {}
            return metadata.get("executor-0.stdout") == f"{HALF}\n"

        await eventually(first_half_was_read, "the first half in the executor's live log", seconds=120)
        read.set()
        await third_client.wait(task_id)

    task = await third_client.get(task_id, "FULL")
    assert_ended(task, "COMPLETE")
    assert stdout(task) == f"{HALF}\n{HALF}\n"
    pod = await third_kube.pod(task_id)
    assert list(containers(pod)) == ["trec", "stream-0", "prepare-0", "executor-0", "pause"]


async def test_broken_source_fails_task_despite_exit_0(
    third_client: TesClient, node: Node, images: Images
) -> None:
    async def cut(request: web.Request, _: web.StreamResponse) -> None:
        assert request.transport is not None
        request.transport.close()

    async with halves(node, cut) as url:
        task = await third_client.run(
            {
                "executors": [sh(images.busybox, "wc -c </in/reads")],
                "inputs": [{"path": "/in/reads", "url": url, "type": "FILE", "streamable": True}],
            }
        )

    assert_ended(task, "SYSTEM_ERROR")
    assert exit_codes(task) == [0]
    assert stdout(task) == f"{HALF}\n"
    metadata = only_log(task)["metadata"]
    assert metadata["container"] == "stream-0"
    assert f"cannot fetch {url}: " in metadata["message"]
    assert f"received {HALF} of {2 * HALF} bytes" in metadata["message"]
    assert f"stream-0: cannot fetch {url}" in system_logs(task)


async def test_unread_stream_is_no_failure(
    third_client: TesClient, third_kube: Kube, images: Images, bucket: Bucket
) -> None:
    await bucket.put("reads", b"r" * 4 * HALF)
    task = await third_client.run(
        {
            "executors": [sh(images.busybox, "head -c 3 /in/reads; wc -c </staged/reads >/staged/size")],
            "inputs": [
                {"path": path, "url": bucket.url("reads"), "type": "FILE", "streamable": True}
                for path in ("/in/reads", "/staged/reads")
            ],
            "outputs": [{"path": "/staged/*", "path_prefix": "/staged", "url": bucket.url("out")}],
        }
    )

    assert_ended(task, "COMPLETE")
    assert stdout(task) == "rrr"
    assert await bucket.get("out/size") == f"{4 * HALF}\n".encode()
    pod = await third_kube.pod(task["id"])
    assert list(containers(pod)) == [
        *("trec", "rescue-0", "tif-0", "stream-0", "prepare-0", "executor-0", "tof-0", "pause")
    ]
