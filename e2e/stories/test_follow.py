"""As a user I follow my task: I see each step within two seconds."""

import time

import pytest

from poiesis_e2e.documents import executor_logs, only_log, seconds, sh
from poiesis_e2e.kube import Kube, container_status, exit_record
from poiesis_e2e.storage import Bucket
from poiesis_e2e.tes_client import TesClient
from poiesis_e2e.waiting import eventually
from poiesis_lab.images import Images

pytestmark = [pytest.mark.e2e, pytest.mark.seconds]

_SHOWN_WITHIN = 2.0
_KUBERNETES_CLOCK = 1.0  # its times are whole seconds


async def test_each_step_is_shown_within_two_seconds(
    client: TesClient, kube: Kube, images: Images, bucket: Bucket
) -> None:
    await bucket.put("in", b"data")
    task_id = await client.create(
        {
            "executors": [sh(images.busybox, "sleep 3; cp /in/it /out/it"), sh(images.busybox, "sleep 3")],
            "inputs": [{"path": "/in/it", "url": bucket.url("in")}],
            "outputs": [{"path": "/out/it", "url": bucket.url("out")}],
        }
    )
    history = await client.wait(task_id)
    task = await client.get(task_id, "FULL")
    pod = await kube.ended_pod(task_id)

    assert history.states == ["QUEUED", "INITIALIZING", "RUNNING", "COMPLETE"]
    recorder = container_status(pod, "trec")
    assert recorder is not None
    initialized = seconds(recorder["state"]["terminated"]["startedAt"])
    running = seconds(executor_logs(task)[0]["start_time"])
    sent = exit_record(pod, "tof-0")["end_ns"] / 1e9
    assert history.at("INITIALIZING") <= initialized + _KUBERNETES_CLOCK + _SHOWN_WITHIN
    assert history.at("RUNNING") <= running + _SHOWN_WITHIN
    assert sent <= history.at("COMPLETE") <= sent + _SHOWN_WITHIN


async def test_live_output_is_shown_within_two_seconds(client: TesClient, images: Images) -> None:
    printing = "date +%s >&2; printf 'a\\0b\\377\\n'; sleep 12; echo later"
    task_id = await client.create({"executors": [sh(images.busybox, printing)]})

    async def shown() -> dict[str, str] | None:
        task = await client.get(task_id, "FULL")
        metadata = task["logs"][-1].get("metadata", {}) if task.get("logs") else {}
        return metadata if "executor-0.stdout" in metadata and "executor-0.stderr" in metadata else None

    live = await eventually(shown, "the executor's first output", seconds=60)
    shown_at = time.time()
    assert live["executor-0.stdout"] == "a\ufffdb\ufffd\n"
    # The times of `date` are whole seconds too.
    assert shown_at - float(live["executor-0.stderr"]) <= _SHOWN_WITHIN + _KUBERNETES_CLOCK
    assert (await client.get(task_id))["state"] == "RUNNING"

    await client.wait(task_id)
    task = await client.get(task_id, "FULL")
    assert executor_logs(task)[0]["stdout"] == "a\ufffdb\ufffd\nlater\n"
    assert not {"executor-0.stdout", "executor-0.stderr"} & only_log(task)["metadata"].keys()
