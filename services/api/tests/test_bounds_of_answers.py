"""How large an answer may become, and what clients do to the others that do not read theirs."""

import asyncio
import json
import socket
from uuid import UUID

import pytest
from aiohttp.test_utils import TestClient, TestServer, get_port_socket

from poiesis_api import sending, tasks_db
from poiesis_api.app import make_app
from poiesis_api.config import UserLimits
from poiesis_api.errors import StorageUnavailable
from poiesis_api.submitter import Submitter
from poiesis_api.tasks_db import NewTask
from poiesis_documents import documents
from poiesis_documents.documents import View
from poiesis_models.tes import TesTaskRequest

pytestmark = pytest.mark.integration

BASE = "/ga4gh/tes/v1"
TASK = {"executors": [{"image": "busybox", "command": ["true"]}]}
CONTROL = "\1" * 65536  # six times as long in JSON
_REPORT = "SELECT state::text FROM record_report($1, 't', $2::text::jsonb)"


async def create(pool, request=None) -> UUID:
    new = NewTask(owner="anonymous", request=TesTaskRequest.model_validate(request or TASK))
    return await tasks_db.create_task(pool, new, UserLimits())


async def report(pool, task_id, **fields):
    await pool.execute("UPDATE task SET recorder_token_hash = sha256('t') WHERE id = $1", task_id)
    document = {"pod_uid": "u", "pod_name": "pod", "node": "node", **fields}
    await pool.fetch(_REPORT, task_id, json.dumps(document))


def ended(index, stdout, stderr=None):
    return {"index": index, "start_ns": 1, "end_ns": 2, "exit_code": 0, "stdout": stdout, "stderr": stderr}


async def big_tasks(pool, count):
    """Newest first."""
    ids = []
    for _ in range(count):
        ids.append(await create(pool))
        await report(pool, ids[-1], executors=[ended(0, CONTROL, CONTROL)])
    return [str(one) for one in reversed(ids)]


@pytest.fixture
def serve(pool, kubernetes, config, make_services):
    """Makes a client of a server with these limits, without the check of its answers, which reads them."""

    def make(**limits):
        changed = config.model_copy(update={"limits": config.limits.model_copy(update=limits)})
        services = make_services(changed, pool=pool, submitter=Submitter(pool, kubernetes.client, config))
        return TestClient(TestServer(make_app(services), socket_factory=small_send_buffer)), services

    return make


def small_send_buffer(host, port, family):
    """Return a listening socket whose connections buffer little: by default, Linux buffers up to 4 MiB."""
    made = get_port_socket(host, port, family)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 * 1024)
    return made


async def pages(client, **params):
    found = []
    while True:
        response = await client.get(f"{BASE}/tasks", params=params)
        body = await response.read()
        assert response.status == 200, body
        page = json.loads(body)
        found.append((len(body), [task["id"] for task in page["tasks"]]))
        if "next_page_token" not in page:
            return found
        params["page_token"] = page["next_page_token"]


async def test_page_ends_at_byte_limit_and_next_continues(pool, serve):
    ids = await big_tasks(pool, 20)
    client, _ = serve(page_bytes=4_000_000)
    async with client:
        found = await pages(client, view="FULL", page_size=2047)
        small = await pages(client, view="MINIMAL")
        one = await pages(client, view="FULL", page_size=1)

    assert [task for _, page in found for task in page] == ids
    assert [len(page) for _, page in found] == [6, 6, 6, 2]
    assert max(size for size, _ in found) < 5_000_000
    assert [page for _, page in small] == [ids]
    assert [page for _, page in one] == [[task] for task in ids]


@pytest.mark.parametrize("view", ["BASIC", "FULL", "MINIMAL"])
async def test_page_of_many_parts_equals_single_tasks(pool, serve, monkeypatch, view):
    monkeypatch.setattr("poiesis_api.pages.PART_BYTES", 10_000)
    monkeypatch.setattr("poiesis_api.tasks_db._PIECES", 5)
    content = "\u2603" * 20_000  # of several pieces, which end within characters
    for number in range(60):
        inputs = [{"path": "/data/a", "content": content}] if number % 30 == 7 else []
        await create(pool, {**TASK, "name": f"{number}", "inputs": inputs})
    await pool.execute(
        "UPDATE task SET claimed_until = now() + interval '1 hour'"
    )  # or they wait, which their documents show
    client, _ = serve()
    async with client:
        listed = json.loads(await (await client.get(f"{BASE}/tasks?view={view}")).read())
        alone = [
            json.loads(await (await client.get(f"{BASE}/tasks/{task['id']}?view={view}")).read())
            for task in listed["tasks"]
        ]
    assert len(alone) == 60
    assert listed == {"tasks": alone}


