"""The state of one search: Postgres, the cluster, the services' processes, and the invariants."""

import asyncio
import logging
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any, Literal
from uuid import UUID

import asyncpg
from races_clients import ApiKubernetes, ControllerKube, PodRecorder
from races_cluster import Cluster, KubeletPod, Truth, stdout_of
from races_postgres import PASS, GatedPool
from races_scheduler import Fate, Gate, Process, Scheduler, VirtualLoop

from poiesis_api import tasks_db
from poiesis_api.config import Document, UserLimits
from poiesis_api.errors import StorageUnavailable
from poiesis_api.identity.caller import Caller
from poiesis_api.kube import Cluster as Namespaces
from poiesis_api.submitter import Submitter
from poiesis_api.tasks_db import Cancel, NewTask
from poiesis_models.labels import PAUSE_CONTAINER, object_name
from poiesis_models.states import TERMINAL_STATES, TesState
from poiesis_models.tes import TesTaskRequest
from poiesis_tctl.config import Config as ControllerConfig
from poiesis_tctl.controller import Controller
from poiesis_tctl.tasks_db import TasksDb

OWNER = Caller(name="alice")
_PAUSE_SECONDS = 600.0
_HORIZON_SECONDS = 7200.0
_AFTER_LEASE = 61.0  # longer than a lease
_CLUSTER = 0.3  # probability that a cluster step precedes a waiting request

_ROWS = """
SELECT t.id, t.name, t.state::text,
       (t.state, t.reason, t.message, t.container, t.reported_by, t.ended_at)::text AS ending,
       t.cancel_requested_at IS NOT NULL AS cancel_requested, t.submitted_at IS NOT NULL AS submitted,
       ARRAY(SELECT executor_index FROM executor_log WHERE task_id = t.id) AS indices,
       ARRAY(SELECT coalesce(exit_code, -1) FROM executor_log WHERE task_id = t.id) AS codes,
       ARRAY(SELECT coalesce(stdout, '') FROM executor_log_text WHERE task_id = t.id) AS outs,
       (SELECT count(*) FROM task_log WHERE task_id = t.id) AS attempts
  FROM task t ORDER BY t.seq
"""


Later = Fate | Literal["cancel", "time"]


