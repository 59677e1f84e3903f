"""As a workflow engine I read the files and streams of a task whose container was killed."""

import time

import pytest

from poiesis_e2e.documents import (
    assert_ended,
    executor_logs,
    exit_codes,
    only_log,
    reason,
    sh,
    system_logs,
)
from poiesis_e2e.kube import Kube, Node
from poiesis_e2e.storage import Bucket
from poiesis_e2e.tes_client import Document, TesClient
from poiesis_e2e.waiting import eventually
from poiesis_lab.images import Images

pytestmark = pytest.mark.e2e

_WAIT = "while :; do sleep 0.1; done"
_GREEDY = "dd if=/dev/zero of=/dev/null bs=512M count=1"
_WRITE = "echo begun; echo problem >&2; mkdir -p /out/d; echo one >/out/d/1; echo two >/out/d/2"


def _document(images: Images, bucket: Bucket, script: str) -> Document:
    first = sh(images.busybox, f"{_WRITE}; {script}")
    return {
        "executors": [
            {**first, "stdout": "/log/stdout", "stderr": "/log/stderr"},
            sh(images.busybox, "echo never"),
        ],
        "resources": {"ram_gb": 0.064},
        "outputs": [
            {"path": "/log/stdout", "url": bucket.url("stdout")},
            {"path": "/log/stderr", "url": bucket.url("stderr")},
            {"path": "/out/d", "url": bucket.url("d"), "type": "DIRECTORY"},
            {"path": "/out/none", "url": bucket.url("none")},
        ],
    }


async def _ready(client: TesClient, task_id: str) -> None:
    async def look() -> bool:
        task = await client.get(task_id, "FULL")
        metadata = [log.get("metadata", {}) for log in task.get("logs", ())]
        return any(one.get("executor-0.stdout") == "begun\n" for one in metadata)

    await eventually(look, f"output of task {task_id}")


@pytest.mark.parametrize("kill", ["of memory", "from outside"])
async def test_outputs_of_a_killed_executor_are_stored(
    *, client: TesClient, kube: Kube, node: Node, images: Images, bucket: Bucket, kill: str
) -> None:
    out_of_memory = kill == "of memory"
    task_id = await client.create(_document(images, bucket, _GREEDY if out_of_memory else _WAIT))
    if not out_of_memory:
        await _ready(client, task_id)
        await node.signal_container(await kube.running_container(task_id, "executor-0"), "SIGKILL")
    await client.wait(task_id)
    task = await client.get(task_id, "FULL")

    assert_ended(task, "EXECUTOR_ERROR")
    assert exit_codes(task) == [137]
    assert reason(task) == ("OOMKilled" if out_of_memory else "Error")
    assert await bucket.text("stdout") == "begun\n"
    assert (await bucket.text("stderr")).startswith("problem\n")
    assert await bucket.text("d/1") == "one\n"
    assert await bucket.text("d/2") == "two\n"
    assert {sent["path"] for sent in only_log(task)["outputs"]} == {
        *("/log/stdout", "/log/stderr", "/out/d/1", "/out/d/2")
    }
    logs = system_logs(task)
    assert "rescue-0 started: executor 0 was killed before outputs could be sent" in logs
    assert "rescue-0: output /out/none was not produced" in logs
    assert "rescue-0 sent 4 files" in logs
    assert executor_logs(task)[0]["stdout"] == "begun\n"
    assert (await kube.ended_pod(task_id))["status"]["phase"] == "Failed"


async def test_canceled_task_sends_nothing_and_ends_quickly(
    client: TesClient, images: Images, bucket: Bucket
) -> None:
    task_id = await client.create(_document(images, bucket, _WAIT))
    await _ready(client, task_id)
    began = time.monotonic()
    await client.cancel(task_id)
    await client.wait(task_id)

    assert_ended(await client.get(task_id), "CANCELED")
    assert await bucket.keys() == []
    assert time.monotonic() - began < 40  # its Pod's grace period is longer