@pytest.mark.parametrize("view", [View.BASIC, View.FULL])
async def test_documents_are_produced_on_demand(pool, view):
    async with pool.acquire() as connection:
        explain = f"EXPLAIN (FORMAT JSON) {tasks_db._READ_CHOSEN[view]}"
        plan = json.loads(await connection.fetchval(explain, [1, 2]))[0]["Plan"]
    above = []
    while outer := [one for one in plan.get("Plans", []) if one["Parent Relationship"] == "Outer"]:
        above.append(plan["Node Type"])
        (plan,) = outer
    assert plan["Node Type"] == "Function Scan"  # the chosen tasks, in their order
    assert set(above) == {"Nested Loop"}


async def test_large_task_is_read_in_bounded_pieces(pool, serve):
    executors = [{"image": "busybox", "command": ["true"]}] * 40
    task_id = await create(pool, {"executors": executors})
    await report(pool, task_id, executors=[ended(index, CONTROL, CONTROL[:-1] + "e") for index in range(40)])
    client, _ = serve()
    async with client:
        body = await (await client.get(f"{BASE}/tasks/{task_id}?view=FULL")).read()
        head = await client.head(f"{BASE}/tasks/{task_id}?view=FULL")
        basic = json.loads(await (await client.get(f"{BASE}/tasks/{task_id}?view=BASIC")).read())

    (log,) = json.loads(body)["logs"]
    assert len(body) < 6 * documents.TEXT_BYTES + 100_000
    shown = documents.TEXT_BYTES // 2 // 40
    assert [len(one["stdout"]) for one in log["logs"]] == [shown] * 40
    assert log["logs"][7]["stderr"].endswith("\1e")
    assert f"shortened to the last {shown} characters" in log["system_logs"][-1]
    assert head.status == 200
    assert len(basic["logs"][0]["logs"]) == 40


async def test_texts_within_the_bound_are_whole(pool, serve):
    executors = [{"image": "busybox", "command": ["true"]}] * 16
    task_id = await create(pool, {"executors": executors})
    await report(pool, task_id, executors=[ended(index, CONTROL, CONTROL) for index in range(16)])
    client, _ = serve()
    async with client:
        task = json.loads(await (await client.get(f"{BASE}/tasks/{task_id}?view=FULL")).read())
    assert all(one["stdout"] == CONTROL for one in task["logs"][0]["logs"])
    assert "system_logs" not in task["logs"][0]


async def test_document_outputs_and_lines_are_bounded(pool, serve):
    task_id = await create(pool)
    await report(pool, task_id, state="RUNNING")
    await pool.execute(
        "INSERT INTO output_file_log SELECT $1, 0, '/o/' || n, 's3://b/' || n, 1"
        " FROM generate_series(1, 10010) n",
        task_id,
    )
    await pool.execute(
        "INSERT INTO system_log (task_id, attempt, source, key, message)"
        " SELECT $1, 0, 'recorder', n::text, repeat('x', 10000) || n FROM generate_series(1, 1010) n",
        task_id,
    )
    client, _ = serve()
    async with client:
        basic = json.loads(await (await client.get(f"{BASE}/tasks/{task_id}?view=BASIC")).read())
        full = json.loads(await (await client.get(f"{BASE}/tasks/{task_id}?view=FULL")).read())
        await pool.execute("UPDATE output_file_log SET url = repeat('u', 1000) || url")
        long = json.loads(await (await client.get(f"{BASE}/tasks/{task_id}?view=BASIC")).read())

    assert len(basic["logs"][0]["outputs"]) == documents.OUTPUTS
    (log,) = full["logs"]
    assert len(log["outputs"]) == documents.OUTPUTS
    assert "at most 10000 of them" in log["system_logs"][-1]
    assert len(log["system_logs"]) == documents.LINES
    assert max(map(len, log["system_logs"])) < documents.LINE_CHARACTERS + 40
    assert 3000 < len(long["logs"][0]["outputs"]) < 4200


