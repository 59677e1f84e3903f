"""Measure every get and list of the api while the database grows, and the memory of the api.

Milliseconds depend on the machine. `flatness`: the best time with the most tasks, divided by that with the
fewest; other load disturbs the best time least.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import aiohttp
import asyncpg

from poiesis_bench.requests import TASKS, Read, database, fill, measure_read, measure_reads, serving
from poiesis_bench.scale.growth import flatness, rss_mib, sizes
from poiesis_bench.stage import table

PAGE = 2047


@dataclass(frozen=True, kw_only=True)
class AtSize:
    """The reads with so many ended tasks in the database, and the memory of the api after them."""

    rows: int
    api_rss_mib: float
    reads: list[Read]


async def measure(largest: int, repeats: int) -> list[AtSize]:
    """Measure in a new database that is filled step by step."""
    measured: list[AtSize] = []
    async with database() as dsn, serving(dsn) as api, aiohttp.ClientSession(api.url) as client:
        filled = 0
        for size in sizes(largest):
            await fill(dsn, size - filled)
            filled = size
            reads = await _reads(client, dsn, size, repeats)
            measured.append(AtSize(rows=size, api_rss_mib=rss_mib(api.pid), reads=reads))
            print(f"measured with {size} tasks", file=sys.stderr)
    return measured


async def _reads(client: aiohttp.ClientSession, dsn: str, size: int, repeats: int) -> list[Read]:
    connection = await asyncpg.connect(dsn)
    try:
        task_id = str(await connection.fetchval("SELECT id FROM task ORDER BY seq DESC LIMIT 1"))
    finally:
        await connection.close()
    reads = await measure_reads(client, task_id, repeats)
    token = await _token_of_the_middle(client, size)
    deep = f"{TASKS}?page_size=256&page_token={token}" if token else f"{TASKS}?page_size=256"
    return [*reads, await measure_read(client, "list MINIMAL 256, a page in the middle", deep, repeats)]


async def _token_of_the_middle(client: aiohttp.ClientSession, size: int) -> str:
    """Return the token after half of the tasks; empty if they fit on one page."""
    token = ""
    for _ in range(size // 2 // PAGE):
        more = f"&page_token={token}" if token else ""
        async with client.get(f"{TASKS}?page_size={PAGE}{more}") as response:
            response.raise_for_status()
            token = (await response.json()).get("next_page_token", "")
    return token


def show(measured: Sequence[AtSize]) -> str:
    """Format the best times, one column per size."""
    head = ["milliseconds, best", *(f"{one.rows:,}" for one in measured), "flatness"]
    rows = [head]
    for reads in zip(*(one.reads for one in measured), strict=True):
        times = [read.best_ms for read in reads]
        rows.append([reads[0].name, *(f"{time:.2f}" for time in times), f"{flatness(times):.2f}"])
    memory = [one.api_rss_mib for one in measured]
    rows.append(["memory of the api, MiB", *(f"{size:.0f}" for size in memory), f"{flatness(memory):.2f}"])
    return table(rows)


def main() -> int:
    """Measure and print."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument(
        "--rows", type=int, default=100_000, metavar="N", help="ended tasks at the end (default: 100000)"
    )
    options.add_argument("--repeats", type=int, default=30, help="of each request (default: 30)")
    options.add_argument("--json", action="store_true", help="print JSON and no table")
    arguments = options.parse_args()
    measured = asyncio.run(measure(arguments.rows, arguments.repeats))
    print(json.dumps([asdict(one) for one in measured], indent=2) if arguments.json else show(measured))
    return 0


if __name__ == "__main__":
    sys.exit(main())
