"""The whole controller with a fake API server and a real Postgres: two replicas, one of which leads."""

import asyncio
import logging
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID

import aiohttp
import asyncpg
import pytest
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families
from tctl_builders import (
    ALL_DONE,
    PLAN,
    RUNNING,
    condition,
    job,
    pod,
    recorded,
    terminated,
    waiting,
    workload,
)
from tctl_fakes import FakeApi, client
from tctl_tasks import add_task, attempts_of, cancel, executors_of, logs_of, report, report_filer, task_of

from poiesis_models.backoff import Backoff
from poiesis_models.states import TaskOutcome, TesState
from poiesis_tctl import __main__ as tctl
from poiesis_tctl import tasks_db
from poiesis_tctl.config import Config, LeaseTimes, Limits
from poiesis_tctl.informer import WatchTimes
from poiesis_tctl.leader import Leader
from poiesis_tctl.transfers import Moved, Place

pytestmark = pytest.mark.integration

LIMITS = Limits(
    image_pull=0.1, config_error=0.1, start=0.1, stalled=0.1, no_pod=0.1, node_lost=0.1, leftover=0.1
)
WATCH = WatchTimes(watch=5, silence=3.0, backoff=Backoff(first=0.02, longest=0.1), shortest=0.05)
LEASE = LeaseTimes(lease=1, renew=0.6, retry=0.1)
KUBECONFIG = """
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "%s"}}]
users: [{name: u, user: {token: abc}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
"""


class World:
    """The cluster and the database of one test."""

    def __init__(self, api: FakeApi, db: asyncpg.Connection, dsn: str) -> None:
        self.api = api
        self.db = db
        self.dsn = dsn

    async def task(self, **values: Any) -> UUID:
        """Add a task and its Job."""
        task_id = await add_task(self.db, **values)
        await self.api.put("jobs", job(task=task_id))
        return task_id

    async def pod(self, task_id: UUID, states: dict[str, Any] | None = None, **values: Any) -> dict[str, Any]:
        name = values.pop("name", f"poiesis-{task_id}-abcde")
        return await self.api.put("pods", pod(states, task=task_id, name=name, **values))

    async def until(self, task_id: UUID, state: str) -> dict[str, Any]:
        """Wait until the task has this state, and return it."""
        async with asyncio.timeout(10):
            while (found := await task_of(self.db, task_id))["state"] != state:
                assert found["reported_by"] is None, found
                await asyncio.sleep(0.02)
        return found

    async def until_recorded(self, task_id: UUID, text: str) -> tuple[int | None, str, str]:
        async with asyncio.timeout(10):
            while not (found := [one for one in await logs_of(self.db, task_id) if text in one[2]]):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        return found[0]

    def has(self, kind: str, name: str) -> Callable[[], bool]:
        return lambda: name in self.api.objects[kind]

    def deleted(self, pod_name: str) -> Callable[[], bool]:
        """Return whether the deletion of the Pod was requested; it exists."""
        return lambda: "deletionTimestamp" in self.api.objects["pods"][pod_name]["metadata"]

    def config(self, **values: Any) -> Config:
        known: dict[str, Any] = {
            "dsn": self.dsn,
            "pod_name": "tctl-0",
            "namespace": "tes",
            "limits": LIMITS,
            "lease": LEASE,
            "workers": 4,
        }
        return Config(**{**known, **values})

    @asynccontextmanager
    async def leader(self, **values: Any) -> AsyncIterator[Leader]:
        """Run one leader without an election."""
        times = values.pop("watch_times", WATCH)
        metrics_seconds = values.pop("metrics_seconds", 15.0)
        config = self.config(**values)
        async with (
            AsyncExitStack() as stack,
            tasks_db.connect(self.dsn, connections=config.workers, home=config.namespace) as tasks,
        ):
            kubes = [
                await stack.enter_async_context(client(self.api, name)) for name in config.watched_namespaces
            ]
            leader = Leader(kubes, tasks, config, watch_times=times, metrics_seconds=metrics_seconds)
            task = asyncio.create_task(leader.run())
            try:
                yield leader
                assert not task.done()
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def world(fake_api: FakeApi, superuser: asyncpg.Connection, controller_dsn: str) -> World:
    return World(fake_api, superuser, controller_dsn)


@pytest.fixture(autouse=True)
async def _no_older_tasks(superuser: asyncpg.Connection) -> None:
    await superuser.execute("DELETE FROM task")


