"""Measure whether deletion by age disturbs creates: their latency with and without it, in one run.

Windows with and without deletion alternate. Seconds depend on the machine; compare the ratios. `--rows` ended
tasks are in the database, and the controller deletes them as it does in a release, without an archive.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import timedelta

import aiohttp
import asyncpg

from poiesis_bench.requests import TASK, database, fill, served
from poiesis_bench.scale.growth import percentile
from poiesis_bench.stage import table
from poiesis_models.states import TesState
from poiesis_tctl import tasks_db
from poiesis_tctl.config import Retention
from poiesis_tctl.deletion import Deletion
from poiesis_tctl.retention import Sweep
from poiesis_tctl.retention_db import RetentionDb

CLIENTS = 2
DUE = Sweep(kind="tasks", state=TesState.COMPLETE, age=timedelta(days=90))


@dataclass(frozen=True, kw_only=True)
class Latencies:
    """Milliseconds of creates by CLIENTS clients, and what was deleted meanwhile."""

    creates: int
    p50_ms: float
    p99_ms: float
    deleted_per_second: float


async def creates(api: aiohttp.ClientSession, until: float) -> list[float]:
    """Create tasks one after the other, and return the milliseconds of each."""
    times = []
    while (start := time.perf_counter()) < until:
        async with api.post("/ga4gh/tes/v1/tasks", json=TASK) as response:
            response.raise_for_status()
            await response.read()
        times.append((time.perf_counter() - start) * 1000)
    return times


async def window(api: aiohttp.ClientSession, deletion: Deletion | None, seconds: float) -> list[float]:
    """Return the milliseconds of all creates in a time, with deletion beside them if there is one."""
    until = time.perf_counter() + seconds
    deleting = asyncio.create_task(deletion.sweep(DUE)) if deletion else None
    measured = await asyncio.gather(*(creates(api, until) for _ in range(CLIENTS)))
    if deleting is not None:
        if deleting.done():
            raise RuntimeError("all tasks are deleted before the end of the measurement; use more --rows")
        deleting.cancel()
        with suppress(asyncio.CancelledError):
            await deleting
    return sorted(one for times in measured for one in times)


async def measure(rows: int, seconds: float, rounds: int) -> list[Latencies]:
    """Measure in a new database."""
    async with (
        database() as dsn,
        served(dsn) as url,
        aiohttp.ClientSession(url) as api,
        tasks_db.connect(dsn, connections=1, home="tes") as tasks,
    ):
        await fill(dsn, rows)
        connection = await asyncpg.connect(dsn)
        await connection.execute("UPDATE task SET ended_at = ended_at - interval '91 days'")
        await connection.execute("VACUUM ANALYZE task")
        await connection.close()
        deletion = Deletion(RetentionDb(tasks), Retention(), may_delete=lambda _: True)
        await window(api, None, 1.0)
        times: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(rounds):
            for on in times:
                times[on] += await window(api, deletion if on else None, seconds)
        deleted = deletion.counts.deleted["tasks"] / (seconds * rounds)
        return [_latencies(times[False]), _latencies(times[True], deleted)]


def _latencies(times: Sequence[float], deleted: float = 0.0) -> Latencies:
    return Latencies(
        creates=len(times),
        p50_ms=percentile(times, 0.5),
        p99_ms=percentile(times, 0.99),
        deleted_per_second=deleted,
    )


def show(without: Latencies, beside: Latencies) -> str:
    """Format both, and their ratio."""
    rows = [["creates", "count", "p50 ms", "p99 ms", "tasks deleted per second"]]
    rows += [
        [name, str(one.creates), f"{one.p50_ms:.1f}", f"{one.p99_ms:.1f}", f"{one.deleted_per_second:.0f}"]
        for name, one in (("without deletion", without), ("beside deletion", beside))
    ]
    ratios = [f"{beside.p50_ms / without.p50_ms:.2f}", f"{beside.p99_ms / without.p99_ms:.2f}"]
    return table([*rows, ["ratio", "", *ratios, ""]])


def main() -> int:
    """Measure and print."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--rows", type=int, default=20_000, metavar="N", help="ended tasks (default: 20000)")
    options.add_argument("--seconds", type=float, default=2.0, help="of each window (default: 2)")
    options.add_argument("--rounds", type=int, default=20, help="windows of each kind (default: 20)")
    options.add_argument("--json", action="store_true", help="print JSON and no table")
    arguments = options.parse_args()
    without, beside = asyncio.run(measure(arguments.rows, arguments.seconds, arguments.rounds))
    if arguments.json:
        print(json.dumps([asdict(without), asdict(beside)], indent=2))
    else:
        print(show(without, beside))
    return 0


if __name__ == "__main__":
    sys.exit(main())
