"""Inject each kind of fault into the cluster."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial

import asyncpg

from poiesis_e2e.chaos.plan import Fault, Kind
from poiesis_e2e.chaos.record import Injected
from poiesis_e2e.chaos.stage import Stage
from poiesis_e2e.kube import COMPONENT_LABEL, TASK_LABEL, CommandError, Kube

_CONNECTIONS = """
SELECT pid, usename || ' of ' || datname FROM pg_stat_activity
 WHERE usename IN ('poiesis_api', 'poiesis_recorder') ORDER BY pid
"""
_CUT = "SELECT pg_terminate_backend($1)"
_UNREACHABLE_SECONDS = 5.0  # without any replica


@dataclass(frozen=True, kw_only=True)
class _Container:
    """A running container; `id` as in Pod statuses."""

    name: str
    id: str


async def inject(fault: Fault, stage: Stage) -> Injected:
    """Inject the fault. A target that has ended in the meantime is not a victim."""
    at = time.time()
    return Injected(fault=fault, at=at, victims=tuple(await _HOW[fault.kind](fault, stage)))


async def _kill_recorders(fault: Fault, stage: Stage) -> list[str]:
    running = [
        found for site in stage.sites.values() for found in await _containers(site.kube, TASK_LABEL, "trec")
    ]
    return await _killed(fault.victims(running), stage)


async def _kill(component: str, fault: Fault, stage: Stage) -> list[str]:
    selector = f"{COMPONENT_LABEL}={component}"
    running = await _containers(stage.sites[fault.site].services, selector, component)
    return await _killed(fault.victims(running), stage)


async def _delete(component: str, fault: Fault, stage: Stage) -> list[str]:
    """Delete without a grace period, as if the node had failed."""
    kube = stage.sites[fault.site].services
    pods = await kube.of_component("pods", component)
    names = [pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    hit = fault.victims(names)
    if hit:
        await kube.run("delete", "pod", *hit, "--grace-period=0", "--force", "--ignore-not-found")
    return hit


async def _without(component: str, fault: Fault, stage: Stage) -> list[str]:
    """Scale a component to zero, and wait until it is back."""
    kube = stage.sites[fault.site].services
    names = [pod["metadata"]["name"] for pod in await kube.of_component("pods", component)]
    async with kube.without(component):
        await asyncio.sleep(_UNREACHABLE_SECONDS)
    return names


async def _restart_kubelet(fault: Fault, stage: Stage) -> list[str]:
    await stage.node.run("systemctl", "restart", "kubelet")
    return [stage.node.container]


async def _cut_connections(fault: Fault, stage: Stage) -> list[str]:
    connection = await asyncpg.connect(stage.dsn)
    try:
        hit = fault.victims(await connection.fetch(_CONNECTIONS))
        return [name for pid, name in hit if await connection.fetchval(_CUT, pid)]
    finally:
        await connection.close()


async def _containers(kube: Kube, selector: str, name: str) -> list[_Container]:
    running = await kube.running_containers(selector, name)
    return [_Container(name=f"{name} of {pod}", id=container) for pod, container in running.items()]


async def _killed(containers: list[_Container], stage: Stage) -> list[str]:
    hit = []
    for container in containers:
        try:
            await stage.node.signal_container(container.id, "SIGKILL")
        except CommandError as error:
            if "not found" not in error.output and "already finished" not in error.output:
                raise
        else:
            hit.append(container.name)
    return hit


_HOW: Mapping[Kind, Callable[[Fault, Stage], Awaitable[list[str]]]] = {
    Kind.RECORDER: _kill_recorders,
    Kind.API_KILLED: partial(_kill, "api"),
    Kind.API_DELETED: partial(_delete, "api"),
    Kind.CONTROLLER_KILLED: partial(_kill, "tctl"),
    Kind.CONTROLLER_DELETED: partial(_delete, "tctl"),
    Kind.KUBELET: _restart_kubelet,
    Kind.POSTGRES: _cut_connections,
    Kind.GATEWAY_KILLED: partial(_kill, "gateway"),
    Kind.GATEWAY_UNREACHABLE: partial(_without, "gateway"),
}
