"""As an operator I lose the leading controller, and every end is still told, once."""

import pytest

from documents import assert_ended, only_log, seconds, sh
from kube import Kube, Object
from lab.images import Images
from tes_client import TERMINAL, TesClient
from waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.disruptive]


async def test_when_the_leading_controller_dies_another_tells_the_end_once(
    second_client: TesClient, second_kube: Kube, images: Images
) -> None:
    before = await _leader(second_kube)
    doomed = await second_client.create({"executors": [sh("registry.invalid/no/such:image", "true")]})
    await second_kube.pod(doomed)

    killed = (await second_kube.run("get", "pod", before, "-o", "name")).strip()
    await second_kube.run("delete", killed, "--grace-period=0", "--force")
    happy = await second_client.run({"executors": [sh(images.busybox, "echo without a leader")]})
    assert_ended(happy, "COMPLETE")

    async def taken_over() -> Object | None:
        lease = await _lease(second_kube)
        return lease if lease["spec"]["holderIdentity"] != before else None

    lease = await eventually(taken_over, "another leader", seconds=60)
    history = await second_client.wait(doomed)
    task = await second_client.get(doomed, "FULL")

    assert_ended(task, "SYSTEM_ERROR")
    assert sum(state in TERMINAL for state in history.states) == 1
    told = [line for line in only_log(task).get("system_logs", []) if "SYSTEM_ERROR" in line]
    assert len(told) == 1
    assert seconds(lease["spec"]["acquireTime"]) <= seconds(only_log(task)["end_time"])


async def _lease(kube: Kube) -> Object:
    (lease,) = await kube.find("leases")
    return lease


async def _leader(kube: Kube) -> str:
    async def look() -> str | None:
        pods = {
            one["metadata"]["name"] for one in await kube.find("pods", "app.kubernetes.io/component=tctl")
        }
        holder = (await _lease(kube))["spec"].get("holderIdentity", "")
        return next((pod for pod in pods if holder.startswith(pod)), None)

    return await eventually(look, "a leading controller", seconds=60)
