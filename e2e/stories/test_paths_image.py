"""As a user I place files anywhere, and the rest of the image stays unchanged."""

import pytest

from poiesis_e2e.documents import RunTask, assert_ended, exit_codes, sh, stdout, system_logs
from poiesis_e2e.storage import Bucket
from poiesis_lab.images import Images

pytestmark = pytest.mark.e2e


async def test_input_next_to_the_program_of_the_image(run_task: RunTask, app_image: str) -> None:
    task = await run_task(
        {
            "executors": [{"image": app_image, "command": ["/app/run.sh"]}],
            "inputs": [{"path": "/app/config.json", "content": '{"a": 1}'}],
        }
    )

    assert_ended(task, "COMPLETE")
    assert stdout(task) == 'app {"a": 1}'


async def test_each_executor_finds_what_its_own_image_has(
    run_task: RunTask, images: Images, app_image: str, bucket: Bucket
) -> None:
    task = await run_task(
        {
            "executors": [
                sh(images.busybox, "ls /app && echo index > /app/config.idx"),
                {"image": app_image, "command": ["/app/run.sh"], "workdir": "/app"},
                sh(images.busybox_nonroot, "ls /app && cat /app/config.idx"),
            ],
            "inputs": [{"path": "/app/config.json", "content": "c"}],
            "outputs": [{"path": "/app/config.idx", "url": bucket.url("idx")}],
        }
    )

    assert_ended(task, "COMPLETE")
    outputs = [stdout(task, index) for index in range(3)]
    assert outputs == ["config.json\n", "app c", "config.idx\nconfig.json\nindex\n"]
    assert await bucket.text("idx") == "index\n"


async def test_inputs_are_edited_in_place(run_task: RunTask, images: Images) -> None:
    script = "sed -i s/a/b/ /in.txt && cat /in.txt && sed -i s/c/d/ /etc/ho.conf && cat /etc/ho.conf"
    task = await run_task(
        {
            "executors": [
                sh(images.busybox, script),
                sh(images.busybox, "cat /in.txt /etc/ho.conf && rm /in.txt && echo new > /in.txt"),
                sh(images.busybox, "cat /in.txt"),
            ],
            "inputs": [
                {"path": "/in.txt", "content": "a\n"},
                {"path": "/etc/ho.conf", "content": "c\n"},
            ],
        }
    )

    assert_ended(task, "COMPLETE")
    assert [stdout(task, index) for index in range(3)] == ["b\nd\n", "b\nd\n", "new\n"]


async def test_stdin_may_be_a_file_of_the_image(run_task: RunTask, images: Images) -> None:
    task = await run_task(
        {
            "executors": [{"image": images.busybox, "command": ["head", "-n", "1"], "stdin": "/etc/passwd"}],
            "volumes": ["/v"],
        }
    )

    assert_ended(task, "COMPLETE")
    assert stdout(task).startswith("root:")


async def test_image_user_without_write_access_gets_a_hint(run_task: RunTask, images: Images) -> None:
    task = await run_task(
        {
            "executors": [sh(images.busybox_nonroot, "cat /in.txt")],
            "inputs": [{"path": "/in.txt", "content": "a\n"}],
        }
    )

    assert_ended(task, "EXECUTOR_ERROR")
    assert exit_codes(task) == [66]
    assert "cannot place /in.txt: Permission denied" in str(task["logs"])


async def test_path_of_the_filer_volume_is_not_special(
    run_task: RunTask, images: Images, bucket: Bucket
) -> None:
    task = await run_task(
        {
            "executors": [{"image": images.busybox, "command": ["sh", "/task/run.sh"], "workdir": "/task"}],
            "inputs": [{"path": "/task/run.sh", "content": "pwd; echo made > result.txt\n"}],
            "outputs": [{"path": "/task/result.txt", "url": bucket.url("result.txt")}],
        }
    )

    assert_ended(task, "COMPLETE")
    assert stdout(task) == "/task\n"
    assert await bucket.text("result.txt") == "made\n"
    assert "copied the content of the image into directories of the task" in system_logs(task)
