"""Events of Pods, from a fake API server to a real Postgres."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from tctl_builders import ALL_DONE, condition, event, job, pod, terminated
from tctl_fakes import FakeApi, client
from tctl_tasks import add_task, logs_of, report, task_of

from poiesis_models.backoff import Backoff
from poiesis_models.states import TaskOutcome, TesState
from poiesis_tctl import tasks_db
from poiesis_tctl.config import Config, Limits
from poiesis_tctl.controller import Controller
from poiesis_tctl.eventlog import EventLog
from poiesis_tctl.informer import WatchTimes

pytestmark = pytest.mark.integration

WATCH = WatchTimes(watch=5, silence=3.0, backoff=Backoff(first=0.02, longest=0.1), shortest=0.05)


class World:
    """Events in the cluster, lines in the database."""

    def __init__(self, api: FakeApi, db: asyncpg.Connection, dsn: str) -> None:
        api.faulty = frozenset({"events"})
        self.api = api
        self.db = db
        self.dsn = dsn

    async def event(self, *words: str, silently: bool = False, **values: Any) -> str:
        """Create an event and return its name."""
        stored = await self.api.put("events", event(*words, **values), silently=silently)
        return str(stored["metadata"]["name"])

    async def until_recorded(self, task_id: UUID, *messages: str) -> None:
        """Wait until the task has these lines, in any order."""
        try:
            async with asyncio.timeout(10):
                while await self.recorded(task_id) != sorted(messages):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
        except TimeoutError:
            assert await self.recorded(task_id) == sorted(messages)

    async def recorded(self, task_id: UUID) -> list[str]:
        return sorted(message for _, _, message in await logs_of(self.db, task_id))

    @asynccontextmanager
    async def followed(self) -> AsyncIterator[EventLog]:
        async with client(self.api) as kube, tasks_db.connect(self.dsn, connections=1, home="tes") as tasks:
            events = EventLog(kube, tasks, watch_times=WATCH)
            task = asyncio.create_task(events.run())
            try:
                yield events
                assert not task.done()
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def world(fake_api: FakeApi, superuser: asyncpg.Connection, controller_dsn: str) -> World:
    return World(fake_api, superuser, controller_dsn)


@pytest.fixture
def warned(caplog: pytest.LogCaptureFixture) -> Callable[[], list[Any]]:
    """Return the warnings about events."""
    caplog.set_level(logging.WARNING)
    return lambda: [record for record in caplog.records if "events" in getattr(record, "collection", "")]


async def test_each_event_is_recorded_once(world):
    task_id = await add_task(world.db)
    name = await world.event("FailedMount", "no secret", task=task_id)
    await world.event("Created", "Created container: trec", kind="Normal", task=task_id, name="e2")
    async with world.followed():
        await world.until_recorded(task_id, "FailedMount: no secret")
        await world.event("FailedMount", "no secret", task=task_id, count=7)
        await world.event("FailedScheduling", "0/1 nodes", task=task_id, name="e3")
        await world.until_recorded(task_id, "FailedMount: no secret", "FailedScheduling: 0/1 nodes")
        await world.api.delete("events", name)
    async with world.followed():  # another leader
        await world.event("Evicted", "low on memory", task=task_id, name="e4")
        await world.until_recorded(
            task_id, "Evicted: low on memory", "FailedMount: no secret", "FailedScheduling: 0/1 nodes"
        )
    (query,) = [one for one in world.api.asked("GET", "events") if one][:1]
    assert "involvedObject.kind!=Job" in query["fieldSelector"]


async def test_events_of_a_claim_are_recorded(world):
    task_id = await add_task(world.db)
    async with world.followed():
        await world.event(
            "ProvisioningFailed", "no such class", task=task_id, about="PersistentVolumeClaim", suffix=""
        )
        await world.until_recorded(task_id, "ProvisioningFailed: no such class")


async def test_expired_event_is_forgotten(world):
    task_id = await add_task(world.db)
    name = await world.event("FailedMount", "x", task=task_id)
    other = await world.event("FailedMount", "y", task=task_id, name="e2")
    async with world.followed() as events:
        await world.until_recorded(task_id, "FailedMount: x", "FailedMount: y")
        for one in (name, other):
            await world.api.delete("events", one)
        cache, key = events._events.cache, str(task_id)
        await world.api.until(
            lambda: (list(cache.tasks()), cache.gone(key), events._recorded) == ([], None, {})
        )


@pytest.mark.parametrize("fault", ["410", "410 in the stream", "hang up", "500", "garbage"])
async def test_list_after_a_fault_records_missed_events(world, fault):
    task_id = await add_task(world.db)
    world.api.watch_faults.extend([fault] * 2)
    async with world.followed():
        await world.api.until(lambda: bool(world.api.asked("WATCH", "events")))
        await world.event("FailedMount", "x", task=task_id, silently=True)
        await world.until_recorded(task_id, "FailedMount: x")
        await world.api.until(lambda: world.api.watches == 1)
        await world.event("Evicted", "y", task=task_id, name="e2")
        await world.until_recorded(task_id, "FailedMount: x", "Evicted: y")


@pytest.mark.parametrize("verb", ["GET", "WATCH"])
async def test_missing_right_is_logged_once_and_retried(world, warned, verb):
    task_id = await add_task(world.db)
    await world.event("FailedMount", "x", task=task_id)
    forbidden = True

    def refuse(request: Any) -> int | None:
        watch = bool(request.query.get("watch"))
        return 403 if forbidden and "/events" in request.path and watch is (verb == "WATCH") else None

    world.api.refuse = refuse
    async with world.followed():
        await world.api.until(lambda: len(world.api.asked(verb, "events")) >= 5)
        (warning,) = warned()
        assert "403" in warning.error
        forbidden = False
        await world.api.until(lambda: world.api.watches == 1)
        await world.until_recorded(task_id, "FailedMount: x")


async def test_events_of_other_pods_are_ignored(world):
    task_id, stranger = await add_task(world.db), UUID(int=7)
    await world.event("FailedMount", "x", task=stranger)
    other = event("FailedMount", "x", name="e2")
    other["involvedObject"]["name"] = "postgres-0"
    await world.api.put("events", other)
    async with world.followed():
        await world.event("Evicted", "y", task=task_id, name="e3")
        await world.until_recorded(task_id, "Evicted: y")
    assert await world.recorded(stranger) == []


async def test_outage_of_postgres_loses_no_line(world, monkeypatch):
    add_pod_lines = tasks_db.TasksDb.add_pod_lines
    failures = iter([tasks_db.DatabaseUnavailable("away"), ValueError("a defect")])

    async def flaky(self: tasks_db.TasksDb, *words: Any) -> None:
        if (error := next(failures, None)) is not None:
            raise error
        await add_pod_lines(self, *words)

    monkeypatch.setattr(tasks_db.TasksDb, "add_pod_lines", flaky)
    task_id = await add_task(world.db)
    async with world.followed():
        await world.event("FailedMount", "x", task=task_id)
        await world.until_recorded(task_id, "FailedMount: x")


@asynccontextmanager
async def leader(world: World) -> AsyncIterator[None]:
    limits = Limits(no_pod=0.1)
    config = Config(dsn=world.dsn, pod_name="tctl-0", namespace="tes", limits=limits, workers=1)
    async with client(world.api) as kube, tasks_db.connect(world.dsn, connections=2, home="tes") as tasks:
        task = asyncio.create_task(Controller(kube, tasks, config, watch_times=WATCH).run())
        try:
            yield
            assert not task.done()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_events_delay_no_decision(world, monkeypatch):
    """Neither events that cannot be recorded nor events that cannot be read delay it."""
    stuck = asyncio.Event()

    async def never(*_: Any) -> None:
        stuck.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(tasks_db.TasksDb, "add_pod_lines", never)
    recorded = await add_task(world.db, state="RUNNING")
    await world.api.put("jobs", job(task=recorded))
    for number in range(1000):
        await world.event("FailedMount", f"reason {number}", task=recorded, name=f"e{number}", silently=True)
    async with leader(world):
        await stuck.wait()
        await _pod_that_has_ended(world, recorded)
        await _complete(world, recorded)
    world.api.refuse = lambda request: 403 if "/events" in request.path else None
    unrecorded = await add_task(world.db, state="RUNNING")
    await world.api.put("jobs", job(task=unrecorded))
    await _pod_that_has_ended(world, unrecorded)
    async with leader(world):
        await _complete(world, unrecorded)


async def _pod_that_has_ended(world: World, task_id: UUID) -> None:
    states = {**ALL_DONE, "pause": terminated(1)}
    await world.api.put("pods", pod(states, phase="Failed", task=task_id, name=f"poiesis-{task_id}-abcde"))


async def _complete(world: World, task_id: UUID) -> None:
    """Wait for the outcome: COMPLETE, and not another one."""
    async with asyncio.timeout(30):
        while (state := (await task_of(world.db, task_id))["state"]) in ("QUEUED", "INITIALIZING", "RUNNING"):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert state == "COMPLETE"


@pytest.mark.parametrize("forbidden", [False, True], ids=["event and condition", "condition alone"])
async def test_unschedulable_event_and_condition_are_one_line(world, forbidden):
    message = "0/1 nodes are available: 1 Insufficient cpu."
    if forbidden:
        world.api.refuse = lambda request: 403 if "/events" in request.path else None
    task_id = await add_task(world.db)
    await world.event("FailedScheduling", message, task=task_id)
    await world.api.put("jobs", job(task=task_id))
    unscheduled = condition("PodScheduled", "Unschedulable", message, "False")
    waiting = pod(node=None, conditions=[unscheduled], task=task_id, name=f"poiesis-{task_id}-abcde")
    await world.api.put("pods", waiting)
    async with leader(world):
        await world.until_recorded(task_id, f"FailedScheduling: {message}")
        await world.api.put("pods", {**waiting, "status": {**waiting["status"], "message": "changed"}})
        await world.api.put("events", event("FailedScheduling", message, task=task_id, count=9))
        end = await add_task(world.db, state="RUNNING")
        await world.api.put("jobs", job(task=end))
        states = {**ALL_DONE, "pause": terminated(1)}
        await world.api.put("pods", pod(states, phase="Failed", task=end, name=f"poiesis-{end}-abcde"))
        await _complete(world, end)  # by the same worker, so after the change
    assert await world.recorded(task_id) == [f"FailedScheduling: {message}"]


async def test_late_event_keeps_the_outcome(world):
    task_id = await add_task(world.db)
    await report(world.db, task_id, outcome=TaskOutcome(state=TesState.COMPLETE))
    async with world.followed():
        await world.event("FailedMount", "late", task=task_id)
        await world.until_recorded(task_id, "COMPLETE", "FailedMount: late")
    assert (await task_of(world.db, task_id))["state"] == "COMPLETE"