async def test_kubernetes_reason_is_recorded_without_a_recorder(world):
    task_id = await world.task(state="RUNNING")
    await world.pod(task_id, {"trec": RUNNING, "tif-0": recorded(0), "executor-0": RUNNING})
    async with world.leader():
        await world.api.until(world.has("rolebindings", f"poiesis-{task_id}-abcde"))
        states = {**ALL_DONE, "executor-0": terminated(137, "OOMKilled"), "executor-1": waiting()}
        await world.pod(task_id, states, phase="Failed")
        assert await world.until(task_id, "EXECUTOR_ERROR") == {
            "state": "EXECUTOR_ERROR",
            "reason": "OOMKilled",
            "message": "executor 0 ran out of memory",
            "container": "executor-0",
            "reported_by": "controller",
        }
    assert await executors_of(world.db, task_id) == [(0, 0, 137)]
    assert await attempts_of(world.db, task_id) == [(0, "pod-uid-1", "node-1", True)]


async def test_outcome_of_the_recorder_is_kept(world):
    task_id = await world.task()
    await report(world.db, task_id, outcome=TaskOutcome(state=TesState.COMPLETE))
    other = await world.task()
    async with world.leader():
        await world.pod(task_id, {**ALL_DONE, "executor-0": recorded(7)}, phase="Failed")
        await world.pod(other, {**ALL_DONE, "executor-0": recorded(7)}, phase="Failed")
        await world.until(other, "EXECUTOR_ERROR")
    assert (await task_of(world.db, task_id))["reported_by"] == "recorder"


async def test_role_is_created_before_postgres_is_read(world):
    task_id = await world.task()
    world.dsn = "postgresql://nobody@127.0.0.1:1/none"
    async with world.leader():
        await world.pod(task_id, {"trec": RUNNING})
        name = f"poiesis-{task_id}-abcde"
        await world.api.until(world.has("rolebindings", name))
    role = world.api.objects["roles"][name]
    assert role["rules"][0]["resourceNames"] == [name]
    assert role["metadata"]["ownerReferences"][0]["uid"] == "pod-uid-1"


async def test_refused_role_is_retried_without_delaying_the_outcome(world):
    refusals = iter([403, 403])
    world.api.refuse = lambda request: next(refusals, None) if "/roles" in request.path else None
    task_id = await world.task()
    await world.pod(task_id, {"trec": waiting("InvalidImageName", "bad")})
    async with world.leader():
        await world.until(task_id, "SYSTEM_ERROR")
        await world.api.until(lambda: len(world.api.asked("POST", "roles")) >= 2)


async def test_failing_image_pull_ends_task_and_pod(world):
    task_id = await world.task(state="INITIALIZING")
    states = {"trec": RUNNING, "tif-0": recorded(0), "executor-0": waiting("ErrImagePull", "not found")}
    stored = await world.pod(task_id, states)
    async with world.leader():
        found = await world.until(task_id, "SYSTEM_ERROR")
        assert (found["reason"], found["container"]) == ("ErrImagePull", "executor-0")
        name = stored["metadata"]["name"]
        await world.api.until(
            lambda: world.api.objects["pods"][name]["spec"].get("activeDeadlineSeconds") == 1
        )
        # The kubelet that does not obey: its Job goes.
        spec = {**world.api.objects["pods"][name]["spec"], "terminationGracePeriodSeconds": 0.1}
        await world.api.put("pods", {**world.api.objects["pods"][name], "spec": spec})
        await world.api.until(lambda: not world.has("jobs", f"poiesis-{task_id}")())


async def test_status_is_recorded_for_a_recorder_of_files_only(world):
    plan = replace(PLAN, files_only=True)
    task_id = await world.task(state="INITIALIZING")
    states = {"trec": RUNNING, "tif-0": recorded(0), "executor-0": waiting("ErrImagePull", "not found")}
    async with world.leader(limits=Limits()):
        await world.pod(task_id, states, plan=plan)
        line = await world.until_recorded(task_id, "ErrImagePull")
        assert line == (0, "executor-0/waiting-pull", "executor-0: ErrImagePull: not found")
        killed = {**states, "executor-0": terminated(137, "OOMKilled")}
        await world.pod(task_id, killed, plan=plan, phase="Failed")
        found = await world.until(task_id, "EXECUTOR_ERROR")
        assert (found["reason"], found["reported_by"]) == ("OOMKilled", "controller")
        await world.until_recorded(task_id, "executor-0: OOMKilled")
    assert world.api.asked("POST", "roles") == []
    assert [key for _, key, _ in await logs_of(world.db, task_id)].count("executor-0/waiting-pull") == 1


