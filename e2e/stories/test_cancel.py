"""As a user I stop a task that I no longer want, whatever it is doing."""

import uuid

import pytest

from documents import assert_ended, sh, system_logs
from kube import Kube, Node
from lab.images import Images
from tes_client import TERMINAL, TesClient
from waiting import eventually

pytestmark = pytest.mark.e2e


async def test_a_task_that_waits_for_a_node_is_canceled(
    client: TesClient, kube: Kube, images: Images
) -> None:
    task_id = await client.create(
        {"executors": [sh(images.busybox, "true")], "resources": {"cpu_cores": 1000}}
    )
    await kube.pod(task_id)
    assert (await client.get(task_id))["state"] == "QUEUED"

    await client.cancel(task_id)
    history = await client.wait(task_id, timeout=60)

    assert history.state == "CANCELED"
    await eventually(lambda: _nothing_left(kube, task_id), "no object of the task", seconds=60)


async def test_a_task_canceled_right_after_its_creation_never_completes(
    client: TesClient, images: Images
) -> None:
    task_id = await client.create({"executors": [sh(images.busybox, "sleep 600")]})

    await client.cancel(task_id)

    assert (await client.wait(task_id)).state == "CANCELED"


async def test_canceled_is_said_only_when_a_process_that_ignores_sigterm_is_gone(
    client: TesClient, node: Node, images: Images
) -> None:
    marker = f"stubborn-{uuid.uuid4().hex}"
    stubborn = sh(images.busybox, "trap '' TERM; while :; do sleep 1; done", marker)
    task_id = await client.create({"executors": [stubborn, sh(images.busybox, "echo never")]})
    await client.wait(task_id, until={"RUNNING"})
    assert await node.processes_with(marker)

    await client.cancel(task_id)
    await client.cancel(task_id)
    history = await client.wait(task_id)
    left = await node.processes_with(marker)

    assert history.states == ["CANCELING", "CANCELED"]
    assert left == []
    task = await client.get(task_id, "FULL")
    assert [log["exit_code"] for log in task["logs"][0]["logs"]] == [137]


async def test_a_process_that_obeys_ends_the_task_at_once_and_not_with_code_zero(
    client: TesClient, images: Images
) -> None:
    polite = sh(images.busybox, "trap 'exit 0' TERM; echo ready; while :; do sleep 0.1; done")
    task_id = await client.create({"executors": [polite]})
    await client.wait(task_id, until={"RUNNING"})

    await client.cancel(task_id)
    history = await client.wait(task_id, timeout=60)

    assert history.state == "CANCELED"
    task = await client.get(task_id, "FULL")
    assert [log["exit_code"] for log in task["logs"][0]["logs"]] == [143]


async def test_canceling_a_finished_task_changes_nothing(client: TesClient, images: Images) -> None:
    before = await client.run({"executors": [sh(images.busybox, "echo done")]})
    assert_ended(before, "COMPLETE")

    assert await client.cancel(before["id"]) == {}
    assert await client.cancel(before["id"]) == {}

    assert await client.get(before["id"], "FULL") == before
    assert "CANCEL" not in system_logs(before)
    assert before["state"] in TERMINAL


async def _nothing_left(kube: Kube, task_id: str) -> bool:
    return not await kube.of_task("jobs,pods,secrets,serviceaccounts", task_id)
