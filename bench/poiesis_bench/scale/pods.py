"""Measure tasks with thousands of simulated Pods, on a kind cluster of its own.

api, gateway and two replicas of the controller are processes of this machine. kwok plays the kubelet, so no
container starts: the scheduler, the Job controller, the API server and etcd are real. A stand-in sends the
reports of the recorders through the gateway. All Pods run at the same time; then every tenth is evicted while
the others succeed. kube-controller-manager has higher limits of its requests than by default.

`list` and `relist` are those of the controller, the second after a 410 Gone, with its back-off. `event to
row`: from the status that evicts a Pod to the time at which the controller ends its task in Postgres.
`failover`: from SIGKILL of the leader until the other replica leads, and has listed everything.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median

import aiohttp
import asyncpg

from poiesis_bench.requests import TASKS, database
from poiesis_bench.scale import kwok
from poiesis_bench.scale.growth import percentile
from poiesis_bench.scale.lists import measure_lists
from poiesis_bench.scale.programs import (
    HOST,
    NAMESPACE,
    Environment,
    Memory,
    Program,
    Settings,
    peak,
    running,
)
from poiesis_bench.scale.recorders import Recorders
from poiesis_bench.stage import table
from poiesis_e2e.waiting import eventually
from poiesis_lab import cluster
from poiesis_models.run_all import run_all
from poiesis_tctl import kube
from poiesis_trec.config import Gateway

CLIENTS = 4
EVICTED_SHARE = 10  # one task in so many
ENDS_PER_SECOND = 20.0  # executors, when they may end
PROGRESS_SECONDS = 10.0
POLL_SECONDS = 0.1
LEADER, SYNCED = "poiesis_controller_leader ", "poiesis_namespace_synced{"
TASK = {"executors": [{"image": "busybox", "command": ["true"]}]}
_COUNTS = """
SELECT count(*) FILTER (WHERE submitted_at IS NOT NULL) AS submitted,
       count(*) FILTER (WHERE state = 'RUNNING') AS running,
       count(*) FILTER (WHERE ended_at IS NOT NULL) AS ended
  FROM task
"""
_OUTCOMES = "SELECT state::text, reported_by::text, count(*) FROM task GROUP BY 1, 2 ORDER BY 1, 2"
_ENDED_AT = """
SELECT id::text, extract(epoch FROM ended_at)::float8 AS ended FROM task
 WHERE id = ANY ($1::text[]::uuid[]) AND reason = 'Evicted'
"""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Everything that was measured. `memory`: MiB by second and program."""

    pods: int
    posts_per_second: float
    running_per_second: float
    ended_per_second: float
    list_seconds: float
    relist_seconds: float
    failover_seconds: float
    failover_listed_seconds: float
    report_median_ms: float
    report_p99_ms: float
    event_to_row_median_ms: float
    event_to_row_p99_ms: float
    outcomes: dict[str, int]
    memory: list[dict[str, float]]


@dataclass(frozen=True, kw_only=True)
class Scene:
    """The parts of a running measurement. `seconds`: how long to wait for each of its steps."""

    tasks: asyncpg.Connection
    api: Program
    replicas: Mapping[str, Program]  # of the controller
    namespace: kube.Kube
    recorders: Recorders
    memory: Memory
    seconds: float

    async def counts(self) -> Mapping[str, int]:
        """Return the number of tasks that were submitted, run, and have ended."""
        return dict(await self.tasks.fetchrow(_COUNTS))

    async def until(self, name: str, count: int) -> None:
        """Wait until so many tasks have reached a state of `counts`."""
        shown = time.monotonic()

        async def reached() -> bool:
            nonlocal shown
            counts = await self.counts()
            if time.monotonic() - shown > PROGRESS_SECONDS:
                shown = time.monotonic()
                print(f"  {counts}", file=sys.stderr)
            return counts[name] >= count

        await eventually(reached, f"{count} tasks {name}", seconds=self.seconds, every=POLL_SECONDS)


