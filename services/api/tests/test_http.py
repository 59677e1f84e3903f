"""TES over HTTP against a real Postgres: every operation, view, filter and refusal."""

import asyncio
import io
import json
import time
from uuid import uuid4

import asyncpg
import pytest
from aiohttp.test_utils import TestClient, TestServer

from poiesis_api import tasks_db
from poiesis_api.app import make_app
from poiesis_api.config import Database, UserLimits
from poiesis_api.postgres import open_pool
from poiesis_api.submitter import Submitter
from poiesis_models.outages import Outage
from poiesis_models.states import TaskOutcome, TesState
from poiesis_models.tes import TesTask, TesTaskMinimal, TesTaskRequest

pytestmark = pytest.mark.integration

BASE = "/ga4gh/tes/v1"
EXECUTOR = {"image": "busybox", "command": ["echo", "$HOME", "\u00e4"]}
SMALL = {"executors": [EXECUTOR]}
WHOLE = {
    "name": "a % name_",
    "description": "all fields",
    "inputs": [
        {
            "name": "in",
            "description": "d",
            "url": "s3://bucket/in",
            "path": "/data/in",
            "type": "FILE",
            "streamable": False,
        },
        {"path": "/data/script", "content": "echo \u2603\n"},
    ],
    "outputs": [
        {
            "name": "out",
            "description": "d",
            "url": "s3://bucket/out",
            "path": "/data/*.txt",
            "path_prefix": "/data",
            "type": "FILE",
        }
    ],
    "resources": {
        "cpu_cores": 2,
        "preemptible": False,
        "ram_gb": 0.186,
        "disk_gb": 8,
        "zones": ["a", "b"],
        "backend_parameters_strict": False,
    },
    "executors": [
        {
            **EXECUTOR,
            "workdir": "/data",
            "stdin": "/data/in",
            "stdout": "/data/o",
            "stderr": "/data/e",
            "env": {"A": "$(B)", "C": ""},
            "ignore_error": True,
        },
        {"image": "alpine", "command": ["true"], "env": {}},
    ],
    "volumes": ["/scratch"],
    "tags": {"project": "x", "empty": ""},
}


@pytest.fixture
async def services(pool, kubernetes, config, make_services):
    return make_services(config, pool=pool, submitter=Submitter(pool, kubernetes.client, config))


@pytest.fixture
async def client(services, conformance):
    """Whatever it is answered in these tests is what our OpenAPI document promises."""
    async with TestClient(TestServer(make_app(services)), middlewares=[conformance]) as client:
        yield client


async def create(client, task=SMALL):
    response = await client.post(f"{BASE}/tasks", json=task)
    body = await response.json()
    assert response.status == 200, body
    assert set(body) == {"id"}
    return body["id"]


async def read(client, task_id, view="FULL"):
    response = await client.get(f"{BASE}/tasks/{task_id}", params={"view": view})
    text = await response.text()
    assert response.status == 200, text
    document = json.loads(text)
    if view != "BASIC":  # which leaves out contents, without which an input is not one
        kind = TesTaskMinimal if view == "MINIMAL" else TesTask
        shape = kind.model_validate_json(text).model_dump(mode="json", exclude_none=True)
        assert document == shape  # nothing that TES does not know, nothing null, every type as it should be
    return document


async def listed(client, **params):
    response = await client.get(f"{BASE}/tasks", params=params)
    assert response.status == 200, await response.text()
    return await response.json()


async def refused(response, status, field=None):
    body = await response.json()
    assert response.status == status, body
    assert body.get("field") == field, body
    return body["error"]


_REPORT = "SELECT state::text FROM record_report($1, 't', $2::text::jsonb)"


async def report(pool, task_id, **fields):
    """As the recorder does."""
    await pool.execute("UPDATE task SET recorder_token_hash = sha256('t')")
    document = {"pod_uid": "u", "pod_name": "pod", "node": "node", **fields}
    await pool.execute(_REPORT, task_id, json.dumps(document))


async def test_full_view_returns_task_as_sent(client):
    task_id = await create(client, WHOLE)
    task = await read(client, task_id)
    assert task.pop("creation_time").endswith("Z")
    assert task == {"id": task_id, "state": "QUEUED", **WHOLE}


async def test_small_task_has_only_sent_keys(client):
    task_id = await create(client)
    task = await read(client, task_id)
    del task["creation_time"]
    assert task == {"id": task_id, "state": "QUEUED", "executors": [EXECUTOR]}


async def test_views(client):
    task_id = await create(client, WHOLE)
    assert await read(client, task_id, "MINIMAL") == {"id": task_id, "state": "QUEUED"}
    full, basic = await read(client, task_id, "FULL"), await read(client, task_id, "BASIC")
    del full["inputs"][1]["content"]
    assert basic == full
    response = await client.get(f"{BASE}/tasks/{task_id}")
    assert await response.json() == {"id": task_id, "state": "QUEUED"}


async def test_a_found_type_is_in_basic_and_full(client, pool):
    inputs = [
        {"url": "s3://b/ref", "path": "/data/ref"},
        {"url": "s3://b/b", "path": "/data/b", "type": "FILE"},
    ]
    task_id = await create(client, {**SMALL, "inputs": inputs})
    await report(pool, task_id, inputs=[{"path": "/data/ref", "type": "DIRECTORY"}])
    for view in ("BASIC", "FULL"):
        found = (await read(client, task_id, view))["inputs"]
        assert [one["type"] for one in found] == ["DIRECTORY", "FILE"]


