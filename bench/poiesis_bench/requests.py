"""Measure the api's requests beside their floor: one INSERT of the same task as one row, in the same Postgres.

Seconds depend on the machine; compare the ratios. Creates: per second, by 1 and by 16 clients. Gets and lists:
medians in milliseconds of one client, with `--rows` ended tasks in the database, which makes lists of every
filter and view.
"""
# ruff: noqa: E501, S608 - SQL of long lines, built from text of this file

import argparse
import asyncio
import json
import secrets
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import aiohttp
import asyncpg

from poiesis_api.config import Database
from poiesis_api.postgres import open_pool
from poiesis_api.stored_documents import store_documents
from poiesis_bench.stage import table
from poiesis_lab import backends, daemon
from poiesis_migrations import schema

MIGRATIONS = Path(__file__).resolve().parents[2] / "migrations"
TASKS = "/ga4gh/tes/v1/tasks"
CLIENTS = (1, 16)
OWNERS = 50  # of half of the tasks; the other half is that of the measured user
RARE = 10_000  # one task in so many has the rare tag
TASK = {
    "name": "sample-17",
    "description": "align the reads of one sample",
    "tags": {"study": "genomes", "sample": "17"},
    "resources": {"cpu_cores": 2, "ram_gb": 4.0, "disk_gb": 20.0},
    "inputs": [
        {"url": "s3://data/genomes/17/reads_1.fq.gz", "path": "/data/reads_1.fq.gz", "type": "FILE"},
        {"url": "s3://data/genomes/17/reads_2.fq.gz", "path": "/data/reads_2.fq.gz", "type": "FILE"},
    ],
    "outputs": [{"url": "s3://results/17/reads.bam", "path": "/out/reads.bam", "type": "FILE"}],
    "executors": [
        {
            "image": "quay.io/biocontainers/bwa:0.7.18",
            "command": [
                "bwa",
                "mem",
                "-t",
                "2",
                "/data/ref.fa",
                "/data/reads_1.fq.gz",
                "/data/reads_2.fq.gz",
            ],
            "stdout": "/out/reads.bam",
            "env": {"THREADS": "2"},
        }
    ],
}

# Ended tasks of many owners, as the services leave them: one attempt, one executor, an output, seven lines.
_FILL = (
    """
    INSERT INTO task (id, owner, state, name, has_resources, cpu_cores, ram_gb, disk_gb, created_at, ended_at,
                      reported_by, submitted_at, recorder_token_hash)
    SELECT gen_random_uuid(), CASE WHEN n % 2 = 0 THEN 'anonymous' ELSE 'owner-' || n % $3 END, 'COMPLETE', 'sample-' || n, true, 2, 4, 20,
           now() - n * interval '1 second', now(), 'recorder', now(), 'none'
      FROM generate_series($1::integer, $2::integer) AS n
    """,
    """
    INSERT INTO executor (task_id, index, image, command, stdout, has_env)
    SELECT id, 0, 'quay.io/biocontainers/bwa:0.7.18', '{bwa,mem,-t,2,/data/ref.fa,/data/reads_1.fq.gz}', '/out/reads.bam', true
      FROM {made}
    """,
    "INSERT INTO executor_env SELECT id, 0, 'THREADS', '2' FROM {made}",
    """
    INSERT INTO input (task_id, index, url, path, type)
    SELECT id, i, 's3://data/genomes/reads_' || i, '/data/reads_' || i, 'FILE' FROM {made}, generate_series(0, 1) AS i
    """,
    "INSERT INTO output (task_id, index, url, path, type) SELECT id, 0, 's3://results/reads.bam', '/out/reads.bam', 'FILE' FROM {made}",
    "INSERT INTO task_tag SELECT id, 'study', 'genomes' FROM {made}",
    "INSERT INTO task_tag SELECT id, 'rare', 'yes' FROM {made} WHERE seq % {rare} = 0",
    "INSERT INTO task_log SELECT id, 0, id::text, 'poiesis-' || id, 'node-1', created_at, ended_at FROM {made}",
    """
    INSERT INTO executor_log (task_id, attempt, executor_index, start_time, end_time, exit_code, stdout, stderr)
    SELECT id, 0, 0, created_at, ended_at, 0, repeat('[M::process] read 10000 sequences ', 6), '' FROM {made}
    """,
    "INSERT INTO output_file_log SELECT id, 0, '/out/reads.bam', 's3://results/reads.bam', 12345678 FROM {made}",
    """
    INSERT INTO filer_log (task_id, attempt, container, start_time, end_time, files, bytes, bytes_per_second)
    SELECT id, 0, filer, created_at, ended_at, 2, 123456, 1000 FROM {made}, unnest('{tif-0,tof-0}'::text[]) AS filer
    """,
    """
    INSERT INTO system_log (task_id, attempt, at, source, key, message)
    SELECT id, 0, created_at, 'recorder', 'line-' || i, 'container executor-0 started on node-1' FROM {made}, generate_series(1, 7) AS i
    """,
)