@asynccontextmanager
async def scene(there: cluster.Cluster, folder: Path, pods: int, seconds: float) -> AsyncIterator[Scene]:
    """Start the services with a new database, and stop them."""
    async with AsyncExitStack() as stack:
        dsn = await stack.enter_async_context(database())
        settings = Settings(dsn=dsn, kubeconfig=there.kubeconfig, folder=folder, most_active=pods)
        settings.write()

        async def start(module: str, name: str, environment: Environment) -> Program:
            return await stack.enter_async_context(running(module, name, folder, environment))

        gateway = await start("poiesis_gateway", "gateway", settings.gateway)
        api = await start("poiesis_api", "api", settings.api)
        replicas = {
            name: await start("poiesis_tctl", name, partial(settings.tctl, name=name))
            for name in ("tctl-0", "tctl-1")
        }
        namespace_of = await stack.enter_async_context(kube.connect(str(there.kubeconfig)))
        namespace = namespace_of(NAMESPACE)
        tasks = await asyncpg.connect(dsn)
        stack.push_async_callback(tasks.close)
        programs = {"api": api, "gateway": gateway, **replicas}
        reported_to = Gateway(host=HOST, port=settings.gateway_port, ca_file=settings.authority)
        yield Scene(
            tasks=tasks,
            api=api,
            replicas=replicas,
            namespace=namespace,
            recorders=Recorders(namespace, reported_to, folder),
            memory=Memory({name: program.pid for name, program in programs.items()}),
            seconds=seconds,
        )


async def measure(there: cluster.Cluster, folder: Path, pods: int, seconds: float) -> Measured:
    """Run `pods` tasks to their ends."""
    there.kubectl("create", "namespace", NAMESPACE)
    kwok.add_node(there)
    async with scene(there, folder, pods, seconds) as parts:
        found: list[Measured] = []

        async def work() -> None:
            found.append(await _measure(parts, there, folder, pods))

        await run_all([work()], [parts.recorders.run(), parts.memory.run()])
    return found[0]


