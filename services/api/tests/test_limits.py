"""What one user may have: the rules, and that they hold when requests come at once."""

import asyncio
import json

import pytest
from aiohttp.test_utils import TestClient, TestServer

from poiesis_api import queue_db, tasks_db
from poiesis_api.app import BASE, make_app
from poiesis_api.config import Document, UserLimits
from poiesis_api.errors import InvalidTask, LimitReached
from poiesis_api.handlers import Services
from poiesis_api.identity.authenticators import NoAuthenticator
from poiesis_api.identity.caller import Caller
from poiesis_api.limits import (
    NO_RESOURCES,
    UNLIMITED,
    RequestRates,
    Resources,
    Usage,
    active_per_owner,
    check_limits,
    reserved_resources,
)
from poiesis_api.submitter import Submitter
from poiesis_api.tasks_db import Idempotency, NewTask
from poiesis_documents.documents import View
from poiesis_models.states import TaskOutcome, TesState
from poiesis_models.tes import TesTaskRequest

TASK = {"executors": [{"image": "busybox", "command": ["true"]}]}
REQUEST = TesTaskRequest.model_validate(TASK)
USAGE = Usage(unfinished=4, queued=3, cpu_cores=8, ram_gb=16, disk_gb=100, gpus=2)


@pytest.mark.parametrize(
    ("given", "counts"),
    [
        ({}, Resources(cpu_cores=1, ram_gb=2.147483648, disk_gb=0)),
        ({"resources": {"cpu_cores": 4, "ram_gb": 0.5}}, Resources(cpu_cores=4, ram_gb=0.5, disk_gb=0)),
        ({"resources": {"disk_gb": 3}}, Resources(cpu_cores=1, ram_gb=2.147483648, disk_gb=3)),
        ({"volumes": ["/data"]}, Resources(cpu_cores=1, ram_gb=2.147483648, disk_gb=10)),
    ],
)
def test_task_counts_requested_or_default_resources(config, given, counts):
    assert reserved_resources(TesTaskRequest.model_validate(TASK | given), config) == counts


@pytest.mark.parametrize(
    ("limits", "wanted", "sentence"),
    [
        ({}, {}, None),
        ({"queued_tasks": 4}, {}, None),
        ({"queued_tasks": 3}, {}, "limit reached: 3 of 3 queued tasks"),
        ({"active": {"tasks": 1}}, {}, None),
        ({"active": {"tasks": 1}, "queued_tasks": 3}, {}, "limit reached: 3 of 3 queued tasks"),
        pytest.param(
            {"active": {"tasks": 2}, "queued_tasks": 3}, {}, None, id="one has ended, the next has no Job yet"
        ),
        pytest.param(
            {"active": {"tasks": 2, "when_reached": "refuse"}, "queued_tasks": 3},
            {},
            "limit reached: 4 of 2 unfinished tasks",
            id="where no task waits for others",
        ),
        (
            {"active": {"tasks": 4, "when_reached": "refuse"}},
            {},
            "limit reached: 4 of 4 unfinished tasks",
        ),
        ({"active": {"tasks": 5, "when_reached": "refuse"}}, {}, None),
        ({"cpu_cores": 10}, {"cpu_cores": 2}, None),
        (
            {"cpu_cores": 10},
            {"cpu_cores": 3},
            "limit reached: your unfinished tasks use 8 of 10 cpu_cores; this task needs 3",
        ),
        ({"ram_gb": 16.5}, {"ram_gb": 0.5}, None),
        (
            {"ram_gb": 16.5},
            {"ram_gb": 0.6},
            "limit reached: your unfinished tasks use 16 of 16.5 ram_gb; this task needs 0.6",
        ),
        ({"gpus": 4}, {"gpus": 2}, None),
        ({"gpus": 4}, {"gpus": 3}, "limit reached: your unfinished tasks use 2 of 4 gpus; this task needs 3"),
        ({"disk_gb": 100}, {"disk_gb": 0}, None),
        (
            {"disk_gb": 100},
            {"disk_gb": 1},
            "limit reached: your unfinished tasks use 100 of 100 disk_gb; this task needs 1",
        ),
    ],
)
def test_what_a_limit_refuses(limits, wanted, sentence):
    asked = Resources(**(vars(NO_RESOURCES) | wanted))
    if sentence is None:
        check_limits(USAGE, asked, UserLimits.model_validate(limits))
        return
    with pytest.raises(LimitReached) as raised:
        check_limits(USAGE, asked, UserLimits.model_validate(limits))
    assert (str(raised.value), raised.value.headers) == (sentence, {"Retry-After": "30"})


