"""Measure how fast tasks become Jobs and Pods, and how fast they are canceled, beside bare Jobs in one run.

The tasks are parked: they request more CPU than a node has, so each has a Job and a Pod without a node. The
floor are Jobs with the same containers, created and deleted by the client that the api uses, as many at a
time as one replica of the api submits at most. Seconds depend on the machine; compare the ratios.

Pods appear at the rate of the Job controller (`--kube-api-qps` of kube-controller-manager, 20 by default), so
the ratio of Pods shows what Poiesis adds, and the rate of Jobs what the api could submit.
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any
from uuid import uuid4

from poiesis_api.config import Queue
from poiesis_bench.floor import LABEL, Floor
from poiesis_bench.stage import Stage, parser, stage, table
from poiesis_e2e.tes_client import Document, TesClient
from poiesis_e2e.tes_client import connect as connect_tes
from poiesis_kube.client import Client
from poiesis_kube.client import connect as connect_kubernetes
from poiesis_kube.namespace import Namespace
from poiesis_models.labels import TASK_LABEL

CLIENTS = 16  # requests to the api at a time
PARKED_CPU = 200  # more than a node has
_SILENCE_SECONDS = 300.0
_POLL_SECONDS = 0.25


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Objects per second, from the first request until the last object."""

    jobs: float
    pods: float
    ends: float


async def run_limited(work: Iterable[Callable[[], Awaitable[Any]]], most: int) -> list[Any]:
    """Run all of `work`, `most` at a time, and return the results in order."""
    places = asyncio.Semaphore(most)

    async def one(call: Callable[[], Awaitable[Any]]) -> Any:
        async with places:
            return await call()

    return await asyncio.gather(*map(one, work))


async def seconds_until(
    client: Client,
    path: str,
    selector: str,
    count: int,
    passes: Callable[[str, Mapping[str, Any]], bool],
) -> float:
    """Return when `count` objects have passed (monotonic). `passes`: from the event's type and the object."""
    names: set[str] = set()
    params = {"labelSelector": selector, "allowWatchBookmarks": "false"}
    async with client.watch(path, params, silence=_SILENCE_SECONDS) as lines:
        async for line in lines:
            event = json.loads(line)
            if passes(event["type"], event["object"]):
                names.add(event["object"]["metadata"]["name"])
            if len(names) >= count:
                return time.monotonic()
    raise TimeoutError(f"the watch ended after {len(names)} of {count} objects")


async def until_collected(client: Client, namespace: str) -> None:
    """Wait until no object of a task is left, so that their collection disturbs no later measurement."""
    paths = Namespace(client, namespace)
    for kind in ("Job", "Pod", "Secret", "ServiceAccount", "Role", "RoleBinding"):
        while await paths.list_all(kind, {"labelSelector": TASK_LABEL, "limit": "1"}):  # noqa: ASYNC110
            await asyncio.sleep(_POLL_SECONDS)


async def created_at(
    client: Client, namespace: str, selector: str, count: int
) -> tuple[asyncio.Task[float], asyncio.Task[float]]:
    """Start to wait for unsuspended Jobs and for Pods; return both tasks."""
    paths = Namespace(client, namespace)
    jobs = seconds_until(client, paths.path("Job"), selector, count, _is_released)
    pods = seconds_until(client, paths.path("Pod"), selector, count, lambda kind, _: kind == "ADDED")
    return asyncio.create_task(jobs), asyncio.create_task(pods)


def _is_released(_: str, job: Mapping[str, Any]) -> bool:
    return not job["spec"].get("suspend")


