"""The whole gateway with a real Postgres: restarts, many tasks, memory of a flood."""

import asyncio
from collections import Counter
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from gateway_fakes import report_of, until
from gateway_tasks import add_task, end_task

from poiesis_gateway import reports_db
from poiesis_models.report import ExecutorReport
from poiesis_models.states import TesState

pytestmark = pytest.mark.integration

RUNNING = report_of(state=TesState.RUNNING)


class Wire:
    """A way to Postgres that can be cut and joined again: for its clients, a server that restarts."""

    def __init__(self, host: str, port: int) -> None:
        self._target, self._server, self._port = (host, port), None, 0
        self._tasks: set[asyncio.Task] = set()

    @property
    def port(self) -> int:
        return self._port

    async def join(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader, writer) -> None:
        task = asyncio.current_task()
        self._tasks.add(task)
        there = await asyncio.open_connection(*self._target)
        try:
            await asyncio.gather(_copy(reader, there[1]), _copy(there[0], writer))
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            for one in (there[1], writer):
                one.transport.abort()


async def _copy(reader, writer) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


@pytest.fixture
async def wire(recorder_dsn):
    parts = urlsplit(recorder_dsn)
    wire = Wire(parts.hostname, parts.port or 5432)
    await wire.join()
    yield wire
    with suppress(RuntimeError):
        await wire.cut()


@pytest.fixture
def started(start, recorder_dsn, wire, tmp_path):
    """A gateway whose connections to Postgres go over the wire."""

    @asynccontextmanager
    async def opened(**settings):
        parts = urlsplit(recorder_dsn)
        netloc = parts.netloc.rpartition("@")[0] + f"@127.0.0.1:{wire.port}"
        (tmp_path / "dsn").write_text(parts._replace(netloc=netloc).geturl())
        async with (
            reports_db.connect(
                tmp_path / "dsn", connections=settings.get("database_connections", 8), seconds=5
            ) as db,
            start(db, **settings) as gateway,
        ):
            yield gateway

    return opened


async def test_report_reaches_postgres(started, superuser):
    task_id = await add_task(superuser)
    async with started() as gateway:
        response = await gateway.post(RUNNING, task=task_id)
        assert (response.status, response.json["state"]) == (200, "RUNNING")
        assert (await gateway.post(RUNNING, task=task_id, token="wrong")).status == 401
        assert (await gateway.post(RUNNING, task=uuid4())).status == 401
        assert (await gateway.post(b"{", task=task_id)).status == 400
        await end_task(superuser, task_id, minutes_ago=16)
        gone = await gateway.post(RUNNING, task=task_id)
        assert (gone.status, gone.json["state"], gone.json["ended"]) == (410, "COMPLETE", True)
    assert await superuser.fetchval("SELECT count(*) FROM task_log WHERE task_id = $1", task_id) == 1


async def test_postgres_restart_is_503_until_it_is_back(started, superuser, wire):
    task_id = await add_task(superuser)
    async with started() as gateway:
        assert (await gateway.post(RUNNING, task=task_id)).status == 200
        await wire.cut()
        for _ in range(3):
            response = await gateway.post(RUNNING, task=task_id)
            assert (response.status, response.headers["Retry-After"]) == (503, "5")
        assert (await gateway.health("/healthz"))[0] == (await gateway.health("/readyz"))[0] == 200
        await wire.join()
        assert (await gateway.post(RUNNING, task=task_id)).status == 200


async def test_gateway_starts_without_postgres(started, superuser, wire):
    task_id = await add_task(superuser)
    await wire.cut()
    async with started() as gateway:
        assert (await gateway.post(RUNNING, task=task_id)).status == 503
        await wire.join()
        assert (await gateway.post(RUNNING, task=task_id)).status == 200


async def test_200_chatty_tasks_share_4_database_connections(started, superuser):
    tasks = [await add_task(superuser) for _ in range(200)]
    most = 0
    stopped = asyncio.Event()

    async def watch():
        nonlocal most
        while not stopped.is_set():
            count = await superuser.fetchval(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE application_name = 'poiesis-gateway' AND datname = current_database()"
            )
            most = max(most, count)
            await asyncio.sleep(0.02)

    async def chat(gateway, task_id):
        """Send five reports with 4 KiB of text; a 503 is repeated."""
        found: Counter[int] = Counter()
        for number in range(5):
            executor = ExecutorReport(index=0, start_ns=1, stdout=f"{number}\n" * 2048)
            body = report_of(state=TesState.RUNNING, executors=(executor,))
            while (status := (await gateway.post(body, task=task_id)).status) == 503:
                found[status] += 1
                await asyncio.sleep(0.1)
            found[status] += 1
        return found

    async with started(database_connections=4, connections_per_address=1000) as gateway:
        watching = asyncio.create_task(watch())
        counts = await asyncio.gather(*(chat(gateway, task_id) for task_id in tasks))
        stopped.set()
        await watching
    total = sum(counts, Counter())
    assert total[200] == 1000
    assert set(total) <= {200, 503}
    assert 1 <= most <= 4
    written = await superuser.fetchval(
        "SELECT count(*) FROM executor_log WHERE task_id = ANY($1) AND starts_with(stdout, '4')", tasks
    )
    assert written == 200


async def test_flood_of_unknown_tokens_leaves_reports_their_places(started, superuser):
    task_id = await add_task(superuser)
    settings = {"attempts_per_second": 1000, "attempts_burst": 10_000, "connections_per_address": 1000}
    async with started(database_connections=4, **settings) as gateway:
        assert (await gateway.post(RUNNING, task=task_id)).status == 200
        stop = asyncio.Event()

        async def flood():
            while not stop.is_set():
                assert (await gateway.post(task=uuid4())).status in {401, 503}

        unauthorized = 'poiesis_gateway_reports_total{outcome="unauthorized"}'
        before = await gateway.metric(unauthorized)
        floods = [asyncio.create_task(flood()) for _ in range(50)]

        async def refused_some():
            return await gateway.metric(unauthorized) > before

        await until(refused_some)
        async with asyncio.timeout(20):
            assert [(await gateway.post(RUNNING, task=task_id)).status for _ in range(10)] == [200] * 10
        stop.set()
        await asyncio.gather(*floods)