@pytest.mark.parametrize(
    ("parameters", "every", "gpus"),
    [
        ({"gpu_count": "3"}, {}, 3),
        ({"GPU_RESOURCE": "amd.com/gpu"}, {}, 1),
        ({"gpu_resource": "amd.com/gpu", "gpu_count": "2"}, {"nvidia.com/gpu": "1"}, 3),
        ({}, {"nvidia.com/gpu": "2", "smarter-devices/fuse": "1"}, 2),
        ({}, {}, 0),
    ],
)
def test_gpus_are_the_operators_extended_resources(config, parameters, every, gpus):
    given = config.model_dump(by_alias=True)
    given["backendParameters"] |= {"gpuResource": ["nvidia.com/gpu", "amd.com/gpu"], "gpuCount": 8}
    given["executors"] |= {"extendedResources": every}
    request = TesTaskRequest.model_validate(TASK | {"resources": {"backend_parameters": parameters}})
    assert reserved_resources(request, Document.model_validate(given)).gpus == gpus


def test_too_many_gpus_error_names_the_parameter():
    wanted = Resources(cpu_cores=0, ram_gb=0, disk_gb=0, gpus=3)
    with pytest.raises(InvalidTask) as raised:
        check_limits(USAGE, wanted, UserLimits(gpus=2))
    assert raised.value.field == "resources.backend_parameters"


def test_task_over_user_limit_is_invalid():
    with pytest.raises(InvalidTask) as raised:
        check_limits(USAGE, Resources(cpu_cores=11, ram_gb=0, disk_gb=0), UserLimits(cpu_cores=10))
    assert raised.value.field == "resources.cpu_cores"
    assert str(raised.value) == "resources.cpu_cores must be at most 10 (the per-user limit), got 11"


@pytest.mark.parametrize(
    ("limits", "tasks"),
    [
        ({}, UNLIMITED),
        ({"active": {"tasks": 5}}, 5),
        ({"active": {"tasks": 5, "when_reached": "refuse"}}, UNLIMITED),
    ],
)
def test_submitter_respects_limit_of_active_tasks(limits, tasks):
    assert active_per_owner(UserLimits.model_validate(limits)) == tasks


def test_a_burst_passes_and_then_the_rate():
    rates = RequestRates(UserLimits.model_validate({"requests": {"per_second": 2, "burst": 3}}).requests)
    for _ in range(3):
        rates.take("alice", 100.0)
    with pytest.raises(LimitReached) as raised:
        rates.take("alice", 100.0)
    assert raised.value.headers == {"Retry-After": "1"}
    rates.take("bob", 100.0)
    rates.take("alice", 100.5)
    with pytest.raises(LimitReached):
        rates.take("alice", 100.9)
    for _ in range(3):
        rates.take("alice", 200.0)
    with pytest.raises(LimitReached):
        rates.take("alice", 200.0)


def test_a_slow_rate_says_when_to_come_back():
    rates = RequestRates(UserLimits.model_validate({"requests": {"per_second": 0.1, "burst": 1}}).requests)
    rates.take("alice", 0.0)
    with pytest.raises(LimitReached) as raised:
        rates.take("alice", 2.5)
    assert raised.value.headers == {"Retry-After": "8"}


def test_users_are_remembered_in_bounded_memory():
    rates = RequestRates(UserLimits.model_validate({"requests": {"per_second": 1, "burst": 1}}).requests)
    for number in range(10_001):
        rates.take(str(number), 0.0)
    rates.take("0", 0.0)  # forgotten, so its bucket is full
    with pytest.raises(LimitReached):
        rates.take("10000", 0.0)