async def test_unknown_and_read_only_fields_are_ignored(client):
    sent = {**SMALL, "id": "mine", "state": "COMPLETE", "logs": [{}], "creation_time": "now", "x": {"y": 1}}
    task_id = await create(client, sent)
    task = await read(client, task_id)
    assert set(task) == {"id", "state", "executors", "creation_time"}
    assert (task["id"], task["state"]) == (task_id, "QUEUED")


async def test_overdue_task_reports_that_it_waits(client, pool):
    task_id = await create(client, SMALL)
    assert "logs" not in await read(client, task_id)
    due = "UPDATE task SET next_submit_at = now() - interval '6 seconds'"
    await pool.execute(due)
    (log,) = (await read(client, task_id))["logs"]
    assert [line.split(" ", 1)[1] for line in log["system_logs"]] == ["waiting in the queue of the api"]
    assert log["metadata"] == {"waiting_reason": "waiting in the queue of the api"}
    assert (await read(client, task_id, "BASIC"))["logs"][0]["metadata"] == log["metadata"]

    for why_not in (
        "UPDATE task SET claimed_until = now() + interval '1 minute'",
        "UPDATE task SET claimed_until = NULL, next_submit_at = now() + interval '1 minute'",
        f"{due}, submitted_at = now(), recorder_token = NULL",
    ):
        await pool.execute(why_not)
        assert "logs" not in await read(client, task_id), why_not


async def test_system_logs_show_progress_of_running_filer(client, pool):
    task_id = await create(client, SMALL)

    async def lines():
        (log,) = (await read(client, task_id))["logs"]
        return [line.split(" ", 1)[1] for line in log["system_logs"]]

    at_ns = time.time_ns() - 10**10
    started = {"key": "tif-0/started", "at_ns": at_ns, "message": "tif-0 started"}
    filer = {
        "container": "tif-0",
        "start_ns": at_ns,
        "files": 12,
        "bytes": 3_400_000_000,
        "bytes_per_second": 209_876_543,
    }
    await report(pool, task_id, system_logs=[started], filers=[filer])
    assert await lines() == ["tif-0 started", "tif-0 in progress: 12 files, 3400000000 bytes, 209.9 MB/s"]
    assert "system_logs" not in (await read(client, task_id, "BASIC"))["logs"][0]

    await report(pool, task_id, filers=[{**filer, "files": 1, "bytes": 1, "bytes_per_second": 0}])
    assert await lines() == ["tif-0 started", "tif-0 in progress: 1 file, 1 byte, 0.0 MB/s"]

    ended = {"key": "tif-0/ended", "at_ns": at_ns + 1, "message": "tif-0 staged 13 files"}
    await report(pool, task_id, system_logs=[ended], filers=[{**filer, "end_ns": at_ns + 1}])
    assert await lines() == ["tif-0 started", "tif-0 staged 13 files"]


async def metadata_of(client, task_id):
    """The metadata of the last log, which the views BASIC and FULL share."""
    full, basic = [(await read(client, task_id, view))["logs"][-1]["metadata"] for view in ("FULL", "BASIC")]
    assert full == basic
    return {name: value for name, value in full.items() if name not in {"pod", "node"}}


async def test_metadata_has_progress_and_times_of_filers(client, pool):
    task_id = await create(client, SMALL)
    second = 1_000_000_000
    counts = {"files": 2, "bytes": 10, "bytes_per_second": 3}
    staged = {"container": "tif-0", "start_ns": second, **counts}
    streamed = {"container": "stream-0", "start_ns": 2 * second, **counts}
    await report(pool, task_id, filers=[staged, streamed])
    assert await metadata_of(client, task_id) == {
        "staging.files_done": "4",
        "staging.bytes_done": "20",
        "staging.bytes_per_second": "6",
        "stream-0.start_time": "1970-01-01T00:00:02.000000Z",
        "tif-0.start_time": "1970-01-01T00:00:01.000000Z",
    }

    ended = [{**one, "end_ns": 3 * second} for one in (staged, streamed)]
    most = {"files": 0, "bytes": 2**63 - 1, "bytes_per_second": 0}
    await report(pool, task_id, filers=[*ended, {"container": "tof-0", "start_ns": 4 * second, **most}])
    assert await metadata_of(client, task_id) == {
        "sending.files_done": "0",
        "sending.bytes_done": str(2**63 - 1),
        "sending.bytes_per_second": "0",
        "staging.files_done": "4",
        "staging.bytes_done": "20",
        "stream-0.start_time": "1970-01-01T00:00:02.000000Z",
        "stream-0.end_time": "1970-01-01T00:00:03.000000Z",
        "tif-0.start_time": "1970-01-01T00:00:01.000000Z",
        "tif-0.end_time": "1970-01-01T00:00:03.000000Z",
        "tof-0.start_time": "1970-01-01T00:00:04.000000Z",
    }
    assert set(await read(client, task_id, "MINIMAL")) == {"id", "state"}

    await report(pool, task_id, ending={"state": "SYSTEM_ERROR", "reason": "NodeLost"})
    assert "sending.bytes_per_second" not in await metadata_of(client, task_id)