@dataclass(frozen=True, kw_only=True)
class Creates:
    """Creates per second by so many clients, and INSERTs of one row by as many connections."""

    clients: int
    per_second: float
    floor_per_second: float


@dataclass(frozen=True, kw_only=True)
class Read:
    """Milliseconds of a request, and bytes of its response. Other load disturbs the best time least."""

    name: str
    best_ms: float
    median_ms: float
    p95_ms: float
    size: int


async def _per_second(
    work: Callable[[], Awaitable[Callable[[], Awaitable[None]]]], clients: int, seconds: float
) -> float:
    """Repeat what `work` returns, by so many clients, and return the calls per second."""
    calls = [await work() for _ in range(clients)]
    count = 0
    until = time.perf_counter() + seconds

    async def repeat(call: Callable[[], Awaitable[None]]) -> None:
        nonlocal count
        while time.perf_counter() < until:
            await call()
            count += 1

    start = time.perf_counter()
    await asyncio.gather(*map(repeat, calls))
    return count / (time.perf_counter() - start)


async def measure_creates(api: aiohttp.ClientSession, dsn: str, seconds: float, rounds: int) -> list[Creates]:
    """Alternate creates and the floor; return the best of each, which other load disturbs least."""
    body = json.dumps(TASK).encode()
    headers = {"Content-Type": "application/json"}

    async def creates() -> Callable[[], Awaitable[None]]:
        async def create() -> None:
            async with api.post(TASKS, data=body, headers=headers) as response:
                response.raise_for_status()
                await response.read()

        return create

    connections: list[asyncpg.Connection] = []

    async def inserts() -> Callable[[], Awaitable[None]]:
        connection = await asyncpg.connect(dsn)
        connections.append(connection)
        text = body.decode()

        async def insert() -> None:
            await connection.execute(
                "INSERT INTO floor (id, owner, document) VALUES ($1, 'me', $2)", uuid4(), text
            )

        return insert

    measured = []
    for clients in CLIENTS:
        samples = [
            (await _per_second(creates, clients, seconds), await _per_second(inserts, clients, seconds))
            for _ in range(rounds)
        ]
        best, floor = (max(column) for column in zip(*samples, strict=True))
        measured.append(Creates(clients=clients, per_second=best, floor_per_second=floor))
    for connection in connections:
        await connection.close()
    return measured


async def measure_reads(api: aiohttp.ClientSession, task_id: str, repeats: int) -> list[Read]:
    """Measure gets of one task, and lists of every view and filter."""
    lists = {
        "list BASIC 256": "view=BASIC&page_size=256",
        "list FULL 256": "view=FULL&page_size=256",
        "list MINIMAL 256": "page_size=256",
        "list MINIMAL 2047": "page_size=2047",
        "list BASIC 2047": "view=BASIC&page_size=2047",
        "list BASIC 256, state": "view=BASIC&page_size=256&state=COMPLETE",
        "list BASIC 256, common tag": "view=BASIC&page_size=256&tag_key=study&tag_value=genomes",
        "list BASIC 256, rare tag": "view=BASIC&page_size=256&tag_key=rare&tag_value=yes",
        "list BASIC 256, name_prefix": "view=BASIC&page_size=256&name_prefix=sample-1",
        "list BASIC 256, name_prefix without a match": "view=BASIC&page_size=256&name_prefix=nothing",
    }
    paths = {
        "get MINIMAL": f"/{task_id}",
        "get BASIC": f"/{task_id}?view=BASIC",
        "get FULL": f"/{task_id}?view=FULL",
    }
    paths |= {name: f"?{query}" for name, query in lists.items()}
    return [await measure_read(api, name, f"{TASKS}{path}", repeats) for name, path in paths.items()]


async def measure_read(api: aiohttp.ClientSession, name: str, path: str, repeats: int) -> Read:
    """Measure one request, repeated by one client, after three that are not counted."""
    times, size = [], 0
    for _ in range(repeats + 3):
        start = time.perf_counter()
        async with api.get(path) as response:
            response.raise_for_status()
            size = len(await response.read())
        times.append((time.perf_counter() - start) * 1000)
    times = sorted(times[3:])
    return Read(
        name=name,
        best_ms=times[0],
        median_ms=median(times),
        p95_ms=times[int(len(times) * 0.95)],
        size=size,
    )


