"""Create the Jobs of queued tasks, a few at a time in every replica. Any replica can continue for another.

Order: Job (suspended) -> ServiceAccount, Secrets and PersistentVolumeClaim, owned by the Job ->
`submitted_at` in Postgres, unless the task was canceled -> unsuspend the Job -> release the lease. All names
derive from the task's id, those of Secrets also from a nonce that is a label of the Job. Every step can be
repeated, so a replica may die after any of them.
"""

import asyncio
import logging
import random
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine
from uuid import UUID

from pydantic import ValidationError

from poiesis_api import metrics, queue_db
from poiesis_api.config import ConfigError, Queue, TaskPodConfig
from poiesis_api.errors import StorageUnavailable
from poiesis_api.gateway_ca import gateway_ca
from poiesis_api.kube import Cluster, Kubernetes, Manifest
from poiesis_api.limits import UNLIMITED
from poiesis_api.outages import WriteHealth
from poiesis_api.pace import Pace
from poiesis_api.postgres import Pool
from poiesis_api.queue_db import JobPlace, Lease
from poiesis_api.recorder_files import recorder_postgres
from poiesis_api.refusals import BACKOFF, delay_of, is_retryable, log_key
from poiesis_api.taskpod import KUEUE_QUEUE_LABEL, NoFiler, Task, TaskObjects, owned_by, task_objects
from poiesis_api.validation import field_path
from poiesis_kube.errors import KubernetesError, Refused
from poiesis_models import labels
from poiesis_models.refusals import OLD_WEBHOOK, explained
from poiesis_models.run_all import run_all
from poiesis_models.runfiles import sanitized
from poiesis_models.states import TaskOutcome, TesState
from poiesis_models.tes import TesTaskRequest

logger = logging.getLogger(__name__)

CANCEL_REPEAT_SECONDS = 3.0
TIDY_BATCH = 100
TIME_SHARE = 0.8  # of a lease's time, so that no two replicas work on one task
MOST_DELETIONS = 4  # Jobs deleted at a time, after cancels
MOST_BACK_OFF_SECONDS = 15.0  # between two attempts to lease tasks, so that tasks start soon after an outage
STALLED_SECONDS = 30.0  # without a successful attempt to lease tasks