async def test_metadata_has_usage_of_executors_and_attempt(client, pool):
    task_id = await create(client, {"executors": [EXECUTOR, EXECUTOR]})
    ended = {"start_ns": 1, "end_ns": 2, "exit_code": 0}
    first = {
        "user_us": 1_500_400,
        "sys_us": 200_400,
        "peak_memory_bytes": 300,
        "read_bytes": 10,
        "written_bytes": 0,
        "disk_used_bytes": 7,
    }
    second = {"user_us": 1000, "sys_us": 0, "peak_memory_bytes": 200, "read_bytes": 1}
    executors = [{"index": index, **ended, "usage": usage} for index, usage in enumerate((first, second))]
    await report(pool, task_id, executors=executors)
    metadata = await metadata_of(client, task_id)
    assert {key: value for key, value in metadata.items() if not key.endswith("_time")} == {
        "peak_memory_bytes": "300",
        "cpu_time_ms": "1702",
        "user_cpu_time_ms": "1501",
        "system_cpu_time_ms": "200",
        "read_bytes": "11",
        "written_bytes": "0",
        "disk_used_bytes": "7",
        "executor-0.peak_memory_bytes": "300",
        "executor-0.cpu_time_ms": "1701",
        "executor-0.user_cpu_time_ms": "1500",
        "executor-0.system_cpu_time_ms": "200",
        "executor-0.read_bytes": "10",
        "executor-0.written_bytes": "0",
        "executor-0.disk_used_bytes": "7",
        "executor-1.peak_memory_bytes": "200",
        "executor-1.cpu_time_ms": "1",
        "executor-1.user_cpu_time_ms": "1",
        "executor-1.system_cpu_time_ms": "0",
        "executor-1.read_bytes": "1",
    }


async def test_largest_usage_does_not_overflow(client, pool):
    task_id = await create(client, SMALL)
    most = dict.fromkeys(("user_us", "sys_us", "peak_memory_bytes"), 2**63 - 1)
    executor = {"index": 0, "start_ns": 1, "end_ns": 2, "exit_code": 0, "usage": most}
    await report(pool, task_id, executors=[executor], ending={"state": "COMPLETE"})
    assert (await metadata_of(client, task_id))["cpu_time_ms"] == str(round((2**64 - 2) / 1000))


async def test_all_senders_count_as_sending(client, pool):
    task_id = await create(client, SMALL)
    counts = {"start_ns": 1, "end_ns": 2, "files": 1, "bytes": 2, "bytes_per_second": 1}
    await report(pool, task_id, filers=[{"container": name, **counts} for name in ("tof-0", "rescue-0")])
    metadata = await metadata_of(client, task_id)
    assert metadata["sending.files_done"] == "2"
    assert "staging.files_done" not in metadata


async def test_each_attempt_has_its_own_progress(client, pool):
    task_id = await create(client, SMALL)
    counts = {"files": 1, "bytes": 1, "bytes_per_second": 1}
    await report(pool, task_id, filers=[{"container": "tif-0", "start_ns": 1, **counts}])
    await report(pool, task_id, pod_uid="v")
    first, last = (await read(client, task_id))["logs"]
    assert first["metadata"]["staging.files_done"] == "1"
    assert last["metadata"] == {"pod": "pod", "node": "node"}


@pytest.mark.parametrize(
    ("source", "key"),
    [
        ("api", "submit-403-Forbidden"),
        ("api", "owner-limit"),
        ("controller", "Kueue-0123456789ab"),
        ("controller", "FailedCreate-0123456789ab"),
        ("controller", "event/FailedScheduling-0123456789ab"),
        ("controller", "event/Pulling-0123456789ab"),
        ("recorder", "executor-0/waiting-pull"),
    ],
)
@pytest.mark.parametrize(
    "over",
    [("controller", "event/Scheduled-0"), ("controller", "event/Pulled-0"), ("recorder", "tif-0/started")],
)
async def test_waiting_reason_is_the_last_waiting_line(client, pool, source, key, over):
    task_id = await create(client, SMALL)

    async def log(source, key, message):
        await pool.execute(
            "INSERT INTO system_log (task_id, source, key, message) VALUES ($1, $2, $3, $4)",
            task_id,
            source,
            key,
            message,
        )

    await log("api", "create-0", "a warning")
    assert await metadata_of(client, task_id) == {}
    await log(source, key, "x" * 3000)
    assert await metadata_of(client, task_id) == {"waiting_reason": "x" * 1024}
    await log(*over, "it continues")
    assert await metadata_of(client, task_id) == {}


async def test_waiting_reason_ends_with_a_cancel(client, pool):
    task_id = await create(client, SMALL)
    await pool.execute(
        "INSERT INTO system_log (task_id, source, key, message) VALUES ($1, 'api', 'submit-403', 'no')",
        task_id,
    )
    await pool.execute("UPDATE task SET submitted_at = now(), submit_attempts = 1, recorder_token = NULL")
    assert await metadata_of(client, task_id) == {"waiting_reason": "no"}
    await pool.execute(
        "UPDATE task SET state = 'CANCELING', cancel_requested_at = now(), cancel_requested_by = 'me'"
    )
    assert await metadata_of(client, task_id) == {}


