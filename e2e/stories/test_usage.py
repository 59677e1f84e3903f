"""As a user or operator I see what a task used, and its usage is accounted."""

import json
import uuid
from pathlib import Path

import pytest

from poiesis_e2e.command import Command
from poiesis_e2e.documents import RunTask, assert_ended, only_log, seconds, sh
from poiesis_e2e.install import Release
from poiesis_lab.images import Images

pytestmark = pytest.mark.e2e

MEMORY_MIB, CPU_SECONDS, DISK_MIB = 200, 2, 100
# dd has one buffer, and fills it. The loop reads the CPU time of its own process, in ticks of 10 ms.
ALLOCATE = f"dd if=/dev/zero of=/dev/null bs={MEMORY_MIB}M count=1"
BURN = """
while read -r stat </proc/self/stat; set -- $stat; [ $((${14} + ${15})) -lt "$0" ]; do :; done
"""
WRITE = f"dd if=/dev/urandom of=/work/file bs=1M count={DISK_MIB} conv=fsync"


def within_5_percent(expected: float) -> object:
    return pytest.approx(expected, rel=0.05)


async def test_known_footprint_is_measured_and_accounted(
    run_task: RunTask, images: Images, release: Release, tmp_path: Path
) -> None:
    key = f"usage-{uuid.uuid4()}"
    task = await run_task(
        {
            "executors": [
                sh(images.busybox, ALLOCATE),
                sh(images.busybox, BURN, str(CPU_SECONDS * 100)),
                sh(images.busybox, WRITE),
            ],
            "volumes": ["/work"],
            "resources": {"cpu_cores": 1, "ram_gb": 1},
            "tags": {key: "known"},
        }
    )

    assert_ended(task, "COMPLETE")
    log = only_log(task)
    metadata = log["metadata"]
    assert int(metadata["executor-0.peak_memory_bytes"]) == within_5_percent(MEMORY_MIB * 2**20)
    assert int(metadata["executor-1.cpu_time_ms"]) == within_5_percent(CPU_SECONDS * 1000)
    assert int(metadata["executor-2.disk_used_bytes"]) == within_5_percent(DISK_MIB * 2**20)
    cpu_ms = sum(int(metadata[f"executor-{index}.cpu_time_ms"]) for index in range(3))
    assert int(metadata["cpu_time_ms"]) == pytest.approx(cpu_ms, abs=3)  # each is rounded

    poiesis = Command(home=tmp_path, environment={"POIESIS_SERVER": release.url})
    code, out, err = await poiesis.run("usage", "--by", f"tag:{key}", "--output", "json")
    assert code == 0, err
    (row,) = [row for row in json.loads(out)["rows"] if row.get("tag") == "known"]
    assert (row["tasks"], row["failures"]) == (1, 0)
    assert row["cpu_hours_used"] * 3600 == within_5_percent(cpu_ms / 1000)
    pod_seconds = seconds(log["end_time"]) - seconds(log["start_time"])
    assert row["cpu_hours"] * 3600 == within_5_percent(pod_seconds)
    assert row["ram_gb_hours"] * 3600 == within_5_percent(pod_seconds)

    code, out, _ = await poiesis.run("get", task["id"], "--output", "table")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[-4:]] == ["EXECUTOR", "0", "1", "2"]
