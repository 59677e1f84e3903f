"""Leader election on one coordination.k8s.io/v1 Lease.

A candidate trusts its own monotonic clock only: it takes the Lease when it has not *seen* it change for the
duration that the holder promised. A leader counts the other way, from before it sent its last good renewal,
and stops its work after `renew` seconds, which is earlier than anybody can take over. Every write carries
the resourceVersion that was read, so of two that try one gets a 409.

Clocks stop with machines and calls hang, so leadership is for order, not for safety: what a leader writes is
conditional anyway.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Protocol

from poiesis_tctl.config import LeaseTimes
from poiesis_tctl.kube import CONFLICT, NOT_FOUND, KubeError

logger = logging.getLogger(__name__)

_Lease = Mapping[str, Any]


class LeaseApi(Protocol):
    """The part of `kube.Kube` that an election needs. Calls may raise KubeError, and may hang."""

    async def get_lease(self, name: str) -> _Lease: ...
    async def create_lease(self, lease: _Lease) -> _Lease: ...
    async def replace_lease(self, lease: _Lease) -> _Lease: ...


class WorkWouldNotStop(RuntimeError):
    """The leader's work ignored its cancellation: only the end of the process makes sure that it ends."""


class Elector:
    """Runs `work` while this process holds the Lease. `identity` must be unique: the Pod's name."""

    def __init__(self, api: LeaseApi, *, name: str, identity: str, times: LeaseTimes) -> None:
        self._api = api
        self._name = name
        self._identity = identity
        self._times = times
        self._mine: _Lease | None = None  # as the API server answered to the last good renewal
        self._seen: tuple[str, float] | None = None  # another's resourceVersion, and when it was first seen
        self.leading = False
        self._tried: float | None = None  # loop time of the last try,
        self._answered: float | None = None  # and of the last one that the API server answered with sense

    async def run(self, work: Callable[[], Awaitable[None]], stop: asyncio.Event) -> None:
        """Until `stop`: be a candidate, lead, be a candidate again. The Lease is given back at the end.

        Raise WorkWouldNotStop.
        """
        while not stop.is_set():
            renewed_at = asyncio.get_running_loop().time()
            if await self._try(self._acquire, self._times.renew / 2):
                await self._lead(work, stop, renewed_at)
            await self._pause(stop)

    def is_alive(self) -> bool:
        """The loop turns."""
        return self._tried is None or self._is_recent(self._tried)

    def is_answered(self) -> bool:
        """The API server is there."""
        return self._answered is not None and self._is_recent(self._answered)

    def _is_recent(self, time: float) -> bool:
        return asyncio.get_running_loop().time() < time + 2 * self._times.lease

    async def _lead(
        self, work: Callable[[], Awaitable[None]], stop: asyncio.Event, renewed_at: float
    ) -> None:
        logger.info("leading", extra={"lease": self._name})
        self.leading = True
        task = asyncio.create_task(_run(work), name="leader's work")
        try:
            await self._renew_until_lost(task, stop, renewed_at)
        finally:
            # Also where the elector itself is cancelled: no work outlives its leadership.
            self.leading = False
            await self._end(task)
            await self._try(self._release, self._times.retry)
            self._mine = None

    async def _renew_until_lost(
        self, task: asyncio.Task[None], stop: asyncio.Event, renewed_at: float
    ) -> None:
        """Return when the work has ended, `stop` is set, or the Lease is lost or not renewed in time."""
        loop = asyncio.get_running_loop()
        stopped = asyncio.create_task(stop.wait(), name="stop")
        try:
            while self._mine is not None and (left := renewed_at + self._times.renew - loop.time()) > 0:
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
            logger.error("leadership lost", extra={"lease": self._name})
        finally:
            stopped.cancel()

    async def _end(self, task: asyncio.Task[None]) -> None:
        """Cancel the work and wait for it; it has as long as nobody else can have the Lease."""
        task.cancel()
        await asyncio.wait({task}, timeout=self._times.lease - self._times.renew)
        if not task.done():
            raise WorkWouldNotStop(self._name)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("the leader's work failed", exc_info=error)

    async def _pause(self, stop: asyncio.Event) -> None:
        """Jittered, so that candidates do not try in step."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._times.retry * random.uniform(0.8, 1.2)):  # noqa: S311
                await stop.wait()

    async def _try(self, step: Callable[[], Awaitable[bool]], seconds: float) -> bool:
        """Whatever the API server does (refuse, break off, hang) is a no."""
        self._tried = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(max(seconds, 0)):
                done = await step()
        except TimeoutError:
            logger.warning("the API server does not answer about the lease", extra={"lease": self._name})
            return False
        except KubeError as error:
            logger.warning("the lease could not be used", extra={"lease": self._name, "error": str(error)})
            return False
        self._answered = asyncio.get_running_loop().time()
        return done

    async def _acquire(self) -> bool:
        try:
            lease = await self._api.get_lease(self._name)
        except KubeError as error:
            if error.status != NOT_FOUND:
                raise
            self._mine = await self._api.create_lease(self._taken({"metadata": {"name": self._name}}))
            return True
        if self._is_held_by_another(lease):
            return False
        self._mine = await self._api.replace_lease(self._taken(lease))
        return True

    async def _renew(self) -> bool:
        """After a 409 the Lease is read again: the last write may have arrived though its answer did not."""
        if self._mine is None:
            return False
        try:
            self._mine = await self._api.replace_lease(self._taken(self._mine))
        except KubeError as error:
            if error.status not in {CONFLICT, NOT_FOUND}:
                raise
            return await self._renew_anew()
        return True

    async def _renew_anew(self) -> bool:
        """Sets `_mine` to None if somebody else holds the Lease, or may take it because it is gone."""
        try:
            lease = await self._api.get_lease(self._name)
        except KubeError as error:
            if error.status == NOT_FOUND:
                self._mine = None
            raise
        if _holder(lease) != self._identity:
            self._mine = None
            return False
        self._mine = await self._api.replace_lease(self._taken(lease))
        return True

    async def _release(self) -> bool:
        """Say that nobody holds it, so that another need not wait. Refused if another has it already."""
        if self._mine is None:
            return False
        spec = {**self._mine["spec"], "holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _now()}
        await self._api.replace_lease({**self._mine, "spec": spec})
        return True

    def _is_held_by_another(self, lease: _Lease) -> bool:
        now = asyncio.get_running_loop().time()
        holder = _holder(lease)
        if not holder or holder == self._identity:  # own name: what a former container of this Pod left
            return False
        version = lease["metadata"]["resourceVersion"]
        if self._seen is None or self._seen[0] != version:
            self._seen = (version, now)
        promised = (lease.get("spec") or {}).get("leaseDurationSeconds") or self._times.lease
        return now < self._seen[1] + promised

    def _taken(self, lease: _Lease) -> _Lease:
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
    """MicroTime; for people to read. No decision rests on it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