async def test_logs_of_running_and_ended_task(client, pool):
    task_id = await create(client, {"executors": [EXECUTOR, EXECUTOR]})
    assert "logs" not in await read(client, task_id)

    second = 1_000_000_000
    first = {
        "index": 0,
        "start_ns": second,
        "end_ns": 2 * second,
        "exit_code": 0,
        "stdout": "o",
        "stderr": "e",
    }
    started = {"index": 1, "start_ns": 2 * second}
    times = {
        "executor-0.start_time": "1970-01-01T00:00:01.000000Z",
        "executor-0.end_time": "1970-01-01T00:00:02.000000Z",
        "executor-1.start_time": "1970-01-01T00:00:02.000000Z",
    }
    lines = [{"key": "k", "at_ns": second, "message": "scheduled"}]
    await report(pool, task_id, state="RUNNING", executors=[first, started], system_logs=lines)
    (log,) = (await read(client, task_id))["logs"]
    assert log.pop("start_time").endswith("Z")
    entry = {
        "exit_code": 0,
        "start_time": "1970-01-01T00:00:01.000000Z",
        "end_time": "1970-01-01T00:00:02.000000Z",
        "stdout": "o",
        "stderr": "e",
    }
    assert log == {
        "logs": [entry],
        "outputs": [],
        "metadata": {"pod": "pod", "node": "node", **times},
        "system_logs": ["1970-01-01T00:00:01.000000Z scheduled"],
    }

    speaking = {**started, "stdout": "so far", "stderr": ""}
    await report(pool, task_id, executors=[speaking])
    (log,) = (await read(client, task_id))["logs"]
    assert log["logs"] == [entry]
    assert log["metadata"] == {"pod": "pod", "node": "node", **times, "executor-1.stdout": "so far"}
    more = {**started, "stdout_more": {"after": 6, "text": ", so good"}, "stdout_bytes": 15}
    whole = {**started, "stdout": "so far", "stdout_bytes": 6}
    await report(pool, task_id, executors=[whole])
    await report(pool, task_id, executors=[more])
    (log,) = (await read(client, task_id))["logs"]
    assert log["metadata"]["executor-1.stdout"] == "so far, so good"
    (basic,) = (await read(client, task_id, "BASIC"))["logs"]
    assert basic["metadata"] == {"pod": "pod", "node": "node", **times}

    outputs = [{"path": "/data/b", "url": "s3://bucket/b", "size_bytes": 2**40}]
    ending = {"state": "EXECUTOR_ERROR", "reason": "Error", "message": "exit 1", "container": "executor-1"}
    failed = {**started, "end_ns": 3 * second, "exit_code": 1}
    await report(pool, task_id, executors=[failed], outputs=outputs, ending=ending)
    (log,) = (await read(client, task_id))["logs"]
    assert [one["exit_code"] for one in log["logs"]] == [0, 1]
    assert log["outputs"] == [{"path": "/data/b", "url": "s3://bucket/b", "size_bytes": str(2**40)}]
    assert log["metadata"] == {
        "pod": "pod",
        "node": "node",
        **times,
        "executor-1.end_time": "1970-01-01T00:00:03.000000Z",
        "reason": "Error",
        "message": "exit 1",
        "container": "executor-1",
        "reported_by": "recorder",
    }
    assert log["system_logs"][-1].endswith("Z EXECUTOR_ERROR: Error: exit 1")

    (basic,) = (await read(client, task_id, "BASIC"))["logs"]
    del log["system_logs"]
    for one in log["logs"]:
        one.pop("stdout", None)
        one.pop("stderr", None)
    assert basic == log


async def test_last_log_of_attempts_has_outcome(client, pool):
    task_id = await create(client)
    await pool.execute(
        "INSERT INTO system_log (task_id, source, key, message) VALUES ($1, 'api', 'k', 'early')", task_id
    )
    await report(pool, task_id)
    await report(pool, task_id, pod_uid="v", ending={"state": "COMPLETE"})
    first, last = (await read(client, task_id))["logs"]
    assert first["metadata"] == {"pod": "pod", "node": "node"}
    assert last["metadata"] == {"pod": "pod", "node": "node", "reported_by": "recorder"}
    assert [line.split(" ", 1)[1] for line in first["system_logs"]] == ["early"]
    assert [line.split(" ", 1)[1] for line in last["system_logs"]] == ["COMPLETE"]


async def test_lines_of_next_attempt_are_in_last_log(client, pool):
    task_id = await create(client)
    await report(pool, task_id)
    await report(pool, task_id, pod_uid="v")
    await pool.execute(
        "INSERT INTO system_log (task_id, attempt, source, key, message)"
        " VALUES ($1, 2, 'controller', 'k', 'no node')",
        task_id,
    )

    async def notes() -> list[list[str]]:
        logs = (await read(client, task_id))["logs"]
        return [[line.split(" ", 1)[1] for line in log.get("system_logs", ())] for log in logs]

    assert await notes() == [[], ["no node"]]
    await report(pool, task_id, pod_uid="w")
    assert await notes() == [[], [], ["no node"]]