async def test_cancel_is_recorded_when_the_pod_is_gone(world):
    task_id = await world.task(state="RUNNING")
    stored = await world.pod(task_id, {"trec": RUNNING, "tif-0": recorded(0), "executor-0": RUNNING})
    async with world.leader(reconcile_seconds=0.1):
        await cancel(world.db, task_id)
        await world.api.until(world.deleted(stored["metadata"]["name"]))
        assert not world.has("jobs", f"poiesis-{task_id}")()
        assert (await task_of(world.db, task_id))["state"] == "CANCELING"
        await world.api.delete("pods", stored["metadata"]["name"])
        await world.until(task_id, "CANCELED")


async def test_cancel_of_a_waiting_pod_needs_no_garbage_collector(world):
    """The Job controller's finalizer keeps the Pod; nothing removes it in this test."""
    task_id = await world.task()
    stored = await world.pod(task_id, node=None)
    async with world.leader():
        await world.api.until(world.has("roles", stored["metadata"]["name"]))
        await cancel(world.db, task_id)
        await world.api.delete("jobs", f"poiesis-{task_id}")  # by the api
        found = await world.until(task_id, "CANCELED")
    assert found["reported_by"] == "controller"
    assert world.deleted(stored["metadata"]["name"])()
    assert await attempts_of(world.db, task_id) == []


async def test_refused_pod_deletion_is_retried(world):
    refusals = iter([429, 503])
    world.api.refuse = lambda request: (
        next(refusals, None) if request.method == "DELETE" and "/pods/" in request.path else None
    )
    task_id = await world.task()
    await world.pod(task_id, node=None)
    async with world.leader():
        await world.api.until(lambda: bool(world.api.asked("POST", "rolebindings")))
        await cancel(world.db, task_id)
        await world.api.delete("jobs", f"poiesis-{task_id}")
        await world.until(task_id, "CANCELED")
    assert len(world.api.asked("DELETE", "pods")) == 3


async def test_new_leader_continues_a_cancel_between_job_and_pod(world):
    """The Job was deleted, and the former leader died before it deleted the Pod."""
    task_id = await add_task(world.db, state="CANCELING", canceled=True)
    stored = await world.pod(task_id, node=None)
    async with world.leader():
        await world.until(task_id, "CANCELED")
    assert world.deleted(stored["metadata"]["name"])()


async def test_waiting_for_a_canceled_pod_sends_no_requests(world, caplog):
    caplog.set_level(logging.INFO)
    task_id = await world.task(state="CANCELING", canceled=True)
    stored = await world.pod(task_id, {"trec": RUNNING})
    async with world.leader(reconcile_seconds=0.05):
        await world.api.until(world.deleted(stored["metadata"]["name"]))
        rounds = len(reconciled(caplog))
        await world.api.until(lambda: len(reconciled(caplog)) >= rounds + 2)
        requests = len(world.api.requests)
        await world.api.until(lambda: len(reconciled(caplog)) >= rounds + 5)
        assert len(world.api.requests) == requests


async def test_pod_of_a_lagging_job_controller_is_deleted_too(world):
    """It has a node already, and appears while the controller verifies that no Pod can run."""
    task_id = await add_task(world.db, state="CANCELING", canceled=True)
    second = pod(
        {"trec": RUNNING},
        task=task_id,
        name=f"poiesis-{task_id}-fghij",
        uid="pod-uid-2",
        created="2025-11-23T06:00:01Z",
    )
    name = second["metadata"]["name"]

    appears = [second]

    def appear(request: web.Request) -> None:
        if appears and request.query.get("labelSelector") == f"poiesis.io/task={task_id}":
            world.api.objects["pods"][name] = appears.pop()

    world.api.refuse = appear
    async with world.leader():
        await world.pod(task_id, node=None)
        await world.api.until(world.has("pods", name))
        await world.api.until(world.deleted(name))
        assert (await task_of(world.db, task_id))["state"] == "CANCELING"
        await world.api.delete("pods", name)
        await world.until(task_id, "CANCELED")


