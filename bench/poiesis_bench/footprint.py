"""The overhead of a task: the recorder's memory and start, images, objects in Kubernetes."""

import asyncio
import json
import sys
from dataclasses import asdict, dataclass
from datetime import datetime

from poiesis_bench.stage import Stage, parser, stage, table
from poiesis_e2e.install import kube_of
from poiesis_e2e.kube import Kube, Node, containers, exit_record
from poiesis_e2e.tes_client import Document, TesClient, connect
from poiesis_lab import cluster, docker

_KINDS = "jobs,pods,persistentvolumeclaims,secrets,serviceaccounts,roles,rolebindings"
_LONG_ENOUGH_S = 15  # until the recorder has reported everything and is idle
_MIB = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Recorder:
    """The recorder of one task while its executor runs. Times are seconds after the start of its process."""

    rss_mib: float
    peak_rss_mib: float
    cgroup_mib: float
    cpu_seconds: float
    first_log_line: float | None
    next_container_began: float


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """All measurements."""

    recorder: Recorder
    objects: dict[str, int]
    containers: list[str]
    image_mib: dict[str, float]


async def measure(there: Stage) -> Footprint:
    """Measure one task with S3 inputs and outputs while it runs."""
    kube = kube_of(there.cluster, there.release)
    node = Node(docker=docker.binary(), container=cluster.ONE_NODE.control_plane)
    async with connect(there.release.url) as client:
        return await _look(client, kube, node, there)


async def _look(client: TesClient, kube: Kube, node: Node, there: Stage) -> Footprint:
    await there.bucket.put("in", b"data")
    document: Document = {
        "executors": [
            {
                "image": there.images.busybox,
                "command": ["sh", "-c", f"sleep {_LONG_ENOUGH_S}; cp /in/it /out/it"],
            }
        ],
        "inputs": [{"path": "/in/it", "url": there.bucket.url("in"), "type": "FILE"}],
        "outputs": [{"path": "/out/it", "url": there.bucket.url("out"), "type": "FILE"}],
    }
    task_id = await client.create(document)
    container = await kube.running_container(task_id, "trec")
    await kube.running_container(task_id, "executor-0")
    await asyncio.sleep(_LONG_ENOUGH_S / 2)
    pid = await node.pid_of(container)
    status, memory, began, cpu_seconds = await _process(node, pid)
    first_line = await _first_log_line(kube, task_id)
    found = await kube.of_task(_KINDS, task_id)
    await client.wait(task_id)
    pod = await kube.ended_pod(task_id)
    return Footprint(
        recorder=Recorder(
            rss_mib=status["VmRSS"] / 1024,
            peak_rss_mib=status["VmHWM"] / 1024,
            cgroup_mib=memory / _MIB,
            cpu_seconds=cpu_seconds,
            first_log_line=None if first_line is None else first_line - began,
            next_container_began=exit_record(pod, "tif-0")["start_ns"] / 1e9 - began,
        ),
        objects={
            kind: sum(one["kind"] == kind for one in found) for kind in sorted({one["kind"] for one in found})
        },
        containers=list(containers(pod)),
        image_mib={
            name: int(docker.docker("image", "inspect", "--format", "{{.Size}}", image)) / _MIB
            for name, image in there.built.items()
        },
    )


async def _process(node: Node, pid: int) -> tuple[dict[str, int], int, float, float]:
    """Return KiB by name of /proc/<pid>/status, its cgroup's bytes, its start (Unix time) and CPU seconds."""
    status = {
        name: int(value.split()[0])
        for name, _, value in (
            line.partition(":") for line in (await node.run("cat", f"/proc/{pid}/status")).splitlines()
        )
        if value.strip().endswith("kB")
    }
    return status, await _cgroup_bytes(node, pid), *await _times(node, pid)


async def _cgroup_bytes(node: Node, pid: int) -> int:
    """Return the bytes that the limit counts: anonymous memory and page cache that cannot be dropped."""
    lines = (await node.run("cat", f"/proc/{pid}/cgroup")).splitlines()
    paths = {names: path for _, names, path in (line.split(":", 2) for line in lines)}
    if "memory" in paths:
        stat, key = f"/sys/fs/cgroup/memory{paths['memory']}/memory.stat", "total_rss"
    else:
        stat, key = f"/sys/fs/cgroup{paths['']}/memory.stat", "anon"
    values = dict(line.split() for line in (await node.run("cat", stat)).splitlines())
    return int(values[key])


async def _times(node: Node, pid: int) -> tuple[float, float]:
    """Return the start of a process and its CPU seconds, from clock ticks (proc(5), fields 22, 14 and 15).

    The start is the boot time plus its ticks.
    """
    fields = (await node.run("cat", f"/proc/{pid}/stat")).rpartition(")")[2].split()
    ticks, cpu_ticks = int(fields[19]), int(fields[11]) + int(fields[12])
    per_second = int(await node.run("getconf", "CLK_TCK"))
    now, up = (
        float(await node.run("date", "+%s.%N")),
        float((await node.run("cat", "/proc/uptime")).split()[0]),
    )
    return now - up + ticks / per_second, cpu_ticks / per_second


async def _first_log_line(kube: Kube, task_id: str) -> float | None:
    name = (await kube.pod(task_id))["metadata"]["name"]
    text = await kube.run("logs", name, "--container=trec", "--timestamps", "--limit-bytes=4096")
    stamp = text.partition(" ")[0]
    return datetime.fromisoformat(stamp).timestamp() if stamp else None


def show(found: Footprint) -> str:
    """Format three small tables."""
    recorder = found.recorder
    first = "no log line" if recorder.first_log_line is None else f"{recorder.first_log_line:.2f} s"
    rows = [
        ["recorder", ""],
        ["resident memory", f"{recorder.rss_mib:.1f} MiB"],
        ["its peak", f"{recorder.peak_rss_mib:.1f} MiB"],
        ["its cgroup's", f"{recorder.cgroup_mib:.1f} MiB"],
        ["CPU, with its first reports", f"{recorder.cpu_seconds:.2f} s"],
        ["start to first log line", first],
        ["start to next container", f"{recorder.next_container_began:.2f} s"],
    ]
    objects = [["objects of a task", ""], *([kind, str(count)] for kind, count in found.objects.items())]
    containers_row = ["containers", ", ".join(found.containers)]
    images = [["image", ""], *([name, f"{size:.1f} MiB"] for name, size in found.image_mib.items())]
    return "\n\n".join([table(rows), table([*objects, containers_row]), table(images)])


def main() -> int:
    """Measure and print."""
    arguments = parser(__doc__).parse_args()
    with stage(arguments.volume, keep=arguments.keep) as there:
        found = asyncio.run(measure(there))
    print(json.dumps(asdict(found), indent=2) if arguments.json else show(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
