"""As a user of py-tes, GA4GH's own client, I run tasks."""

import asyncio
import uuid
from typing import Any

import pytest
import tes  # type: ignore[import-untyped]

from poiesis_e2e.command import ended
from poiesis_e2e.install import Release
from poiesis_lab import clients
from poiesis_lab.images import Images

pytestmark = pytest.mark.e2e


@pytest.mark.core
async def test_py_tes_creates_waits_lists_and_cancels(release: Release, images: Images) -> None:
    await asyncio.to_thread(_round_trip, release.url, images.busybox)


def _round_trip(url: str, image: str) -> None:
    client = tes.HTTPClient(f"{url}/ga4gh/tes", timeout=30)
    assert client.get_service_info().type["artifact"] == "tes"
    tag = uuid.uuid4().hex

    def task(script: str) -> Any:
        return tes.Task(
            name="py-tes",
            tags={"story": tag},
            executors=[tes.Executor(image=image, command=["sh", "-c", script])],
            inputs=[tes.Input(path="/in/word", content="hello")],
        )

    done = client.create_task(task("cat /in/word"))
    long = client.create_task(task("sleep 600"))
    client.wait(done, timeout=300)
    client.cancel_task(long)

    finished = client.get_task(done, "FULL")
    assert finished.state == "COMPLETE"
    assert finished.logs[0].logs[0].stdout == "hello"
    assert finished.logs[0].logs[0].exit_code == 0
    assert {done, long} <= {one.id for one in client.list_tasks(view="BASIC").tasks}
    assert client.wait(long, timeout=300).state in {"CANCELING", "CANCELED"}


_OLD = """
import sys, tes
url, image = sys.argv[1:]
client = tes.HTTPClient(url, timeout=30)
info = client.get_service_info()
assert info.name, info
task = tes.Task(
    name="py-tes",
    executors=[tes.Executor(image=image, command=["sh", "-c", "cat /in/word; exit 3"])],
    inputs=[tes.Input(path="/in/word", content="hello")],
)
task_id = client.create_task(task)
client.wait(task_id, timeout=300)
for view in ("MINIMAL", "BASIC", "FULL"):
    found = client.get_task(task_id, view)
    assert found.state == "EXECUTOR_ERROR", found
assert found.logs[0].logs[0].stdout == "hello", found
assert found.logs[0].logs[0].exit_code == 3, found
client.cancel_task(task_id)
print("well")
"""


async def test_py_tes_0_4_2_reads_every_response(release: Release, images: Images) -> None:
    python = await asyncio.to_thread(clients.environment, "py-tes-0.4.2") / "python"
    process = await asyncio.create_subprocess_exec(
        *(python, "-c", _OLD, f"{release.url}/ga4gh/tes", images.busybox),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert await ended(process, 300) == (0, "well\n", "")
