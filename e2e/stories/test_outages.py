"""As an operator I replace and lose services while tasks run, and neither tasks nor clients notice."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

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

    async with _without(second_kube, "api", "tctl", "postgres"):

        async def sent() -> bool:
            status = container_status(await second_kube.pod(task_id), "tof-0")
            return bool(status and status["state"].get("terminated"))

        await eventually(sent, "the outputs sent while nothing of the release runs", seconds=120)
        assert await bucket.text("kept") == "kept\n"

    await second_client.wait(task_id)
    task = await second_client.get(task_id, "FULL")

    assert_ended(task, "COMPLETE")
    assert [stdout(task, index) for index in (0, 1)] == ["first\n", "second\n"]
    assert [sent["size_bytes"] for sent in only_log(task)["outputs"]] == ["5"]


async def test_no_request_fails_while_the_api_is_replaced(
    second_client: TesClient, second_kube: Kube, images: Images
) -> None:
    task_id = await second_client.create({"executors": [sh(images.busybox, "sleep 20")]})
    deployment = await _name(second_kube, "deployments", "api")

    await second_kube.run("rollout", "restart", deployment)
    rollout = asyncio.create_task(second_kube.run("rollout", "status", deployment, "--timeout=180s"))
    answers = 0
    while not rollout.done():
        assert (await second_client.get(task_id))["id"] == task_id
        answers += 1

    await rollout
    assert answers > 50
    assert (await second_client.wait(task_id)).state == "COMPLETE"


async def _name(kube: Kube, kind: str, component: str) -> str:
    return (
        await kube.run("get", kind, "-l", f"app.kubernetes.io/component={component}", "-o", "name")
    ).strip()


@asynccontextmanager
async def _without(kube: Kube, *components: str) -> AsyncIterator[None]:
    """None of the components' Pods exist meanwhile; afterwards all of them are ready again."""
    names = [await _name(kube, "deployments,statefulsets", component) for component in components]
    before = [await kube.run("get", name, "-o", "jsonpath={.spec.replicas}") for name in names]
    try:
        await kube.run("scale", *names, "--replicas=0")

        async def gone() -> bool:
            selector = f"app.kubernetes.io/component in ({','.join(components)})"
            return not await kube.find("pods", selector)

        await eventually(gone, f"no Pods of {', '.join(components)}", seconds=90)
        yield
    finally:
        for name, replicas in zip(names, before, strict=True):
            await kube.run("scale", name, f"--replicas={replicas}")
        for name in names:
            await kube.run("rollout", "status", name, "--timeout=180s")