async def create(pool, owner="alice", limits=None, **resources):
    new = NewTask(owner=owner, request=REQUEST, reserved=Resources(**(vars(NO_RESOURCES) | resources)))
    return await tasks_db.create_task(pool, new, UserLimits.model_validate(limits or {}))


@pytest.mark.integration
@pytest.mark.parametrize(
    ("limits", "taken"),
    [
        ({"queued_tasks": 7}, 7),
        ({"active": {"tasks": 5, "when_reached": "refuse"}}, 5),
        ({"cpu_cores": 8}, 4),
        ({"ram_gb": 3.5}, 7),
        ({"gpus": 6}, 6),
        ({"disk_gb": 30}, 3),
        ({"queued_tasks": 6, "cpu_cores": 4}, 2),
    ],
)
async def test_concurrent_creates_respect_the_limit(pool, limits, taken):
    async def attempt(owner):
        try:
            await create(pool, owner, limits, cpu_cores=2, ram_gb=0.5, disk_gb=10, gpus=1)
        except LimitReached:
            return owner, False
        return owner, True

    outcomes = await asyncio.gather(*(attempt(owner) for owner in ("alice", "bob") * 15))
    assert outcomes.count(("alice", True)) == outcomes.count(("bob", True)) == taken
    assert await pool.fetchval("SELECT count(*) FROM task") == 2 * taken


@pytest.mark.integration
async def test_a_task_that_ended_counts_no_more(pool):
    limits = {"active": {"tasks": 1, "when_reached": "refuse"}, "cpu_cores": 1}
    for ending in (TaskOutcome(state=TesState.COMPLETE), TaskOutcome(state=TesState.SYSTEM_ERROR)):
        task = await create(pool, limits=limits, cpu_cores=1)
        with pytest.raises(LimitReached):
            await create(pool, limits=limits, cpu_cores=1)
        await tasks_db.finish_task(pool, task, ending, cancel_seen=True)
    task = await create(pool, limits=limits, cpu_cores=1)
    await tasks_db.cancel_task(pool, Caller(name="alice"), task)
    await create(pool, limits=limits, cpu_cores=1)


@pytest.mark.integration
async def test_a_submitted_task_is_queued_no_more(pool):
    task = await create(pool, limits={"queued_tasks": 1})
    with pytest.raises(LimitReached):
        await create(pool, limits={"queued_tasks": 1})
    await queue_db.mark_submitted(pool, task, keep_lease=False)
    await create(pool, limits={"queued_tasks": 1})


@pytest.mark.integration
async def test_tasks_of_an_earlier_release_count_for_nothing(pool):
    await create(pool)
    await pool.execute(
        "UPDATE task SET reserved_cpu_cores = NULL, reserved_ram_gb = NULL, reserved_disk_gb = NULL,"
        " reserved_gpus = NULL"
    )
    await create(pool, limits={"cpu_cores": 1}, cpu_cores=1)


@pytest.mark.integration
async def test_owner_at_limit_gets_no_lease(pool, kubernetes, config):
    submitter = Submitter(pool, kubernetes.client, config, max_active_per_owner=2)

    async def jobs():
        await submitter._submit_due()
        while submitter._at_work:
            await asyncio.wait(submitter._at_work)
        rows = await pool.fetch(
            "SELECT owner, count(*) AS n FROM task"
            " WHERE submitted_at IS NOT NULL AND ended_at IS NULL GROUP BY owner"
        )
        return {row["owner"]: row["n"] for row in rows}

    first, *_ = [await create(pool, "alice") for _ in range(5)]
    await create(pool, "bob")
    assert await jobs() == {"alice": 2, "bob": 1}
    assert await jobs() == {"alice": 2, "bob": 1}
    await tasks_db.finish_task(pool, first, TaskOutcome(state=TesState.COMPLETE), cancel_seen=True)
    assert await jobs() == {"alice": 2, "bob": 1}
    assert await pool.fetchval("SELECT count(*) FROM task WHERE submitted_at IS NOT NULL") == 4


HELD_BACK = "waiting: the owner already has 2 active tasks (the per-user limit)"


async def lines_of(pool, task):
    """A task's system_logs, as its owner reads them."""
    document = json.loads(await tasks_db.read_task(pool, Caller(name="alice"), task, View.FULL))
    return [line.partition(" ")[2] for log in document.get("logs", ()) for line in log["system_logs"]]


