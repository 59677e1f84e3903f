"""Disturbances of the second cluster's nodes: its worker, which runs the tasks, and its control plane."""

import asyncio
import json
from dataclasses import replace

from poiesis_e2e.failures.case import Disturbance, Surroundings, World
from poiesis_e2e.failures.disturbances import Wait, executor_runs
from poiesis_e2e.kube import CommandError, Kube, Node, Object
from poiesis_e2e.waiting import eventually
from poiesis_lab.cluster import TWO_NODES

_MANIFESTS = "/etc/kubernetes/manifests/kube-apiserver.yaml"
_AWAY = "/etc/kubernetes/kube-apiserver.yaml"


def kubelet_restarted() -> Disturbance:
    """Restart the kubelet: it finds the executor's container running and must not start it again."""

    async def act(world: World, task_id: str) -> None:
        await executor_runs(world, task_id)
        await world.node.run("systemctl", "restart", "kubelet")

        async def healthy() -> bool:
            probe = "curl --silent --fail http://127.0.0.1:10248/healthz"
            return "ok" in await world.node.run("sh", "-c", f"{probe} || true")

        await eventually(healthy, "a kubelet that works")
        await world.node.kill_children(await _container(world, task_id), "USR1")

    return Disturbance(words="the kubelet is restarted while an executor runs", act=act)


def kubelet_away() -> Disturbance:
    """Stop the kubelet while an executor ends, so that it cannot start the next one."""

    async def act(world: World, task_id: str) -> None:
        await executor_runs(world, task_id)
        container = await _container(world, task_id)
        await world.node.run("systemctl", "stop", "kubelet")
        try:
            await world.node.kill_children(container, "USR1")

            async def ended() -> bool:
                return not await world.node.processes_with(world.marker)

            await eventually(ended, f"the end of executor 0 of task {task_id}")
        finally:
            await world.node.run("systemctl", "start", "kubelet")

    return Disturbance(words="the kubelet is down when an executor ends, and returns", act=act)


async def _container(world: World, task_id: str) -> str:
    return await world.kube.running_container(task_id, "executor-0")


def api_server_down(seconds: float) -> Disturbance:
    """Remove the static Pod of the API server, and restore it after `seconds`."""

    async def act(world: World, task_id: str) -> None:
        await executor_runs(world, task_id)
        control_plane = _control_plane(world.node)
        await control_plane.run("mv", _MANIFESTS, _AWAY)
        try:

            async def silent() -> bool:
                return not await _answers(world.kube)

            await eventually(silent, "an API server that is down")
            await asyncio.sleep(seconds)
        finally:
            await control_plane.run("mv", _AWAY, _MANIFESTS)
        await eventually(lambda: _answers(world.kube), "a response of the API server", seconds=120)

    return Disturbance(words=f"the API server is down for {seconds:.0f} s while an executor runs", act=act)


async def _answers(kube: Kube) -> bool:
    try:
        await kube.run("--request-timeout=2s", "get", "--raw", "/readyz")
    except CommandError:
        return False
    return True


def gone() -> Disturbance:
    """Pause the node: the cluster cannot distinguish this from a lost machine."""

    async def act(world: World, task_id: str) -> None:
        await executor_runs(world, task_id)
        await world.node.itself("pause")

    return Disturbance(
        words="the node is silent while an executor runs, so Kubernetes deletes the Pod", act=act
    )


def gone_for_good() -> Disturbance:
    """Pause the node and delete its Node object, as a cloud does that has removed the machine."""

    async def act(world: World, task_id: str) -> None:
        await executor_runs(world, task_id)
        await world.node.itself("pause")
        await world.kube.delete("node", world.node.container)

    return Disturbance(words="the Node object is deleted while an executor runs", act=act)


