"""As a user I get my outputs from any path."""

import pytest

from poiesis_e2e.documents import RunTask, assert_ended, only_log, sh, stdout, system_logs
from poiesis_e2e.storage import Bucket
from poiesis_lab.images import Images

pytestmark = pytest.mark.e2e


async def test_program_creates_its_output_directory_in_a_volume(
    run_task: RunTask, images: Images, bucket: Bucket
) -> None:
    task = await run_task(
        {
            "executors": [sh(images.busybox, "mkdir /work/run1 && echo x > /work/run1/x.txt")],
            "volumes": ["/work"],
            "outputs": [{"path": "/work/run1", "url": bucket.url("o"), "type": "DIRECTORY"}],
        }
    )

    assert_ended(task, "COMPLETE")
    assert await bucket.keys("o") == ["o/x.txt"]


@pytest.mark.parametrize("path", ["/results", "/root/r"])
async def test_directory_is_sent_from_any_path(
    run_task: RunTask, images: Images, bucket: Bucket, path: str
) -> None:
    script = f"mkdir -p {path}/sub && echo a > {path}/a.txt && echo b > {path}/sub/b.txt"
    task = await run_task(
        {
            "executors": [sh(images.busybox, script)],
            "outputs": [{"path": path, "url": bucket.url("res"), "type": "FILE"}],
        }
    )

    assert_ended(task, "COMPLETE")
    assert await bucket.keys("res") == ["res/a.txt", "res/sub/b.txt"]
    assert sorted(one["path"] for one in only_log(task)["outputs"]) == [f"{path}/a.txt", f"{path}/sub/b.txt"]


async def test_name_with_escaped_brackets_is_sent(run_task: RunTask, images: Images, bucket: Bucket) -> None:
    task = await run_task(
        {
            "executors": [sh(images.busybox, "mkdir -p /out; echo 1 > '/out/sample[1].txt'")],
            "outputs": [{"path": "/out/sample\\[1\\].txt", "url": bucket.url("o/one.txt"), "type": "FILE"}],
        }
    )

    assert_ended(task, "COMPLETE")
    assert await bucket.text("o/one.txt") == "1\n"


async def test_links_out_of_the_volume_are_followed(
    run_task: RunTask, images: Images, bucket: Bucket
) -> None:
    script = (
        "mkdir -p /out /tmp/dir/sub; echo data > /tmp/real; ln -s /tmp/real /out/link.txt;"
        "ln -s /tmp/real /tmp/hop; ln -s ../tmp/hop /out/hop.txt; echo deep > /tmp/dir/sub/x;"
        "ln -s /tmp/dir /out/dir; ln -s /nowhere /out/dangling"
    )
    task = await run_task(
        {
            "executors": [sh(images.busybox, script), sh(images.busybox, "ls /tmp")],
            "outputs": [
                {"path": "/out/link.txt", "url": bucket.url("o/link.txt"), "type": "FILE"},
                {"path": "/out", "url": bucket.url("all"), "type": "DIRECTORY"},
            ],
        }
    )

    assert_ended(task, "COMPLETE")
    assert await bucket.text("o/link.txt") == "data\n"
    assert await bucket.keys("all") == ["all/dir/sub/x", "all/hop.txt", "all/link.txt"]
    assert "/out/dangling was left out" in system_logs(task)


async def test_two_executors_append_to_one_root_file(
    run_task: RunTask, images: Images, bucket: Bucket
) -> None:
    task = await run_task(
        {
            "executors": [
                sh(images.busybox, "echo one >> /log.txt"),
                sh(images.busybox, "echo two >> /log.txt"),
            ],
            "outputs": [{"path": "/log.txt", "url": bucket.url("log.txt")}],
        }
    )

    assert_ended(task, "COMPLETE")
    assert await bucket.text("log.txt") == "one\ntwo\n"


@pytest.mark.parametrize("volumes", [["/v"], []])
async def test_next_executor_reads_a_stream_below_root(
    run_task: RunTask, images: Images, volumes: list[str]
) -> None:
    task = await run_task(
        {
            "executors": [
                {**sh(images.busybox, "echo hello"), "stdout": "/step1.txt"},
                {"image": images.busybox, "command": ["cat"], "stdin": "/step1.txt"},
            ],
            "volumes": volumes,
        }
    )

    assert_ended(task, "COMPLETE")
    assert stdout(task, 1) == "hello\n"
