"""As a workflow author I let a step fail without losing the task."""

import pytest

from documents import RunTask, assert_ended, exit_codes, sh, stdout
from lab.images import Images

pytestmark = pytest.mark.e2e


async def test_an_ignored_failure_keeps_its_code_and_the_task_completes(
    run_task: RunTask, images: Images
) -> None:
    task = await run_task(
        {
            "executors": [
                {**sh(images.busybox, "exit 3"), "ignore_error": True},
                sh(images.busybox, "echo and yet it runs"),
            ]
        }
    )

    assert_ended(task, "COMPLETE")
    assert exit_codes(task) == [3, 0]
    assert stdout(task, 1) == "and yet it runs\n"
