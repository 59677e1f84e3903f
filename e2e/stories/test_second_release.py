"""As an operator I install the chart with its own Postgres, swap a filer, and lose the leading controller."""

import asyncio
from collections.abc import Callable

import pytest

from documents import assert_ended, only_log, seconds, sh, stdout, system_logs
from kube import Kube, Object, containers
from lab.images import Images
from storage import Bucket
from tes_client import TERMINAL, TesClient
from waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("second")]


async def test_a_task_runs_on_the_embedded_postgres_and_on_the_nodes_disk(
    second_client: TesClient, second_kube: Kube, images: Images, bucket: Bucket
) -> None:
    task = await second_client.run(
        {
            "executors": [sh(images.busybox_nonroot, "echo kept >/out/kept")],
            "outputs": [{"path": "/out/kept", "url": bucket.url("kept")}],
        }
    )

    assert_ended(task, "COMPLETE")
    assert await bucket.text("kept") == "kept\n"
    assert await second_kube.of_task("persistentvolumeclaims", task["id"]) == []
    databases = await second_kube.find("statefulsets", "app.kubernetes.io/component=postgres")
    assert [one["status"]["readyReplicas"] for one in databases] == [1]


async def test_a_filer_of_another_make_serves_its_schemes(
    *,
    second_client: TesClient,
    second_kube: Kube,
    images: Images,
    bucket: Bucket,
    filer_image: str,
    serve: Callable[[str, bytes], str],
) -> None:
    await bucket.put("in", b"by s3\n")
    page = await asyncio.to_thread(serve, "page.txt", b"by http\n")
    task = await second_client.run(
        {
            "executors": [sh(images.busybox, "cat /in/mem /in/http /in/s3 /in/literal | tee /out/all")],
            "inputs": [
                {"path": "/in/mem", "url": "mem://from the url"},
                {"path": "/in/http", "url": page},
                {"path": "/in/s3", "url": bucket.url("in")},
                {"path": "/in/literal", "content": "by itself\n"},
            ],
            "outputs": [
                {"path": "/out/all", "url": "mem://all"},
                {"path": "/out/all", "url": bucket.url("all")},
                {"path": "/out/none", "url": "mem://none"},
            ],
        }
    )

    assert_ended(task, "COMPLETE")
    assert stdout(task) == "from the urlby http\nby s3\nby itself\n"
    assert {(sent["url"], sent["size_bytes"]) for sent in only_log(task)["outputs"]} == {
        ("mem://all", "36"),
        (bucket.url("all"), "36"),
    }
    assert "/out/none was not produced" in system_logs(task)
    filers = {
        name: one["image"]
        for name, one in containers(await second_kube.pod(task["id"])).items()
        if name.startswith(("tif-", "tof-"))
    }
    assert len(filers) == 4
    assert list(filers.values()).count(filer_image) == 2


async def test_a_swapped_filers_failure_is_told_in_its_own_words(
    second_client: TesClient, images: Images, web_url: str
) -> None:
    task = await second_client.run(
        {
            "executors": [sh(images.busybox, "echo never")],
            "inputs": [{"path": "/in/it", "url": f"{web_url}/no/such/file"}],
        }
    )

    assert_ended(task, "SYSTEM_ERROR")
    assert f"cannot fetch {web_url}/no/such/file" in system_logs(task)
    assert "404" in system_logs(task)


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
    history = await second_client.wait(doomed, timeout=180)
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
