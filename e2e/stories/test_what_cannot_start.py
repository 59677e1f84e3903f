"""As a user I am told what could not be fetched, in the words of who refused it."""

import pytest

from documents import RunTask, assert_ended, sh, system_logs
from lab.images import Images
from storage import Bucket

pytestmark = pytest.mark.e2e


async def test_a_missing_object_is_named(run_task: RunTask, images: Images, bucket: Bucket) -> None:
    url = bucket.url("no/such/object")
    task = await run_task(
        {
            "executors": [sh(images.busybox, "echo never")],
            "inputs": [{"path": "/in/it", "url": url, "type": "FILE"}],
        }
    )

    assert_ended(task, "SYSTEM_ERROR")
    assert url in system_logs(task)
    assert task["logs"][0]["logs"] == []


async def test_a_missing_file_of_a_web_server_is_named(
    run_task: RunTask, images: Images, web_url: str
) -> None:
    url = f"{web_url}/no/such/file"
    task = await run_task(
        {"executors": [sh(images.busybox, "echo never")], "inputs": [{"path": "/in/it", "url": url}]}
    )

    assert_ended(task, "SYSTEM_ERROR")
    assert url in system_logs(task)
    assert "404" in system_logs(task)


async def test_an_image_that_cannot_be_pulled_is_named(run_task: RunTask, images: Images) -> None:
    image = "registry.invalid/no/such:image"
    task = await run_task({"executors": [sh(images.busybox, "true"), sh(image, "true")]})

    assert_ended(task, "SYSTEM_ERROR")
    assert image in system_logs(task)
    assert "ImagePullBackOff" in system_logs(task) or "ErrImagePull" in system_logs(task)
    assert [log["exit_code"] for log in task["logs"][0]["logs"]] == [0]


async def test_a_program_that_is_not_in_the_image_is_an_executors_error(
    run_task: RunTask, images: Images
) -> None:
    task = await run_task({"executors": [{"image": images.noshell, "command": ["/no/such/program"]}]})

    assert_ended(task, "EXECUTOR_ERROR")
    assert [log["exit_code"] for log in task["logs"][0]["logs"]] == [127]
    assert "/no/such/program" in (task["logs"][0]["logs"][0].get("stderr", "") + system_logs(task))