class Deaf:
    """A client that asks and does not read."""

    def __init__(self, client, path):
        self._address = client.host, client.port
        self._path = path

    async def __aenter__(self):
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(self.socket, self._address)
        await loop.sock_sendall(self.socket, f"GET {self._path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        return self

    async def __aexit__(self, *_):
        self.socket.close()


async def until(condition):
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_client_that_does_not_read_is_disconnected(pool, serve, caplog):
    caplog.set_level("INFO")
    await big_tasks(pool, 12)
    client, services = serve(send_seconds=0.5)
    async with client, Deaf(client, f"{BASE}/tasks?view=FULL"):
        await until(lambda: services.outgoing.held_bytes)
        assert services.outgoing.held_bytes < 4_000_000  # a part of the page, not all of it
        await until(lambda: "response cut off" in caplog.text)
        assert services.outgoing.held_bytes == 0


def stuck(services, held_bytes):
    """Whether clients hold so much, and none of them has read for a while."""
    now = asyncio.get_running_loop().time()
    responses = services.outgoing._responses
    return services.outgoing.held_bytes >= held_bytes and all(now - one.since > 0.3 for one in responses)


async def test_readers_that_stall_make_room_for_others(pool, serve, monkeypatch):
    monkeypatch.setattr(sending, "STALLED_SECONDS", 600)
    ids = await big_tasks(pool, 12)
    client, services = serve(outgoing_bytes=1_000_000, send_seconds=600)
    path = f"{BASE}/tasks?view=FULL"
    async with client, Deaf(client, path), Deaf(client, path), Deaf(client, path), Deaf(client, path):
        await until(lambda: stuck(services, 1_000_000))
        monkeypatch.setattr(sending, "STALLED_SECONDS", 0.2)
        assert [page for _, page in await pages(client, view="FULL")] == [ids[:11], ids[11:]]


async def test_without_room_in_time_a_read_is_503(pool, serve, monkeypatch):
    monkeypatch.setattr(sending, "STALLED_SECONDS", 600)
    await big_tasks(pool, 12)
    client, services = serve(outgoing_bytes=1_000_000, send_seconds=600)
    path = f"{BASE}/tasks?view=FULL"
    async with client, Deaf(client, path), Deaf(client, path), Deaf(client, path), Deaf(client, path):
        await until(lambda: stuck(services, 1_000_000))
        monkeypatch.setattr(sending, "WAIT_SECONDS", 0.2)
        response = await client.get(path)
        assert (response.status, response.headers["Retry-After"]) == (503, "5")
        assert (await client.get(f"{BASE}/service-info")).status == 200


async def test_interrupted_page_ends_early_and_continues(pool, serve, monkeypatch):
    ids = await big_tasks(pool, 6)
    real, reads = tasks_db.list_part, []

    async def sometimes(*arguments):
        reads.append(arguments)
        if len(reads) == 2:
            raise StorageUnavailable
        return await real(*arguments)

    monkeypatch.setattr(tasks_db, "list_part", sometimes)
    client, _ = serve()
    async with client:
        found = await pages(client, view="FULL")

    assert [task for _, page in found for task in page] == ids
    assert len(found) == 2


async def test_one_user_leaves_a_turn_to_the_others():
    turns = sending._Turns(3, 2)
    await turns.take("me")
    await turns.take("me")
    third = asyncio.create_task(turns.take("me"))
    await turns.take("you")
    await asyncio.sleep(0)
    assert not third.done()
    turns.give_back("me")
    await third
    third_of_mine = asyncio.create_task(turns.take("me"))
    await asyncio.sleep(0)
    third_of_mine.cancel()
    await asyncio.gather(third_of_mine, return_exceptions=True)
    for user in ("me", "me", "you"):
        turns.give_back(user)
    assert not turns._users
    assert turns._all._value == 3
