"""As an operator I may lose the recorder at any moment: no event is lost or recorded twice."""

import asyncpg
import pytest

from poiesis_e2e.documents import (
    assert_ended,
    executor_logs,
    exit_codes,
    only_log,
    reason,
    sh,
    stdout,
    system_logs,
)
from poiesis_e2e.kube import Kube, Node, container_status
from poiesis_e2e.storage import Bucket
from poiesis_e2e.tes_client import TesClient
from poiesis_lab.images import Images

pytestmark = pytest.mark.e2e


@pytest.mark.core
async def test_recorder_killed_twice_loses_and_duplicates_nothing(
    client: TesClient, kube: Kube, node: Node, images: Images, bucket: Bucket
) -> None:
    counting = 'for i in $(seq 1 8); do echo "$0 $i"; sleep 1; done; echo "$0" >/out/$0'
    words = ("one", "two", "three")
    task_id = await client.create(
        {
            "executors": [sh(images.busybox, counting, word) for word in words],
            "outputs": [{"path": f"/out/{word}", "url": bucket.url(word)} for word in words],
        }
    )
    for index in (0, 1):
        await kube.running_container(task_id, f"executor-{index}")
        await node.signal_container(await kube.running_container(task_id, "trec"), "SIGKILL")
    await client.wait(task_id)
    task = await client.get(task_id, "FULL")

    recorder = container_status(await kube.pod(task_id), "trec")
    assert recorder is not None
    assert recorder["restartCount"] >= 1
    assert_ended(task, "COMPLETE")
    assert exit_codes(task) == [0, 0, 0]
    for index, word in enumerate(words):
        assert stdout(task, index) == "".join(f"{word} {count}\n" for count in range(1, 9))
    assert sorted((sent["path"], sent["size_bytes"]) for sent in only_log(task)["outputs"]) == [
        ("/out/one", "4"),
        ("/out/three", "6"),
        ("/out/two", "4"),
    ]
    lines = only_log(task).get("system_logs", [])
    assert len(lines) == len(set(lines))


@pytest.mark.parametrize(
    ("script", "code", "word"),
    [
        ("echo unheard; sleep 2; exit 9", 9, "Error"),
        ("sleep 2; dd if=/dev/zero of=/dev/null bs=512M count=1", 137, "OOMKilled"),
    ],
    ids=["it exits with 9", "it runs out of memory"],
)
async def test_controller_records_outcome_when_recorder_cannot(
    *,
    client: TesClient,
    database: asyncpg.Connection,
    kube: Kube,
    images: Images,
    script: str,
    code: int,
    word: str,
) -> None:
    task_id = await client.create({"executors": [sh(images.busybox, script)], "resources": {"ram_gb": 0.064}})
    changed = await database.execute(
        "UPDATE task SET recorder_token_hash = sha256('another token') WHERE id = $1", task_id
    )
    assert changed == "UPDATE 1"

    await client.wait(task_id)
    task = await client.get(task_id, "FULL")

    assert_ended(task, "EXECUTOR_ERROR")
    assert reason(task) == word
    assert [log["exit_code"] for log in executor_logs(task)] == [code]
    row = await database.fetchrow("SELECT reported_by::text, container FROM task WHERE id = $1", task_id)
    assert row is not None
    assert tuple(row) == ("controller", "executor-0")
    assert system_logs(task)
    assert (await kube.ended_pod(task_id))["status"]["phase"] == "Failed"
