"""As a user I stop a task that I no longer want. What it may be doing then is in the failure table."""

import pytest

from poiesis_e2e.documents import assert_ended, sh, system_logs
from poiesis_e2e.tes_client import TERMINAL, TesClient
from poiesis_lab.images import Images

pytestmark = pytest.mark.e2e


@pytest.mark.core
async def test_a_task_canceled_right_after_its_creation_never_completes(
    client: TesClient, images: Images
) -> None:
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
