"""As a user I run my image unchanged: without a shell, without root."""

import pytest

from poiesis_e2e.documents import RunTask, assert_ended, exit_codes, sh, stdout
from poiesis_e2e.storage import Bucket
from poiesis_e2e.tes_client import Executor
from poiesis_lab.images import Images

pytestmark = pytest.mark.e2e


@pytest.mark.core
async def test_an_image_without_a_shell_reads_and_writes(
    run_task: RunTask, images: Images, bucket: Bucket
) -> None:
    def tool(*words: str) -> Executor:
        return {"image": images.noshell, "command": ["/tool", *words]}

    task = await run_task(
        {
            "executors": [
                tool("cat", "/in/word"),
                tool("write", "/out/word", "no", "shell here"),
                tool("id"),
            ],
            "inputs": [{"path": "/in/word", "content": "hello"}],
            "outputs": [{"path": "/out/word", "url": bucket.url("word")}],
        }
    )

    assert_ended(task, "COMPLETE")
    assert [stdout(task, index) for index in (0, 2)] == ["hello", "0 0\n"]
    assert await bucket.text("word") == "no shell here\n"


async def test_non_root_image_writes_to_outputs_and_volumes(
    run_task: RunTask, images: Images, bucket: Bucket
) -> None:
    script = "id -u; id -g; cat /in/word >/out/word && echo scratch >/scratch/a && echo beside >/in/beside"
    task = await run_task(
        {
            "executors": [
                sh(images.busybox_nonroot, script),
                sh(images.busybox, "cat /scratch/a /in/beside; echo more >>/out/word"),
            ],
            "inputs": [{"path": "/in/word", "content": "mine\n"}],
            "outputs": [{"path": "/out/word", "url": bucket.url("word")}],
            "volumes": ["/scratch"],
        }
    )

    assert_ended(task, "COMPLETE")
    assert exit_codes(task) == [0, 0]
    assert stdout(task, 0) == "1000\n1000\n"
    assert stdout(task, 1) == "scratch\nbeside\n"
    assert await bucket.text("word") == "mine\nmore\n"
