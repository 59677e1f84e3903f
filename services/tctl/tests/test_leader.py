"""One leader and several namespaces of tasks, on a fake API server and a real Postgres."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

import aiohttp
import pytest
from tctl_builders import event, job, pod, recorded
from tctl_fakes import FakeApi, client
from tctl_tasks import add_task, logs_of, task_of

from poiesis_models.backoff import Backoff
from poiesis_models.states import TesState
from poiesis_tctl import __main__ as tctl
from poiesis_tctl import tasks_db
from poiesis_tctl.config import Config, LeaseTimes, Limits
from poiesis_tctl.informer import WatchTimes
from poiesis_tctl.leader import Leader
from poiesis_tctl.retention import Sweep

pytestmark = pytest.mark.integration

LIMITS = Limits(
    image_pull=0.1, config_error=0.1, start=0.1, stalled=0.1, no_pod=0.1, node_lost=0.1, leftover=0.1
)
WATCH = WatchTimes(watch=5, silence=3.0, backoff=Backoff(first=0.02, longest=0.1), shortest=0.05)
LEASE = LeaseTimes(lease=1, renew=0.6, retry=0.1)
OLD = Sweep(kind="tasks", state=TesState.COMPLETE, age=timedelta(days=90))
KUBECONFIG = """
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "%s"}}]
users: [{name: u, user: {token: abc}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
"""
ENDED = {"trec": recorded(0), "executor-0": recorded(7), "pause": recorded(1)}


class World:
    """The namespaces tes, lab-a and lab-b; the last two have tasks."""

    def __init__(self, api: FakeApi, db: Any, dsn: str) -> None:
        self.api = api
        self.labs = {name: api.add_namespace(name) for name in ("lab-a", "lab-b")}
        self.db = db
        self.dsn = dsn

    def config(self, **values: Any) -> Config:
        known: dict[str, Any] = {
            "dsn": self.dsn,
            "pod_name": "tctl-0",
            "namespace": "tes",
            "limits": LIMITS,
            "lease": LEASE,
            "workers": 4,
            "tasks_namespaces": ("lab-a", "lab-b"),
            "reconcile_seconds": 0.2,
        }
        return Config(**{**known, **values})

    @asynccontextmanager
    async def leader(self, **values: Any) -> AsyncIterator[Leader]:
        config = self.config(**values)
        async with AsyncExitStack() as stack:
            db = tasks_db.connect(self.dsn, connections=4, home=config.namespace)
            tasks = await stack.enter_async_context(db)
            kubes = [await stack.enter_async_context(client(self.api, name)) for name in self.labs]
            leader = Leader(kubes, tasks, config, watch_times=WATCH)
            running = asyncio.create_task(leader.run())
            try:
                yield leader
                assert not running.done()
            finally:
                running.cancel()
                await asyncio.wait({running})

    async def task(self, namespace: str, **values: Any) -> UUID:
        """Add a task and its Job in its namespace."""
        task_id = await add_task(self.db, namespace=namespace, **values)
        await self.labs[namespace].put("jobs", job(task=task_id))
        return task_id

    async def until(self, task_id: UUID, state: str) -> dict[str, Any]:
        async with asyncio.timeout(10):
            while (found := await task_of(self.db, task_id))["state"] != state:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        return found


@pytest.fixture
async def world(fake_api, superuser, controller_dsn):
    await superuser.execute("DELETE FROM task")
    return World(fake_api, superuser, controller_dsn)


async def failed_pod(api, task_id, name="abcde"):
    item = pod(ENDED, task=task_id, name=f"poiesis-{task_id}-{name}", phase="Failed")
    return await api.put("pods", item)


async def test_tasks_of_all_namespaces_end(world):
    ids = {name: await world.task(name) for name in world.labs}
    async with world.leader():
        for name, task_id in ids.items():
            await failed_pod(world.labs[name], task_id)
        for task_id in ids.values():
            assert (await world.until(task_id, "EXECUTOR_ERROR"))["reported_by"] == "controller"


async def test_pod_in_another_namespace_changes_nothing(world):
    task_id = await world.task("lab-a")
    other = await world.task("lab-b")
    async with world.leader():
        await failed_pod(world.labs["lab-b"], task_id)
        await failed_pod(world.labs["lab-b"], other)
        await world.until(other, "EXECUTOR_ERROR")
        assert (await task_of(world.db, task_id))["state"] == "QUEUED"


async def test_missing_objects_in_another_namespace_end_no_task(world):
    """The reconciliation of lab-b sees no object of a task that is in lab-a or in no watched namespace."""
    here = await world.task("lab-a")
    await failed_pod(world.labs["lab-a"], here)
    elsewhere = await add_task(world.db, state="RUNNING", namespace="removed")
    former = await add_task(world.db, state="RUNNING")  # without a namespace: in tes, which is not watched
    gone = await add_task(world.db, state="RUNNING", namespace="lab-b")
    async with world.leader():
        await world.until(gone, "SYSTEM_ERROR")
        await world.until(here, "EXECUTOR_ERROR")
    for task_id in (elsewhere, former):
        assert (await task_of(world.db, task_id))["state"] == "RUNNING"


async def test_forbidden_namespace_does_not_stop_others(world):
    world.labs["lab-b"].refuse = lambda _: 403
    lost = await add_task(world.db, state="RUNNING", namespace="lab-b")
    task_id = await world.task("lab-a")
    async with world.leader() as leader:
        await failed_pod(world.labs["lab-a"], task_id)
        await world.until(task_id, "EXECUTOR_ERROR")
        assert leader.synced == {"lab-a": True, "lab-b": False}
        assert (await task_of(world.db, lost))["state"] == "RUNNING"
        world.labs["lab-b"].refuse = lambda _: None
        await world.until(lost, "SYSTEM_ERROR")


async def test_namespace_that_becomes_forbidden_ends_no_task(world):
    task_id = await world.task("lab-b")
    other = await world.task("lab-a")
    async with world.leader() as leader:
        await world.api.until(lambda: all(leader.synced.values()))
        world.labs["lab-b"].refuse = lambda _: 403
        await world.labs["lab-b"].delete("jobs", f"poiesis-{task_id}")
        await failed_pod(world.labs["lab-a"], other)
        await world.until(other, "EXECUTOR_ERROR")
        assert (await task_of(world.db, task_id))["state"] == "QUEUED"


async def test_event_in_another_namespace_is_not_recorded(world):
    task_id = await world.task("lab-a")
    async with world.leader():
        await world.labs["lab-b"].put("events", event("FailedScheduling", "forged", task=task_id))
        await world.labs["lab-a"].put("events", event("FailedScheduling", "true", task=task_id))
        async with asyncio.timeout(10):
            while not (lines := [one[2] for one in await logs_of(world.db, task_id)]):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    assert [line for line in lines if "forged" in line] == []
    assert [line for line in lines if "true" in line] != []


async def test_role_is_created_beside_its_pod(world):
    task_id = await world.task("lab-b", state="RUNNING")
    async with world.leader():
        stored = await world.labs["lab-b"].put("pods", pod(task=task_id, name=f"poiesis-{task_id}-abcde"))
        name = stored["metadata"]["name"]
        await world.api.until(lambda: name in world.labs["lab-b"].objects["rolebindings"])
    assert world.labs["lab-a"].objects["rolebindings"] == world.api.objects["rolebindings"] == {}


async def test_old_tasks_with_objects_are_kept(world):
    """Also those in a namespace that cannot be read; nothing is known of one that is not watched."""
    world.labs["lab-b"].refuse = lambda _: 403
    with_job = await world.task("lab-a")
    unreadable, free = [await add_task(world.db, namespace=name) for name in ("lab-b", "lab-a")]
    unwatched = await add_task(world.db, namespace="removed")
    for task_id in (with_job, unreadable, free, unwatched):
        await world.db.execute("SELECT finish_task($1, 'COMPLETE', '', '', '', 'api', true)", task_id)
    await world.db.execute("UPDATE task SET ended_at = now() - interval '91 days'")
    async with world.leader(limits=Limits(leftover=60)) as leader:
        await world.api.until(lambda: leader.synced["lab-a"])
        await leader._deletion.sweep(OLD)
        left = {row["id"] for row in await world.db.fetch("SELECT id FROM task")}
        assert left == {with_job, unreadable}
        assert leader.deletions.deleted["tasks"] == 2


async def test_pods_are_not_read_where_the_lease_is(world, tmp_path, free_port):
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(KUBECONFIG % world.api.url)
    world.labs["lab-b"].refuse = lambda _: 403
    config = world.config(kubeconfig=str(kubeconfig), health_port=free_port())
    stop = asyncio.Event()
    running = asyncio.create_task(tctl.run(config, stop))
    url = f"http://127.0.0.1:{config.health_port}"
    try:
        await world.api.until(lambda: bool(world.labs["lab-a"].asked("WATCH", "pods")))
        async with aiohttp.ClientSession(url) as session, asyncio.timeout(10):
            while (await session.get("/readyz")).status != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            text = await (await session.get("/metrics")).text()
    finally:
        stop.set()
        await running
    assert 'poiesis_namespace_synced{tasks_namespace="lab-a"} 1.0' in text
    assert 'poiesis_namespace_synced{tasks_namespace="lab-b"} 0.0' in text
    assert {kind for _, kind, _ in world.api.requests} == {"leases"}
