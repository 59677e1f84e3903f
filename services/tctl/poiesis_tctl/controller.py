"""The leader's work in one namespace: informers feed a queue of task ids, workers decide and act."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from uuid import UUID

from poiesis_kube.client import Object
from poiesis_kube.errors import KubernetesError
from poiesis_models.run_all import run_all
from poiesis_tctl import decide, metrics, roles
from poiesis_tctl.cache import newest
from poiesis_tctl.config import Config
from poiesis_tctl.decide import (
    Action,
    Decision,
    DeleteJob,
    DeletePod,
    EndPod,
    EnsureRole,
    ExplainNoPod,
    ExplainNoStart,
    Finish,
    Recheck,
    RequeueAttempt,
    SystemLog,
    TaskView,
)
from poiesis_tctl.eventlog import EventLog
from poiesis_tctl.informer import OF_TASKS, Informer, WatchApi, WatchState, WatchTimes
from poiesis_tctl.kube import Kube, KueueWorkloads
from poiesis_tctl.podevents import PodLine
from poiesis_tctl.reconciliation import Reconciliation
from poiesis_tctl.tasks_db import DatabaseUnavailable, TasksDb
from poiesis_tctl.workloads import slim_workload
from poiesis_tctl.workqueue import WorkQueue

logger = logging.getLogger(__name__)

_RECONCILE_RETRY_SECONDS = 10.0
_REPAIRS = (Finish, RequeueAttempt, EndPod, DeleteJob, DeletePod)


class Controller:
    """The work of one leadership in one namespace. Only what it writes outlives it.

    `slots`: limit of the tasks that are processed concurrently in all namespaces.
    """

    def __init__(
        self,
        kube: Kube,
        tasks: TasksDb,
        config: Config,
        *,
        slots: asyncio.Semaphore | None = None,
        watch_times: WatchTimes | None = None,
    ) -> None:
        self._kube = kube
        self.namespace = kube.namespace
        self._slots = slots or asyncio.Semaphore(config.workers)
        self._tasks = tasks
        self._config = config
        self._queue: WorkQueue[str] = WorkQueue()
        times = watch_times or WatchTimes(relist=config.reconcile_seconds)
        self._rounds = Reconciliation()
        self._pods = self._informer(kube, kube.path("Pod"), decide.slim_pod, times)
        self._jobs = self._informer(kube, kube.path("Job"), decide.slim_job, times)
        self._workloads: Informer | None = None
        if config.kueue:
            # Without a selector: Workloads do not carry their Job's labels.
            api = KueueWorkloads(kube)
            self._workloads = self._informer(api, "workloads", slim_workload, times, selector={})
        self._events = EventLog(kube, tasks, watch_times=times)
        self._since: dict[str, Mapping[str, float]] = {}  # triggers of a task, and when each was first seen
        self._roles: dict[str, str] = {}  # task -> uid of the Pod whose Role exists

    def _informer(
        self,
        api: WatchApi,
        collection: str,
        slim: Callable[[Object], Object],
        times: WatchTimes,
        *,
        selector: Mapping[str, str] = OF_TASKS,
    ) -> Informer:
        return Informer(
            api,
            collection,
            changed=self._changed,
            found=self._found,
            slim=slim,
            selector=selector,
            times=times,
        )

    def _changed(self, key: str) -> None:
        self._rounds.observed(key)
        self._queue.add(key)

    def _found(self, key: str) -> None:
        if key not in self._queue:
            self._rounds.found(key)
        self._queue.add(key)

    @property
    def synced(self) -> bool:
        """Whether the caches of Pods and Jobs are complete."""
        return self._pods.synced.is_set() and self._jobs.synced.is_set()

    def has_objects(self, task_id: UUID) -> bool:
        """Return whether the task has, or may have, a Pod or a Job."""
        key = str(task_id)
        return not self.synced or bool(self._pods.cache.of(key) or self._jobs.cache.of(key))

    @property
    def watches(self) -> Sequence[WatchState]:
        """Return the state of each informer."""
        informers = [one for one in (self._pods, self._jobs, self._workloads) if one is not None]
        return [*(one.state(self.namespace) for one in informers), self._events.watch(self.namespace)]

    async def run(self) -> None:
        """Work until cancelled. A failure about one task is retried; any other ends the work."""
        loops = [
            self._pods.run(),
            self._jobs.run(),
            self._events.run(),
            self._reconcile(),
        ]
        if self._workloads is not None:  # nothing waits for it: Kueue may be unavailable
            loops.append(self._workloads.run())
        try:
            await run_all([*loops, *(self._work() for _ in range(self._config.workers))])
        finally:
            self._queue.close()

    async def _when_synced(self) -> None:
        await self._pods.synced.wait()
        await self._jobs.synced.wait()

    async def _reconcile(self) -> None:
        """Check all tasks periodically, for what was missed and what never had an event.

        The informers list again with the same period, so this is a comparison with the cluster.
        """
        await self._when_synced()
        while True:
            try:
                unfinished = await self._tasks.unfinished()
            except DatabaseUnavailable as error:
                logger.warning("postgres unavailable, reconciliation delayed", extra={"error": str(error)})
                await asyncio.sleep(min(_RECONCILE_RETRY_SECONDS, self._config.reconcile_seconds))
                continue
            keys = {*self._pods.cache.tasks(), *self._jobs.cache.tasks(), *map(str, unfinished)}
            for key in keys:
                self._found(key)
            repaired = await self._rounds.round(keys)
            logger.info(
                "reconciled tasks",
                extra={"namespace": self.namespace, "tasks": len(keys), "repaired": repaired},
            )
            await asyncio.sleep(self._config.reconcile_seconds)

    async def _work(self) -> None:
        await self._when_synced()
        while True:
            key = await self._queue.get()
            only_found = self._rounds.take(key)
            try:
                async with self._slots:
                    with metrics.TASK_SECONDS.time():
                        done = await self._process(key)
            except (KubernetesError, DatabaseUnavailable) as error:
                seconds = self._failed(key, only_found=only_found)
                logger.warning(
                    "cannot process task, retrying", extra={"task": key, "error": str(error), "in": seconds}
                )
            except Exception:  # a defect that one task triggers must not stop the others
                seconds = self._failed(key, only_found=only_found)
                logger.exception("unexpected error about task, retrying", extra={"task": key, "in": seconds})
            else:
                repairs = [type(action).__name__ for action in done if isinstance(action, _REPAIRS)]
                repaired = only_found and bool(repairs)
                if repaired:
                    metrics.REPAIRED.inc()
                    logger.warning(
                        "reconciliation repaired a task the watch missed",
                        extra={"task": key, "actions": repairs},
                    )
                self._rounds.processed(key, repaired=repaired)
                self._queue.done(key)

    def _failed(self, key: str, *, only_found: bool) -> float:
        """Queue the task again. Return the seconds until then."""
        metrics.RETRIES.inc()
        if only_found:
            self._rounds.found(key)
        self._rounds.processed(key)
        return self._queue.failed(key)

    async def _process(self, key: str) -> Sequence[Action]:
        """Decide about the task and act. Return the actions that were carried out."""
        task_id = _task_id(key)
        if task_id is None:
            logger.debug("ignored label that is not a task id", extra={"label": key})
            return ()
        role_error = await self._ensure_role(key)
        view, decision = await self._decide(key, task_id)
        done = []
        for action in decision.actions:
            if not await self._act(key, task_id, action):
                break
            done.append(action)
            metrics.ACTIONS.labels(type(action).__name__).inc()
        self._forget(key, view)
        if role_error is not None:
            raise role_error
        return done

    async def _ensure_role(self, key: str) -> KubernetesError | None:
        """Create the recorder's Role, first of all because the recorder waits for it.

        Return a failure instead of raising it: it must not delay the outcome.
        """
        pod = self._pods.cache.current(key)
        wanted = None if pod is None else decide.decide_role(pod)
        if wanted is None or self._roles.get(key) == wanted.pod_uid:
            return None
        try:
            await self._make_role(wanted)
        except KubernetesError as error:
            return error
        self._roles[key] = wanted.pod_uid
        return None

    async def _make_role(self, wanted: EnsureRole) -> None:
        await self._kube.create_if_missing(roles.role(wanted))
        await self._kube.create_if_missing(roles.role_binding(wanted))

    async def _decide(self, key: str, task_id: UUID) -> tuple[TaskView, Decision]:
        view = await self._view(key, task_id)
        decision = self._decision(key, view)
        ends = any(isinstance(action, Finish | RequeueAttempt) for action in decision.actions)
        if ends and view.depends_on_absence:
            view = await self._view_again(view, key, task_id)
            decision = self._decision(key, view)
        if decision.since:
            self._since[key] = decision.since
        else:
            self._since.pop(key, None)
        return view, decision

    def _decision(self, key: str, view: TaskView) -> Decision:
        now = asyncio.get_running_loop().time()
        return decide.decide(view, self._since.get(key, {}), now, self._config.limits)

    async def _view(self, key: str, task_id: UUID) -> TaskView:
        pods, jobs = self._pods.cache, self._jobs.cache
        pod, job, gone_pod, gone_job = pods.current(key), jobs.current(key), pods.gone(key), jobs.gone(key)
        task = await self._tasks.load(task_id)
        workload = self._workload(key)
        return TaskView(task=task, pod=pod, job=job, gone_pod=gone_pod, gone_job=gone_job, workload=workload)

    def _workload(self, key: str) -> Object | None:
        return None if self._workloads is None else self._workloads.cache.current(key)

    async def _view_again(self, cached: TaskView, key: str, task_id: UUID) -> TaskView:
        """Return the view from the API server. The row is read first: a submitted task had its Job before."""
        task = await self._tasks.load(task_id)
        job = newest(decide.of_tasks(map(decide.slim_job, await self._kube.jobs_of(key))))
        pod = newest(decide.of_tasks(map(decide.slim_pod, await self._kube.pods_of(key))))
        return TaskView(
            task=task,
            pod=pod,
            job=job,
            gone_pod=_vanished(cached.pod, pod) or cached.gone_pod,
            gone_job=_vanished(cached.job, job) or cached.gone_job,
            workload=self._workload(key),
        )

    async def _act(self, key: str, task_id: UUID, action: Action) -> bool:
        """Carry out one action. Return False if the view was outdated and has to be decided again."""
        match action:
            case Finish():
                stored = await self._finish(task_id, action)
                self._queue.add(key)  # for what the task leaves behind, or because another writer was first
                return stored
            case RequeueAttempt():
                await self._tasks.requeue(task_id, action)
                self._pods.cache.forget_gone(key)
                logger.info("closed attempt", extra={"task": key, "reason": action.message})
            case EndPod() | DeleteJob() | DeletePod():
                await self._remove(key, action)
            case ExplainNoPod():
                return await self._explain(key, task_id, action)
            case ExplainNoStart():
                return await self._explain_no_start(key, task_id, action)
            case SystemLog():
                await self._tasks.add_system_log(task_id, action)
            case PodLine():
                await self._tasks.add_pod_lines(task_id, action.pod_uid, [action])
            case Recheck():
                self._queue.add_after(key, action.seconds)
        return True

    async def _remove(self, key: str, action: EndPod | DeleteJob | DeletePod) -> None:
        where = {"task": key, "reason": action.why}
        match action:
            case EndPod():
                logger.info("ending Pod", extra={**where, "pod": action.name})
                await self._kube.end_pod(action.name, action.uid)
            case DeleteJob():
                logger.info("deleting Job", extra={**where, "job": action.name})
                await self._kube.delete_job(action.name, action.uid)
            case DeletePod():
                logger.info("deleting Pod", extra={**where, "pod": action.name})
                await self._kube.delete_pod(action.name, action.uid)

    async def _finish(self, task_id: UUID, finish: Finish) -> bool:
        # One transaction: if leadership ends now, the outcome is stored or the next leader decides again.
        stored = await self._tasks.finish(task_id, finish)
        outcome = finish.outcome
        logger.info(
            "recorded outcome" if stored else "task was already ended by another writer",
            extra={"task": str(task_id), "state": outcome.state.value, "reason": outcome.reason},
        )
        return stored

    async def _explain(self, key: str, task_id: UUID, asked: ExplainNoPod) -> bool:
        events = await self._kube.events_of(asked.job_uid, reason="FailedCreate")
        if not events:
            return True
        message = max(events, key=decide.event_time).get("message") or "no message"
        actions = decide.decide_refused(asked, message)
        if any(isinstance(action, Finish) for action in actions):
            view = await self._view_again(TaskView(task=None), key, task_id)
            if asked not in self._decision(key, view).actions:
                return True  # there is a Pod now, or a cancel, which the caches will show
        return await self._act_all(key, task_id, actions)

    async def _explain_no_start(self, key: str, task_id: UUID, asked: ExplainNoStart) -> bool:
        events = await self._kube.events_of(asked.pod["metadata"]["uid"], type="Warning")
        if self._pods.cache.current(key) != asked.pod:
            return False
        return await self._act_all(key, task_id, decide.decide_no_start(asked, events))

    async def _act_all(self, key: str, task_id: UUID, actions: Sequence[Action]) -> bool:
        for action in actions:
            if not await self._act(key, task_id, action):
                return False
        return True

    def _forget(self, key: str, view: TaskView) -> None:
        """Free what no later decision needs."""
        if view.task is None or view.task.ended:
            self._pods.cache.forget_gone(key)
            self._jobs.cache.forget_gone(key)
            if self._workloads is not None:
                self._workloads.cache.forget_gone(key)
        if view.pod is None:
            self._roles.pop(key, None)


def _task_id(key: str) -> UUID | None:
    """Return the task id, None for another value of the label, which any user of the cluster may set."""
    try:
        task_id = UUID(key)
    except ValueError:
        return None
    return task_id if str(task_id) == key else None


def _vanished(cached: Object | None, live: Object | None) -> Object | None:
    """Return the object that the cache has and the API server has not."""
    if cached is None or (live is not None and live["metadata"]["uid"] == cached["metadata"]["uid"]):
        return None
    return cached
