"""Make tasks into Jobs: in every replica, a few at once; any replica can finish what another began.

Order: Job (suspended) -> ServiceAccount, Secrets, claim, all owned by it -> `submitted_at` in Postgres,
unless a cancel came first -> the Job is unsuspended -> the claim is given back. Every name derives from the
task's id and every step may be repeated, so that a replica may die after any of them.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Coroutine
from uuid import UUID

from pydantic import ValidationError

from poiesis_api import queue_db
from poiesis_api.config import TaskPodConfig
from poiesis_api.errors import StorageUnavailable
from poiesis_api.kube import Kubernetes, Manifest
from poiesis_api.limits import UNLIMITED
from poiesis_api.outages import WriteHealth
from poiesis_api.postgres import Pool
from poiesis_api.queue_db import Claim
from poiesis_api.refusals import BACKOFF, Verdict, judge, log_key
from poiesis_api.taskpod import KUEUE_QUEUE_LABEL, NoFiler, Task, TaskObjects, owned_by, task_objects
from poiesis_api.validation import field_path
from poiesis_kube.errors import KubernetesError, Refused
from poiesis_models import labels
from poiesis_models.refusals import OLD_WEBHOOK, explained
from poiesis_models.runfiles import storable
from poiesis_models.states import Ending, TesState
from poiesis_models.tes import TesTaskRequest
from poiesis_models.together import together

logger = logging.getLogger(__name__)

CANCEL_REPEAT_SECONDS = 3.0
TIDY_BATCH = 100
FINISHED_IN = 0.8  # of its claim's time, so that no two replicas work on one task
RETRY_SECONDS = 2.0
MOST_DELETIONS = 4  # of Jobs at a time, after cancels
MOST_BACK_OFF_SECONDS = 15.0  # between two looks at the queue, so that tasks start soon after an outage
STALLED_SECONDS = 30.0  # without a successful look at the queue


class Broken(Exception):
    """What the API server stored, or what the task has become, can never run."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class NotYet(KubernetesError):
    """An object of a former Job of this task is still being deleted."""


