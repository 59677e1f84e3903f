"""Measure the queue while it grows: the time to lease tasks, and whether every owner gets its share.

The leases are those of `poiesis_api.queue_db`; Kubernetes is left out, so a leased task starts at once. Tasks
end in the order of their start, as if all took equally long. One owner has queued half of all tasks before
the others. With equal shares an owner with waiting tasks gets every OWNERSth place: `longest_wait` is the
longest sequence of leases without one of its own, divided by the number of owners, so 1 is the exact share.
`newcomer_waits` counts the leases before the first task of an owner who comes while the queue is long.
"""

import argparse
import asyncio
import json
import sys
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from uuid import UUID

import aiohttp
import asyncpg

from poiesis_api import queue_db, tasks_db
from poiesis_api.postgres import Pool, open_pool
from poiesis_bench.requests import TASK, TASKS, database, serving
from poiesis_bench.scale.growth import flatness, percentile, rss_mib, sizes
from poiesis_bench.served_api import DATABASE
from poiesis_bench.stage import table
from poiesis_models.states import TaskOutcome, TesState

OWNERS = 50
ACTIVE = 500  # tasks at most, so ten places for each owner
AT_ONCE = 8  # tasks of one lease, the default of config.queue.maxSubmissions
LEASE_SECONDS = 600.0
CREATES = 50
NEWCOMER = "newcomer"
COMPLETE = TaskOutcome(state=TesState.COMPLETE, reason=None, message=None)

# Half of the tasks belong to owner 0 and are the oldest; the others are in turn those of the other owners.
_QUEUE = """
INSERT INTO task (id, owner, name, has_resources, cpu_cores, created_at, next_submit_at, recorder_token,
                  recorder_token_hash)
SELECT gen_random_uuid(), 'owner-' || CASE WHEN n <= $1 / 2 THEN 0 ELSE 1 + n % ($2 - 1) END,
       'queued', true, 1, created_at, created_at, 'none', 'none'
  FROM generate_series(1, $1::integer) AS n,
       LATERAL (SELECT now() - ($1 - n) * interval '1 millisecond' AS created_at) AS made
"""
_EXECUTORS = """
INSERT INTO executor (task_id, index, image, command)
SELECT id, 0, 'busybox', '{true}' FROM task WHERE submitted_at IS NULL
"""
_ADD_NEWCOMER = """
WITH made AS (
    INSERT INTO task (id, owner, recorder_token, recorder_token_hash)
    VALUES (gen_random_uuid(), $1, 'none', 'none') RETURNING id
)
INSERT INTO executor (task_id, index, image, command) SELECT id, 0, 'busybox', '{true}' FROM made
"""


@dataclass(frozen=True, kw_only=True)
class AtLength:
    """The queue with so many tasks in it. Times are milliseconds."""

    queued: int
    lease_best_ms: float
    lease_median_ms: float
    lease_p95_ms: float
    create_median_ms: float
    api_rss_mib: float
    longest_wait: float
    newcomer_waits: int


