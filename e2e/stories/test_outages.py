"""As an operator I replace and lose services while tasks run, and tasks and clients are not affected."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence

import aiohttp
import pytest

from poiesis_e2e.documents import assert_ended, only_log, sh, stdout
from poiesis_e2e.install import CHART, Release
from poiesis_e2e.kube import Kube, container_status
from poiesis_e2e.machine import Machine
from poiesis_e2e.storage import Bucket
from poiesis_e2e.tes_client import TesClient
from poiesis_e2e.waiting import eventually
from poiesis_lab.cluster import Cluster
from poiesis_lab.images import Images

pytestmark = [pytest.mark.e2e, pytest.mark.disruptive]

_POLL_SECONDS = 0.01  # between two polls


@pytest.mark.core
async def test_running_task_survives_outage_of_all_services(
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

    async with second_kube.without("api", "gateway", "tctl", "postgres"):

        async def sent() -> bool:
            status = container_status(await second_kube.pod(task_id), "tof-0")
            return bool(status and status["state"].get("terminated"))

        await eventually(sent, "the outputs sent while nothing of the release runs", seconds=120)
        assert await bucket.text("kept") == "kept\n"

    await eventually(second_client.answers, "a response of the api")
    await second_client.wait(task_id)
    task = await second_client.get(task_id, "FULL")

    assert_ended(task, "COMPLETE")
    assert [stdout(task, index) for index in (0, 1)] == ["first\n", "second\n"]
    assert [sent["size_bytes"] for sent in only_log(task)["outputs"]] == ["5"]


@pytest.mark.core
async def test_upgrade_fails_none_of_100_polls_per_second(
    *,
    cluster: Cluster,
    second: Release,
    second_client: TesClient,
    second_kube: Kube,
    images: Images,
    machine: Machine,
) -> None:
    before = await _apis(second_kube)
    task_id = await second_client.create({"executors": [sh(images.busybox, "sleep 20")]})

    async with machine.alone():
        upgrade = asyncio.create_task(asyncio.to_thread(_upgrade, cluster, second))
        polls = await _polls_until(upgrade, f"{second_client.base}/tasks/{task_id}")

    await upgrade
    answers = Counter(polls)
    assert answers == {200: len(polls)}
    assert len(polls) > 100
    assert len(await _apis(second_kube) - before) == len(before)
    assert (await second_client.wait(task_id)).state == "COMPLETE"


async def _apis(kube: Kube) -> set[str]:
    return {one["metadata"]["name"] for one in await kube.of_component("pods", "api")}


async def _polls_until(upgrade: asyncio.Task[None], url: str) -> Sequence[int]:
    """Return the statuses of polls, with one connection per request and with a kept connection."""
    begun = time.monotonic()
    async with _session(force_close=True) as new_each_time, _session(force_close=False) as kept:
        polls: list[asyncio.Task[int]] = []
        while not upgrade.done():
            polls.append(asyncio.create_task(_status(kept if len(polls) % 2 else new_each_time, url)))
            await asyncio.sleep(begun + len(polls) * _POLL_SECONDS - time.monotonic())
        return await asyncio.gather(*polls)


def _upgrade(cluster: Cluster, release: Release) -> None:
    """Upgrade the whole chart, including migrations; a changed value replaces the Pods of the api."""
    cluster.helm(
        *("upgrade", release.name, str(CHART), "--namespace", release.namespace, "--reuse-values"),
        *("--set", f"api.podAnnotations.upgraded=at-{time.time_ns()}", "--wait", "--timeout", "4m"),
    )


def _session(*, force_close: bool) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(force_close=force_close)
    return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=10))


async def _status(http: aiohttp.ClientSession, url: str) -> int:
    async with http.get(url) as answer:
        await answer.read()
        return answer.status
