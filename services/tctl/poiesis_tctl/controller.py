"""The leader's work: two informers feed a queue of task ids, workers decide about each and act."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from uuid import UUID

from poiesis_models.together import together
from poiesis_tctl import decide, roles
from poiesis_tctl.config import Config
from poiesis_tctl.decide import (
    Action,
    Decision,
    DeleteJob,
    EndPod,
    EnsureRole,
    ExplainNoPod,
    ExplainNoStart,
    Finish,
    Recheck,
    RequeueAttempt,
    SystemLog,
    View,
)
from poiesis_tctl.eventlog import EventLog
from poiesis_tctl.informer import OF_TASKS, Informer, WatchApi, WatchTimes, WorkQueue, newest
from poiesis_tctl.kube import Kube, KubeError, KueueWorkloads, Object
from poiesis_tctl.podevents import PodLine
from poiesis_tctl.reconciliation import Reconciliation
from poiesis_tctl.tasks_db import DatabaseUnavailable, TasksDb
from poiesis_tctl.transfers import Figures, Transfers
from poiesis_tctl.workloads import slim_workload

logger = logging.getLogger(__name__)

_RECONCILE_AGAIN_SECONDS = 10.0
_LOOK_SECONDS = 15.0
_MENDING = (Finish, RequeueAttempt, EndPod, DeleteJob)


class Controller:
    """Lives as long as one leadership; nothing of it outlives that but what it wrote."""

    def __init__(
        self,
        kube: Kube,
        tasks: TasksDb,
        config: Config,
        *,
        watch_times: WatchTimes | None = None,
        look_seconds: float = _LOOK_SECONDS,
    ) -> None:
        self._kube = kube
        self._tasks = tasks
        self._config = config
        self._queue: WorkQueue[str] = WorkQueue()
        times = watch_times or WatchTimes(relist=config.reconcile_seconds)
        self._rounds = Reconciliation()
        self._pods = self._informer(kube, kube.pods_path, decide.slim_pod, times)
        self._jobs = self._informer(kube, kube.jobs_path, decide.slim_job, times)
        self._workloads: Informer | None = None
        if config.kueue:
            # Without a selector: they do not carry their Job's labels.
            api = KueueWorkloads(kube)
            self._workloads = self._informer(api, "workloads", slim_workload, times, selector={})
        self._events = EventLog(kube, tasks, watch_times=times)
        self._since: dict[str, Mapping[str, float]] = {}  # symptoms of a task, and when they were first seen
        self._roles: dict[str, str] = {}  # task -> uid of the Pod whose Role exists
        self._look_seconds = look_seconds
        self.figures: Figures | None = None  # of the last look; none yet: None

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
        self._rounds.told(key)
        self._queue.add(key)

    def _found(self, key: str) -> None:
        if key not in self._queue:
            self._rounds.found(key)
        self._queue.add(key)

    @property
    def synced(self) -> bool:
        return self._pods.synced.is_set() and self._jobs.synced.is_set()

    async def run(self) -> None:
        """Until cancelled. A worker survives what goes wrong with a task; nothing else should fail."""
        loops = [self._pods.run(), self._jobs.run(), self._events.run(), self._reconcile(), self._observe()]
        if self._workloads is not None:  # nothing waits for it: Kueue may be away
            loops.append(self._workloads.run())
        try:
            await together([*loops, *(self._work() for _ in range(self._config.workers))])
        finally:
            self._queue.close()

    async def _when_synced(self) -> None:
        await self._pods.synced.wait()
        await self._jobs.synced.wait()

    async def _reconcile(self) -> None:
        """Look at everything now and then: what was missed, and what never had an event. As often, the
        informers list anew, so that this is a comparison with the cluster."""
        await self._when_synced()
        while True:
            try:
                unfinished = await self._tasks.unfinished()
            except DatabaseUnavailable as error:
                logger.warning("cannot reconcile yet", extra={"error": str(error)})
                await asyncio.sleep(min(_RECONCILE_AGAIN_SECONDS, self._config.reconcile_seconds))
                continue
            keys = {*self._pods.cache.tasks(), *self._jobs.cache.tasks(), *map(str, unfinished)}
            for key in keys:
                self._found(key)
            mended = await self._rounds.round(keys)
            logger.info("reconciled", extra={"tasks": len(keys), "mended": mended})
            await asyncio.sleep(self._config.reconcile_seconds)

    async def _observe(self) -> None:
        """Look at Postgres now and then, for the metrics. What filers move is counted from the first look."""
        transfers = Transfers()
        while True:
            try:
                self.figures = transfers.count(await self._tasks.look())
            except DatabaseUnavailable as error:
                logger.warning("no new figures for metrics", extra={"error": str(error)})
            await asyncio.sleep(self._look_seconds)

    async def _work(self) -> None:
        await self._when_synced()
        while True:
            key = await self._queue.get()
            only_found = self._rounds.take(key)
            try:
                done = await self._process(key)
            except (KubeError, DatabaseUnavailable) as error:
                seconds = self._failed(key, only_found=only_found)
                logger.warning("again later", extra={"task": key, "error": str(error), "seconds": seconds})
            except Exception:  # one task that cannot be understood must not stop the others
                seconds = self._failed(key, only_found=only_found)
                logger.exception("cannot decide", extra={"task": key, "seconds": seconds})
            else:
                mends = [type(action).__name__ for action in done if isinstance(action, _MENDING)]
                mended = only_found and bool(mends)
                if mended:
                    logger.warning("mended what no event had told", extra={"task": key, "actions": mends})
                self._rounds.looked(key, mended=mended)
                self._queue.done(key)

    def _failed(self, key: str, *, only_found: bool) -> float:
        """The seconds until it is tried again."""
        if only_found:
            self._rounds.found(key)
        self._rounds.looked(key)
        return self._queue.failed(key)

    async def _process(self, key: str) -> Sequence[Action]:
        """What was done about the task."""
        task_id = _task_id(key)
        if task_id is None:
            logger.debug("not a task's label", extra={"task": key})
            return ()
        role_error = await self._ensure_role(key)
        view, decision = await self._decide(key, task_id)
        done = []
        for action in decision.actions:
            if not await self._act(key, task_id, action):
                break
            done.append(action)
        self._settle(key, view)
        if role_error is not None:
            raise role_error
        return done

    async def _ensure_role(self, key: str) -> KubeError | None:
        """Before anything else, for the recorder waits for it; but its failure must not hold up an ending."""
        pod = self._pods.cache.current(key)
        wanted = None if pod is None else decide.decide_role(pod)
        if wanted is None or self._roles.get(key) == wanted.pod_uid:
            return None
        try:
            await self._make_role(wanted)
        except KubeError as error:
            return error
        self._roles[key] = wanted.pod_uid
        return None

    async def _make_role(self, wanted: EnsureRole) -> None:
        await self._kube.create_role(roles.role(wanted))
        await self._kube.create_role_binding(roles.role_binding(wanted))

    async def _decide(self, key: str, task_id: UUID) -> tuple[View, Decision]:
        view = await self._view(key, task_id)
        decision = self._decision(key, view)
        ends = any(isinstance(action, Finish | RequeueAttempt) for action in decision.actions)
        if ends and view.rests_on_absence:
            view = await self._view_again(view, key, task_id)
            decision = self._decision(key, view)
        if decision.since:
            self._since[key] = decision.since
        else:
            self._since.pop(key, None)
        return view, decision

    def _decision(self, key: str, view: View) -> Decision:
        now = asyncio.get_running_loop().time()
        return decide.decide(view, self._since.get(key, {}), now, self._config.limits)

    async def _view(self, key: str, task_id: UUID) -> View:
        pods, jobs = self._pods.cache, self._jobs.cache
        pod, job, gone_pod, gone_job = pods.current(key), jobs.current(key), pods.gone(key), jobs.gone(key)
        task = await self._tasks.load(task_id)
        workload = self._workload(key)
        return View(task=task, pod=pod, job=job, gone_pod=gone_pod, gone_job=gone_job, workload=workload)

    def _workload(self, key: str) -> Object | None:
        return None if self._workloads is None else self._workloads.cache.current(key)

    async def _view_again(self, cached: View, key: str, task_id: UUID) -> View:
        """The row first: a task that is submitted in it had its Job before."""
        task = await self._tasks.load(task_id)
        job = newest(map(decide.slim_job, await self._kube.jobs_of(key)))
        pod = newest(map(decide.slim_pod, await self._kube.pods_of(key)))
        return View(
            task=task,
            pod=pod,
            job=job,
            gone_pod=_vanished(cached.pod, pod) or cached.gone_pod,
            gone_job=_vanished(cached.job, job) or cached.gone_job,
            workload=self._workload(key),
        )

    async def _act(self, key: str, task_id: UUID, action: Action) -> bool:
        """False if the view was outdated: decide again."""
        match action:
            case Finish():
                stored = await self._finish(task_id, action)
                self._queue.add(key)  # what it leaves behind, or who knew more
                return stored
            case RequeueAttempt():
                await self._tasks.requeue(task_id, action)
                self._pods.cache.forget_gone(key)
                logger.info("attempt over", extra={"task": key, "why": action.message})
            case EndPod():
                logger.info("ending Pod", extra={"task": key, "pod": action.name, "why": action.why})
                await self._kube.end_pod(action.name, action.uid)
            case DeleteJob():
                logger.info("deleting Job", extra={"task": key, "job": action.name, "why": action.why})
                await self._kube.delete_job(action.name, action.uid)
            case ExplainNoPod():
                return await self._explain(key, task_id, action)
            case ExplainNoStart():
                return await self._explain_no_start(key, task_id, action)
            case SystemLog():
                await self._tasks.say(task_id, action)
            case PodLine():
                await self._tasks.tell(task_id, action.pod_uid, [action])
            case Recheck():
                self._queue.add_after(key, action.seconds)
        return True

    async def _finish(self, task_id: UUID, finish: Finish) -> bool:
        # One transaction: if leadership ends now, it is stored or the next leader decides again.
        stored = await self._tasks.finish(task_id, finish)
        ending = finish.ending
        logger.info(
            "task ended" if stored else "somebody else knows more",
            extra={"task": str(task_id), "state": ending.state.value, "reason": ending.reason},
        )
        return stored

    async def _explain(self, key: str, task_id: UUID, asked: ExplainNoPod) -> bool:
        events = await self._kube.events_of(asked.job_uid, reason="FailedCreate")
        if not events:
            return True
        message = max(events, key=decide.event_time).get("message") or "no message"
        actions = decide.decide_refused(asked, message)
        if any(isinstance(action, Finish) for action in actions):
            view = await self._view_again(View(task=None), key, task_id)
            if asked not in self._decision(key, view).actions:
                return True  # there is a Pod now, or a cancel; the caches will tell
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

    def _settle(self, key: str, view: View) -> None:
        """Forget what no later decision needs."""
        if view.task is None or view.task.ended:
            self._pods.cache.forget_gone(key)
            self._jobs.cache.forget_gone(key)
            if self._workloads is not None:
                self._workloads.cache.forget_gone(key)
        if view.pod is None:
            self._roles.pop(key, None)


def _task_id(key: str) -> UUID | None:
    """None for what is no task id as labels have it: anybody may put a label on a Pod."""
    try:
        task_id = UUID(key)
    except ValueError:
        return None
    return task_id if str(task_id) == key else None


def _vanished(cached: Object | None, live: Object | None) -> Object | None:
    """The object that the cache still knows and the API server does not."""
    if cached is None or (live is not None and live["metadata"]["uid"] == cached["metadata"]["uid"]):
        return None
    return cached