async def test_cancel_during_a_decision_wins(world, monkeypatch):
    """Postgres rejects the outcome, and the controller decides again."""
    task_id = await world.task(state="RUNNING")
    finish = tasks_db.TasksDb.finish
    asked = []

    async def late(self: tasks_db.TasksDb, task: UUID, action: Any) -> bool:
        asked.append(action.outcome.state)
        if len(asked) == 1:
            connection = await asyncpg.connect(world.dsn)
            await cancel(connection, task_id)
            await connection.close()
        return await finish(self, task, action)

    monkeypatch.setattr(tasks_db.TasksDb, "finish", late)
    async with world.leader():
        await world.pod(task_id, {**ALL_DONE, "executor-0": recorded(7)}, phase="Failed")
        await world.until(task_id, "CANCELED")
    assert asked == [TesState.EXECUTOR_ERROR, TesState.CANCELED]


async def test_kueue_reasons_are_recorded(world):
    task_id = await add_task(world.db)
    await world.api.put("jobs", job(task=task_id, suspended=True))
    full = condition("QuotaReserved", "Pending", "insufficient unused quota", status="False")
    await world.api.put("workloads", workload(full, task=task_id))
    async with world.leader(kueue=True):
        lines = await world.until_recorded(task_id, "Kueue: Pending: insufficient unused quota")
        assert lines[0] is None
        deactivated = condition("Evicted", "Deactivated", "The workload is deactivated")
        await world.api.put("workloads", workload(deactivated, task=task_id, active=False))
        found = await world.until(task_id, "SYSTEM_ERROR")
        assert (found["reason"], found["message"]) == ("Deactivated", "Kueue: The workload is deactivated")
        await world.api.until(lambda: not world.has("jobs", f"poiesis-{task_id}")())


async def test_kueue_upgrade_to_another_version_is_followed(world):
    task_id = await add_task(world.db)
    await world.api.put("jobs", job(task=task_id, suspended=True))
    async with world.leader(kueue=True):
        await world.api.until(lambda: bool(world.api.asked("WATCH", "workloads")))
        world.api.kueue = "v1beta2"
        full = condition("QuotaReserved", "Pending", "insufficient unused quota", status="False")
        await world.api.put("workloads", workload(full, task=task_id), silently=True)
        await world.until_recorded(task_id, "insufficient unused quota")


async def test_missing_kueue_delays_nothing(world):
    world.api.kueue = None
    task_id = await world.task()
    await world.pod(task_id, {**ALL_DONE, "executor-0": recorded(7)}, phase="Failed")
    async with world.leader(kueue=True):
        await world.until(task_id, "EXECUTOR_ERROR")


async def test_suspended_job_starts_a_new_attempt(world):
    task_id = await world.task()
    running = {"trec": RUNNING, "tif-0": recorded(0), "executor-0": RUNNING}
    await report(world.db, task_id)
    stored = await world.pod(task_id, running)
    async with world.leader():
        await world.api.until(world.has("roles", stored["metadata"]["name"]))
        await world.api.put("jobs", job(task=task_id, suspended=True))
        await world.pod(task_id, {**running, "executor-0": recorded(143, term=True)}, deleted=True)
        await world.api.delete("pods", stored["metadata"]["name"])
        await world.until(task_id, "QUEUED")
        assert await attempts_of(world.db, task_id) == [(0, "pod-uid-1", "node-1", True)]
        await world.api.put("jobs", job(task=task_id))
        await report(world.db, task_id, pod_uid="pod-uid-2")
        states = {**ALL_DONE, "pause": terminated(1)}
        await world.pod(task_id, states, phase="Failed", name=f"poiesis-{task_id}-fghij", uid="pod-uid-2")
        await world.until(task_id, "COMPLETE")
    assert [one[1] for one in await attempts_of(world.db, task_id)] == ["pod-uid-1", "pod-uid-2"]
    assert (await executors_of(world.db, task_id))[0] == (1, 0, 0)


async def test_lagging_cache_loses_no_task(world):
    """The cache has the Pod's deletion but not yet the Job's suspension."""
    task_id = await world.task()
    await report(world.db, task_id)
    stored = await world.pod(task_id, {"trec": RUNNING})
    await world.api.put("jobs", job(task=task_id, conditions=[condition("Failed", "Old")]))
    async with world.leader():
        await world.api.until(world.has("roles", stored["metadata"]["name"]))
        await world.api.put("jobs", job(task=task_id, suspended=True), silently=True)
        await world.api.delete("pods", stored["metadata"]["name"])
        await world.until(task_id, "QUEUED")


