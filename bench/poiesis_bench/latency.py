"""Measure a task from POST to COMPLETE, and a hand-written Job with the same containers, in one run.

Seconds depend on the machine; compare the ratios. Per shape: the time until a GET returns COMPLETE (or the
Job is Complete), and the time until the last executor has ended.
"""

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from statistics import median

from poiesis_bench.floor import Floor
from poiesis_bench.stage import CPU, Stage, parser, stage, table
from poiesis_e2e.tes_client import Document, TesClient, connect

POLL_SECONDS = 0.05


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A workload to measure."""

    name: str
    count: int
    data: bool


SHAPES = (
    Shape(name="one executor", count=1, data=False),
    Shape(name="one executor, S3 in and out", count=1, data=True),
    Shape(name="20 at once", count=20, data=False),
)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Seconds after the first request, of the slowest task of the run."""

    executor_ended: float
    complete: float


@dataclass(frozen=True, kw_only=True)
class Measured:
    """All samples of a shape."""

    shape: str
    tasks: list[Sample]
    jobs: list[Sample]


async def run_tasks(client: TesClient, there: Stage, shape: Shape) -> Sample:
    """Run `shape.count` tasks at once."""
    documents = [_document(there, shape, number) for number in range(shape.count)]
    start = time.time()
    ends = await asyncio.gather(*(_run_task(client, document) for document in documents))
    return Sample(
        executor_ended=max(ended for ended, _ in ends) - start,
        complete=max(complete for _, complete in ends) - start,
    )


async def _run_task(client: TesClient, document: Document) -> tuple[float, float]:
    task_id = await client.create(document)
    history = await client.wait(task_id, every=POLL_SECONDS)
    task = await client.get(task_id, "FULL")
    if task["state"] != "COMPLETE":
        raise RuntimeError(f"task {task_id} ended as {task['state']}: {task.get('logs')}")
    ended = task["logs"][0]["logs"][-1]["end_time"]
    return datetime.fromisoformat(ended).timestamp(), history.at("COMPLETE")


def _document(there: Stage, shape: Shape, number: int) -> Document:
    image = there.images.busybox
    if not shape.data:
        return {"executors": [{"image": image, "command": ["true"]}]}
    return {
        "executors": [{"image": image, "command": ["cp", "/in/it", "/out/it"]}],
        "inputs": [{"path": "/in/it", "url": there.bucket.url("in"), "type": "FILE"}],
        "outputs": [{"path": "/out/it", "url": there.bucket.url(f"out-{number}"), "type": "FILE"}],
    }


def run_jobs(floor: Floor, shape: Shape) -> Sample:
    """Run `shape.count` Jobs at once."""
    times = floor.run(shape.count, data=shape.data)
    return Sample(
        executor_ended=max(one.executor_ended for one in times), complete=max(one.complete for one in times)
    )


async def measure(there: Stage, volume: str, runs: int, shapes: Sequence[Shape]) -> list[Measured]:
    """Measure tasks and Jobs alternately, after a warm-up of each."""
    floor = Floor(
        there.cluster.kubeconfig,
        there.release.tasks_namespace,
        image=there.images.busybox,
        volume=volume,
        cpu=CPU,
    )
    await there.bucket.put("in", b"0123456789abcdef" * 4096)
    measured = []
    async with connect(there.release.url) as client:
        for shape in shapes:
            tasks, jobs = [], []
            for _ in range(runs + 1):
                tasks.append(await run_tasks(client, there, shape))
                jobs.append(await asyncio.to_thread(run_jobs, floor, shape))
            measured.append(Measured(shape=shape.name, tasks=tasks[1:], jobs=jobs[1:]))
    return measured


def show(measured: Sequence[Measured], runs: int, volume: str) -> str:
    """Format medians and their ratios."""
    rows = [
        ["", "task: executor ended", "COMPLETE", "Job: executor ended", "Complete", "COMPLETE / Complete"]
    ]
    for one in measured:
        task_ended, complete = _medians(one.tasks)
        job_ended, job_complete = _medians(one.jobs)
        seconds = [f"{value:.2f} s" for value in (task_ended, complete, job_ended, job_complete)]
        rows.append([one.shape, *seconds, f"{complete / job_complete:.2f}"])
    return f"medians of {runs}, volume {volume}\n\n{table(rows)}"


def _medians(samples: Sequence[Sample]) -> tuple[float, float]:
    return median(one.executor_ended for one in samples), median(one.complete for one in samples)


def main() -> int:
    """Measure and print."""
    options = parser(__doc__)
    options.add_argument("--runs", type=int, default=5, metavar="N", help="of each shape (default: 5)")
    arguments = options.parse_args()
    with stage(arguments.volume, keep=arguments.keep) as there:
        measured = asyncio.run(measure(there, arguments.volume, arguments.runs, SHAPES))
    if arguments.json:
        print(json.dumps([asdict(one) for one in measured], indent=2))
    else:
        print(show(measured, arguments.runs, arguments.volume))
    return 0


if __name__ == "__main__":
    sys.exit(main())