class Unrunnable(Exception):
    """The task, or the Job as stored by the API server, can never run."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class StillDeleting(KubernetesError):
    """An object of a former Job of this task is still being deleted."""


def pace_of(queue: Queue) -> Pace:
    """Return a pace within the bounds of the configuration."""
    return Pace(
        time.monotonic,
        least=queue.min_submissions,
        most=queue.max_submissions,
        slow_seconds=queue.slow_answer_seconds,
    )


class Submitter:
    """Submits queued tasks: `run` it until `stop`, `wake` it when a task has been created."""

    def __init__(
        self,
        pool: Pool,
        cluster: Cluster,
        config: TaskPodConfig,
        *,
        max_active_per_owner: int = UNLIMITED,
        write_health: WriteHealth | None = None,
        pace: Pace | None = None,
    ) -> None:
        self._pool = pool
        self._cluster = cluster
        self._config = config
        self._max_active_per_owner = max_active_per_owner
        self._write_health = write_health or WriteHealth(time.monotonic)
        self._pace = pace or pace_of(config.queue)
        self._read_at = time.monotonic()  # when the queue was last read, or needed no reading
        self._woken = asyncio.Event()
        self._at_work: set[asyncio.Task[None]] = set()
        self._canceling: dict[UUID, None] = {}  # in the order in which they were canceled
        self._deleting = 0
        self._more = False  # whether more tasks may be due than were leased

    def wake(self) -> None:
        """Look for tasks to submit now."""
        self._woken.set()

    def note(self) -> str | None:
        """Return a problem of the queue for the body of /readyz, or None."""
        seconds = time.monotonic() - self._read_at
        if seconds < STALLED_SECONDS:
            return None
        return f"the queue has not been read for {seconds:.0f} s"

    def cancel_soon(self, task_id: UUID) -> None:
        """Delete the Job of a task that is CANCELING; `run` repeats it until the task has ended.

        Only a few at a time, so that cancels do not use up connections that requests need.
        """
        self._canceling.setdefault(task_id)
        if self._deleting < MOST_DELETIONS:
            self._deleting += 1
            self._remember(asyncio.create_task(self._delete_in_turn(), name="cancel"))

    async def _delete_in_turn(self) -> None:
        try:
            while self._canceling:
                task_id = next(iter(self._canceling))
                del self._canceling[task_id]
                await self._guarded(self._delete_canceled(task_id), f"cancel {task_id}")
        finally:
            self._deleting -= 1

    async def run(self, stop: asyncio.Event) -> None:
        """Submit tasks until `stop`, then finish those in progress. Other replicas submit the rest."""
        await run_all(
            [
                self._repeat(self._submit_due, stop, self._woken),
                self._repeat(self._tidy, stop, asyncio.Event()),
            ]
        )
        if self._at_work:
            await asyncio.wait(self._at_work, timeout=self._time_limit)

    async def _repeat(
        self, work: Callable[[], Awaitable[None]], stop: asyncio.Event, woken: asyncio.Event
    ) -> None:
        """Run `work` at every event and every poll interval; after a failure, wait for the back-off first."""
        failures = 0
        stopped = asyncio.ensure_future(stop.wait())
        while not stop.is_set():
            woken.clear()
            failures = 0 if await self._survived(work) else failures + 1
            events = {stopped}
            if failures:
                pause = min(BACKOFF.delay(failures), MOST_BACK_OFF_SECONDS)
            else:
                pause = self._config.queue.poll_seconds * random.uniform(0.8, 1.2)  # noqa: S311
                events.add(asyncio.ensure_future(woken.wait()))
            await asyncio.wait(events, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
            for event in events - {stopped}:
                event.cancel()
        stopped.cancel()

    async def _survived(self, work: Callable[[], Awaitable[None]]) -> bool:
        """Run `work` and return whether it succeeded; failures are logged and never end the process."""
        try:
            await work()
        except StorageUnavailable as error:
            self._write_health.failed(error.outage)
            logger.warning(
                "postgres unavailable, retrying",
                extra={"outage": error.outage.name, "error": str(error.__cause__)},
            )
        except Exception:
            logger.exception("unexpected error in the queue, retrying")
        else:
            return True
        return False

    @property
    def _time_limit(self) -> float:
        return self._config.queue.lease_seconds * TIME_SHARE

    async def _submit_due(self) -> None:
        queue = self._config.queue
        most = self._pace.to_lease()
        self._more = True
        if most > 0:
            leases = await queue_db.lease_tasks(
                self._pool,
                most=most,
                max_active=queue.max_active_tasks,
                seconds=queue.lease_seconds,
                max_active_per_owner=self._max_active_per_owner,
                stalled_seconds=queue.stalled_seconds,
                namespace=self._config.tasks.namespace,
            )
            self._more = len(leases) == most
            for lease in leases:
                self._pace.begin()
                self._start(self._submit(lease), f"submit {lease.id}").add_done_callback(self._submitted)
        self._read_at = time.monotonic()

    def _submitted(self, _: "asyncio.Task[None]") -> None:
        self._pace.end()
        if self._more:
            self.wake()

    def _start(self, work: Coroutine[None, None, None], name: str) -> "asyncio.Task[None]":
        return self._remember(asyncio.create_task(self._guarded(work, name), name=name))

    def _remember(self, task: "asyncio.Task[None]") -> "asyncio.Task[None]":
        self._at_work.add(task)
        task.add_done_callback(self._at_work.discard)
        return task

    async def _guarded(self, work: Awaitable[None], name: str) -> None:
        """Log a task's failure, so that other tasks continue; it is retried when its lease expires."""
        try:
            async with asyncio.timeout(self._time_limit):
                await work
        except (StorageUnavailable, TimeoutError, ConfigError) as error:
            logger.warning("work failed, retrying later", extra={"work": name, "error": repr(error)})
        except Exception:
            logger.exception("unhandled exception in submitter", extra={"work": name})

    # One task

    async def _submit(self, lease: Lease) -> None:
        try:
            with metrics.SUBMISSION_SECONDS.time():
                await self._create_objects(lease)
        except Unrunnable as error:
            await self._give_up(lease, error.reason, str(error))
        except KubernetesError as error:
            await self._handle_rejection(lease, error)

    async def _create_objects(self, lease: Lease) -> None:
        kubernetes = self._cluster.namespace(lease.namespace)
        nonce = secrets.token_hex(labels.NONCE_CHARACTERS // 2)
        objects = self._objects(lease, nonce)
        job = await _ensure(kubernetes, objects.job)
        check_job(job)
        # As stored, since another replica may have created it, or Kueue may have put it into a default queue.
        stored = job["metadata"].get("labels") or {}
        if labels.NONCE_LABEL not in stored:
            await kubernetes.delete_job(labels.object_name(lease.id))
            raise StillDeleting(f"the Job {job['metadata']['name']} of an earlier release is deleted first")
        if stored[labels.NONCE_LABEL] != nonce:
            objects = self._objects(lease, stored[labels.NONCE_LABEL])
        await _ensure_owned(kubernetes, objects, job["metadata"]["uid"])
        ours = KUEUE_QUEUE_LABEL not in stored
        if not await queue_db.mark_submitted(self._pool, lease.id, keep_lease=ours):
            await kubernetes.delete_job(labels.object_name(lease.id))
            await queue_db.finish_canceled(self._pool, lease.id)
            metrics.SUBMISSIONS.labels("canceled").inc()
            return
        metrics.SUBMISSIONS.labels("submitted").inc()
        logger.info("submitted task", extra={"task": str(lease.id), "attempt": lease.attempts})
        if ours:
            await self._unsuspend(lease)

    def _objects(self, lease: Lease, nonce: str) -> TaskObjects:
        try:
            request = TesTaskRequest.model_validate_json(lease.request)
            task = Task(
                id=lease.id,
                request=request,
                nonce=nonce,
                recorder_token=lease.recorder_token,
                credentials=frozenset(lease.s3_credentials),
                gateway_ca=gateway_ca(self._config),
                postgres=recorder_postgres(self._config),
            )
            return task_objects(task, self._config)
        except NoFiler as error:
            raise Unrunnable("NoFiler", str(error)) from error
        except ValidationError as error:
            message = f"the stored task is no longer valid: {_fields(error)}"
            raise Unrunnable("InvalidTask", message) from error

    async def _unsuspend(self, task: Lease | JobPlace) -> None:
        """Unsuspend the Job of a submitted task, then release the lease, the record of this step."""
        task_id = task.id
        try:
            await self._cluster.namespace(task.namespace).unsuspend(labels.object_name(task_id))
        except KubernetesError as error:
            if isinstance(error, Refused) and error.not_found:
                # Deleted by a cancel or from outside; the controller records either.
                logger.info("job was deleted before it could run", extra={"task": str(task_id)})
            elif not is_retryable(error):
                await self._give_up(task, *_reason_and_message(error))
                return
            else:
                seconds = delay_of(error, attempts=1)
                logger.warning(
                    "cannot unsuspend job, retrying",
                    extra={"task": str(task_id), "error": str(error), "seconds": seconds},
                )
                await queue_db.release_after(self._pool, task_id, seconds)
                return
        await queue_db.release(self._pool, task_id)

    async def _handle_rejection(self, lease: Lease, error: KubernetesError) -> None:
        metrics.refused(error)
        limit = self._config.queue.give_up_seconds
        if not is_retryable(error) or (limit is not None and lease.age_seconds > limit):
            await self._give_up(lease, *_reason_and_message(error))
        else:
            await self._postpone(lease.id, error, lease.attempts)

    async def _postpone(self, task_id: UUID, error: KubernetesError, attempts: int) -> None:
        seconds = delay_of(error, attempts)
        metrics.SUBMISSIONS.labels("postponed").inc()
        logger.warning(
            "submission postponed",
            extra={
                "task": str(task_id),
                "error": str(error),
                "seconds": seconds,
                "concurrent": self._pace.limit,
            },
        )
        message = f"Kubernetes rejected the task, retrying: {error}"
        await queue_db.postpone(
            self._pool, task_id, seconds=seconds, key=log_key(error), message=sanitized(message)
        )
        asyncio.get_running_loop().call_later(seconds, self.wake)

    async def _give_up(self, task: Lease | JobPlace, reason: str, message: str) -> None:
        """Delete the task's Job, then record SYSTEM_ERROR: no part of the task may run after that."""
        task_id = task.id
        logger.warning("submission failed", extra={"task": str(task_id), "reason": reason, "error": message})
        try:
            await self._cluster.namespace(task.namespace).delete_job(labels.object_name(task_id))
        except KubernetesError as error:
            await self._postpone(task_id, error, attempts=1)
            return
        outcome = TaskOutcome(state=TesState.SYSTEM_ERROR, reason=reason, message=sanitized(message))
        await queue_db.finish_rejected(self._pool, task_id, outcome)
        metrics.SUBMISSIONS.labels("failed").inc()

    # Work that other replicas have left

    async def _tidy(self) -> None:
        canceling = await queue_db.canceling_tasks(
            self._pool, older_than_seconds=CANCEL_REPEAT_SECONDS, most=TIDY_BATCH
        )
        half_submitted = await queue_db.lease_half_submitted(
            self._pool, seconds=self._config.queue.lease_seconds, most=self._pace.limit
        )
        for task_id in canceling:
            self.cancel_soon(task_id)
        await asyncio.gather(*map(self._unsuspend, half_submitted))

    async def _delete_canceled(self, task_id: UUID) -> None:
        kubernetes = self._cluster.namespace(await queue_db.namespace_of(self._pool, task_id))
        try:
            await kubernetes.delete_job(labels.object_name(task_id))
        except KubernetesError as error:
            logger.warning("cannot delete job, retrying", extra={"task": str(task_id), "error": str(error)})
            return
        await queue_db.finish_unsubmitted(self._pool, task_id)


async def _ensure(kubernetes: Kubernetes, manifest: Manifest) -> Manifest:
    """Create an object; return it, or the existing one as it is stored.

    An existing Secret is not read, which would need the right to read all Secrets: its name contains the
    Job's nonce, so only a submission of the same Job can have created it.
    """
    try:
        return await kubernetes.create(manifest)
    except Refused as refusal:
        if not refusal.already_exists:
            raise
    if manifest["kind"] == "Secret":
        return manifest
    return await kubernetes.read(manifest["kind"], manifest["metadata"]["name"])


async def _ensure_owned(kubernetes: Kubernetes, objects: TaskObjects, job_uid: str) -> None:
    made = await asyncio.gather(
        *(_ensure(kubernetes, owned_by(manifest, job_uid)) for manifest in objects.owned),
        return_exceptions=True,
    )
    errors = [result for result in made if isinstance(result, BaseException)]
    if errors:
        raise min(errors, key=_may_succeed_later)  # a permanent error is more informative
    for stored in made:
        if not isinstance(stored, BaseException):
            check_owner(stored, job_uid)


def check_job(job: Manifest) -> None:
    """Raise StillDeleting or Unrunnable if the stored Job is not the one that was sent."""
    if job["metadata"].get("deletionTimestamp"):
        raise StillDeleting(f"the former Job {job['metadata']['name']} is still being deleted")
    containers = job["spec"]["template"]["spec"].get("initContainers") or []
    policies = [one.get("restartPolicy") for one in containers if one["name"] == labels.TREC_CONTAINER]
    if policies != ["Always"]:
        message = f"container trec of the stored Job is not a sidecar: {OLD_WEBHOOK}"
        raise Unrunnable("RecorderNotASidecar", message)


def check_owner(stored: Manifest, job_uid: str) -> None:
    """Raise StillDeleting if an object belongs to a former Job, with which Kubernetes deletes it."""
    metadata = stored["metadata"]
    if all(owner["uid"] != job_uid for owner in metadata.get("ownerReferences") or ()):
        raise StillDeleting(f"{metadata['name']} of a former Job is still being deleted")


def _may_succeed_later(error: BaseException) -> bool:
    return not isinstance(error, KubernetesError) or is_retryable(error)


def _fields(error: ValidationError) -> str:
    """Return the invalid fields without their values, which may contain signed URLs."""
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    return ", ".join(f"{field_path(problem['loc'])} ({problem['type']})" for problem in problems)


def _reason_and_message(error: KubernetesError) -> tuple[str, str]:
    """Return the API server's reason and message, or those of the failed connection."""
    if isinstance(error, Refused):
        return error.reason, f"Kubernetes rejected the task: {explained(error.message)}"
    return "Unreachable", str(error)