async def test_list_detects_a_pod_deleted_during_a_fault(world):
    task_id = await world.task(state="RUNNING")
    stored = await world.pod(task_id, {"trec": RUNNING, "tif-0": recorded(0)})
    world.api.watch_faults.extend(["hang up", "410", "500", "410 in the stream"])
    async with world.leader():
        await world.api.until(world.has("roles", stored["metadata"]["name"]))
        await world.api.delete("pods", stored["metadata"]["name"], silently=True)
        await world.api.put("jobs", job(task=task_id, conditions=[condition("Failed", "Backoff")]))
        assert (await world.until(task_id, "SYSTEM_ERROR"))["reason"] == "PodDeleted"


def reconciled(caplog: pytest.LogCaptureFixture) -> list[tuple[int, int]]:
    """Return the tasks and the repaired tasks of each round so far."""
    return [(one.tasks, one.repaired) for one in caplog.records if one.message == "reconciled tasks"]


async def test_missed_deletion_is_repaired_and_counted(world, caplog):
    caplog.set_level(logging.INFO)
    task_id = await world.task(state="RUNNING")
    stored = await world.pod(task_id, {"trec": RUNNING, "tif-0": recorded(0), "executor-0": RUNNING})
    async with world.leader(reconcile_seconds=0.3, watch_times=replace(WATCH, relist=0.3)):
        await world.api.until(lambda: len(reconciled(caplog)) >= 3)
        assert set(reconciled(caplog)) == {(1, 0)}
        for kind, name in (("pods", stored["metadata"]["name"]), ("jobs", f"poiesis-{task_id}")):
            await world.api.delete(kind, name, silently=True)
        assert (await world.until(task_id, "SYSTEM_ERROR"))["reason"] == "JobDeleted"
        await world.api.until(lambda: sum(repaired for _, repaired in reconciled(caplog)) == 1)
        before = len(reconciled(caplog))
        await world.api.until(lambda: len(reconciled(caplog)) >= before + 2)
        assert set(reconciled(caplog)[before:]) == {(0, 0)}
    (warning,) = [
        one for one in caplog.records if one.message == "reconciliation repaired a task the watch missed"
    ]
    assert (warning.task, warning.actions) == (str(task_id), ["Finish"])


async def test_normal_operation_needs_no_repair(world, caplog):
    """The watch reports each change, and comparisons find nothing in addition."""
    caplog.set_level(logging.INFO)
    tasks = [await world.task(state="RUNNING") for _ in range(10)]
    async with world.leader(reconcile_seconds=0.1):
        await world.api.until(lambda: (10, 0) in reconciled(caplog))
        for number, task_id in enumerate(tasks):
            states = {**ALL_DONE, "pause": terminated(1)}
            await world.pod(task_id, states, phase="Failed", uid=f"u-{number}")
            await world.until(task_id, "COMPLETE")
        before = len(reconciled(caplog))
        await world.api.until(lambda: len(reconciled(caplog)) >= before + 2)
    assert sum(repaired for _, repaired in reconciled(caplog)) == 0


async def test_repair_is_counted_after_an_outage_of_postgres(world, caplog, monkeypatch):
    """The leader has just started: no watch reported what ended before."""
    caplog.set_level(logging.INFO)
    load = tasks_db.TasksDb.load
    failures = iter(range(2))

    async def flaky(self: tasks_db.TasksDb, task: UUID) -> Any:
        if next(failures, None) is not None:
            raise tasks_db.DatabaseUnavailable("away")
        return await load(self, task)

    monkeypatch.setattr(tasks_db.TasksDb, "load", flaky)
    task_id = await world.task()
    await world.pod(task_id, {**ALL_DONE, "pause": terminated(1)}, phase="Failed")
    async with world.leader(reconcile_seconds=0.1):
        await world.until(task_id, "COMPLETE")
        await world.api.until(lambda: sum(repaired for _, repaired in reconciled(caplog)) == 1)


async def test_missing_objects_and_deleted_jobs_end_tasks(world):
    lost = await add_task(world.db, state="RUNNING")
    deleted = await world.task(state="RUNNING")
    young = await add_task(world.db, age=5)
    async with world.leader():
        assert (await world.until(lost, "SYSTEM_ERROR"))["reason"] == "Lost"
        await world.api.delete("jobs", f"poiesis-{deleted}")
        assert (await world.until(deleted, "SYSTEM_ERROR"))["reason"] == "JobDeleted"
    assert (await task_of(world.db, young))["state"] == "QUEUED"