class Submitter:
    """`run` until `stop`. `wake` it when a task has been created."""

    def __init__(
        self,
        pool: Pool,
        kubernetes: Kubernetes,
        config: TaskPodConfig,
        *,
        max_active_per_owner: int = UNLIMITED,
        write_health: WriteHealth | None = None,
    ) -> None:
        self._pool = pool
        self._kubernetes = kubernetes
        self._config = config
        self._max_active_per_owner = max_active_per_owner
        self._write_health = write_health or WriteHealth(time.monotonic)
        self._claimed_at = time.monotonic()  # when a look at the queue last succeeded
        self._woken = asyncio.Event()
        self._at_work: set[asyncio.Task[None]] = set()
        self._canceling: dict[UUID, None] = {}  # in the order in which they were canceled
        self._deleting = 0
        self._submitting = 0
        self._more = False  # than were claimed may be due

    def wake(self) -> None:
        """There may be something to submit."""
        self._woken.set()

    def note(self) -> str | None:
        """Return what operators should know of the queue, for the body of /readyz."""
        seconds = time.monotonic() - self._claimed_at
        if self._submitting >= self._config.queue.max_submissions or seconds < STALLED_SECONDS:
            return None
        return f"no task could be taken from the queue for {seconds:.0f} s"

    def cancel_soon(self, task_id: UUID) -> None:
        """Delete the Job of a task that is CANCELING; `run` repeats it until the task has ended.

        A few at a time: those that wait for their turn hold nothing that requests need.
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
        """What is under way when `stop` comes is finished; what is not, by another replica."""
        await together(
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
        """Run `work` at every event and at every poll; after a failure not before its back-off has passed."""
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
        """Run `work`; log any failure and return whether there was none: no error may end the process."""
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
        return self._config.queue.lease_seconds * FINISHED_IN

    async def _submit_due(self) -> None:
        queue = self._config.queue
        free = queue.max_submissions - self._submitting
        self._more = True
        if free > 0:
            claims = await queue_db.claim_tasks(
                self._pool,
                most=free,
                max_active=queue.max_active_tasks,
                seconds=queue.lease_seconds,
                max_active_per_owner=self._max_active_per_owner,
                stalled_seconds=queue.stalled_seconds,
            )
            self._claimed_at = time.monotonic()
            self._more = len(claims) == free
            for claim in claims:
                self._submitting += 1
                self._start(self._submit(claim), f"submit {claim.id}").add_done_callback(self._submitted)

    def _submitted(self, _: "asyncio.Task[None]") -> None:
        self._submitting -= 1
        if self._more:
            self.wake()

    def _start(self, work: Coroutine[None, None, None], name: str) -> "asyncio.Task[None]":
        return self._remember(asyncio.create_task(self._guarded(work, name), name=name))

    def _remember(self, task: "asyncio.Task[None]") -> "asyncio.Task[None]":
        self._at_work.add(task)
        task.add_done_callback(self._at_work.discard)
        return task

    async def _guarded(self, work: Awaitable[None], name: str) -> None:
        """One task's trouble must not stop the others'; its claim expires and it is tried again."""
        try:
            async with asyncio.timeout(self._time_limit):
                await work
        except (StorageUnavailable, TimeoutError) as error:
            logger.warning("will be tried again", extra={"work": name, "error": repr(error)})
        except Exception:
            logger.exception("a mistake in the submitter", extra={"work": name})

    # One task

    async def _submit(self, claim: Claim) -> None:
        try:
            await self._make(claim)
        except Broken as broken:
            await self._give_up(claim.id, broken.reason, str(broken))
        except KubernetesError as error:
            await self._refused(claim, error)

    async def _make(self, claim: Claim) -> None:
        objects = self._objects(claim)
        job = await self._ensure(objects.job)
        check_job(job)
        await self._ensure_owned(objects, job["metadata"]["uid"])
        # By what is stored: another replica may have made it, or Kueue itself put it into a default queue.
        ours = KUEUE_QUEUE_LABEL not in (job["metadata"].get("labels") or {})
        if not await queue_db.mark_submitted(self._pool, claim.id, keep_claim=ours):
            await self._kubernetes.delete_job(labels.object_name(claim.id))
            await queue_db.finish_canceled(self._pool, claim.id)
        elif ours:
            await self._unsuspend(claim.id)

    def _objects(self, claim: Claim) -> TaskObjects:
        try:
            request = TesTaskRequest.model_validate_json(claim.request)
            task = Task(
                id=claim.id,
                request=request,
                recorder_token=claim.recorder_token,
                credentials=frozenset(claim.s3_credentials),
            )
            return task_objects(task, self._config)
        except NoFiler as error:
            raise Broken("NoFiler", str(error)) from error
        except ValidationError as error:
            raise Broken("InvalidTask", f"the stored task is not valid any more: {_fields(error)}") from error

    async def _ensure(self, manifest: Manifest) -> Manifest:
        try:
            return await self._kubernetes.create(manifest)
        except Refused as refusal:
            if not refusal.already_exists:
                raise
            return await self._kubernetes.read(manifest["kind"], manifest["metadata"]["name"])

    async def _ensure_owned(self, objects: TaskObjects, job_uid: str) -> None:
        made = await asyncio.gather(
            *(self._ensure(owned_by(manifest, job_uid)) for manifest in objects.owned), return_exceptions=True
        )
        errors = [result for result in made if isinstance(result, BaseException)]
        if errors:
            raise min(errors, key=_passes)  # one that is final says more
        for stored in made:
            if not isinstance(stored, BaseException):
                check_owner(stored, job_uid)

    async def _unsuspend(self, task_id: UUID) -> None:
        """The task is submitted: from here on the claim alone says that there is something left to do."""
        try:
            await self._kubernetes.unsuspend(labels.object_name(task_id))
        except KubernetesError as error:
            if isinstance(error, Refused) and error.not_found:
                # Deleted by a cancel, which the controller finishes, or by a stranger, which it reports.
                logger.info("the Job went before it could run", extra={"task": str(task_id)})
            elif judge(error) is Verdict.FINAL:
                await self._give_up(task_id, *_words(error))
                return
            else:
                logger.warning("cannot unsuspend", extra={"task": str(task_id), "error": str(error)})
                await queue_db.release_after(self._pool, task_id, RETRY_SECONDS)
                return
        await queue_db.release(self._pool, task_id)

    async def _refused(self, claim: Claim, error: KubernetesError) -> None:
        limit = self._config.queue.give_up_seconds
        if judge(error) is Verdict.FINAL or (limit is not None and claim.age_seconds > limit):
            await self._give_up(claim.id, *_words(error))
        else:
            await self._postpone(claim.id, error, claim.attempts)

    async def _postpone(self, task_id: UUID, error: KubernetesError, attempts: int) -> None:
        seconds = BACKOFF.delay(attempts)
        logger.warning("postponed", extra={"task": str(task_id), "error": str(error), "seconds": seconds})
        message = f"Kubernetes does not take the task yet and will be asked again: {error}"
        await queue_db.postpone(
            self._pool, task_id, seconds=seconds, key=log_key(error), message=storable(message)
        )
        asyncio.get_running_loop().call_later(seconds, self.wake)

    async def _give_up(self, task_id: UUID, reason: str, message: str) -> None:
        """Nothing of the task may be left that could still run."""
        logger.warning("refused", extra={"task": str(task_id), "reason": reason, "error": message})
        try:
            await self._kubernetes.delete_job(labels.object_name(task_id))
        except KubernetesError as error:
            await self._postpone(task_id, error, attempts=1)
            return
        ending = Ending(state=TesState.SYSTEM_ERROR, reason=reason, message=storable(message))
        await queue_db.finish_refused(self._pool, task_id, ending)

    # What others have left

    async def _tidy(self) -> None:
        canceling = await queue_db.canceling_tasks(
            self._pool, older_than_seconds=CANCEL_REPEAT_SECONDS, most=TIDY_BATCH
        )
        half_made = await queue_db.claim_half_made(
            self._pool, seconds=self._config.queue.lease_seconds, most=TIDY_BATCH
        )
        for task_id in canceling:
            self.cancel_soon(task_id)
        await asyncio.gather(*map(self._unsuspend, half_made))

    async def _delete_canceled(self, task_id: UUID) -> None:
        try:
            await self._kubernetes.delete_job(labels.object_name(task_id))
        except KubernetesError as error:
            logger.warning("cannot delete the Job", extra={"task": str(task_id), "error": str(error)})
            return
        await queue_db.finish_unsubmitted(self._pool, task_id)


def check_job(job: Manifest) -> None:
    """Raise NotYet or Broken if the Job, as it is stored, is not the one that was meant."""
    if job["metadata"].get("deletionTimestamp"):
        raise NotYet(f"the former Job {job['metadata']['name']} is still being deleted")
    containers = job["spec"]["template"]["spec"].get("initContainers") or []
    policies = [one.get("restartPolicy") for one in containers if one["name"] == labels.TREC_CONTAINER]
    if policies != ["Always"]:
        raise Broken("RecorderNotASidecar", f"container trec of the stored Job is no sidecar: {OLD_WEBHOOK}")


def check_owner(stored: Manifest, job_uid: str) -> None:
    """Raise NotYet if an object of the right name belongs to a Job that is gone, and so will it be."""
    metadata = stored["metadata"]
    if all(owner["uid"] != job_uid for owner in metadata.get("ownerReferences") or ()):
        raise NotYet(f"{metadata['name']} of a former Job is still being deleted")


def _passes(error: BaseException) -> bool:
    return not isinstance(error, KubernetesError) or judge(error) is Verdict.PASSING


def _fields(error: ValidationError) -> str:
    """What is wrong without the values, for this is logged and there may be signed URLs among them."""
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    return ", ".join(f"{field_path(problem['loc'])} ({problem['type']})" for problem in problems)


def _words(error: KubernetesError) -> tuple[str, str]:
    """Reason and message, the API server's own where there are any."""
    if isinstance(error, Refused):
        return error.reason, f"Kubernetes refused the task: {explained(error.message)}"
    return "Unreachable", str(error)
