"""As a workflow engine I submit many tasks at once, and each completes."""

import asyncio

import pytest

from poiesis_e2e.documents import RunTask, sh, stdout
from poiesis_e2e.tes_client import Document
from poiesis_lab.images import Images

pytestmark = pytest.mark.e2e


async def test_twenty_tasks_at_once_all_complete(run_task: RunTask, images: Images) -> None:
    documents: list[Document] = [
        {"name": f"many {number}", "executors": [sh(images.busybox, "echo $0", str(number))]}
        for number in range(20)
    ]
    tasks = await asyncio.gather(*map(run_task, documents))

    assert [task["state"] for task in tasks] == ["COMPLETE"] * 20
    assert [stdout(task) for task in tasks] == [f"{number}\n" for number in range(20)]
