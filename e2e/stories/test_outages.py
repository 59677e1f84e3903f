"""As an operator I replace and lose services while tasks run, and neither tasks nor clients notice."""

import asyncio

import pytest

from documents import assert_ended, only_log, sh, stdout
from kube import Kube, container_status
from lab.images import Images
from storage import Bucket
from tes_client import TesClient
from waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.disruptive]


async def test_a_running_task_needs_neither_api_nor_controller_nor_database(
    second_client: TesClient, second_kube: Kube, images: Images, bucket: Bucket
) -> None:
    task_id = await second_client.create(
        {
            "executors": [
                sh(images.busybox, "echo first; sleep 8; echo kept >/out/kept"),
                sh(images.busybox, "echo second"),
            ],
            "outputs": [{"path": "/out/kept", "url": bucket.url("kept")}],
        }
    )
    await second_client.wait(task_id, until={"RUNNING"})

    async with second_kube.without("api", "tctl", "postgres"):

        async def sent() -> bool:
            status = container_status(await second_kube.pod(task_id), "tof-0")
            return bool(status and status["state"].get("terminated"))

        await eventually(sent, "the outputs sent while nothing of the release runs", seconds=120)
        assert await bucket.text("kept") == "kept\n"

    await eventually(second_client.answers, "an answer of the api")
    await second_client.wait(task_id)
    task = await second_client.get(task_id, "FULL")

    assert_ended(task, "COMPLETE")
    assert [stdout(task, index) for index in (0, 1)] == ["first\n", "second\n"]
    assert [sent["size_bytes"] for sent in only_log(task)["outputs"]] == ["5"]


async def test_no_request_fails_while_the_api_is_replaced(
    second_client: TesClient, second_kube: Kube, images: Images
) -> None:
    task_id = await second_client.create({"executors": [sh(images.busybox, "sleep 20")]})
    (found,) = await second_kube.of_component("deployments", "api")
    deployment = f"deployment/{found['metadata']['name']}"

    await second_kube.run("rollout", "restart", deployment)
    rollout = asyncio.create_task(second_kube.run("rollout", "status", deployment, "--timeout=180s"))
    answers = 0
    while not rollout.done():
        assert (await second_client.get(task_id))["id"] == task_id
        answers += 1

    await rollout
    assert answers > 50
    assert (await second_client.wait(task_id)).state == "COMPLETE"
