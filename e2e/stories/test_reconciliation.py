"""As an operator I see in the controller's log that reconciliation found no difference."""

import json

import pytest

from poiesis_e2e.documents import assert_ended, sh
from poiesis_e2e.kube import Kube, Object
from poiesis_e2e.storage import Bucket
from poiesis_e2e.tes_client import State, TesClient
from poiesis_e2e.waiting import eventually
from poiesis_lab.images import Images

pytestmark = pytest.mark.e2e

_ROUND_SECONDS = 15  # tctl.reconcileSeconds of the first release


async def test_reconciliation_finds_nothing_after_an_ordinary_run(
    client: TesClient, kube: Kube, images: Images, bucket: Bucket
) -> None:
    done = await client.create(
        {
            "executors": [sh(images.busybox, "echo it >/out/it"), sh(images.busybox, "sleep 15")],
            "outputs": [{"path": "/out/it", "url": bucket.url("it")}],
        }
    )
    failed = await client.create({"executors": [sh(images.busybox, "exit 3")]})
    canceled = await client.create({"executors": [sh(images.busybox, "sleep 600")]})
    await kube.running_container(canceled, "executor-0")
    await client.cancel(canceled)
    ours: dict[str, State] = {done: "COMPLETE", failed: "EXECUTOR_ERROR", canceled: "CANCELED"}
    for task_id in ours:
        await client.wait(task_id)
    before = len(await _logged(kube, "reconciled tasks"))

    async def compared() -> bool:
        # At least one comparison started after the tasks ended.
        return len(await _logged(kube, "reconciled tasks")) >= before + 2

    await eventually(compared, "two comparisons", seconds=4 * _ROUND_SECONDS)
    for task_id, state in ours.items():
        assert_ended(await client.get(task_id), state)
    rounds = await _logged(kube, "reconciled tasks")
    assert rounds[-1]["tasks"] >= len(ours)  # their Pods and Jobs still exist
    # Concurrent stories may disturb their own tasks.
    repaired = {
        line["task"] for line in await _logged(kube, "reconciliation repaired a task the watch missed")
    }
    assert not repaired & ours.keys()


async def _logged(kube: Kube, message: str) -> list[Object]:
    """Return the lines of the controllers' logs with this message, by time."""
    selector = "--selector=app.kubernetes.io/component=tctl"
    text = await kube.service.run("logs", selector, "--tail=-1")
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    return sorted((line for line in lines if line["message"] == message), key=lambda line: line["time"])
