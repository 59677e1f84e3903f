"""As an operator I use a custom filer for my URL schemes."""

import asyncio
from collections.abc import Callable

import pytest

from poiesis_e2e.documents import assert_ended, only_log, sh, stdout, system_logs
from poiesis_e2e.kube import Kube, containers
from poiesis_e2e.storage import Bucket
from poiesis_e2e.tes_client import TesClient
from poiesis_lab.images import Images

pytestmark = pytest.mark.e2e


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


async def test_swapped_filer_failure_keeps_its_message(
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