@pytest.mark.integration
async def test_task_waiting_for_owner_limit_notes_it_once(pool, kubernetes, config):
    limits = {"active": {"tasks": 2}}
    await create(pool, "bob", limits)
    tasks = [await create(pool, "alice", limits) for _ in range(4)]
    submitter = Submitter(pool, kubernetes.client, config, max_active_per_owner=2)
    for _ in range(3):
        await submitter._submit_due()
        while submitter._at_work:
            await asyncio.wait(submitter._at_work)
    assert [await lines_of(pool, task) for task in tasks] == [[], [], [HELD_BACK], [HELD_BACK]]
    await pool.execute(
        "UPDATE task SET created_at = t, next_submit_at = t FROM (SELECT now() - interval '6 seconds' AS t) x"
        " WHERE submitted_at IS NULL"
    )
    await pool.execute("UPDATE system_log SET at = (SELECT created_at FROM task WHERE id = task_id)")
    document = json.loads(await tasks_db.read_task(pool, Caller(name="alice"), tasks[3], View.BASIC))
    assert document["logs"][0]["metadata"] == {"waiting_reason": HELD_BACK}
    for task in tasks[:3]:
        await tasks_db.finish_task(pool, task, TaskOutcome(state=TesState.COMPLETE), cancel_seen=True)
    assert await lines_of(pool, await create(pool, "alice", limits)) == []


@pytest.mark.integration
async def test_concurrent_creates_note_waiting_tasks(pool):
    tasks = await asyncio.gather(*(create(pool, "alice", {"active": {"tasks": 2}}) for _ in range(10)))
    lines = [await lines_of(pool, task) for task in tasks]
    assert (lines.count([]), lines.count([HELD_BACK])) == (2, 8)


@pytest.mark.integration
async def test_repeated_create_adds_no_note(pool):
    new = NewTask(owner="alice", request=REQUEST, idempotency=Idempotency(key="once", digest=b"same"))
    limits = UserLimits.model_validate({"active": {"tasks": 2}})
    await create(pool, "alice")
    await create(pool, "alice")
    tasks = {await tasks_db.create_task(pool, new, limits) for _ in range(3)}
    assert [await lines_of(pool, task) for task in tasks] == [[HELD_BACK]]


@pytest.mark.integration
async def test_concurrent_leases_respect_owner_limit(pool):
    for number in range(20):
        await create(pool, "alice" if number % 2 else "bob")
    parts = await asyncio.gather(
        *(
            queue_db.lease_tasks(pool, most=4, max_active=100, seconds=60, max_active_per_owner=3)
            for _ in range(5)
        )
    )
    owners = await pool.fetch(
        "SELECT owner FROM task WHERE id = ANY ($1)", [c.id for part in parts for c in part]
    )
    assert sorted(row["owner"] for row in owners) == ["alice"] * 3 + ["bob"] * 3


@pytest.mark.integration
async def test_limit_is_429_except_for_health(pool, kubernetes, config):
    limits = UserLimits.model_validate({"queued_tasks": 2, "requests": {"per_second": 0.001, "burst": 4}})
    config = config.model_copy(update={"user_limits": limits})
    services = Services(
        pool=pool,
        submitter=Submitter(pool, kubernetes.client, config),
        config=config,
        authenticator=NoAuthenticator(),
        rates=RequestRates(limits.requests),
    )
    async with TestClient(TestServer(make_app(services))) as client:
        answers = [await client.post(f"{BASE}/tasks", json=TASK) for _ in range(3)]
        assert [answer.status for answer in answers] == [200, 200, 429]
        assert answers[2].headers["Retry-After"] == "30"
        assert (await answers[2].json()) == {"error": "limit reached: 2 of 2 queued tasks"}
        assert (await client.get(f"{BASE}/tasks")).status == 200
        late = await client.get(f"{BASE}/tasks")
        assert (late.status, int(late.headers["Retry-After"]) > 900) == (429, True)
        for path in ("/healthz", "/readyz", f"{BASE}/service-info"):
            assert (await client.get(path)).status == 200