async def _measure(parts: Scene, there: cluster.Cluster, folder: Path, pods: int) -> Measured:
    with kwok.playing(there, folder):
        start = time.perf_counter()
        posts = await _create(parts.api.url, pods)
        print(f"created {pods} tasks", file=sys.stderr)
        await parts.until("running", pods)
        running_after = time.perf_counter() - start
        print("all Pods run", file=sys.stderr)
        first, again = await measure_lists(parts.namespace)
        print(f"listed in {first:.2f} s, after 410 Gone in {again:.2f} s", file=sys.stderr)
        leads, listed = await _fail_over(parts.replicas)
        print(f"failover in {leads:.1f} s, listed after {listed:.1f} s", file=sys.stderr)
    within = pods / ENDS_PER_SECOND
    with kwok.playing(there, folder, end_within=within):
        start = time.perf_counter()
        await _evict(parts.recorders, max(pods // EVICTED_SHARE, 1), within)
        await parts.until("ended", pods)
        ended_after = time.perf_counter() - start
    rows = await _event_to_row(parts)
    reports = parts.recorders.milliseconds
    return Measured(
        pods=pods,
        posts_per_second=pods / posts,
        running_per_second=pods / running_after,
        ended_per_second=pods / ended_after,
        list_seconds=first,
        relist_seconds=again,
        failover_seconds=leads,
        failover_listed_seconds=listed,
        report_median_ms=median(reports),
        report_p99_ms=percentile(reports, 0.99),
        event_to_row_median_ms=median(rows),
        event_to_row_p99_ms=percentile(rows, 0.99),
        outcomes={f"{state}, {by}": count for state, by, count in await parts.tasks.fetch(_OUTCOMES)},
        memory=parts.memory.samples,
    )


async def _create(url: str, count: int) -> float:
    """Create so many tasks with CLIENTS clients. Return the seconds that it took."""
    left = iter(range(count))
    start = time.perf_counter()

    async def create(client: aiohttp.ClientSession) -> None:
        for _ in left:
            async with client.post(TASKS, json=TASK) as response:
                response.raise_for_status()
                await response.read()

    async with aiohttp.ClientSession(url) as client:
        await asyncio.gather(*(create(client) for _ in range(CLIENTS)))
    return time.perf_counter() - start


async def _fail_over(replicas: Mapping[str, Program]) -> tuple[float, float]:
    """Kill the leader. Return the seconds until the other replica leads, and until it has listed all."""
    async with aiohttp.ClientSession() as client:

        async def shows(program: Program, metric: str) -> bool:
            return await program.metric(client, metric) == 1.0

        async def find_leader() -> str | None:
            """Return the leader's name. A controller that cannot renew its Lease leads no more."""
            for name, one in replicas.items():
                if await shows(one, LEADER):
                    return name
            return None

        name = await eventually(find_leader, "a leader")
        (follower,) = (one for other, one in replicas.items() if other != name)
        start = time.perf_counter()
        os.kill(replicas[name].pid, signal.SIGKILL)
        seconds = []
        for metric in (LEADER, SYNCED):
            await eventually(partial(shows, follower, metric), metric, every=POLL_SECONDS)
            seconds.append(time.perf_counter() - start)
        return seconds[0], seconds[1]


async def _evict(recorders: Recorders, count: int, within: float) -> None:
    """Evict so many Pods, evenly in `within` seconds."""
    for task in recorders.running()[:count]:
        await recorders.evict(task)
        await asyncio.sleep(within / count)


async def _event_to_row(parts: Scene) -> list[float]:
    """Return the milliseconds from each eviction to the end of its task."""
    evicted = parts.recorders.evicted_at
    rows = await parts.tasks.fetch(_ENDED_AT, list(evicted))
    return [(row["ended"] - evicted[row["id"]]) * 1000 for row in rows]


def show(measured: Measured) -> str:
    """Format one row per figure."""
    one = measured
    names = sorted({name for sample in one.memory for name in sample} - {"seconds"})
    rows = [
        ["", f"{one.pods:,} Pods"],
        ["creates per second, 4 clients", f"{one.posts_per_second:.1f}"],
        ["tasks that began to run, per second", f"{one.running_per_second:.1f}"],
        ["tasks that ended, per second", f"{one.ended_per_second:.1f}"],
        ["list of all Pods", f"{one.list_seconds:.2f} s"],
        ["list after 410 Gone", f"{one.relist_seconds:.2f} s"],
        ["failover: the other replica leads", f"{one.failover_seconds:.1f} s"],
        ["failover: it has listed everything", f"{one.failover_listed_seconds:.1f} s"],
        ["report, median", f"{one.report_median_ms:.0f} ms"],
        ["report, p99", f"{one.report_p99_ms:.0f} ms"],
        ["event to row, median", f"{one.event_to_row_median_ms:.0f} ms"],
        ["event to row, p99", f"{one.event_to_row_p99_ms:.0f} ms"],
        *([f"ended as {name}", str(count)] for name, count in one.outcomes.items()),
        *([f"memory of {name}, at most", f"{peak(one.memory, name):.0f} MiB"] for name in names),
    ]
    return table(rows)


def main() -> int:
    """Measure and print. The cluster is removed."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--pods", type=int, default=1000, metavar="N", help="(default: 1000)")
    options.add_argument("--seconds", type=float, default=1800, help="limit of each step (default: 1800)")
    options.add_argument("--logs", type=Path, help="folder for the logs of the services (default: none)")
    options.add_argument("--json", action="store_true", help="print JSON and no table")
    arguments = options.parse_args()
    spec = cluster.SIMULATED
    try:
        there = cluster.up(spec=spec)
        with tempfile.TemporaryDirectory() as work:
            folder = arguments.logs or Path(work)
            folder.mkdir(parents=True, exist_ok=True)
            measured = asyncio.run(measure(there, folder, arguments.pods, arguments.seconds))
    finally:
        cluster.remove(spec)
    print(json.dumps(asdict(measured), indent=2) if arguments.json else show(measured))
    return 0


if __name__ == "__main__":
    sys.exit(main())