class ErrorLog(logging.Handler):
    """Collect log records of level ERROR: no fault in this test justifies one."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(self.format(record))


class Api:
    """An api replica."""

    def __init__(
        self, process: Process, cluster: Cluster, connection: asyncpg.Connection, config: Document
    ) -> None:
        self.process = process
        self.pool = GatedPool(process, connection)
        kubernetes = ApiKubernetes(process, cluster)
        self.submitter = Submitter(self.pool, Namespaces(lambda _: kubernetes, "tasks"), config)
        process.spawn(self.submitter.run(asyncio.Event()), "submitter")

    def create(self, request: TesTaskRequest) -> None:
        """Send POST /tasks."""
        self.process.spawn(self._create(request), "create")

    def cancel(self, task_id: UUID) -> None:
        """Send POST /tasks/{id}:cancel."""
        self.process.spawn(self._cancel(task_id), "cancel")

    async def _create(self, request: TesTaskRequest) -> None:
        try:
            await tasks_db.create_task(self.pool, NewTask(owner=OWNER.name, request=request), UserLimits())
        except StorageUnavailable:
            return
        self.submitter.wake()

    async def _cancel(self, task_id: UUID) -> None:
        try:
            outcome = await tasks_db.cancel_task(self.pool, OWNER, task_id)
        except StorageUnavailable:
            return
        if outcome is Cancel.CANCELING:
            self.submitter.cancel_soon(task_id)


class Leader:
    """A controller that leads, or still assumes so."""

    def __init__(self, process: Process, cluster: Cluster, connection: asyncpg.Connection) -> None:
        self.process = process
        self.kube = ControllerKube(process, cluster)
        config = ControllerConfig(dsn="postgresql://", pod_name=process.name, namespace="tasks", workers=2)
        tasks = TasksDb(GatedPool(process, connection), home="tasks")
        self._controller = Controller(self.kube, tasks, config)
        process.spawn(self._controller.run(), "controller")


class World:
    """Two api replicas, a leader, sometimes a second one, and a recorder in each Pod."""

    def __init__(
        self,
        loop: VirtualLoop,
        connection: asyncpg.Connection,
        config: Document,
        folder: Path,
        error_log: ErrorLog,
        *,
        transport: str,
    ) -> None:
        self._loop, self._connection, self._config = loop, connection, config
        self._transport = transport
        self._folder, self._error_log = folder, error_log
        self.scheduler = Scheduler(loop)
        self.cluster = Cluster(self._truth_of, self._pause_code)
        self.cluster.changed = self._cluster_changed
        self.apis: list[Api] = []
        self.leaders: list[Leader] = []
        self.recorders: dict[str, PodRecorder] = {}
        self.truths: list[Truth] = []  # by the number in the task's name
        self.tasks: dict[UUID, Truth] = {}
        self.touched: set[UUID] = set()  # by another user
        self._endings: dict[UUID, str] = {}
        self._never: set[UUID] = set()  # canceled before their submission: they must never run
        self._canceled: set[UUID] = set()  # while an executor ran
        self._pauses: dict[str, float] = {}
        self._count = self._opened = 0
        self._reported = 0
        self._later: dict[int, Later] = {}
        self._reports: dict[int, Fate] = {}  # fate of the n-th report of a recorder
        self._random: Random | None = None
        self._error_log.found.clear()

    async def begin(self) -> None:
        """Start with empty tables."""
        await self._connection.execute("DELETE FROM task")
        for _ in range(2):
            self.apis.append(self._new_api())
        self.leaders.append(self._new_leader())
        await self.scheduler.settle()

    # Actions

    def plan(self, later: dict[int, Later], reports: dict[int, Fate], seed: int) -> None:
        """Set the fates of later requests and reports, and the seed of the final order (0: as they come)."""
        self._reports = dict(reports)
        self._later, self._random = dict(later), Random(seed) if seed else None  # noqa: S311

    def create(self, api: int, truth: Truth) -> None:
        executors = [
            {"image": "busybox", "command": ["exit", str(code)], "stdout": f"/out/{number}"}
            for number, code in enumerate(truth.codes)
        ]
        document: dict[str, Any] = {"name": str(len(self.truths)), "executors": executors}
        if truth.outputs:
            document["outputs"] = [{"path": "/data/out", "url": "s3://bucket/out"}]
        self.truths.append(truth)
        self.apis[api % len(self.apis)].create(TesTaskRequest.model_validate(document))

    def cancel(self, api: int, task: int) -> None:
        if self.tasks:
            task_id = list(self.tasks)[task % len(self.tasks)]
            self.note(f"a client cancels {task_id}")
            self.apis[api % len(self.apis)].cancel(task_id)

    async def proceed(self, pick: int, fate: Fate = Fate.DONE) -> None:
        """Execute one request."""
        waiting = self.scheduler.waiting
        if waiting:
            await self._open(waiting[pick % len(waiting)], fate)

    async def proceed_with(self, pick: int, requests: int) -> None:
        """Execute the next requests of one process, while the others wait."""
        waiting = self.scheduler.waiting
        if not waiting:
            return
        process = waiting[pick % len(waiting)].process
        for _ in range(requests):
            gate = next((one for one in self.scheduler.waiting if one.process is process), None)
            if gate is None:
                return
            await self._open(gate, Fate.DONE)

    async def cluster_step(self, pick: int) -> bool:
        """Take a step of the cluster; return False if it has no step left."""
        steps = self.cluster.steps()
        if not steps:
            return False
        what, step = steps[pick % len(steps)]
        self.note(what)
        step()
        for number, (task_id, truth) in enumerate(self.tasks.items()):
            if task_id not in self._canceled and any(
                pod.running == truth.canceled_in for pod in self._pods(task_id) if pod.running
            ):
                self._canceled.add(task_id)
                self.cancel(number, number)
        await self._advance()
        return True

    async def external_delete(self, kind: str, pick: int) -> None:
        """Delete an object manually, or by draining a node."""
        items = self.cluster.of_kind(kind)
        if not items:
            return
        name = items[pick % len(items)]["metadata"]["name"]
        self.touched.add(next(task for task in self.tasks if object_name(task) in name))
        self.note(f"another user deletes {kind} {name}")
        if kind == "Pod":
            self.cluster.delete_pod(name)
        else:
            self.cluster.remove(kind, name)
        await self._advance()

    async def second_leader(self) -> None:
        """Start a second leader, unnoticed by the first."""
        if len(self.leaders) == 1:
            self.note("a second leader")
            self.leaders.append(self._new_leader())
            await self._advance()

    async def pass_time(self, seconds: float) -> None:
        self.note(f"{seconds:g} s pass")
        await self._connection.execute(PASS, seconds)
        self._loop.now += seconds
        await self._advance()

    async def settle(self) -> None:
        await self.scheduler.settle()

    def note(self, what: str) -> None:
        self.scheduler.trace.append(what)

    # Completion

    async def run_to_quiescence(self) -> None:
        """Run without faults until no work is left."""
        passed, pause = 0.0, 5.0
        while True:
            moved = await self._drain()
            if moved:
                pause = 5.0
            if await self._is_settled():
                break
            assert passed < _HORIZON_SECONDS, f"after {passed} s: {await self._unsettled()}"
            await self.pass_time(pause)
            passed += pause
            pause = min(pause * 2, 320.0)
        await self._check_the_end()

    async def stop(self) -> None:
        for process in self._processes():
            process.kill()
        await self.scheduler.settle()
        for process in self._processes():
            await self.scheduler.bury(process)

    async def _drain(self) -> bool:
        moved = False
        for _ in range(2000):
            waiting = self.scheduler.waiting
            if waiting and not (self._random and self.cluster.steps() and self._random.random() < _CLUSTER):
                await self._open(waiting[self._pick(len(waiting))], Fate.DONE)
            elif not await self.cluster_step(self._pick(len(self.cluster.steps()))):
                return moved
            else:
                moved = True
        raise AssertionError("the system never becomes idle")

    def _pick(self, among: int) -> int:
        return self._random.randrange(among) if self._random and among else 0

    async def _is_settled(self) -> bool:
        rows = await self._connection.fetch("SELECT count(*) FROM task WHERE ended_at IS NULL")
        return rows[0][0] == 0 and not self._jobs_that_run()

    async def _unsettled(self) -> str:
        rows = await self._connection.fetch("SELECT * FROM task WHERE ended_at IS NULL")
        return f"unfinished {[dict(row) for row in rows]}, Jobs {self._jobs_that_run()}"

    def _jobs_that_run(self) -> list[str]:
        return [
            job["metadata"]["name"]
            for job in self.cluster.of_kind("Job")
            if not (job.get("status") or {}).get("conditions")
        ]

    # Invariants

    async def check(self) -> None:
        rows = await self._connection.fetch(_ROWS)
        for row in rows:
            self.tasks.setdefault(row["id"], self.truths[int(row["name"])])
            self._check_state(row)
            self._check_logs(row)
        assert not self._error_log.found, self._error_log.found
        twice = {key: count for key, count in self.cluster.starts.items() if count > 1}
        assert not twice, f"started more than once: {twice}"

    def _check_state(self, row: Any) -> None:
        before = self._endings.get(row["id"])
        assert before in {None, row["ending"]}, f"{row['id']} had ended as {before} and is {row['ending']}"
        if row["cancel_requested"] and not row["submitted"]:
            self._never.add(row["id"])
        elif row["id"] in self._never:
            raise AssertionError(f"{row['id']} was canceled first, and submitted then")
        if row["state"] in TERMINAL_STATES:
            self._endings[row["id"]] = row["ending"]
            canceled = row["state"] == TesState.CANCELED
            assert canceled == row["cancel_requested"], f"a cancel does not agree with {dict(row)}"
        if row["state"] == TesState.CANCELED:
            running = [pod.running for pod in self._pods(row["id"]) if pod.runs_work]
            assert not running, f"{row['id']} is CANCELED while {running} run"
        if row["id"] in self._never:
            assert not self._pods(row["id"]), f"{row['id']} was canceled before it was submitted, and runs"

    def _check_logs(self, row: Any) -> None:
        doubled = [index for index, count in Counter(row["indices"]).items() if count > 1]
        assert not doubled, f"executor logs are doubled: {dict(row)}"
        assert row["attempts"] <= 1, f"{row['id']} has {row['attempts']} attempts"
        true = self._true_codes(row["id"])
        for index, code, out in zip(row["indices"], row["codes"], row["outs"], strict=True):
            assert code in {-1, true.get(index)}, f"executor {index} ended {true.get(index)}, not {code}"
            assert out in {"", stdout_of(index)}, f"executor {index} wrote no {out!r}"

    async def _check_the_end(self) -> None:
        for row in await self._connection.fetch(_ROWS):
            expected = self._expected(row["id"], cancel_requested=row["cancel_requested"])
            assert row["state"] in expected, f"{dict(row)} should be one of {expected}"
            if row["state"] in {TesState.COMPLETE, TesState.EXECUTOR_ERROR} and row["id"] not in self.touched:
                shown = dict(zip(row["indices"], row["codes"], strict=True))
                true = self._true_codes(row["id"])
                assert shown == true, f"executor logs {shown} are not {true}"
        jobs = {job["metadata"]["uid"] for job in self.cluster.of_kind("Job")}
        for (kind, name), item in self.cluster.objects.items():
            if kind in {"ServiceAccount", "Secret", "PersistentVolumeClaim", "Pod"}:
                owners = {owner["uid"] for owner in item["metadata"].get("ownerReferences") or ()}
                assert owners & jobs, f"{kind} {name} has no owner"
        running = [pod.name for pod in self.cluster.pods if not pod.over and not pod.gone]
        assert not running, f"still running: {running}"

    def _expected(self, task_id: UUID, *, cancel_requested: bool) -> set[TesState]:
        if cancel_requested:
            return {TesState.CANCELED}
        truth = self.tasks[task_id]
        state = TesState.COMPLETE
        if any(truth.codes):
            state = TesState.EXECUTOR_ERROR
        elif truth.outputs and truth.tof_code:
            state = TesState.SYSTEM_ERROR
        return {state, TesState.SYSTEM_ERROR} if task_id in self.touched else {state}

    def _true_codes(self, task_id: UUID) -> dict[int, int]:
        return {index: code for pod in self._pods(task_id) for index, code in pod.own_codes().items()}

    def _pods(self, task_id: UUID) -> list[KubeletPod]:
        return [pod for pod in self.cluster.pods if pod.task_id == task_id]

    # Connections between the parts

    async def _open(self, gate: Gate, fate: Fate) -> None:
        self._opened += 1
        if gate.what == "record_report":
            self._reported += 1
            fate = self._reports.pop(self._reported, fate)
        later = self._later.pop(self._opened, fate)
        await self.scheduler.open(gate, later if isinstance(later, Fate) else fate)
        await self._advance()
        if later == "cancel":
            self.cancel(self._opened, self._opened)
            await self.settle()
        elif later == "time":
            await self.pass_time(_AFTER_LEASE)

    async def _advance(self) -> None:
        """Replace dead processes, start and stop recorders with their Pods, and check the invariants."""
        await self.scheduler.settle()
        for number, api in enumerate(self.apis):
            if api.process.dead:
                await self.scheduler.bury(api.process)
                self.apis[number] = self._new_api()
        for number, leader in enumerate(self.leaders):
            if leader.process.dead:
                await self.scheduler.bury(leader.process)
                self.leaders[number] = self._new_leader()
        for pod in self.cluster.pods:
            await self._tend(pod)
        await self.scheduler.settle()
        await self.check()

    async def _tend(self, pod: KubeletPod) -> None:
        recorder = self.recorders.get(pod.uid)
        if recorder is not None and recorder.process.dead:
            await self.scheduler.bury(recorder.process)
            del self.recorders[pod.uid]
            pod.trec_alive = False
        elif recorder is not None and not pod.trec_alive:
            recorder.process.kill()
            await self.scheduler.bury(recorder.process)
            del self.recorders[pod.uid]
        elif recorder is None and pod.trec_alive:
            process = self._new_process(f"recorder of {pod.task_id.hex[:8]}")
            recorder = PodRecorder(
                process, pod, self.cluster, self._connection, self._folder, transport=self._transport
            )
            self.recorders[pod.uid] = recorder
            recorder.start()
        elif recorder is not None:
            recorder.look()

    def _new_process(self, name: str) -> Process:
        self._count += 1
        return Process(name=f"{name} ({self._count})", scheduler=self.scheduler)

    def _new_api(self) -> Api:
        return Api(self._new_process("api"), self.cluster, self._connection, self._config)

    def _new_leader(self) -> Leader:
        return Leader(self._new_process("controller"), self.cluster, self._connection)

    def _processes(self) -> list[Process]:
        return [one.process for one in (*self.apis, *self.leaders, *self.recorders.values())]

    def _cluster_changed(self) -> None:
        for leader in self.leaders:
            leader.kube.notify()

    def _truth_of(self, task_id: UUID) -> Truth:
        return self.tasks[task_id]

    def _pause_code(self, pod: KubeletPod) -> int | None:
        since = self._pauses.setdefault(pod.uid, self._loop.now)
        ack = self._folder / pod.uid
        if pod.running == PAUSE_CONTAINER and ack.exists():
            return int(ack.read_text())
        return 1 if self._loop.now - since > _PAUSE_SECONDS else None
