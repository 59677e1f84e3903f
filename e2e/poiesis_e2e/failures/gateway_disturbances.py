"""Disturbances of the gateway, which receives the reports of all recorders of a release."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

import trustme

from poiesis_e2e import gateway_control
from poiesis_e2e.failures.case import Disturbance, World
from poiesis_e2e.failures.disturbances import ended, live, row_locked
from poiesis_e2e.waiting import NotInTime, eventually

_LIMIT = "SELECT rolconnlimit FROM pg_roles WHERE rolname = 'poiesis_recorder'"
_CUT = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'poiesis_recorder'"
_PRESENTED_SECONDS = 60.0
_REFUSED_SECONDS = 10.0  # long enough for a report of the executor's end, if the recorder sent one


def gateway_killed() -> Disturbance:
    """Kill all replicas of the gateway while an executor prints."""

    async def act(world: World, task_id: str) -> None:
        await live("ready\n")(world, task_id)
        await gateway_control.delete_pods(world.services)

    words = "all replicas of the gateway are killed when the recorder has reported the output so far"
    return Disturbance(words=words, act=act)


def gateway_killed_at_the_end(words: str, *, executed: bool) -> Disturbance:
    """Kill the gateway while a lock delays the last report; `executed`: Postgres executes the report."""

    async def act(world: World, task_id: str) -> None:
        await live("ready\n")(world, task_id)
        executor = await world.kube.running_container(task_id, "executor-0")
        async with row_locked(world, task_id) as blocked:
            await world.node.kill_children(executor, "USR1")
            await ended("executor-0")(world, task_id)
            await eventually(
                lambda: world.services.sql(f"SELECT pid {blocked}"), "a report that waits", seconds=20
            )
            await gateway_control.delete_pods(world.services)
            if not executed:
                await world.services.sql(f"SELECT pg_terminate_backend(pid) {blocked}")

    return Disturbance(words=f"all replicas of the gateway are killed {words}", act=act)


def gateway_away(words: str, away: Callable[[World], AbstractAsyncContextManager[None]]) -> Disturbance:
    """End the executor while `away` blocks all reports, then unblock them."""

    async def act(world: World, task_id: str) -> None:
        await live("ready\n")(world, task_id)
        executor = await world.kube.running_container(task_id, "executor-0")
        async with away(world):
            await world.node.kill_children(executor, "USR1")
            await ended("executor-0")(world, task_id)
            await asyncio.sleep(_REFUSED_SECONDS)

    return Disturbance(words=words, act=act)


def no_replicas(world: World) -> AbstractAsyncContextManager[None]:
    """Scale the gateway to zero."""
    return world.services.without("gateway")


@asynccontextmanager
async def no_database(world: World) -> AsyncIterator[None]:
    """Refuse the gateway's connections to Postgres: it returns 503."""
    limit = await world.services.sql(_LIMIT)
    await world.services.sql("ALTER ROLE poiesis_recorder CONNECTION LIMIT 0", _CUT)
    try:
        yield
    finally:
        await world.services.sql(f"ALTER ROLE poiesis_recorder CONNECTION LIMIT {limit}")


@asynccontextmanager
async def other_authority(world: World) -> AsyncIterator[None]:
    """Present a certificate for the gateway's name that another authority has signed."""
    before = await gateway_control.certificate(world.services)
    try:
        made = await gateway_control.replace_certificate(world.services, trustme.CA())
        await _presented(world, made)
        yield
    finally:
        await gateway_control.store_certificate(world.services, before)
        await _presented(world, before)


async def _presented(world: World, data: dict[str, str]) -> None:
    await eventually(
        lambda: gateway_control.presents(world.services, data),
        "the certificate at every replica",
        seconds=_PRESENTED_SECONDS,
    )


def certificate_renewed() -> Disturbance:
    """Issue another certificate of the release's own authority, and let the executor end afterwards."""

    async def act(world: World, task_id: str) -> None:
        await live("ready\n")(world, task_id)
        executor = await world.kube.running_container(task_id, "executor-0")
        authority = await gateway_control.authority(world.services)
        made = await gateway_control.replace_certificate(world.services, authority)
        with suppress(NotInTime):  # the row itself asserts it
            await _presented(world, made)
        await world.node.kill_children(executor, "USR1")

    return Disturbance(words="the certificate of the gateway is renewed while an executor runs", act=act)