async def test_job_without_a_pod_is_explained(world):
    task_id = await world.task()
    for number, message in enumerate(["too old", 'pods "poiesis-x" is forbidden: exceeded quota']):
        event = {
            "metadata": {"name": f"e{number}", "labels": {}},
            "involvedObject": {"uid": "job-uid-1"},
            "reason": "FailedCreate",
            "message": message,
            "lastTimestamp": f"2025-11-23T06:00:0{number}Z",
        }
        await world.api.put("events", event)
    async with world.leader():
        attempt, key, _ = await world.until_recorded(task_id, "exceeded quota")
    assert attempt is None
    assert key.startswith("FailedCreate-")
    assert (await task_of(world.db, task_id))["state"] == "QUEUED"


def refusal(message: str) -> dict[str, Any]:
    return {
        "metadata": {"name": "refusal", "labels": {}},
        "involvedObject": {"uid": "job-uid-1"},
        "reason": "FailedCreate",
        "message": message,
        "lastTimestamp": "2025-11-23T06:00:00Z",
    }


async def test_permanently_rejected_pod_ends_task_and_job(world):
    task_id = await world.task()
    rejection = (
        f'Error creating: pods "poiesis-{task_id}%s" is forbidden: violates PodSecurity "restricted:latest"'
    )
    await world.api.put("events", refusal(rejection % "-abcde"))
    async with world.leader():
        found = await world.until(task_id, "SYSTEM_ERROR")
        assert (found["reason"], found["message"]) == ("FailedCreate", rejection % "")
        await world.api.until(lambda: not world.has("jobs", f"poiesis-{task_id}")())


async def test_retryable_rejection_ends_the_task_at_its_limit(world):
    task_id = await world.task()
    await world.api.put("events", refusal("exceeded quota"))
    async with world.leader(limits=LIMITS.model_copy(update={"unschedulable": 0.5})):
        await world.until_recorded(task_id, "exceeded quota")
        assert (await world.until(task_id, "SYSTEM_ERROR"))["message"] == "exceeded quota"
        await world.api.until(lambda: not world.has("jobs", f"poiesis-{task_id}")())


async def test_pod_created_after_its_rejection_continues(world):
    """The cache does not contain the Pod yet."""
    task_id = await world.task()
    await world.api.put("events", refusal('violates PodSecurity "restricted:latest"'))
    stored = pod({"trec": RUNNING}, task=task_id, name=f"poiesis-{task_id}-abcde")
    async with world.leader() as leader:
        await world.api.until(lambda: leader.synced["tes"])
        await world.api.put("pods", stored, silently=True)
        await world.api.until(lambda: len(world.api.asked("GET", "events")) >= 2)
    assert (await task_of(world.db, task_id))["state"] == "QUEUED"


async def test_pod_without_setup_ends_with_its_events(world):
    task_id = await world.task()
    unready = condition("PodReadyToStartContainers", "", "", "False")
    stuck = pod({"trec": waiting()}, task=task_id, name=f"poiesis-{task_id}-abcde", conditions=[unready])
    event = {
        "metadata": {"name": "e", "labels": {}},
        "involvedObject": {"uid": stuck["metadata"]["uid"]},
        "type": "Warning",
        "reason": "FailedMount",
        "message": 'secret "dsn" not found',
        "lastTimestamp": "2025-11-23T06:00:00Z",
    }
    await world.api.put("events", event)
    await world.api.put("pods", stuck)
    async with world.leader(limits=LIMITS.model_copy(update={"unschedulable": 0.5})):
        found = await world.until(task_id, "SYSTEM_ERROR")
        assert found["reason"] == "FailedMount"
        assert found["message"] == f'Pod poiesis-{task_id}-abcde: secret "dsn" not found'


async def test_objects_of_ended_tasks_are_freed(world):
    suspended = await add_task(world.db)
    await world.api.put("jobs", job(task=suspended, suspended=True))
    await world.db.execute(
        "SELECT finish_task($1, 'SYSTEM_ERROR', 'Refused', 'm', NULL, 'api', false)", suspended
    )
    async with world.leader():
        await world.api.until(lambda: not world.has("jobs", f"poiesis-{suspended}")())


