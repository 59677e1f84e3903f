"""kubectl and the node, for tests: JSON in and out, without blocking the event loop.

Objects of tasks are in one namespace, a release's own Pods in another. Processes and signals on the node use
`docker exec`.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from poiesis_e2e.waiting import eventually

Object = dict[str, Any]
TASK_LABEL = "poiesis.io/task"
COMPONENT_LABEL = "app.kubernetes.io/component"


class CommandError(RuntimeError):
    """A command failed."""

    def __init__(self, argv: Sequence[str], code: int, output: str) -> None:
        super().__init__(f"`{' '.join(argv)}` ended with {code}: {output.strip()[-4000:]}")
        self.code = code
        self.output = output


async def run(*argv: str, input_text: str | None = None) -> str:
    """Return a program's stdout, or raise CommandError. Kill the program if the caller is cancelled."""
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
        await process.communicate()  # wait() would leave its pipes open
        raise
    if process.returncode:
        raise CommandError(
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
        """Run a docker command on the node: `kill` (a power failure), `start`, `pause`, `unpause`."""
        await run(self.docker, verb, self.container)

    async def host_address(self) -> str:
        """Return this machine's address in docker's network: the node's gateway."""
        route = await self.run("ip", "route", "show", "default")
        return route.split()[2]

    async def condition(self) -> Object:
        """Return docker's state of the container, with `Running` and `Paused`."""
        form = "{{json .State}}"
        state: Object = json.loads(
            await run(self.docker, "container", "inspect", "--format", form, self.container)
        )
        return state

    async def signal_container(self, container_id: str, signal: str) -> None:
        """Send a signal to a container's first process; `container_id` as in Pod statuses."""
        await self.run(
            "ctr", "--namespace", "k8s.io", "task", "kill", "--signal", signal, _bare(container_id)
        )

    async def kill_children(self, container_id: str, signal: str = "KILL") -> None:
        """Send a signal to the children of a container's first process."""
        await self.run("pkill", f"-{signal}", "-P", str(await self.pid_of(container_id)))

    async def processes_with(self, marker: str) -> list[int]:
        """Return processes whose command line contains `marker` (the search's own command line does not)."""
        head, tail = marker[:1], marker[1:]
        script = f"for f in /proc/[0-9]*/cmdline; do grep -qs -- '[{head}]{tail}' $f && echo $f; done; true"
        found = await self.run("sh", "-c", script)
        return [int(line.split("/")[2]) for line in found.split()]

    async def pid_of(self, container_id: str) -> int:
        """Return the process id, on the node, of a container's first process."""
        listing = await self.run("ctr", "--namespace", "k8s.io", "task", "ls")
        for line in listing.splitlines():
            words = line.split()
            if words[0] == _bare(container_id):
                return int(words[1])
        raise LookupError(f"no running container {container_id}")


@dataclass(frozen=True, kw_only=True)
class Kube:
    """kubectl for one namespace.

    `service_namespace`: where the release's own objects are, which the methods about components use.
    """

    kubectl: Path
    kubeconfig: Path
    namespace: str
    service_namespace: str

    @property
    def service(self) -> "Kube":
        """kubectl for the release's own namespace."""
        return replace(self, namespace=self.service_namespace)

    async def run(self, *arguments: str, input_text: str | None = None) -> str:
        """Return the output of `kubectl -n <namespace> …`."""
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
        """Return an object; None if it does not exist."""
        text = await self.run("get", kind, name, "--ignore-not-found", "-o", "json")
        found: Object | None = json.loads(text) if text.strip() else None
        return found

    async def find(self, kinds: str, selector: str | None = None) -> list[Object]:
        """Return the objects of the comma-separated `kinds`."""
        chosen = ["--selector", selector] if selector else []
        answer: Object = json.loads(await self.run("get", kinds, *chosen, "-o", "json"))
        items: list[Object] = answer["items"]
        return items

    async def of_task(self, kinds: str, task_id: str) -> list[Object]:
        """Return the objects of a task, by its label."""
        return await self.find(kinds, f"{TASK_LABEL}={task_id}")

    async def pod(self, task_id: str) -> Object:
        """Return the task's only Pod; wait until it exists."""

        async def look() -> Object | None:
            pods = await self.of_task("pods", task_id)
            return pods[0] if pods else None

        return await eventually(look, f"a Pod of task {task_id}")

    async def ended_pod(self, task_id: str, *, seconds: float = 60) -> Object:
        """Return the task's Pod when its status shows that all its containers have ended."""

        async def look() -> Object | None:
            pod = await self.pod(task_id)
            return pod if pod["status"]["phase"] in {"Succeeded", "Failed"} else None

        return await eventually(look, f"the end of the Pod of task {task_id}", seconds=seconds)

    async def running_container(self, task_id: str, container: str, *, seconds: float = 300) -> str:
        """Return the id of a container of the task's Pod once it runs."""

        async def look() -> str | None:
            status = container_status(await self.pod(task_id), container)
            return status["containerID"] if status and status["state"].get("running") else None

        return await eventually(look, f"container {container} of task {task_id} running", seconds=seconds)

    async def running_containers(self, selector: str, container: str) -> dict[str, str]:
        """Return the ids of a running container, by Pod."""
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
        """Wait until the kubelet retries the pull of the first executor's image."""

        async def look() -> bool:
            status = container_status(await self.pod(task_id), "executor-0")
            reason = status and (status["state"].get("waiting") or {}).get("reason")
            return reason in {"ErrImagePull", "ImagePullBackOff"}

        await eventually(look, f"a pull of task {task_id} that failed", seconds=120)

    async def workload(self, task_id: str) -> Object | None:
        """Return the Workload of the task's Job; it does not have the Job's labels."""
        for found in await self.find("workloads.kueue.x-k8s.io"):
            owners = found["metadata"].get("ownerReferences", ())
            if any(owner["name"] == f"poiesis-{task_id}" for owner in owners):
                return found
        return None

    async def create(self, manifest: Mapping[str, Any]) -> Object:
        """Create an object and return it."""
        created: Object = json.loads(
            await self.run("create", "-f", "-", "-o", "json", input_text=json.dumps(manifest))
        )
        return created

    async def delete(self, kind: str, name: str) -> None:
        """Delete an object without waiting for its dependents."""
        await self.run("delete", kind, name, "--cascade=background", "--wait=false")

    async def of_component(self, kinds: str, *components: str) -> list[Object]:
        """Return objects of components of the release."""
        return await self.service.find(kinds, f"{COMPONENT_LABEL} in ({','.join(components)})")

    @asynccontextmanager
    async def without(self, *components: str) -> AsyncIterator[None]:
        """Scale components to zero in the meantime; afterwards wait until all are ready."""
        before = {
            f"{one['kind'].lower()}/{one['metadata']['name']}": one["spec"]["replicas"]
            for one in await self.of_component("deployments,statefulsets", *components)
        }
        try:
            await self.service.run("scale", *before, "--replicas=0")

            async def gone() -> bool:
                return not await self.of_component("pods", *components)

            await eventually(gone, f"no Pods of {', '.join(components)}", seconds=90)
            yield
        finally:
            for name, replicas in before.items():
                await self.service.run("scale", name, f"--replicas={replicas}")
            for name in before:
                await self.service.run("rollout", "status", name, "--timeout=180s")

    async def sql(self, *statements: str, database: str = "poiesis", user: str = "postgres") -> str:
        """Run statements in the release's Postgres; return unaligned rows. Each statement commits."""
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
        return (await self.service.run("exec", pod["metadata"]["name"], "--", *psql, *commands)).strip()


def container_status(pod: Object, name: str) -> Object | None:
    """Return the status of a container, init or not; None before the kubelet's first report."""
    status = pod.get("status", {})
    for found in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
        if found["name"] == name:
            result: Object = found
            return result
    return None


def containers(pod: Object) -> dict[str, Object]:
    """Return a Pod's containers by name, init containers first."""
    spec = pod["spec"]
    return {found["name"]: found for found in (*spec.get("initContainers", ()), *spec["containers"])}


def exit_record(pod: Object, name: str) -> Object:
    """Return the exit record that the helper wrote as the termination message of an ended container."""
    status = container_status(pod, name)
    assert status is not None, f"no status of {name}"
    record: Object = json.loads(status["state"]["terminated"]["message"])
    return record


def _bare(container_id: str) -> str:
    return container_id.rpartition("/")[2]
