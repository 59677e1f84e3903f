"""As a user I cancel a task in any phase (the failure table has the phases)."""

import asyncio
import time
from collections.abc import Callable
from uuid import uuid4

import aiohttp
import pytest

from poiesis_e2e.documents import assert_ended, sh, system_logs
from poiesis_e2e.kube import TASK_LABEL, Kube
from poiesis_e2e.tes_client import TERMINAL, Document, TesClient
from poiesis_e2e.waiting import eventually
from poiesis_lab.images import Images

pytestmark = pytest.mark.e2e

_MANY = 300


@pytest.mark.core
async def test_task_canceled_right_after_creation_never_completes(client: TesClient, images: Images) -> None:
    task_id = await client.create({"executors": [sh(images.busybox, "sleep 600")]})

    await client.cancel(task_id)

    assert (await client.wait(task_id)).state == "CANCELED"


async def test_canceling_a_finished_task_changes_nothing(client: TesClient, images: Images) -> None:
    before = await client.run({"executors": [sh(images.busybox, "echo done")]})
    assert_ended(before, "COMPLETE")

    assert await client.cancel(before["id"]) == {}
    assert await client.cancel(before["id"]) == {}

    assert await client.get(before["id"], "FULL") == before
    assert "CANCEL" not in system_logs(before)
    assert before["state"] in TERMINAL


@pytest.mark.seconds
async def test_300_cancels_are_answered_within_two_seconds(
    client: TesClient, kube: Kube, images: Images, record_property: Callable[[str, object], None]
) -> None:
    """The response depends on Postgres alone, not on how long Kubernetes takes to delete 300 Jobs."""
    name = uuid4().hex
    document: Document = {  # more than a node has: Jobs and Pods exist, and none runs
        "executors": [sh(images.busybox, "true")],
        "resources": {"cpu_cores": 200},
        "tags": {"set": name},
    }
    task_ids = await asyncio.gather(*(client.create(document) for _ in range(_MANY)))

    async def all_submitted() -> bool:
        jobs = await kube.find("jobs", TASK_LABEL)
        return {job["metadata"]["labels"][TASK_LABEL] for job in jobs} >= set(task_ids)

    await eventually(all_submitted, f"{_MANY} Jobs", seconds=300, every=2)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:

        async def cancel(task_id: str) -> float:
            begun = time.monotonic()
            async with http.post(f"{client.base}/tasks/{task_id}:cancel") as answer:
                assert (answer.status, await answer.json()) == (200, {})
            return time.monotonic() - begun

        seconds = await asyncio.gather(*map(cancel, task_ids))

    record_property("slowest", f"{max(seconds):.2f}")
    assert max(seconds) < 2

    async def all_canceled() -> bool:
        page = await client.list_tasks(tag_key="set", tag_value=name, page_size=_MANY)
        return [task["state"] for task in page["tasks"]] == ["CANCELED"] * _MANY

    # The garbage collector of Kubernetes would need longer: nothing waits for it.
    await eventually(all_canceled, f"the end of {_MANY} tasks", seconds=60, every=2)