async def fill(dsn: str, rows: int) -> None:
    """Add ended tasks of OWNERS owners."""
    connection = await asyncpg.connect(dsn)
    try:
        for first in range(1, rows + 1, 20_000):
            last = min(first + 19_999, rows)
            before = await connection.fetchval("SELECT coalesce(max(seq), 0) FROM task")
            made = f"(SELECT * FROM task WHERE seq > {before}) made"
            await connection.execute(_FILL[0], first, last, OWNERS)
            for statement in _FILL[1:]:
                await connection.execute(statement.replace("{made}", made).replace("{rare}", str(RARE)))
            await _store_documents(dsn)
            print(f"  {last} of {rows} tasks", file=sys.stderr)
        await connection.execute("VACUUM ANALYZE")
    finally:
        await connection.close()


async def _store_documents(dsn: str) -> None:
    async with open_pool(dsn, Database(timeout_seconds=600)) as pool:
        while await store_documents(pool, 1_000):
            pass


@asynccontextmanager
async def database() -> AsyncIterator[str]:
    """Yield the DSN of a new database with the schema and a table for the floor."""
    daemon.ensure()
    server = backends.start_postgres("poiesis-postgres-bench").dsn
    name = f"bench_{secrets.token_hex(4)}"
    dsn = urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
    administrator = await asyncpg.connect(server)
    await administrator.execute(f"CREATE DATABASE {name}")
    try:
        connection = await asyncpg.connect(dsn)
        await schema.apply(connection, MIGRATIONS)
        await connection.execute(
            "CREATE TABLE floor (id uuid PRIMARY KEY, seq bigint GENERATED ALWAYS AS IDENTITY UNIQUE,"
            " owner text NOT NULL, state text NOT NULL DEFAULT 'QUEUED', created_at timestamptz NOT NULL DEFAULT now(),"
            " document jsonb NOT NULL)"
        )
        await connection.execute("CREATE INDEX ON floor (owner, seq DESC)")
        await connection.close()
        yield dsn
    finally:
        await administrator.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await administrator.close()


@dataclass(frozen=True, kw_only=True)
class Served:
    """An api in a process of its own."""

    url: str
    pid: int


@asynccontextmanager
async def serving(dsn: str) -> AsyncIterator[Served]:
    """Serve an api without Kubernetes: it never submits."""
    command = [sys.executable, "-m", "poiesis_bench.served_api", dsn]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220
    try:
        assert process.stdout is not None
        url = (await asyncio.to_thread(process.stdout.readline)).strip()
        yield Served(url=url, pid=process.pid)
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait)


@asynccontextmanager
async def served(dsn: str) -> AsyncIterator[str]:
    """Yield the URL of an api in a process of its own, without Kubernetes: it never submits."""
    async with serving(dsn) as api:
        yield api.url


async def measure(rows: int, seconds: float, rounds: int) -> tuple[list[Creates], list[Read]]:
    """Measure in a new database."""
    async with database() as dsn, served(dsn) as url, aiohttp.ClientSession(url) as api:
        creates = await measure_creates(api, dsn, seconds, rounds)
        await fill(dsn, rows)
        connection = await asyncpg.connect(dsn)
        # Lists of ended tasks: those of the measured creates would be the newest.
        await connection.execute("DELETE FROM task WHERE ended_at IS NULL")
        await connection.execute("VACUUM ANALYZE")
        task_id = str(await connection.fetchval("SELECT id FROM task ORDER BY seq DESC LIMIT 1"))
        await connection.close()
        return creates, await measure_reads(api, task_id, 30)


def show(creates: Sequence[Creates], reads: Sequence[Read], rows: int) -> str:
    """Format both as tables."""
    made = [["creates", "per second", "floor", "ratio"]]
    for one in creates:
        ratio = one.per_second / one.floor_per_second
        made.append(
            [f"{one.clients} clients", f"{one.per_second:.0f}", f"{one.floor_per_second:.0f}", f"{ratio:.2f}"]
        )
    read = [["request", "median ms", "p95 ms", "KiB"]]
    read += [
        [one.name, f"{one.median_ms:.2f}", f"{one.p95_ms:.2f}", f"{one.size / 1024:.1f}"] for one in reads
    ]
    return f"{table(made)}\n\nwith {rows} ended tasks\n\n{table(read)}"


def main() -> int:
    """Measure and print."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument(
        "--rows", type=int, default=100_000, metavar="N", help="ended tasks (default: 100000)"
    )
    options.add_argument(
        "--seconds", type=float, default=3.0, help="of each measurement of creates (default: 3)"
    )
    options.add_argument("--rounds", type=int, default=3, help="of creates; the best one counts (default: 3)")
    options.add_argument("--json", action="store_true", help="print JSON and no table")
    arguments = options.parse_args()
    creates, reads = asyncio.run(measure(arguments.rows, arguments.seconds, arguments.rounds))
    if arguments.json:
        samples: dict[str, Any] = {
            "creates": [asdict(one) for one in creates],
            "reads": [asdict(one) for one in reads],
        }
        print(json.dumps(samples, indent=2))
    else:
        print(show(creates, reads, arguments.rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