async def test_task_waiting_for_pod_reports_reason(client, pool):
    task_id = await create(client)
    assert "logs" not in await read(client, task_id)
    await pool.execute(
        "INSERT INTO system_log (task_id, source, key, message) VALUES ($1, 'api', 'k', 'no quota')", task_id
    )
    (log,) = (await read(client, task_id))["logs"]
    (line,) = log.pop("system_logs")
    assert line.endswith("Z no quota")
    assert log == {"logs": [], "outputs": [], "metadata": {}}
    assert (await read(client, task_id, "BASIC"))["logs"] == [log]


async def test_task_ended_without_pod_has_one_log(client, pool):
    task_id = await create(client)
    ending = TaskOutcome(state=TesState.SYSTEM_ERROR, reason="Invalid", message="no")
    await tasks_db.finish_task(pool, task_id, ending, cancel_seen=False)
    (log,) = (await read(client, task_id))["logs"]
    assert log.pop("end_time").endswith("Z")
    (line,) = log.pop("system_logs")
    assert line.endswith("Z SYSTEM_ERROR: Invalid: no")
    assert log == {
        "logs": [],
        "outputs": [],
        "metadata": {"reason": "Invalid", "message": "no", "reported_by": "api"},
    }


async def test_unknown_backend_parameters_are_dropped_with_a_warning(client, pool):
    parameters = {"backend_parameters": {"VmSize": "big"}}
    task_id = await create(client, {**SMALL, "resources": parameters})
    assert (await read(client, task_id))["resources"] == {}
    assert await pool.fetchval("SELECT message FROM system_log") == (
        "'VmSize' is not supported (supported: none); it has been ignored"
    )
    strict = {**SMALL, "resources": {**parameters, "backend_parameters_strict": True}}
    error = await refused(
        await client.post(f"{BASE}/tasks", json=strict), 400, "resources.backend_parameters"
    )
    assert "VmSize" in error


async def send(client, key, task=SMALL):
    return await client.post(f"{BASE}/tasks", json=task, headers={"Idempotency-Key": key})


async def test_repeated_create_with_key_is_a_no_op(client, pool):
    first = await (await send(client, "k-1")).json()
    reordered = dict(reversed(WHOLE.items()))
    other = await (await send(client, "k 2", WHOLE)).json()
    answers = await asyncio.gather(*(send(client, "k-1") for _ in range(8)))
    assert [await one.json() for one in answers] == [first] * 8
    assert await (await send(client, "k 2", reordered)).json() == other
    assert first != other
    assert await pool.fetchval("SELECT count(*) FROM task") == 2
    assert await pool.fetchval("SELECT count(*) FROM executor") == 1 + len(WHOLE["executors"])


async def test_concurrent_creates_with_one_key_create_one_task(client, pool):
    answers = await asyncio.gather(*(send(client, "k", WHOLE) for _ in range(12)))
    assert len({(await one.json())["id"] for one in answers}) == 1
    assert await pool.fetchval("SELECT count(*) FROM task") == 1


async def test_key_reused_for_another_task_is_rejected(client, pool):
    task_id = (await (await send(client, "k")).json())["id"]
    error = await refused(await send(client, "k", {**SMALL, "name": "other"}), 422, "Idempotency-Key")
    assert f"'k' was already used for a different task ({task_id}); use a new key" in error
    assert await pool.fetchval("SELECT count(*) FROM task") == 1


async def test_a_key_is_its_owners(pool):
    task, key = TesTaskRequest.model_validate(SMALL), tasks_db.Idempotency(key="k", digest=b"d")

    async def create(owner):
        new = tasks_db.NewTask(owner=owner, request=task, idempotency=key)
        return await tasks_db.create_task(pool, new, UserLimits())

    mine, yours = await create("me"), await create("you")
    assert mine != yours
    assert await create("me") == mine


@pytest.mark.parametrize("key", ["", " ", "k" * 256, "\u00e4", "a\tb"])
async def test_a_key_that_is_none_is_refused(client, key):
    assert "1 to 255 printable" in await refused(await send(client, key), 400, "Idempotency-Key")


async def test_two_keys_are_refused(client):
    headers = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    answer = await client.post(f"{BASE}/tasks", json=SMALL, headers=headers)
    assert "got 2 values" in await refused(answer, 400, "Idempotency-Key")


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff\xfe", b'{"executors": "\\ud800"}', b"[" * 100_000, "{}".encode("utf-16")],
    ids=["empty", "cut", "bytes", "surrogate", "deep", "utf-16"],
)
async def test_a_body_that_is_not_json_is_400(client, body):
    assert "JSON" in await refused(await client.post(f"{BASE}/tasks", data=body), 400)


async def test_a_body_in_a_broken_encoding_is_400(client):
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    response = await client.post(f"{BASE}/tasks", data=b"not gzip", headers=headers)
    assert response.status == 400


async def test_the_field_and_the_value_are_named(client):
    bad = {"executors": [{"image": "", "command": ["a"]}]}
    error = await refused(await client.post(f"{BASE}/tasks", json=bad), 400, "executors[0].image")
    assert error == "executors[0].image: String should have at least 1 character, got ''"


