"""As a workflow author I want a failed step to stop the rest, and its outputs to be sent."""

import pytest

from poiesis_e2e.documents import RunTask, assert_ended, executor_logs, exit_codes, only_log, reason, sh
from poiesis_e2e.kube import Kube, container_status
from poiesis_e2e.storage import Bucket
from poiesis_lab.images import Images

pytestmark = pytest.mark.e2e


@pytest.mark.core
async def test_failure_skips_later_executors_and_sends_outputs(
    run_task: RunTask, images: Images, bucket: Bucket
) -> None:
    words = ("first", "second", "third")
    scripts = [f"echo {word} >/out/{word}.txt; echo wrote {word}; echo complained >&2" for word in words]
    scripts[1] += "; exit 7"
    task = await run_task(
        {
            "executors": [sh(images.busybox, script) for script in scripts],
            "outputs": [{"path": f"/out/{word}.txt", "url": bucket.url(f"{word}.txt")} for word in words],
        }
    )

    assert_ended(task, "EXECUTOR_ERROR")
    assert exit_codes(task) == [0, 7]
    assert [log.get("stdout") for log in executor_logs(task)] == ["wrote first\n", "wrote second\n"]
    assert executor_logs(task)[1].get("stderr") == "complained\n"
    assert await bucket.keys() == ["first.txt", "second.txt"]
    assert await bucket.text("second.txt") == "second\n"
    assert sorted((sent["path"], sent["size_bytes"]) for sent in only_log(task)["outputs"]) == [
        ("/out/first.txt", "6"),
        ("/out/second.txt", "7"),
    ]


async def test_without_outputs_kubernetes_stops_after_failure(
    run_task: RunTask, images: Images, kube: Kube
) -> None:
    task = await run_task(
        {"executors": [sh(images.busybox, f"exit {code}") for code in (0, 7, 0)]},
    )

    assert_ended(task, "EXECUTOR_ERROR")
    assert exit_codes(task) == [0, 7]
    assert reason(task) == "Error"
    third = container_status(await kube.pod(task["id"]), "executor-2")
    assert third is not None
    assert "waiting" in third["state"]
