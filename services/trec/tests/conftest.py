"""A task in Postgres, run directories, and a fake helper that fills them."""

import asyncio
import fcntl
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from poiesis_models.plan import PodPlan
from poiesis_trec.config import Config, PodRef
from poiesis_trec.recorder import run

TOKEN = "the-task's-token"
POD = PodRef(name="poiesis-x-abcde", uid="uid-1", namespace="tasks", node="node-1")
PLAN = PodPlan(
    inputs=("tif-0",),
    executors=("executor-0", "executor-1"),
    ignore_error=(False, False),
    outputs=("tof-0",),
    upload_on_error=True,
)


@dataclass
class FakeHelper:
    """Writes the files of `helper run` into a run directory."""

    directory: Path
    start_ns: int = field(default_factory=time.time_ns)
    lock: int = -1

    def start(self) -> "FakeHelper":
        self.directory.mkdir(parents=True, exist_ok=True)
        self.lock = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        self.put("stdout", b"")
        self.put("stderr", b"")
        self.put("started", f'{{"start_ns":{self.start_ns}}}\n'.encode())
        return self

    def put(self, name: str, data: bytes) -> None:
        aside = self.directory / f".{name}.part"
        aside.write_bytes(data)
        aside.rename(self.directory / name)

    def write(self, stream: str, data: bytes) -> None:
        with (self.directory / stream).open("ab") as file:
            file.write(data)

    def progress(self, **event: Any) -> None:
        with (self.directory / "progress.jsonl").open("a") as file:
            file.write(json.dumps(event) + "\n")

    def end(self, exit_code: int = 0, *, signal: int = 0, oom: bool = False, term: bool = False) -> None:
        record = {
            "exit_code": exit_code,
            "signal": signal,
            "oom": oom,
            "term": term,
            "start_ns": self.start_ns,
            "end_ns": time.time_ns(),
            "max_rss_kb": 1,
            "user_us": 2,
            "sys_us": 3,
        }
        self.put("exit.json", json.dumps(record).encode())
        self.killed()

    def killed(self) -> None:
        if self.lock >= 0:
            os.close(self.lock)
            self.lock = -1


@dataclass(frozen=True)
class Task:
    """A task in Postgres, and queries for what the recorder wrote."""

    id: UUID
    db: asyncpg.Connection

    async def row(self) -> dict[str, Any]:
        row = await self.db.fetchrow(
            "SELECT state::text, reason, message, container, reported_by::text FROM task WHERE id = $1",
            self.id,
        )
        return dict(row)

    async def state(self) -> str:
        return (await self.row())["state"]

    async def executors(self) -> list[tuple[Any, ...]]:
        rows = await self.db.fetch(
            "SELECT executor_index, exit_code, oom, stdout, stderr FROM executor_log_text WHERE task_id = $1"
            " ORDER BY attempt, executor_index",
            self.id,
        )
        return [tuple(row) for row in rows]

    async def outputs(self) -> list[tuple[Any, ...]]:
        rows = await self.db.fetch(
            "SELECT path, url, size_bytes FROM output_file_log WHERE task_id = $1 ORDER BY path", self.id
        )
        return [tuple(row) for row in rows]

    async def filers(self) -> list[tuple[Any, ...]]:
        rows = await self.db.fetch(
            "SELECT container, end_time IS NOT NULL, files, bytes, bytes_per_second > 0 FROM filer_log"
            " WHERE task_id = $1 ORDER BY start_time",
            self.id,
        )
        return [tuple(row) for row in rows]

    async def system_logs(self) -> list[str]:
        rows = await self.db.fetch("SELECT message FROM system_log WHERE task_id = $1 ORDER BY id", self.id)
        return [row[0] for row in rows]

    async def attempts(self) -> int:
        return await self.db.fetchval("SELECT count(*) FROM task_log WHERE task_id = $1", self.id)

    async def cancel(self) -> None:
        await self.db.execute(
            "UPDATE task SET state = 'CANCELING', cancel_requested_at = now(), cancel_requested_by = 'me'"
            " WHERE id = $1 AND ended_at IS NULL",
            self.id,
        )


class Lab:
    """The environment of a recorder: configuration, directories, containers."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._helpers: list[FakeHelper] = []

    def configure(self, **changes: Any) -> None:
        self.config = replace(self.config, **changes)

    def helper(self, name: str) -> FakeHelper:
        self._helpers.append(FakeHelper(self.config.runs / name))
        return self._helpers[-1]

    def close(self) -> None:
        for one in self._helpers:
            one.killed()

    async def eventually(
        self, look: Callable[[], Awaitable[Any]], expected: Any, seconds: float = 10
    ) -> None:
        """Wait until `look()` returns `expected`."""
        end = time.monotonic() + seconds
        while (seen := await look()) != expected and time.monotonic() < end:  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # what it waits for is in a database
        assert seen == expected

    @asynccontextmanager
    async def recording(self, **changes: Any) -> AsyncIterator[asyncio.Event]:
        """Run a recorder until the end of the block; yield its stop event."""
        config = replace(self.config, **changes)
        stop = asyncio.Event()
        task = asyncio.create_task(run(config, stop))
        try:
            yield stop
            stop.set()
            async with asyncio.timeout(config.grace_seconds):
                await task
        finally:
            task.cancel()
            await asyncio.wait({task})

    async def killed_after(self, look: Callable[[], Awaitable[Any]], expected: Any) -> None:
        """Run a recorder and kill it when `look()` returns `expected`."""
        task = asyncio.create_task(run(self.config, asyncio.Event()))
        await self.eventually(look, expected)
        task.cancel()
        await asyncio.wait({task})


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """An environment without a database."""
    for directory in ("runs", "ack", "recorder"):
        (tmp_path / "poiesis" / directory).mkdir(parents=True)
    (tmp_path / "poiesis/recorder/token").write_text(TOKEN)
    (tmp_path / "poiesis/recorder/dsn").write_text("postgresql://nobody@127.0.0.1:1/none")
    lab = Lab(
        Config(
            task_id=uuid4(),
            plan=PLAN,
            pod=POD,
            token_file=tmp_path / "poiesis/recorder/token",
            dsn_file=tmp_path / "poiesis/recorder/dsn",
            runs=tmp_path / "poiesis/runs",
            ack_file=tmp_path / "poiesis/ack/done",
            rescue_file=tmp_path / "poiesis/ack/rescue",
            log_bytes=1000,
            log_interval_seconds=0.2,
            rescan_seconds=0.3,
            idle_seconds=0.3,
        )
    )
    yield lab
    lab.close()


@pytest.fixture
async def task(postgres_dsn: str, lab: Lab) -> AsyncIterator[Task]:
    """A task with two executors; the recorder's DSN grants only the recorder's rights."""
    config = lab.config
    config.dsn_file.write_text(f"{postgres_dsn}?options=-c%20role%3Dpoiesis_recorder")
    db = await asyncpg.connect(postgres_dsn)
    await db.execute(
        "INSERT INTO task (id, owner, recorder_token_hash, submitted_at)"
        " VALUES ($1, 'me', sha256($2), now())",
        config.task_id,
        TOKEN.encode(),
    )
    for index in range(2):
        await db.execute(
            "INSERT INTO executor (task_id, index, image, command) VALUES ($1, $2, 'busybox', '{true}')",
            config.task_id,
            index,
        )
    yield Task(config.task_id, db)
    await db.close()