async def measure_tasks(tes: TesClient, client: Client, namespace: str, *, image: str, count: int) -> Speed:
    """Create `count` parked tasks, wait for their Pods, and cancel them all."""
    name = uuid4().hex
    document: Document = {
        "executors": [{"image": image, "command": ["true"]}],
        "resources": {"cpu_cores": PARKED_CPU},
        "tags": {"bench": name},
    }
    jobs, pods = await created_at(client, namespace, TASK_LABEL, count)
    start = time.monotonic()
    task_ids = await run_limited((partial(tes.create, document) for _ in range(count)), CLIENTS)
    jobs_at, pods_at = await jobs, await pods
    canceled = time.monotonic()
    await run_limited((partial(tes.cancel, one) for one in task_ids), CLIENTS)
    while True:
        filters: dict[str, str | int] = {"tag_key": "bench", "tag_value": name, "page_size": count}
        page = await tes.list_tasks(state="CANCELED", **filters)
        if len(page["tasks"]) == count:
            break
        await asyncio.sleep(_POLL_SECONDS)
    ended_in = time.monotonic() - canceled
    await until_collected(client, namespace)
    return _speed(count, start, jobs_at, pods_at, ended_in)


async def measure_jobs(client: Client, floor: Floor, namespace: str, *, count: int, most: int) -> Speed:
    """Create `count` parked Jobs, wait for their Pods, and delete them all."""
    batch = uuid4().hex[:8]
    selector = f"{LABEL}={batch}"
    jobs, pods = await created_at(client, namespace, selector, count)
    tasks = Namespace(client, namespace)
    manifests = [floor.manifest(f"floor-{batch}-{number}", batch, data=False) for number in range(count)]
    start = time.monotonic()
    await run_limited((partial(tasks.create, one) for one in manifests), most)
    jobs_at, pods_at = await jobs, await pods
    gone = asyncio.create_task(
        seconds_until(client, tasks.path("Pod"), selector, count, lambda kind, _: kind == "DELETED")
    )
    deleted = time.monotonic()
    names = [manifest["metadata"]["name"] for manifest in manifests]
    await run_limited((partial(tasks.delete, "Job", one) for one in names), most)
    return _speed(count, start, jobs_at, pods_at, await gone - deleted)


def _speed(count: int, start: float, jobs_at: float, pods_at: float, ended_in: float) -> Speed:
    return Speed(jobs=count / (jobs_at - start), pods=count / (pods_at - start), ends=count / ended_in)


async def measure(there: Stage, count: int, rounds: int) -> list[tuple[Speed, Speed]]:
    """Measure tasks and Jobs alternately."""
    namespace = there.release.tasks_namespace
    floor = Floor(
        there.cluster.kubeconfig,
        namespace,
        image=there.images.busybox,
        volume="emptyDir",
        cpu=str(PARKED_CPU),
    )
    most = Queue().max_submissions
    async with AsyncExitStack() as stack:
        tes = await stack.enter_async_context(connect_tes(there.release.url, seconds=120))
        client = await stack.enter_async_context(connect_kubernetes(str(there.cluster.kubeconfig)))
        return [
            (
                await measure_tasks(tes, client, namespace, image=there.images.busybox, count=count),
                await measure_jobs(client, floor, namespace, count=count, most=most),
            )
            for _ in range(rounds)
        ]


def show(measured: list[tuple[Speed, Speed]], count: int) -> str:
    """Format all rounds and their ratios."""
    rows = [["per second", "tasks", "bare Jobs", "ratio"]]
    for task, job in measured:
        parts = {
            "Jobs that may run": (task.jobs, job.jobs),
            "Pods": (task.pods, job.pods),
            "canceled / deleted": (task.ends, job.ends),
        }
        rows += [[name, f"{a:.1f}", f"{b:.1f}", f"{a / b:.2f}"] for name, (a, b) in parts.items()]
    return f"{count} parked tasks, {count} parked Jobs, per round\n\n{table(rows)}"


def main() -> int:
    """Measure and print."""
    options = parser(__doc__)
    options.add_argument("--count", type=int, default=500, metavar="N", help="tasks and Jobs (default: 500)")
    options.add_argument("--rounds", type=int, default=1, metavar="N", help="of both (default: 1)")
    arguments = options.parse_args()
    with stage(arguments.volume, keep=arguments.keep) as there:
        measured = asyncio.run(measure(there, arguments.count, arguments.rounds))
    if arguments.json:
        print(json.dumps([[asdict(task), asdict(job)] for task, job in measured], indent=2))
    else:
        print(show(measured, arguments.count))
    return 0


if __name__ == "__main__":
    sys.exit(main())
