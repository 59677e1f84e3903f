"""As an operator I lose apis and controllers at the worst moment, and every task still ends, once."""

import asyncio

import pytest

from documents import assert_ended, exit_codes, only_log, sh, stdout
from kube import Kube, Node, Object, container_status
from lab.images import Images
from tes_client import TERMINAL, TesClient
from waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.disruptive]


async def test_tasks_of_apis_that_die_right_after_the_posts_run_once(
    second_client: TesClient, second_kube: Kube, images: Images
) -> None:
    pods = [one["metadata"]["name"] for one in await second_kube.of_component("pods", "api")]
    task_ids = [
        await second_client.create({"executors": [sh(images.busybox, 'echo "$0"', str(number))]})
        for number in range(6)
    ]
    await second_kube.run("delete", "pods", *pods, "--grace-period=0", "--force")
    await _answers(second_kube, second_client, gone=pods)

    await asyncio.gather(*(second_client.wait(task_id, timeout=120) for task_id in task_ids))
    for number, task_id in enumerate(task_ids):
        task = await second_client.get(task_id, "FULL")
        assert_ended(task, "COMPLETE")
        assert exit_codes(task) == [0]
        assert stdout(task) == f"{number}\n"
        assert len(only_log(task)["logs"]) == 1
        assert [len(await second_kube.of_task(kind, task_id)) for kind in ("jobs", "pods")] == [1, 1]


async def test_without_controllers_tasks_complete_and_what_failed_is_told_afterwards(
    second_client: TesClient, second_kube: Kube, images: Images
) -> None:
    doomed = await second_client.create({"executors": [sh("registry.invalid/no/such:image", "true")]})
    await _image_missing(second_kube, doomed)

    async with second_kube.without("tctl"):
        outage = asyncio.create_task(asyncio.sleep(30))
        happy = await second_client.run({"executors": [sh(images.busybox, "echo alone")]})
        assert_ended(happy, "COMPLETE")
        assert stdout(happy) == "alone\n"
        await outage
        assert (await second_client.get(doomed))["state"] not in TERMINAL
    await second_client.wait(doomed, timeout=120)

    await _assert_told_once(second_client, doomed)


async def test_a_leader_that_was_paused_past_its_lease_does_not_tell_an_end_again(
    second_client: TesClient, second_kube: Kube, node: Node
) -> None:
    before = await _leader(second_kube)
    pod = await second_kube.get("pod", before)
    assert pod is not None
    status = container_status(pod, "tctl")
    assert status is not None
    doomed = await second_client.create({"executors": [sh("registry.invalid/no/such:image", "true")]})
    await _image_missing(second_kube, doomed)

    try:
        await node.signal_container(status["containerID"], "SIGSTOP")

        async def taken_over() -> bool:
            return await _leader(second_kube) != before

        await eventually(taken_over, "another leader", seconds=45)
    finally:
        await node.signal_container(status["containerID"], "SIGCONT")
    after = await _leader(second_kube)
    await second_client.wait(doomed, timeout=120)

    await _assert_told_once(second_client, doomed)
    assert await _leader(second_kube) == after
    pod = await second_kube.get("pod", before)
    assert pod is not None
    now = container_status(pod, "tctl")
    assert now is not None
    assert now["restartCount"] == status["restartCount"]


# --- what the stories share ----------------------------------------------------------------------------


async def _answers(kube: Kube, client: TesClient, *, gone: list[str]) -> None:
    """Wait for new apis: all of them ready, and the Service leading to them."""

    async def replaced() -> bool:
        (deployment,) = await kube.of_component("deployments", "api")
        names = {one["metadata"]["name"] for one in await kube.of_component("pods", "api")}
        return (
            not names & set(gone)
            and deployment["status"].get("readyReplicas", 0) == deployment["spec"]["replicas"]
        )

    await eventually(replaced, "new apis", seconds=90)
    await eventually(client.answers, "answers of the new apis")


async def _image_missing(kube: Kube, task_id: str) -> None:
    async def look() -> bool:
        status = container_status(await kube.pod(task_id), "executor-0")
        waiting: Object = status["state"].get("waiting", {}) if status else {}
        return waiting.get("reason") in {"ErrImagePull", "ImagePullBackOff"}

    await eventually(look, f"an image that task {task_id} cannot have")


async def _assert_told_once(client: TesClient, task_id: str) -> None:
    task = await client.get(task_id, "FULL")
    assert_ended(task, "SYSTEM_ERROR")
    assert sum("SYSTEM_ERROR" in line for line in only_log(task).get("system_logs", [])) == 1


async def _leader(kube: Kube) -> str:
    """The Pod that holds the Lease."""

    async def look() -> str | None:
        (lease,) = await kube.find("leases")
        holder = lease["spec"].get("holderIdentity", "")
        names = (one["metadata"]["name"] for one in await kube.of_component("pods", "tctl"))
        return next((name for name in names if holder.startswith(name)), None)

    return await eventually(look, "a leading controller", seconds=60)