async def measure(longest: int, leases: int) -> list[AtLength]:
    """Measure queues of growing length, each in a new database."""
    measured = []
    for length in sizes(longest):
        async with database() as dsn, serving(dsn) as api, open_pool(dsn, DATABASE) as pool:
            await _fill(dsn, length)
            replica = _Replica(pool)
            # Not more than the owners with the fewest tasks can give: then all have tasks until the end.
            most = min(leases, length // 2 // AT_ONCE)
            for _ in range(most // 2):
                await replica.lease()
            await pool.execute(_ADD_NEWCOMER, NEWCOMER)
            for _ in range(most - most // 2):
                await replica.lease()
            measured.append(
                AtLength(
                    queued=length,
                    lease_best_ms=min(replica.milliseconds),
                    lease_median_ms=median(replica.milliseconds),
                    lease_p95_ms=percentile(replica.milliseconds, 0.95),
                    create_median_ms=await _create_ms(api.url),
                    api_rss_mib=rss_mib(api.pid),
                    longest_wait=longest_wait(replica.owners) / OWNERS,
                    newcomer_waits=replica.owners.index(NEWCOMER) - most // 2 * AT_ONCE,
                )
            )
            print(f"measured with {length} queued tasks", file=sys.stderr)
    return measured


async def _fill(dsn: str, length: int) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(_QUEUE, length, OWNERS)
        await connection.execute(_EXECUTORS)
        await connection.execute("VACUUM ANALYZE")
    finally:
        await connection.close()


class _Replica:
    """Leases tasks as a replica of the api does, and records the owners in the order of the leases."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._active: deque[UUID] = deque()
        self.owners: list[str] = []
        self.milliseconds: list[float] = []

    async def lease(self) -> None:
        """End as many tasks as the limit requires, then lease and start the next ones."""
        while len(self._active) > ACTIVE - AT_ONCE:
            await tasks_db.finish_task(self._pool, self._active.popleft(), COMPLETE, cancel_seen=False)
        start = time.perf_counter()
        leased = await queue_db.lease_tasks(
            self._pool, most=AT_ONCE, max_active=ACTIVE, seconds=LEASE_SECONDS, stalled_seconds=LEASE_SECONDS
        )
        self.milliseconds.append((time.perf_counter() - start) * 1000)
        ids = [one.id for one in leased]
        rows = await self._pool.fetch("SELECT owner FROM task WHERE id = ANY($1)", ids)
        self.owners += [row["owner"] for row in rows]
        for task_id in ids:
            await queue_db.mark_submitted(self._pool, task_id, keep_lease=False)
        self._active.extend(ids)


def longest_wait(owners: Sequence[str]) -> int:
    """Return the largest distance between two leases of one owner, its first counted from the beginning.

    The last lease of an owner counts up to the end. An owner who has one lease only (a newcomer) does not.
    """
    last = {owner: -1 for owner, leases in Counter(owners).items() if leases > 1}
    longest = 0
    for place, owner in enumerate(owners):
        if owner in last:
            longest = max(longest, place - last[owner])
            last[owner] = place
    return max(longest, *(len(owners) - place for place in last.values()))


async def _create_ms(url: str) -> float:
    times = []
    async with aiohttp.ClientSession(url) as client:
        for _ in range(CREATES):
            start = time.perf_counter()
            async with client.post(TASKS, json=TASK) as response:
                response.raise_for_status()
                await response.read()
            times.append((time.perf_counter() - start) * 1000)
    return median(times)


def show(measured: Sequence[AtLength]) -> str:
    """Format one column per length."""
    names = {
        "lease of 8, best ms": [one.lease_best_ms for one in measured],
        "lease of 8, median ms": [one.lease_median_ms for one in measured],
        "lease of 8, p95 ms": [one.lease_p95_ms for one in measured],
        "create, median ms": [one.create_median_ms for one in measured],
        "memory of the api, MiB": [one.api_rss_mib for one in measured],
        "longest wait of an owner / its share": [one.longest_wait for one in measured],
        "leases before a newcomer's": [float(one.newcomer_waits) for one in measured],
    }
    head = ["tasks in the queue", *(f"{one.queued:,}" for one in measured), "last / first"]
    rows = [
        [name, *(f"{value:.2f}" for value in values), f"{flatness(values):.2f}" if values[0] else ""]
        for name, values in names.items()
    ]
    return table([head, *rows])


def main() -> int:
    """Measure and print."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument(
        "--queued",
        type=int,
        default=100_000,
        metavar="N",
        help="tasks in the longest queue (default: 100000)",
    )
    options.add_argument("--leases", type=int, default=400, help="of each length at most (default: 400)")
    options.add_argument("--json", action="store_true", help="print JSON and no table")
    arguments = options.parse_args()
    measured = asyncio.run(measure(arguments.queued, arguments.leases))
    print(json.dumps([asdict(one) for one in measured], indent=2) if arguments.json else show(measured))
    return 0


if __name__ == "__main__":
    sys.exit(main())