async def test_a_body_over_the_limit_is_413(services, config):
    limited = config.model_copy(update={"limits": config.limits.model_copy(update={"body_bytes": 1000})})
    services.config = limited
    async with TestClient(TestServer(make_app(services))) as client:
        await create(client)
        task = {**SMALL, "description": "x" * 1000}
        error = await refused(await client.post(f"{BASE}/tasks", json=task), 413)
        assert error == "the body is longer than 1000 bytes (the maximum)"


async def test_eight_inputs_of_the_largest_content_are_taken(client):
    inputs = [{"path": f"/data/{number}", "content": "x" * 131072} for number in range(8)]
    body = io.BytesIO(json.dumps({**SMALL, "inputs": inputs}).encode())
    response = await client.post(f"{BASE}/tasks", data=body)
    assert (await read(client, (await response.json())["id"]))["inputs"] == inputs


@pytest.mark.parametrize(
    "path", ["/", "/v1/tasks", "/tasks", "/ga4gh/tes/v1", f"{BASE}/tasks/", f"{BASE}/x", "/ga4gh/tes"]
)
async def test_other_paths_are_404(client, path):
    await refused(await client.get(path), 404)


@pytest.mark.parametrize(
    "name", ["x", "00000000-0000-0000-0000-000000000000", "{}", "a%00b", "%FF", "urn:uuid:"]
)
async def test_an_unknown_task_is_404(client, name):
    await refused(await client.get(f"{BASE}/tasks/{name}"), 404, "id")
    await refused(await client.post(f"{BASE}/tasks/{name}:cancel"), 404, "id")


async def test_a_task_has_one_exact_id(client):
    name = (await create(client)).upper()
    await refused(await client.get(f"{BASE}/tasks/{name}"), 404, "id")
    await refused(await client.post(f"{BASE}/tasks/{name}:cancel"), 404, "id")


async def test_a_task_of_another_owner_is_unknown(client, pool):
    task_id = await create(client)
    await pool.execute("UPDATE task SET owner = 'other'")
    await refused(await client.get(f"{BASE}/tasks/{task_id}"), 404, "id")
    await refused(await client.post(f"{BASE}/tasks/{task_id}:cancel"), 404, "id")
    assert await listed(client) == {"tasks": []}


async def test_post_to_a_task_without_cancel_is_404(client):
    task_id = await create(client)
    await refused(await client.post(f"{BASE}/tasks/{task_id}"), 404)
    await refused(await client.get(f"{BASE}/tasks/{task_id}:cancel"), 404, "id")


@pytest.mark.parametrize("colon", [":", "%3A", "%3a"])
async def test_a_queued_task_is_canceled_at_once(client, colon):
    task_id = await create(client)
    for _ in range(2):
        response = await client.post(f"{BASE}/tasks/{task_id}{colon}cancel", data=b"")
        assert (response.status, await response.json()) == (200, {})
        task = await read(client, task_id)
        assert task["state"] == "CANCELED"
        assert task["logs"][0]["metadata"] == {
            "reason": "Canceled",
            "message": "canceled on request",
            "reported_by": "api",
        }
        lines = [line.split(" ", 1)[1] for line in task["logs"][0]["system_logs"]]
        assert lines == ["cancel requested by anonymous", "CANCELED: Canceled: canceled on request"]


async def test_cancel_of_submitted_task_deletes_its_job(client, services, kubernetes):
    task_id = await create(client)
    await services.submitter._submit_due()
    await kubernetes.until("PATCH Job")
    response = await client.post(f"{BASE}/tasks/{task_id}:cancel")
    assert (response.status, await response.json()) == (200, {})
    await kubernetes.until("DELETE Job")
    assert await read(client, task_id, "MINIMAL") == {"id": task_id, "state": "CANCELING"}
    assert kubernetes.objects == {}


async def test_a_cancel_does_not_fail_with_kubernetes(client, services, kubernetes):
    task_id = await create(client)
    await services.submitter._submit_due()
    await kubernetes.until("PATCH Job")
    kubernetes.fail("DELETE Job", status=503, reason="ServiceUnavailable")
    response = await client.post(f"{BASE}/tasks/{task_id}:cancel")
    assert response.status == 200
    while services.submitter._at_work:
        await asyncio.wait(services.submitter._at_work)


async def test_a_cancel_of_an_ended_task_changes_nothing(client, pool):
    task_id = await create(client)
    await report(pool, task_id, ending={"state": "COMPLETE"})
    before = await read(client, task_id)
    assert (await client.post(f"{BASE}/tasks/{task_id}:cancel")).status == 200
    assert await read(client, task_id) == before


async def test_pages_hold_every_task_once_newest_first(client):
    ids = [await create(client) for _ in range(7)]
    seen, token = [], None
    while token != "":
        page = await listed(client, page_size=3, **({"page_token": token} if token else {}))
        assert len(page["tasks"]) <= 3
        seen += [task["id"] for task in page["tasks"]]
        token = page.get("next_page_token", "")
        await create(client)  # what comes meanwhile does not shift the pages
    assert seen == ids[::-1]


async def test_exactly_full_page_is_the_last(client):
    for _ in range(2):
        await create(client)
    assert "next_page_token" not in await listed(client, page_size=2)


