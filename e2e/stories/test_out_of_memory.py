"""As a user I am told that a step ran out of memory, and the task ends."""

import pytest

from documents import RunTask, assert_ended, exit_codes, only_log, reason, sh, stdout
from kube import Kube
from lab.images import Images
from storage import Bucket
from tes_client import Executor

pytestmark = pytest.mark.e2e

# busybox allocates the whole block and the kernel kills it while it is filled
_GREEDY = "dd if=/dev/zero of=/dev/null bs=512M count=1"


async def test_the_executors_own_process_out_of_memory(run_task: RunTask, kube: Kube, images: Images) -> None:
    await _out_of_memory(run_task, kube, {"image": images.busybox, "command": _GREEDY.split()})


async def test_a_child_out_of_memory_although_its_parent_shrugs(
    run_task: RunTask, kube: Kube, images: Images
) -> None:
    await _out_of_memory(run_task, kube, sh(images.busybox, f"{_GREEDY}; echo it said $?; exit 0"))


async def test_out_of_memory_ends_the_task_even_where_errors_are_ignored(
    run_task: RunTask, images: Images, bucket: Bucket
) -> None:
    greedy: Executor = {**sh(images.busybox, f"echo said before; {_GREEDY}"), "ignore_error": True}
    task = await run_task(
        {
            "executors": [greedy, sh(images.busybox, "echo never")],
            "resources": {"ram_gb": 0.064},
            "outputs": [{"path": "/out/nothing", "url": bucket.url("nothing")}],
        }
    )

    assert_ended(task, "EXECUTOR_ERROR")
    assert exit_codes(task) == [137]
    assert reason(task) == "OOMKilled"
    assert stdout(task) == "said before\n"


async def _out_of_memory(run_task: RunTask, kube: Kube, executor: Executor) -> None:
    task = await run_task(
        {
            "executors": [executor, sh(executor["image"], "echo never")],
            "resources": {"ram_gb": 0.064},
        }
    )

    assert_ended(task, "EXECUTOR_ERROR")
    assert exit_codes(task) == [137]
    assert reason(task) == "OOMKilled"
    assert only_log(task)["outputs"] == []
    assert (await kube.ended_pod(task["id"]))["status"]["phase"] == "Failed"
