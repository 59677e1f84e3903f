"""Leader election on one coordination.k8s.io/v1 Lease.

A candidate uses only its own monotonic clock: it takes the Lease when it has not seen it change for the
duration that the holder promised. A leader counts from before it sent its last successful renewal, and stops
its work after `renew` seconds, earlier than another replica can take over. Every write carries the
resourceVersion that was read, so one of two concurrent writers gets a 409.

Machines pause and calls hang, so leadership keeps order but does not protect data: every write of a leader
is conditional. docs/adr/0029 explains why this is not a library.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Protocol

from poiesis_kube.errors import KubernetesError, Refused
from poiesis_tctl.config import LeaseTimes

logger = logging.getLogger(__name__)

_Lease = Mapping[str, Any]


class LeaseApi(Protocol):
    """The part of `kube.Kube` that an election needs. Calls may raise KubernetesError, and may hang."""

    async def get_lease(self, name: str) -> _Lease: ...
    async def create_lease(self, lease: _Lease) -> _Lease: ...
    async def replace_lease(self, lease: _Lease) -> _Lease: ...


class LeaderTaskStuck(RuntimeError):
    """The leader's task did not stop when it was cancelled: only the end of the process stops it."""


class Elector:
    """Runs `work` while this process holds the Lease. `identity` must be unique: the Pod's name."""

    def __init__(self, api: LeaseApi, *, name: str, identity: str, times: LeaseTimes) -> None:
        self._api = api
        self._name = name
        self._identity = identity
        self._times = times
        self._held: _Lease | None = None  # the response to the last successful renewal
        self._seen: tuple[str, float] | None = None  # another's resourceVersion, and when it was first seen
        self.leading = False
        self._attempted_at: float | None = None  # loop time of the last attempt,
        self._connected_at: float | None = None  # and of the last one to which the API server responded

    async def run(self, work: Callable[[], Awaitable[None]], stop: asyncio.Event) -> None:
        """Be a candidate, lead, be a candidate again, until `stop`. Then release the Lease.

        Raise LeaderTaskStuck.
        """
        while not stop.is_set():
            renewed_at = asyncio.get_running_loop().time()
            if await self._try(self._acquire, self._times.renew / 2):
                await self._lead(work, stop, renewed_at)
            await self._pause(stop)

    def is_alive(self) -> bool:
        """Return whether the loop of attempts continues."""
        return self._attempted_at is None or self._is_recent(self._attempted_at)

    def is_connected(self) -> bool:
        """Return whether the API server has responded recently."""
        return self._connected_at is not None and self._is_recent(self._connected_at)

    def _is_recent(self, time: float) -> bool:
        return asyncio.get_running_loop().time() < time + 2 * self._times.lease

    async def _lead(
        self, work: Callable[[], Awaitable[None]], stop: asyncio.Event, renewed_at: float
    ) -> None:
        logger.info("acquired lease, leading", extra={"lease": self._name})
        self.leading = True
        task = asyncio.create_task(_run(work), name="leader task")
        try:
            await self._renew_until_lost(task, stop, renewed_at)
        finally:
            # Also if the elector itself is cancelled: no work outlives its leadership.
            self.leading = False
            await self._stop(task)
            await self._try(self._release, self._times.retry)
            self._held = None

    async def _renew_until_lost(
        self, task: asyncio.Task[None], stop: asyncio.Event, renewed_at: float
    ) -> None:
        """Return when the work has ended, `stop` is set, or the Lease is lost or was not renewed in time."""
        loop = asyncio.get_running_loop()
        stopped = asyncio.create_task(stop.wait(), name="stop")
        try:
            while self._held is not None and (left := renewed_at + self._times.renew - loop.time()) > 0:
                await asyncio.wait(
                    {task, stopped},
                    timeout=min(self._times.retry, left),
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if task.done() or stopped.done():
                    return
                asked_at = loop.time()
                left = renewed_at + self._times.renew - asked_at
                if await self._try(self._renew, min(left, self._times.renew / 2)):
                    renewed_at = asked_at
            logger.error("lost lease", extra={"lease": self._name})
        finally:
            stopped.cancel()

    async def _stop(self, task: asyncio.Task[None]) -> None:
        """Cancel the work and wait for it, for as long as no other replica can take the Lease."""
        task.cancel()
        await asyncio.wait({task}, timeout=self._times.lease - self._times.renew)
        if not task.done():
            raise LeaderTaskStuck(self._name)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("leader task failed", exc_info=error)

    async def _pause(self, stop: asyncio.Event) -> None:
        """Wait between two attempts, with jitter, so that candidates do not try in step."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._times.retry * random.uniform(0.8, 1.2)):  # noqa: S311
                await stop.wait()

    async def _try(self, step: Callable[[], Awaitable[bool]], seconds: float) -> bool:
        """Return the result of `step`; False if the API server refuses it, breaks off or hangs."""
        self._attempted_at = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(max(seconds, 0)):
                done = await step()
        except TimeoutError:
            logger.warning("lease request timed out", extra={"lease": self._name})
            return False
        except KubernetesError as error:
            logger.warning("lease request failed", extra={"lease": self._name, "error": str(error)})
            return False
        self._connected_at = asyncio.get_running_loop().time()
        return done

    async def _acquire(self) -> bool:
        try:
            lease = await self._api.get_lease(self._name)
        except Refused as error:
            if not error.not_found:
                raise
            self._held = await self._api.create_lease(self._with_holder({"metadata": {"name": self._name}}))
            return True
        if self._is_held_by_another(lease):
            return False
        self._held = await self._api.replace_lease(self._with_holder(lease))
        return True

    async def _renew(self) -> bool:
        """Renew the Lease. After a 409 read it again: the last write may have arrived without a response."""
        if self._held is None:
            return False
        try:
            self._held = await self._api.replace_lease(self._with_holder(self._held))
        except Refused as error:
            if not (error.conflict or error.not_found):
                raise
            return await self._renew_after_conflict()
        return True

    async def _renew_after_conflict(self) -> bool:
        """Set `_held` to None if another holds the Lease, or may take it because it was deleted."""
        try:
            lease = await self._api.get_lease(self._name)
        except Refused as error:
            if error.not_found:
                self._held = None
            raise
        if _holder(lease) != self._identity:
            self._held = None
            return False
        self._held = await self._api.replace_lease(self._with_holder(lease))
        return True

    async def _release(self) -> bool:
        """Clear the holder, so that the next leader need not wait. Refused if another replica holds it."""
        if self._held is None:
            return False
        spec = {**self._held["spec"], "holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _now()}
        await self._api.replace_lease({**self._held, "spec": spec})
        return True

    def _is_held_by_another(self, lease: _Lease) -> bool:
        now = asyncio.get_running_loop().time()
        holder = _holder(lease)
        if not holder or holder == self._identity:  # own name: left by a former container of this Pod
            return False
        version = lease["metadata"]["resourceVersion"]
        if self._seen is None or self._seen[0] != version:
            self._seen = (version, now)
        promised = (lease.get("spec") or {}).get("leaseDurationSeconds") or self._times.lease
        return now < self._seen[1] + promised

    def _with_holder(self, lease: _Lease) -> _Lease:
        spec = dict(lease.get("spec") or {})
        if spec.get("holderIdentity") != self._identity:
            spec["acquireTime"] = _now()
            spec["leaseTransitions"] = int(spec.get("leaseTransitions") or 0) + 1
        spec["holderIdentity"] = self._identity
        spec["leaseDurationSeconds"] = self._times.lease
        spec["renewTime"] = _now()
        return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", **lease, "spec": spec}


async def _run(work: Callable[[], Awaitable[None]]) -> None:
    await work()


def _holder(lease: _Lease) -> str:
    return (lease.get("spec") or {}).get("holderIdentity") or ""


def _now() -> str:
    """Return the time as a MicroTime. It is for people to read; no decision depends on it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