async def test_lists_have_views(client):
    task_id = await create(client, WHOLE)
    assert await listed(client) == {"tasks": [{"id": task_id, "state": "QUEUED"}]}
    for view in ("MINIMAL", "BASIC", "FULL"):
        assert await listed(client, view=view) == {"tasks": [await read(client, task_id, view)]}


@pytest.mark.parametrize(
    ("prefix", "found"),
    [("a", 2), ("a %", 1), ("a % name_", 1), ("a _", 0), ("%", 0), ("\\", 0), ("A", 0), ("", 3)],
)
async def test_a_name_prefix_is_literal(client, prefix, found):
    for task in (WHOLE, {**SMALL, "name": "abc"}, SMALL):
        await create(client, task)
    assert len((await listed(client, name_prefix=prefix))["tasks"]) == found


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("tag_key=foo", {"bar", "empty", "both"}),
        ("tag_key=foo&tag_value=", {"bar", "empty", "both"}),
        ("tag_key=foo&tag_value=bar", {"bar", "both"}),
        ("tag_key=foo&tag_value=ba", set()),
        ("tag_key=foo&tag_key=lorem&tag_value=bar&tag_value=ipsum", {"both"}),
        ("tag_key=foo&tag_value=bar&tag_key=lorem", {"both"}),
        ("tag_key=foo&tag_key=lorem&tag_value=&tag_value=ipsum", {"both"}),
        ("tag_key=lorem&tag_key=foo&tag_value=ipsum", {"both"}),
        ("tag_key=none", set()),
        ("tag_key=", set()),
    ],
)
async def test_tags_are_zipped_by_index(client, query, found):
    tags = {"bar": {"foo": "bar"}, "empty": {"foo": ""}, "both": {"foo": "bar", "lorem": "ipsum"}, "no": {}}
    names = {await create(client, {**SMALL, "tags": value}): name for name, value in tags.items()}
    response = await client.get(f"{BASE}/tasks?{query}")
    assert {names[task["id"]] for task in (await response.json())["tasks"]} == found


@pytest.mark.parametrize(
    "long", ["v" * 5000, "".join(map(chr, range(0x4E00, 0x5E00)))], ids=["ascii", "12 kB"]
)
async def test_a_long_tag_value_is_stored_and_found(client, long):
    tags = {"k": long, "other": long + "x"}
    task = await create(client, {**SMALL, "tags": tags})
    await create(client, {**SMALL, "tags": {"k": long + "y"}})
    assert (await (await client.get(f"{BASE}/tasks/{task}?view=BASIC")).json())["tags"] == tags
    assert await listed(client, tag_key="k", tag_value=long[:600]) == {"tasks": []}
    if long.isascii():  # others are longer than a URL may be
        found = await listed(client, tag_key="k", tag_value=long)
        assert [one["id"] for one in found["tasks"]] == [task]


async def test_states_filter(client):
    queued, canceled = await create(client), await create(client)
    await client.post(f"{BASE}/tasks/{canceled}:cancel")
    assert await listed(client, state="QUEUED") == {"tasks": [{"id": queued, "state": "QUEUED"}]}
    assert await listed(client, state="CANCELED") == {"tasks": [{"id": canceled, "state": "CANCELED"}]}
    for state in ("PAUSED", "UNKNOWN", "RUNNING"):
        assert await listed(client, state=state) == {"tasks": []}


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("page_size=0", "page_size"),
        ("page_size=2048", "page_size"),
        ("page_size=-1", "page_size"),
        ("page_size=x", "page_size"),
        ("page_size=", "page_size"),
        ("page_size=%D9%A1", "page_size"),
        ("page_token=x", "page_token"),
        ("page_token=%00", "page_token"),
        ("view=full", "view"),
        ("state=DONE", "state"),
        ("tag_value=x", "tag_value"),
        ("tag_key=%00", "tag_key"),
        ("name_prefix=a%00", "name_prefix"),
    ],
)
async def test_a_query_that_cannot_be_understood_is_400(client, query, field):
    await refused(await client.get(f"{BASE}/tasks?{query}"), 400, field)


async def test_invalid_bytes_in_query_are_a_client_error(client):
    for query in ("name_prefix=%FF", "tag_key=%ED%A0%80", "name_prefix=%", "x=%zz"):
        assert (await client.get(f"{BASE}/tasks?{query}")).status in {200, 400}


async def test_a_page_token_belongs_to_its_filters(client):
    for _ in range(2):
        await create(client)
    token = (await listed(client, page_size=1))["next_page_token"]
    assert len((await listed(client, page_size=5, view="FULL", page_token=token))["tasks"]) == 1
    response = await client.get(f"{BASE}/tasks", params={"page_token": token, "name_prefix": "x"})
    await refused(response, 400, "page_token")


async def test_number_of_statements_is_independent_of_page_size(client, services):
    for _ in range(20):
        await create(client, WHOLE)
    others = [await services.pool.acquire() for _ in range(services.pool.get_max_size() - 1)]
    statements = []
    connection = await services.pool.acquire()
    connection.add_query_logger(lambda record: statements.append(record.query))
    await services.pool.release(connection)
    await listed(client, view="FULL")  # asyncpg reads the types of arrays once per connection
    counts = []
    for size in (1, 20):
        statements.clear()
        await listed(client, page_size=size, view="FULL")
        counts.append(len(statements))
    for other in others:
        await services.pool.release(other)
    assert counts == [3, 3]  # BEGIN, the choice of tasks, COMMIT; the statement of a cursor is not logged


