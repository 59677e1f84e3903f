"""Measure how the limit of CPU (`config.executors.cpuLimit`) changes the time of tasks, in one run.

The same tasks run with each setting: one that does nothing, one that computes, and several that compute at
once. Every executor requests `stage.CPU`. Ratios compare a setting with `request` of the same run.
"""

import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median

from poiesis_bench.stage import CPU, Stage, parser, stage, table
from poiesis_e2e.tes_client import Document, TesClient, connect

POLL_SECONDS = 0.05
SETTINGS: tuple[str | float, ...] = ("request", 4, "none")
BASELINE = "request"


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Tasks that start at once. `rounds`: of an empty loop of the shell, in each."""

    name: str
    count: int
    rounds: int


WORKLOADS = (
    Workload(name="one that does nothing", count=1, rounds=0),
    Workload(name="one that computes", count=1, rounds=1_000_000),
    Workload(name="four that compute", count=4, rounds=1_000_000),
)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Seconds of the slowest task: POST to COMPLETE, and from the start to the end of its executor."""

    complete: float
    executor: float


Samples = Mapping[str, Mapping[str, Sequence[Sample]]]  # by workload, then by setting


async def run(client: TesClient, image: str, workload: Workload) -> Sample:
    """Run the tasks of a workload at once."""
    script = f"i=0; while [ $i -lt {workload.rounds} ]; do i=$((i+1)); done"
    document: Document = {"executors": [{"image": image, "command": ["sh", "-c", script]}]}
    samples = await asyncio.gather(*(_run_task(client, document) for _ in range(workload.count)))
    return Sample(
        complete=max(one.complete for one in samples), executor=max(one.executor for one in samples)
    )


async def _run_task(client: TesClient, document: Document) -> Sample:
    task_id = await client.create(document)
    history = await client.wait(task_id, every=POLL_SECONDS)
    task = await client.get(task_id, "FULL")
    if task["state"] != "COMPLETE":
        raise RuntimeError(f"task {task_id} ended as {task['state']}: {task.get('logs')}")
    log = task["logs"][0]["logs"][-1]
    seconds = datetime.fromisoformat(log["end_time"]) - datetime.fromisoformat(log["start_time"])
    return Sample(complete=history.at("COMPLETE"), executor=seconds.total_seconds())


async def measure(there: Stage, runs: int) -> dict[str, dict[str, list[Sample]]]:
    """Measure every workload with each setting, after a warm-up."""
    samples: dict[str, dict[str, list[Sample]]] = {workload.name: {} for workload in WORKLOADS}
    for setting in SETTINGS:
        values = {"config": {"executors": {"cpuLimit": setting}}}
        release = await asyncio.to_thread(there.upgrade, values)
        async with connect(release.url) as client:
            await run(client, there.images.busybox, WORKLOADS[0])
            for workload in WORKLOADS:
                samples[workload.name][str(setting)] = [
                    await run(client, there.images.busybox, workload) for _ in range(runs)
                ]
    return samples


def show(samples: Samples, runs: int) -> str:
    """Format medians, and their ratios to those of `request`."""
    rows = [["", "cpuLimit", "COMPLETE", "ratio", "executor", "ratio"]]
    for workload, by_setting in samples.items():
        complete, executor = _medians(by_setting[BASELINE])
        for setting, found in by_setting.items():
            one, other = _medians(found)
            ratios = f"{one / complete:.2f}", f"{other / executor:.2f}"
            rows.append([workload, setting, f"{one:.2f} s", ratios[0], f"{other:.2f} s", ratios[1]])
    return f"medians of {runs}; each executor requests {CPU} CPU\n\n{table(rows)}"


def _medians(samples: Sequence[Sample]) -> tuple[float, float]:
    return median(one.complete for one in samples), median(one.executor for one in samples)


def main() -> int:
    """Measure and print."""
    options = parser(__doc__)
    options.add_argument("--runs", type=int, default=5, metavar="N", help="per setting (default: 5)")
    arguments = options.parse_args()
    with stage(arguments.volume, keep=arguments.keep) as there:
        samples = asyncio.run(measure(there, arguments.runs))
    if arguments.json:
        print(json.dumps(samples, default=vars, indent=2))
    else:
        print(show(samples, arguments.runs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