class Reboot:
    """A power cycle of the node. It hits several tasks at once, when each has reached its moment."""

    def __init__(self) -> None:
        self._parties = 0
        self._barrier: asyncio.Barrier | None = None

    def at(self, words: str, when: Wait) -> Disturbance:
        """Return the disturbance of one task, at the moment when `when` returns."""
        self._parties += 1

        async def act(world: World, task_id: str) -> None:
            await when(world, task_id)
            await self._meet(world.node)

        return Disturbance(words=f"the node is rebooted {words}", act=act)

    async def _meet(self, node: Node) -> None:
        barrier = self._barrier = self._barrier or asyncio.Barrier(self._parties)
        if await barrier.wait() == 0:
            await node.itself("kill")
            await node.itself("start")
        await barrier.wait()
        self._barrier = None


def pulls(image: str) -> Wait:
    """Wait until the kubelet pulls an image and has not reported a failure."""

    async def wait(world: World, task_id: str) -> None:
        name = (await world.kube.pod(task_id))["metadata"]["name"]

        async def look() -> bool:
            chosen = f"--field-selector=reason=Pulling,involvedObject.name={name}"
            return image in await world.kube.run("get", "events", chosen)

        await eventually(look, f"a pull of {image} for task {task_id}", seconds=120)

    return wait


_URGENT = "poiesis-e2e-urgent"


def urgent_work() -> Surroundings:
    """Create a PriorityClass above that of tasks."""

    async def begin(world: World) -> None:
        meta = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": _URGENT}}
        await world.kube.run("apply", "-f", "-", input_text=json.dumps({**meta, "value": 1000}))

    async def end(world: World) -> None:
        await world.kube.run("delete", "pod", world.marker, "--ignore-not-found", "--wait=false")
        await world.kube.run("delete", "priorityclass", _URGENT, "--ignore-not-found")

    return Surroundings(words="Pods of other applications have a higher PriorityClass", begin=begin, end=end)


def preempted() -> Disturbance:
    """Preempt the task's Pod by a Pod of the class of `urgent_work`."""

    async def act(world: World, task_id: str) -> None:
        await executor_runs(world, task_id)
        await world.kube.create(_urgent(world, _cpu(await world.kube.pod(task_id))))

    return Disturbance(words="one of them needs its node", act=act)


def _cpu(pod: Object) -> str:
    """Return the CPU request of the first executor."""
    (executor,) = (one for one in pod["spec"]["initContainers"] if one["name"] == "executor-0")
    asked: str = executor["resources"]["requests"]["cpu"]
    return asked


def _urgent(world: World, cpu: str) -> Object:
    container = {
        "name": "urgent",
        "image": world.images.busybox,
        "command": ["true"],
        "resources": {"requests": {"cpu": cpu}},
    }
    spec = {
        "priorityClassName": _URGENT,
        "nodeSelector": {"kubernetes.io/hostname": world.node.container},
        "restartPolicy": "Never",
        "containers": [container],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": world.marker}, "spec": spec}


async def repair(kube: Kube, node: Node) -> None:
    """Repair the node, and wait until it and the cluster work."""
    condition = await node.condition()
    if condition["Paused"]:
        await node.itself("unpause")
    if not condition["Running"]:
        await node.itself("start")
    if await kube.get("node", node.container) is None:  # a kubelet creates its Node when it starts
        await node.run("systemctl", "restart", "kubelet")

    async def ready() -> bool:
        nodes = await kube.find("nodes")
        return len(nodes) == len(TWO_NODES.nodes) and all(_is_ready(one) for one in nodes)

    await eventually(ready, "all nodes ready", seconds=120)
    await kube.run("rollout", "status", "daemonset", "--namespace=kube-system", "--timeout=60s")
    await kube.service.run("rollout", "status", "deployment", "--timeout=60s")


def _is_ready(node: Object) -> bool:
    conditions = {one["type"]: one["status"] for one in node["status"].get("conditions", ())}
    return conditions.get("Ready") == "True" and not node["spec"].get("taints")


def _control_plane(node: Node) -> Node:
    return replace(node, container=TWO_NODES.control_plane)
