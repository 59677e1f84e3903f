"""As a user I stage many inputs, and overlapping paths have a defined result."""

import pytest

from poiesis_e2e.documents import RunTask, assert_ended, sh, stdout
from poiesis_e2e.storage import Bucket
from poiesis_e2e.tes_client import Input, TesClient
from poiesis_lab.images import Images

pytestmark = pytest.mark.e2e

RUN = "/cromwell-executions/JointGenotyping/3c1f0f52-9b5e-4d0a-8f7e-2a6c4b1d9e80"
SHARD = f"{RUN}/call-ImportGVCFs/shard-0/inputs"


async def test_1200_inputs_in_directories_of_their_own(
    run_task: RunTask, images: Images, bucket: Bucket
) -> None:
    url = await bucket.put("in/x", b"x")
    inputs: list[Input] = [
        {"path": f"{SHARD}/{number:010}/sample.g.vcf.gz", "type": "FILE", "url": url}
        for number in range(1200)
    ]
    script = "find /cromwell-executions -name sample.g.vcf.gz | wc -l"
    task = await run_task({"executors": [sh(images.busybox, script)], "inputs": inputs})

    assert_ended(task, "COMPLETE")
    assert stdout(task).split() == ["1200"]


@pytest.mark.parametrize("order", [1, -1])
async def test_deeper_of_two_overlapping_inputs_wins(
    run_task: RunTask, images: Images, bucket: Bucket, order: int
) -> None:
    for key in ("one/dos/same.txt", "one/top.txt", "two/same.txt"):
        await bucket.put(key, f"{key}\n".encode())
    inputs: list[Input] = [
        {"path": "/tes/old/dos", "type": "DIRECTORY", "url": bucket.url("two/")},
        {"path": "/tes/old", "type": "DIRECTORY", "url": bucket.url("one/")},
        {"path": "/tes/old/top.txt", "content": "content\n"},
    ]
    script = "cd /tes/old && cat top.txt dos/same.txt && ls dos"
    task = await run_task({"executors": [sh(images.busybox, script)], "inputs": inputs[::order]})

    assert_ended(task, "COMPLETE")
    assert stdout(task) == "content\ntwo/same.txt\nsame.txt\n"


async def test_a_program_that_is_staged_can_be_executed(run_task: RunTask, images: Images) -> None:
    task = await run_task(
        {
            "executors": [
                {"image": images.busybox, "command": ["/data/run.sh"]},
                {"image": images.busybox_nonroot, "command": ["/data/run.sh"]},
            ],
            "inputs": [{"path": "/data/run.sh", "content": "#!/bin/sh\nid -u\n"}],
        }
    )

    assert_ended(task, "COMPLETE")
    assert [stdout(task, index) for index in (0, 1)] == ["0\n", "1000\n"]


async def test_missing_input_type_is_filled_in_after_staging(
    client: TesClient, images: Images, bucket: Bucket
) -> None:
    url = await bucket.put("in/ref/a", b"x")
    inputs: list[Input] = [
        {"path": "/data/file", "url": url},
        {"path": "/data/folder/", "url": bucket.url("in/ref")},
        {"path": "/data/text", "content": "x"},
    ]
    task = await client.run({"executors": [sh(images.busybox, "true")], "inputs": inputs})

    assert_ended(task, "COMPLETE")
    basic = await client.get(task["id"], "BASIC")
    for document in (task, basic):
        assert [one.get("type") for one in document["inputs"]] == ["FILE", "DIRECTORY", "FILE"]
