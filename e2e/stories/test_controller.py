"""As an operator I lose controllers in every way, and every outcome is recorded once."""

import asyncio

import pytest

from poiesis_e2e.documents import assert_ended, only_log, reason, seconds, sh, stdout
from poiesis_e2e.kube import Kube, Node, Object, container_status
from poiesis_e2e.tes_client import TERMINAL, Document, TesClient
from poiesis_e2e.waiting import eventually
from poiesis_lab.images import Images

pytestmark = [pytest.mark.e2e, pytest.mark.disruptive]

_MISSING: Document = {"executors": [sh("registry.invalid/no/such:image", "true")]}
_OUTAGE_SECONDS = 60  # longer than a Lease, and than every threshold of the controller here


@pytest.mark.core
async def test_next_leader_records_outcome_once(
    third_client: TesClient, third_kube: Kube, images: Images
) -> None:
    before = await _leader(third_kube)
    doomed = await third_client.create(_MISSING)
    await third_kube.pod(doomed)

    await third_kube.service.run("delete", "pod", before, "--grace-period=0", "--force")
    happy = await third_client.run({"executors": [sh(images.busybox, "echo without a leader")]})
    assert_ended(happy, "COMPLETE")
    await _taken_over(third_kube, before)
    lease = await _lease(third_kube)
    history = await third_client.wait(doomed)

    assert sum(state in TERMINAL for state in history.states) == 1
    await _assert_recorded_once(third_client, doomed)
    task = await third_client.get(doomed, "FULL")
    assert seconds(lease["spec"]["acquireTime"]) <= seconds(only_log(task)["end_time"])


async def test_leader_paused_past_its_lease_records_nothing_twice(
    third_client: TesClient, third_kube: Kube, node: Node
) -> None:
    before = await _leader(third_kube)
    status = await _status(third_kube, before)
    doomed = await third_client.create(_MISSING)
    await third_kube.pull_failed(doomed)

    try:
        await node.signal_container(status["containerID"], "SIGSTOP")
        await _taken_over(third_kube, before)
    finally:
        await node.signal_container(status["containerID"], "SIGCONT")
    after = await _leader(third_kube)
    await third_client.wait(doomed, timeout=120)

    await _assert_recorded_once(third_client, doomed)
    assert await _leader(third_kube) == after
    assert (await _status(third_kube, before))["restartCount"] == status["restartCount"]


async def test_controller_outage_delays_only_failed_tasks(
    third_client: TesClient, third_kube: Kube, images: Images
) -> None:
    """Tasks that succeed need no controller."""
    document: Document = {"executors": [sh(images.busybox, "echo alone; sleep 40; echo still")]}
    without_image = await third_client.create(_MISSING)
    without_job, without_pod = [
        await third_client.create({"executors": [sh(images.busybox, "sleep 600")]}) for _ in range(2)
    ]
    doomed = [without_image, without_job, without_pod]
    await third_kube.pull_failed(without_image)
    for task_id in (without_job, without_pod):
        await third_client.wait(task_id, until={"RUNNING"})

    async with third_kube.without("tctl"):
        outage = asyncio.create_task(asyncio.sleep(_OUTAGE_SECONDS))
        for kind, task_id in (("job", without_job), ("pod", without_pod)):
            (found,) = await third_kube.of_task(kind, task_id)
            await third_kube.delete(kind, found["metadata"]["name"])
        happy = await third_client.run(document)
        await outage
        states = [(await third_client.get(task_id))["state"] for task_id in doomed]
    await asyncio.gather(*(third_client.wait(task_id, timeout=90) for task_id in doomed))

    assert_ended(happy, "COMPLETE")
    assert stdout(happy) == "alone\nstill\n"
    assert not TERMINAL.intersection(states)
    for task_id in doomed:
        await _assert_recorded_once(third_client, task_id)
    tasks = [await third_client.get(task_id, "FULL") for task_id in doomed]
    assert reason(tasks[0]) in {"ErrImagePull", "ImagePullBackOff"}
    assert reason(tasks[1]) == "Lost"


async def _taken_over(kube: Kube, before: str) -> None:
    async def look() -> bool:
        return await _leader(kube) != before

    await eventually(look, "another leader", seconds=60)


async def _lease(kube: Kube) -> Object:
    (lease,) = await kube.service.find("leases")
    return lease


async def _leader(kube: Kube) -> str:
    """Return the Pod that holds the Lease."""

    async def look() -> str | None:
        holder = (await _lease(kube))["spec"].get("holderIdentity", "")
        names = (one["metadata"]["name"] for one in await kube.of_component("pods", "tctl"))
        return next((name for name in names if holder.startswith(name)), None)

    return await eventually(look, "a leading controller", seconds=60)


async def _status(kube: Kube, pod: str) -> Object:
    found = await kube.service.get("pod", pod)
    status = container_status(found, "tctl") if found else None
    assert status is not None
    return status


async def _assert_recorded_once(client: TesClient, task_id: str) -> None:
    task = await client.get(task_id, "FULL")
    assert_ended(task, "SYSTEM_ERROR")
    assert sum("SYSTEM_ERROR" in line for line in only_log(task).get("system_logs", [])) == 1