async def test_malformed_object_does_not_stop_the_others(world):
    spoilt = await world.task()
    broken = pod(task=spoilt, name="broken", uid="broken", phase="Failed")
    broken["status"]["initContainerStatuses"] = [{"state": {"terminated": {"exitCode": "x"}}}]
    await world.api.put("pods", broken)
    stranger = pod(name="stranger", uid="stranger")
    stranger["metadata"]["labels"]["poiesis.io/task"] = "not-an-id"
    await world.api.put("pods", stranger)
    good = await world.task()
    await world.pod(good, {**ALL_DONE, "pause": terminated(1)}, phase="Failed", uid="good")
    async with world.leader(workers=1):
        await world.until(good, "COMPLETE")
    assert (await task_of(world.db, spoilt))["reported_by"] is None


async def test_outage_of_postgres_loses_nothing(world, monkeypatch):
    load = tasks_db.TasksDb.load
    failures = iter(range(2))

    async def flaky(self: tasks_db.TasksDb, task: UUID) -> Any:
        if next(failures, None) is not None:
            raise tasks_db.DatabaseUnavailable("away")
        return await load(self, task)

    monkeypatch.setattr(tasks_db.TasksDb, "load", flaky)
    task_id = await world.task()
    await world.pod(task_id, {**ALL_DONE, "pause": terminated(1)}, phase="Failed")
    async with world.leader():
        await world.until(task_id, "COMPLETE")


async def test_two_leaders_record_one_outcome(world):
    """Paused processes can cause this for a moment."""
    tasks = [await world.task(state="RUNNING") for _ in range(20)]
    async with world.leader(), world.leader():
        for number, task_id in enumerate(tasks):
            states = {**ALL_DONE, "executor-1": recorded(number % 3)}
            await world.pod(task_id, states, phase="Failed", uid=f"u-{number}")
        for number, task_id in enumerate(tasks):
            await world.until(task_id, "EXECUTOR_ERROR" if number % 3 else "COMPLETE")
    for task_id in tasks:
        assert len(await attempts_of(world.db, task_id)) == 1
        assert [key for _, key, _ in await logs_of(world.db, task_id)] == ["recorder-silent", "end"]


# Metrics


async def test_leader_counts_transfers_between_reads(world):
    task_id = await world.task(state="RUNNING")
    await world.pod(task_id, {"trec": RUNNING, "tif-0": RUNNING})
    await report(world.db, task_id)
    start = await world.db.fetchval("SELECT now()")
    await report_filer(world.db, task_id, start=start, files=5, size=500)
    async with world.leader(metrics_seconds=0.05) as leader:
        await world.api.until(lambda: leader.figures is not None)
        assert leader.figures.tasks[Place("tes", TesState.RUNNING)] == 1
        assert leader.figures.filers["tif"].moving == 1
        assert leader.figures.filers["tif"].moved == Moved(0, 0)
        await report_filer(world.db, task_id, start=start, files=7, size=530)
        await world.api.until(lambda: leader.figures.filers["tif"].moved == Moved(2, 30))


async def test_metrics_keep_their_values_during_an_outage(world, monkeypatch, caplog):
    read_metrics = tasks_db.TasksDb.read_metrics
    away = False

    async def flaky(self: tasks_db.TasksDb, namespaces: Any) -> Any:
        if away:
            raise tasks_db.DatabaseUnavailable("away")
        return await read_metrics(self, namespaces)

    monkeypatch.setattr(tasks_db.TasksDb, "read_metrics", flaky)
    async with world.leader(metrics_seconds=0.05) as leader:
        await world.api.until(lambda: leader.figures is not None)
        away = True
        await world.api.until(lambda: "postgres unavailable, metrics not updated" in caplog.messages)
        stale = leader.figures
        assert stale is not None
        away = False
        await world.api.until(lambda: leader.figures.read_at > stale.read_at)


async def _scrape(url: str) -> dict[str, float]:
    """Return the sum of each metric's samples, except for those that every replica exports."""
    async with aiohttp.ClientSession() as session, session.get(f"{url}/metrics") as response:
        families = text_string_to_metric_families(await response.text())
    each = re.compile(r"poiesis_controller_(database|actions|retries|repaired|task_seconds)")
    return {
        family.name: sum(one.value for one in family.samples)
        for family in families
        if not each.match(family.name)
    }


async def _until_scraped(url: str, true: Callable[[dict[str, float]], bool]) -> dict[str, float]:
    async with asyncio.timeout(10):
        while not true(found := await _scrape(url)):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    return found