async def test_service_info(client):
    info = await (await client.get(f"{BASE}/service-info")).json()
    assert info["type"] == {"group": "org.ga4gh", "artifact": "tes", "version": "1.1.0"}
    assert info["storage"] == ["s3://"]
    assert None not in info.values()
    short = await (await client.get(f"{BASE}/tasks/service-info")).json()
    assert short == {
        "name": "Poiesis",
        "doc": "Runs GA4GH TES tasks as Kubernetes Pods",
        "storage": ["s3://"],
    }


async def test_health_and_readiness(client, services):
    assert (await client.get("/healthz")).status == 200
    assert (await client.get("/readyz")).status == 200
    services.stopping = True
    assert (await client.get("/readyz")).status == 503
    assert (await client.get("/healthz")).status == 200


async def test_read_only_database_is_noted_and_serves_reads(client, services, postgres_dsn, monkeypatch):
    monkeypatch.setattr("poiesis_api.handlers.PROBE_SECONDS", 0)
    task_id = await create(client)
    name = postgres_dsn.rsplit("/", 1)[1]
    admin = await asyncpg.connect(postgres_dsn)
    await admin.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    try:
        await services.pool.expire_connections()
        response = await client.post(f"{BASE}/tasks", json=SMALL)
        assert response.headers["Retry-After"] == "5"
        assert "read-only" in await refused(response, 503)
        ready = await client.get("/readyz")
        assert (ready.status, (await ready.json())["notes"]) == (200, [Outage.READ_ONLY.value])
        assert await read(client, task_id, "MINIMAL") == {"id": task_id, "state": "QUEUED"}
    finally:
        await admin.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
        await admin.close()
    await services.pool.expire_connections()
    await create(client)
    assert await (await client.get("/readyz")).json() == {"status": "ready"}


async def test_many_probes_read_the_database_state_once(client, monkeypatch):
    looks, real = [], tasks_db.read_state

    async def counted(pool):
        looks.append(pool)
        return await real(pool)

    monkeypatch.setattr(tasks_db, "read_state", counted)
    monkeypatch.setattr("poiesis_api.handlers.PROBE_SECONDS", 60)
    answers = await asyncio.gather(*(client.get("/readyz") for _ in range(20)))
    assert [one.status for one in answers] == [200] * 20
    assert len(looks) == 1


async def test_full_disk_and_stalled_queue_are_noted(client, services, monkeypatch):
    services.write_health.failed(Outage.FULL)
    services.submitter._read_at -= 60
    ready = await (await client.get("/readyz")).json()
    assert ready["notes"] == [Outage.FULL.value, "the queue has not been read for 60 s"]


async def test_without_postgres_it_is_alive_but_not_ready(kubernetes, config, make_services):
    async with open_pool("postgresql://nobody@127.0.0.1:1/none", Database(timeout_seconds=1)) as pool:
        submitter = Submitter(pool, kubernetes.client, config)
        app = make_app(make_services(config, pool=pool, submitter=submitter))
        async with TestClient(TestServer(app)) as client:
            assert (await client.get("/healthz")).status == 200
            for response in (
                await client.get("/readyz"),
                await client.get(f"{BASE}/tasks"),
                await client.get(f"{BASE}/tasks/{uuid4()}"),
                await client.post(f"{BASE}/tasks", json=SMALL),
                await client.post(f"{BASE}/tasks/{uuid4()}:cancel"),
            ):
                await refused(response, 503)


async def test_without_a_schema_it_is_not_ready(postgres_dsn, kubernetes, config, make_services):
    name = f"empty_{uuid4().hex}"
    admin = await asyncpg.connect(postgres_dsn)
    await admin.execute(f"CREATE DATABASE {name}")
    try:
        async with open_pool(postgres_dsn.rsplit("/", 1)[0] + f"/{name}", Database()) as pool:
            submitter = Submitter(pool, kubernetes.client, config)
            app = make_app(make_services(config, pool=pool, submitter=submitter))
            async with TestClient(TestServer(app)) as client:
                await refused(await client.get("/readyz"), 503)
                await refused(await client.get(f"{BASE}/tasks"), 503)
    finally:
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await admin.close()


async def test_connection_closed_by_postgres_is_replaced(client, pool):
    task_id = await create(client)
    for _ in range(3):
        await pool.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        assert await read(client, task_id, "MINIMAL") == {"id": task_id, "state": "QUEUED"}


async def test_a_mistake_of_ours_is_500_without_details(services, monkeypatch, caplog):
    async def fail(*_):
        raise RuntimeError("secret detail")

    monkeypatch.setattr(tasks_db, "list_part", fail)
    async with TestClient(TestServer(make_app(services))) as client:
        response = await client.get(f"{BASE}/tasks")
        assert (response.status, await response.json()) == (500, {"error": "internal error"})
    assert "secret detail" in caplog.text


async def test_a_task_that_was_created_wakes_the_submitter(client, services, kubernetes):
    stop = asyncio.Event()
    running = asyncio.create_task(services.submitter.run(stop))
    await create(client)
    await kubernetes.until("PATCH Job")
    stop.set()
    await running
