"""As a user I keep the owners and modes that my programs set, and outputs are still sent."""

import pytest

from poiesis_e2e.documents import RunTask, assert_ended, sh, stdout
from poiesis_e2e.storage import Bucket
from poiesis_lab.images import Images

pytestmark = pytest.mark.e2e

PRIVATE = "cd /w && echo k > key && chmod 600 key && mkdir d && chmod 700 d"


async def test_results_of_another_user_are_sent(run_task: RunTask, images: Images, bucket: Bucket) -> None:
    script = (
        "mkdir -p /out/d && cd /out && echo x > d/f && chown -R 1234:1234 d && chmod 600 d/f && chmod 700 d"
    )
    task = await run_task(
        {
            "executors": [sh(images.busybox, script)],
            "outputs": [{"path": "/out/d", "url": bucket.url("o"), "type": "DIRECTORY"}],
        }
    )

    assert_ended(task, "COMPLETE")
    assert await bucket.keys("o") == ["o/f"]


async def test_modes_stay_between_executors_of_one_image(run_task: RunTask, images: Images) -> None:
    task = await run_task(
        {
            "executors": [sh(images.busybox, PRIVATE), sh(images.busybox, "stat -c %a /w/key /w/d")],
            "volumes": ["/w"],
        }
    )

    assert_ended(task, "COMPLETE")
    assert stdout(task, 1) == "600\n700\n"


async def test_executors_of_different_users_share_what_they_leave(run_task: RunTask, images: Images) -> None:
    task = await run_task(
        {
            "executors": [
                sh(images.busybox, PRIVATE),
                sh(images.busybox_nonroot, "cat /w/key && echo x > /w/d/x && chmod 600 /w/d/x"),
                sh(images.busybox, "cat /w/d/x"),
            ],
            "volumes": ["/w"],
        }
    )

    assert_ended(task, "COMPLETE")
    assert [stdout(task, index) for index in (1, 2)] == ["k\n", "x\n"]


@pytest.mark.parametrize("volumes", [[], ["/scratch"]])
async def test_working_directory_missing_from_image_is_writable(
    run_task: RunTask, images: Images, volumes: list[str]
) -> None:
    executor = {**sh(images.busybox_nonroot, "pwd; touch here && echo writable"), "workdir": "/scratch/job"}
    task = await run_task({"executors": [executor], "volumes": volumes})

    assert_ended(task, "COMPLETE")
    assert stdout(task) == "/scratch/job\nwritable\n"