async def test_only_the_leader_exports_metrics(world, tmp_path, monkeypatch, free_port):
    """Metrics of a former leadership are not exported when it leads again."""
    await add_task(world.db, state="RUNNING", age=5)
    config = world.config(kubeconfig=_kubeconfig(world, tmp_path), health_port=free_port(), pod_name="tctl-a")
    url, stop = f"http://127.0.0.1:{config.health_port}", asyncio.Event()
    running = asyncio.create_task(tctl.run(config, stop))
    try:
        await world.api.until(lambda: _holder(world) == "tctl-a")
        found = await _until_scraped(url, lambda metrics: "poiesis_tasks" in metrics)
        assert (found["poiesis_controller_leader"], found["poiesis_tasks"]) == (1, 1)

        await _hold(world, "tctl-b")
        found = await _until_scraped(url, lambda metrics: metrics["poiesis_controller_leader"] == 0)
        assert found == {"poiesis_controller_leader": 0}

        async def away(_: tasks_db.TasksDb, __: Any) -> Any:
            raise tasks_db.DatabaseUnavailable("away")

        monkeypatch.setattr(tasks_db.TasksDb, "read_metrics", away)
        await _hold(world, "")
        found = await _until_scraped(url, lambda metrics: metrics["poiesis_controller_leader"] == 1)
        assert found.keys() == {
            *("poiesis_controller_leader", "poiesis_namespace_synced", "poiesis_informer_age_seconds"),
            *("poiesis_informer_lists", "poiesis_informer_failures"),
            *("poiesis_retention_deleted", "poiesis_retention_failures"),
        }
    finally:
        stop.set()
        await running


async def _hold(world: World, name: str) -> None:
    lease = world.api.objects["leases"]["poiesis-tctl"]
    await world.api.put("leases", {**lease, "spec": {**lease["spec"], "holderIdentity": name}})


# Processes


def _kubeconfig(world: World, tmp_path: Any) -> str:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(KUBECONFIG % world.api.url)
    return str(kubeconfig)


@asynccontextmanager
async def process(
    world: World, name: str, tmp_path: Any, health_port: int
) -> AsyncIterator[asyncio.subprocess.Process]:
    env = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(sys.path),
        "KUBECONFIG": _kubeconfig(world, tmp_path),
        "POIESIS_DSN": world.dsn,
        "POD_NAME": name,
        "POD_NAMESPACE": "tes",
        "POIESIS_LEASE_SECONDS": "3",
        "POIESIS_RENEW_SECONDS": "2.5",
        "POIESIS_RETRY_SECONDS": "0.3",
        "POIESIS_HEALTH_PORT": str(health_port),
    }
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "poiesis_tctl", env=env, stderr=asyncio.subprocess.DEVNULL
    )
    child.health = f"http://127.0.0.1:{env['POIESIS_HEALTH_PORT']}"
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()


def _holder(world: World) -> str | None:
    lease = world.api.objects["leases"].get("poiesis-tctl")
    return None if lease is None else lease["spec"]["holderIdentity"]


async def _status(url: str) -> int:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status


async def test_new_leader_finds_what_a_killed_one_missed(world, tmp_path, free_port):
    task_id = await world.task(state="RUNNING")
    stored = await world.pod(task_id, {"trec": RUNNING, "tif-0": recorded(0), "executor-0": RUNNING})
    replicas: dict[str, AbstractAsyncContextManager[asyncio.subprocess.Process]] = {
        name: process(world, name, tmp_path, free_port()) for name in ("tctl-a", "tctl-b")
    }
    async with replicas["tctl-a"] as a, replicas["tctl-b"] as b:
        bound = world.has("rolebindings", stored["metadata"]["name"])
        await world.api.until(bound, seconds=60)  # two processes start
        first = _holder(world)
        leader, other = (a, b) if first == "tctl-a" else (b, a)
        assert await _status(f"{leader.health}/readyz") == 200
        leader.send_signal(signal.SIGKILL)
        await leader.wait()
        await world.api.delete("pods", stored["metadata"]["name"])
        await world.api.put(
            "jobs", job(task=task_id, conditions=[condition("Failed", "BackoffLimitExceeded")])
        )
        found = await world.until(task_id, "SYSTEM_ERROR")
        assert (found["reason"], found["reported_by"]) == ("BackoffLimitExceeded", "controller")
        assert _holder(world) not in {first, ""}
        for path in ("/healthz", "/readyz"):
            assert await _status(f"{other.health}{path}") == 200
        other.send_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            assert await other.wait() == 0
        assert _holder(world) == ""
