"""kubectl and the node, for tests: JSON in and out, without blocking the event loop.

Everything works on one namespace. What only the node knows (processes, signals) goes through `docker exec`.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from poiesis_e2e.waiting import eventually

Object = dict[str, Any]
TASK_LABEL = "poiesis.io/task"
COMPONENT_LABEL = "app.kubernetes.io/component"


class CommandRefused(RuntimeError):
    """A command ended with an error."""

    def __init__(self, argv: Sequence[str], code: int, output: str) -> None:
        super().__init__(f"`{' '.join(argv)}` ended with {code}: {output.strip()[-4000:]}")
        self.code = code
        self.output = output


async def run(*argv: str, input_text: str | None = None) -> str:
    """What a program printed, or CommandRefused. It is ended if the caller is cancelled."""
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.PIPE if input_text is not None else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await process.communicate(input_text.encode() if input_text is not None else None)
    except asyncio.CancelledError:
        process.kill()
        await process.communicate()  # wait() would leave its pipes open behind it
        raise
    if process.returncode:
        raise CommandRefused(
            argv, process.returncode, out.decode(errors="replace") + err.decode(errors="replace")
        )
    return out.decode(errors="replace")


@dataclass(frozen=True, kw_only=True)
class Node:
    """The kind node: a container in which every Pod's processes are visible."""

    docker: str
    container: str

    async def run(self, *argv: str) -> str:
        """Run a program on the node."""
        return await run(self.docker, "exec", self.container, *argv)

    async def itself(self, verb: str) -> None:
        """What docker can do to the machine: `kill` (its power is gone), `start`, `pause`, `unpause`."""
        await run(self.docker, verb, self.container)

    async def host_address(self) -> str:
        """This machine's, in docker's network: the node's way out."""
        route = await self.run("ip", "route", "show", "default")
        return route.split()[2]

    async def condition(self) -> Object:
        """Docker's word: `Running` and `Paused` are in it."""
        form = "{{json .State}}"
        state: Object = json.loads(
            await run(self.docker, "container", "inspect", "--format", form, self.container)
        )
        return state

    async def signal_container(self, container_id: str, signal: str) -> None:
        """Send a signal to a container's first process; `container_id` as Pod statuses have it."""
        await self.run(
            "ctr", "--namespace", "k8s.io", "task", "kill", "--signal", signal, _bare(container_id)
        )

    async def kill_children(self, container_id: str, signal: str = "KILL") -> None:
        """A signal to what a container's first process has started."""
        await self.run("pkill", f"-{signal}", "-P", str(await self.pid_of(container_id)))

    async def processes_with(self, marker: str) -> list[int]:
        """Processes whose command line has `marker` (which the search's own does not hold in one piece)."""
        head, tail = marker[:1], marker[1:]
        script = f"for f in /proc/[0-9]*/cmdline; do grep -qs -- '[{head}]{tail}' $f && echo $f; done; true"
        found = await self.run("sh", "-c", script)
        return [int(line.split("/")[2]) for line in found.split()]

    async def pid_of(self, container_id: str) -> int:
        """The node's process id of a container's first process."""
        listing = await self.run("ctr", "--namespace", "k8s.io", "task", "ls")
        for line in listing.splitlines():
            words = line.split()
            if words[0] == _bare(container_id):
                return int(words[1])
        raise LookupError(f"no running container {container_id}")


