"""As a user or operator I see the progress and speed of inputs."""

import asyncio
import re

import pytest

from poiesis_e2e.documents import assert_ended, sh, stdout, system_logs
from poiesis_e2e.halves import halves, rest_when
from poiesis_e2e.kube import Kube, Node
from poiesis_e2e.tes_client import TesClient
from poiesis_e2e.waiting import eventually
from poiesis_lab.images import Images

pytestmark = pytest.mark.e2e

_HALF = 8 * 2**20  # a filer reports progress every few MiB


async def test_slow_input_shows_in_system_logs_and_metrics(
    client: TesClient, kube: Kube, node: Node, images: Images
) -> None:
    seen = asyncio.Event()

    async with halves(node, rest_when(seen, half=_HALF), half=_HALF) as url:
        task_id = await client.create(
            {
                "executors": [sh(images.busybox, "wc -c </in/reads")],
                "inputs": [{"path": "/in/reads", "url": url, "type": "FILE"}],
            }
        )

        async def line() -> re.Match[str] | None:
            task = await client.get(task_id, "FULL")
            lines = system_logs(task) if task.get("logs") else ""
            pattern = r"tif-0 in progress: 0 files, ([1-9]\d*) bytes, \d+\.\d MB/s$"
            return re.search(pattern, lines, re.MULTILINE)

        found = await eventually(line, "progress of tif-0 in system_logs")
        assert int(found[1]) <= _HALF
        metadata = (await client.get(task_id, "BASIC"))["logs"][-1]["metadata"]
        assert int(found[1]) <= int(metadata["staging.bytes_done"]) <= _HALF
        assert metadata["staging.bytes_per_second"].isdigit()
        assert "tif-0.end_time" not in metadata

        async def measured() -> bool:
            return await _metric(kube, 'poiesis_filers{filer="tif"}') >= 1

        await eventually(measured, "a filer in the controller's metrics")
        bytes_before = await _metric(kube, 'poiesis_filer_bytes_total{filer="tif"}')
        seen.set()
        await client.wait(task_id)

    task = await client.get(task_id, "FULL")
    assert_ended(task, "COMPLETE")
    assert stdout(task) == f"{2 * _HALF}\n"
    lines = system_logs(task)
    assert re.search(
        rf"tif-0 staged 1 file, {2 * _HALF} bytes in \d+\.\d s \(\d+\.\d MB/s\)$", lines, re.MULTILINE
    ), lines
    assert "so far" not in lines
    metadata = task["logs"][-1]["metadata"]
    assert (metadata["staging.files_done"], metadata["staging.bytes_done"]) == ("1", str(2 * _HALF))
    assert metadata["tif-0.start_time"] < metadata["tif-0.end_time"] < metadata["executor-0.end_time"]
    assert "staging.bytes_per_second" not in metadata

    async def counted() -> bool:
        return await _metric(kube, 'poiesis_filer_bytes_total{filer="tif"}') >= bytes_before + _HALF

    await eventually(counted, "the second half in the controller's metrics")


async def _metric(kube: Kube, name: str) -> float:
    """Return the sum of a metric over all controllers; ignore those without a sample."""
    total = 0.0
    for pod in await kube.of_component("pods", "tctl"):
        path = (
            f"/api/v1/namespaces/{kube.service_namespace}/pods/{pod['metadata']['name']}:8080/proxy/metrics"
        )
        text = await kube.run("get", "--raw", path)
        total += sum(
            float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(f"{name} ")
        )
    return total
