"""As a user I may signal any process in my container, and the outcome is still correct."""

import pytest

from poiesis_e2e.documents import RunTask, assert_ended, exit_codes, sh, stdout
from poiesis_e2e.failures.cases.builders import OVERWRITE
from poiesis_e2e.storage import Bucket
from poiesis_lab.images import Images

pytestmark = pytest.mark.e2e

OUT = "mkdir -p /out; echo before > /out/x"


@pytest.mark.parametrize("kill", ["kill -TERM 1", "kill -TERM $PPID", "kill -9 1", "kill -HUP 1"])
async def test_program_that_signals_process_1_continues(
    run_task: RunTask, images: Images, bucket: Bucket, kill: str
) -> None:
    task = await run_task(
        {
            "executors": [sh(images.busybox, f"{OUT}; {kill}; sleep 2; echo after >> /out/x")],
            "outputs": [{"path": "/out/x", "url": bucket.url("o/x")}],
        }
    )

    assert_ended(task, "COMPLETE")
    assert await bucket.text("o/x") == "before\nafter\n"


async def test_a_program_that_handles_the_signal_gets_it(run_task: RunTask, images: Images) -> None:
    script = "trap 'echo got it; exit 3' TERM; kill -TERM 1; sleep 5; echo never"
    task = await run_task({"executors": [sh(images.busybox, script)]})

    assert_ended(task, "EXECUTOR_ERROR")
    assert (exit_codes(task), stdout(task)) == ([3], "got it\n")


async def test_pkill_by_command_line_ends_only_the_program(
    run_task: RunTask, images: Images, bucket: Bucket
) -> None:
    script = f"{OUT}; sleep 77 & sleep 1; pkill -f 'sleep 77'; sleep 1; echo after >> /out/x"
    task = await run_task(
        {
            "executors": [sh(images.busybox, script)],
            "outputs": [{"path": "/out/x", "url": bucket.url("o/x")}],
        }
    )

    assert task["state"] in {"COMPLETE", "EXECUTOR_ERROR"}
    assert exit_codes(task) in ([0], [143])
    assert (await bucket.text("o/x")).startswith("before\n")


@pytest.mark.parametrize("image", ["busybox", "busybox_nonroot"])
@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/stderr"])
async def test_container_streams_are_files_of_any_size(
    run_task: RunTask, images: Images, image: str, name: str
) -> None:
    script = f"head -c 3000000 /dev/zero | tr '\\0' x; head -c 3000000 /dev/zero | tr '\\0' y > {name}"
    executor = {**sh(getattr(images, image), script), "stdout": name}
    task = await run_task({"executors": [executor]})

    assert_ended(task, "COMPLETE")
    assert exit_codes(task) == [0]


@pytest.mark.parametrize("image", ["busybox", "busybox_nonroot"])
async def test_helper_cannot_be_traced_or_reached(run_task: RunTask, images: Images, image: str) -> None:
    """Access to /proc/1/mem and /proc/1/fd requires the same rights as ptrace."""
    task = await run_task({"executors": [sh(getattr(images, image), OVERWRITE)]})

    assert_ended(task, "EXECUTOR_ERROR")
    assert (exit_codes(task), stdout(task)) == ([3], "end\n")