@dataclass(frozen=True, kw_only=True)
class Kube:
    """kubectl for one namespace."""

    kubectl: Path
    kubeconfig: Path
    namespace: str

    async def run(self, *arguments: str, input_text: str | None = None) -> str:
        """What `kubectl -n <namespace> …` printed."""
        return await run(
            str(self.kubectl),
            "--kubeconfig",
            str(self.kubeconfig),
            "--namespace",
            self.namespace,
            *arguments,
            input_text=input_text,
        )

    async def get(self, kind: str, name: str) -> Object | None:
        """One object; None if there is none."""
        text = await self.run("get", kind, name, "--ignore-not-found", "-o", "json")
        found: Object | None = json.loads(text) if text.strip() else None
        return found

    async def find(self, kinds: str, selector: str | None = None) -> list[Object]:
        """Objects of the comma-separated `kinds`."""
        chosen = ["--selector", selector] if selector else []
        answer: Object = json.loads(await self.run("get", kinds, *chosen, "-o", "json"))
        items: list[Object] = answer["items"]
        return items

    async def of_task(self, kinds: str, task_id: str) -> list[Object]:
        """Objects of a task, by its label."""
        return await self.find(kinds, f"{TASK_LABEL}={task_id}")

    async def pod(self, task_id: str) -> Object:
        """The task's one Pod, waited for."""

        async def look() -> Object | None:
            pods = await self.of_task("pods", task_id)
            return pods[0] if pods else None

        return await eventually(look, f"a Pod of task {task_id}")

    async def ended_pod(self, task_id: str, *, seconds: float = 60) -> Object:
        """The task's Pod when the kubelet has said how everything in it ended."""

        async def look() -> Object | None:
            pod = await self.pod(task_id)
            return pod if pod["status"]["phase"] in {"Succeeded", "Failed"} else None

        return await eventually(look, f"the end of the Pod of task {task_id}", seconds=seconds)

    async def running_container(self, task_id: str, container: str, *, seconds: float = 300) -> str:
        """The id of a container of the task's Pod once it runs."""

        async def look() -> str | None:
            status = container_status(await self.pod(task_id), container)
            return status["containerID"] if status and status["state"].get("running") else None

        return await eventually(look, f"container {container} of task {task_id} running", seconds=seconds)

    async def running_containers(self, selector: str, container: str) -> dict[str, str]:
        """Ids of a container, where it runs, by Pod."""
        statuses = {
            pod["metadata"]["name"]: container_status(pod, container)
            for pod in await self.find("pods", selector)
        }
        return {
            name: status["containerID"]
            for name, status in statuses.items()
            if status is not None and status["state"].get("running")
        }

    async def pull_failed(self, task_id: str) -> None:
        """Wait until the kubelet has tried to pull the first executor's image, and tries again."""

        async def look() -> bool:
            status = container_status(await self.pod(task_id), "executor-0")
            reason = status and (status["state"].get("waiting") or {}).get("reason")
            return reason in {"ErrImagePull", "ImagePullBackOff"}

        await eventually(look, f"a pull of task {task_id} that failed", seconds=120)

    async def workload(self, task_id: str) -> Object | None:
        """What Kueue has made of the task's Job; it does not carry the Job's labels."""
        for found in await self.find("workloads.kueue.x-k8s.io"):
            owners = found["metadata"].get("ownerReferences", ())
            if any(owner["name"] == f"poiesis-{task_id}" for owner in owners):
                return found
        return None

    async def create(self, manifest: Mapping[str, Any]) -> Object:
        """Make an object and return it."""
        created: Object = json.loads(
            await self.run("create", "-f", "-", "-o", "json", input_text=json.dumps(manifest))
        )
        return created

    async def delete(self, kind: str, name: str) -> None:
        """Delete in the background, as a client that does not wait for dependents."""
        await self.run("delete", kind, name, "--cascade=background", "--wait=false")

    async def of_component(self, kinds: str, *components: str) -> list[Object]:
        """Objects of parts of the release."""
        return await self.find(kinds, f"{COMPONENT_LABEL} in ({','.join(components)})")

    @asynccontextmanager
    async def without(self, *components: str) -> AsyncIterator[None]:
        """None of the components' Pods exist meanwhile; afterwards all of them are ready again."""
        before = {
            f"{one['kind'].lower()}/{one['metadata']['name']}": one["spec"]["replicas"]
            for one in await self.of_component("deployments,statefulsets", *components)
        }
        try:
            await self.run("scale", *before, "--replicas=0")

            async def gone() -> bool:
                return not await self.of_component("pods", *components)

            await eventually(gone, f"no Pods of {', '.join(components)}", seconds=90)
            yield
        finally:
            for name, replicas in before.items():
                await self.run("scale", name, f"--replicas={replicas}")
            for name in before:
                await self.run("rollout", "status", name, "--timeout=180s")

    async def sql(self, *statements: str, database: str = "poiesis", user: str = "poiesis") -> str:
        """What the release's own Postgres answers to a role: unaligned rows. Each statement commits."""
        (pod,) = await self.of_component("pods", "postgres")
        psql = (
            "psql",
            f"--username={user}",
            f"--dbname={database}",
            "--no-psqlrc",
            "-qAt",
            "-vON_ERROR_STOP=1",
        )
        commands = [f"--command={statement}" for statement in statements]
        return (await self.run("exec", pod["metadata"]["name"], "--", *psql, *commands)).strip()


def container_status(pod: Object, name: str) -> Object | None:
    """Status of a container, init or not; None before the kubelet has said anything."""
    status = pod.get("status", {})
    for found in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
        if found["name"] == name:
            result: Object = found
            return result
    return None


def containers(pod: Object) -> dict[str, Object]:
    """A Pod's containers by name, init containers first."""
    spec = pod["spec"]
    return {found["name"]: found for found in (*spec.get("initContainers", ()), *spec["containers"])}


def exit_record(pod: Object, name: str) -> Object:
    """What the helper left as the termination message of a container that has ended."""
    status = container_status(pod, name)
    assert status is not None, f"no status of {name}"
    record: Object = json.loads(status["state"]["terminated"]["message"])
    return record


def _bare(container_id: str) -> str:
    return container_id.rpartition("/")[2]
