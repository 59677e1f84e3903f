"""Disturbances of a task from outside: cancels, kills, and actions of other users."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial

from poiesis_e2e.failures.case import Disturbance, Surroundings, World
from poiesis_e2e.failures.surroundings import job_in_queue
from poiesis_e2e.kube import CommandError, Object, container_status
from poiesis_e2e.waiting import eventually

Wait = Callable[[World, str], Awaitable[object]]


def canceled(words: str, when: Wait) -> Disturbance:
    """Cancel as soon as `when` has returned, twice: the second cancel changes nothing."""

    async def act(world: World, task_id: str) -> None:
        await when(world, task_id)
        await world.client.cancel(task_id)
        await world.client.cancel(task_id)

    return Disturbance(words=f"canceled {words}", act=act)


def deleted(kind: str) -> Disturbance:
    """Delete the Pod, or the Job, while an executor runs."""

    async def act(world: World, task_id: str) -> None:
        await executor_runs(world, task_id)
        (found,) = await world.kube.of_task(kind, task_id)
        await world.kube.delete(kind, found["metadata"]["name"])

    return Disturbance(words=f"`kubectl delete {kind}` while an executor runs", act=act)


def deadline(after_seconds: int) -> Disturbance:
    """Set `activeDeadlineSeconds`, as `config.pod.activeDeadlineSeconds` would, for this Pod alone."""

    async def act(world: World, task_id: str) -> None:
        await executor_runs(world, task_id)
        name = (await world.kube.pod(task_id))["metadata"]["name"]
        patch = f'{{"spec":{{"activeDeadlineSeconds":{after_seconds}}}}}'
        await world.kube.run("patch", "pod", name, "--patch", patch)

    return Disturbance(words="`config.pod.activeDeadlineSeconds` passes while an executor runs", act=act)


def recorder_killed(words: str, when: Wait) -> Disturbance:
    """Kill the recorder with SIGKILL, as the OOM killer would."""

    async def act(world: World, task_id: str) -> None:
        recorder = await world.kube.running_container(task_id, "trec")
        await when(world, task_id)
        await world.node.signal_container(recorder, "SIGKILL")

    return Disturbance(words=f"`trec` is killed (SIGKILL) {words}", act=act)


def recorder_killed_again_and_again() -> Disturbance:
    """Kill the recorder before each report, until the executor's container has ended."""
    # Search recorders only: a search among all processes of a busy node would be too slow.
    its = "grep -qs POIESIS_TASK_ID=$0 /proc/$p/environ"
    look = f"for p in $(pgrep -f poiesis_trec); do {its} && kill -KILL $p; done"
    script = f"until [ -e $1 ]; do {look}; sleep 0.05; done 2>/dev/null; rm $1"

    async def act(world: World, task_id: str) -> None:
        await executor_runs(world, task_id)
        stop = f"/tmp/{task_id}"  # on the node
        over = partial(ended("executor-0", at_once=True), world, task_id)
        async with asyncio.TaskGroup() as group:
            group.create_task(world.node.run("sh", "-c", script, task_id, stop))
            try:
                await eventually(over, "the end of executor-0", seconds=150)
            finally:
                await world.node.run("touch", stop)

    return Disturbance(words="`trec` is killed after every start", act=act)


def recorder_lost() -> Disturbance:
    """Kill the recorder while an executor runs, and replace its image by one that cannot be pulled."""

    async def act(world: World, task_id: str) -> None:
        await executor_runs(world, task_id)
        recorder = await world.kube.running_container(task_id, "trec")
        name = (await world.kube.pod(task_id))["metadata"]["name"]
        other = [{"name": "trec", "image": "registry.invalid/no/such:recorder"}]
        await world.kube.run("patch", "pod", name, "--patch", json.dumps({"spec": {"initContainers": other}}))
        with suppress(CommandError):  # the kubelet may have ended it because of the patch
            await world.node.signal_container(recorder, "SIGKILL")

    return Disturbance(words="`trec` is killed, and its image cannot be pulled any more", act=act)


def recorder_killed_twice() -> Disturbance:
    """Kill the recorder twice while an executor runs: the kubelet delays the second restart."""

    async def act(world: World, task_id: str) -> None:
        await executor_runs(world, task_id)
        first = await world.kube.running_container(task_id, "trec")
        await world.node.signal_container(first, "SIGKILL")

        async def back() -> str | None:
            second = await world.kube.running_container(task_id, "trec")
            return second if second != first else None

        await world.node.signal_container(await eventually(back, "another trec"), "SIGKILL")

    return Disturbance(words="`trec` is killed (SIGKILL) twice while an executor runs", act=act)


def recorder_without_access(
    kinds: str, words: str, *, until: Callable[[World, str], Awaitable[None]] | None = None
) -> Disturbance:
    """Remove a permission or the identity of the recorder while an executor runs, then restart it.

    `until` takes its container and returns when the removal is effective."""

    async def act(world: World, task_id: str) -> None:
        await executor_runs(world, task_id)
        recorder = await world.kube.running_container(task_id, "trec")
        for found in await world.kube.of_task(kinds, task_id):
            await world.kube.delete(found["kind"], found["metadata"]["name"])
        if until is not None:
            await until(world, recorder)
        await world.node.signal_container(recorder, "SIGKILL")

    return Disturbance(words=f"{words}, then `trec` is killed", act=act)


async def token_refused(world: World, recorder: str) -> None:
    """Wait until the API server rejects the token: it caches successful reviews for some seconds."""
    root = f"/proc/{await world.node.pid_of(recorder)}/root"
    token = await world.node.run("cat", f"{root}/poiesis/recorder/kubernetes/token")
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}

    async def refused() -> bool:
        return not (await world.kube.create(review))["status"].get("authenticated")

    await eventually(refused, "a token that the API server rejects", every=1)


def recorder_killed_at_the_end(words: str, *, executed: bool) -> Disturbance:
    """Kill the recorder while a lock delays its last report; `executed`: Postgres executes the report.

    The next report is the last one: the executor, which waits for SIGUSR1, has no unreported output.
    """

    async def act(world: World, task_id: str) -> None:
        await live("ready\n")(world, task_id)
        recorder, executor = [
            await world.kube.running_container(task_id, name) for name in ("trec", "executor-0")
        ]
        async with row_locked(world, task_id) as blocked:
            await world.node.kill_children(executor, "USR1")
            await ended("executor-0")(world, task_id)
            await eventually(
                lambda: world.services.sql(f"SELECT pid {blocked}"), "a report that waits", seconds=20
            )
            await world.node.signal_container(recorder, "SIGKILL")
            if not executed:
                await world.services.sql(f"SELECT pg_terminate_backend(pid) {blocked}")

    return Disturbance(words=f"`trec` is killed (SIGKILL) {words}", act=act)


@asynccontextmanager
async def row_locked(world: World, task_id: str) -> AsyncIterator[str]:
    """Lock the task's row; yield a FROM clause for the sessions that wait for it.

    The release has its own Postgres.
    """
    lock = f"BEGIN; SELECT FROM task WHERE id = '{task_id}' FOR UPDATE; SELECT pg_sleep(300)"
    holders = f"FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND query LIKE '%{task_id}%'"
    holding = asyncio.create_task(world.services.sql(lock))
    try:
        await eventually(lambda: world.services.sql(f"SELECT pid {holders}"), "a lock")
        yield f"FROM pg_stat_activity WHERE pg_blocking_pids(pid) && ARRAY(SELECT pid {holders})"
    finally:
        await world.services.sql(f"SELECT pg_terminate_backend(pid) {holders}")
        with suppress(CommandError):  # the terminated psql reports the error too
            await holding


def process_killed(container: str) -> Disturbance:
    """Kill the process that the helper started in a container (SIGKILL), once it runs."""

    async def act(world: World, task_id: str) -> None:
        found = await world.kube.running_container(task_id, container)
        await world.node.kill_children(found)

    return Disturbance(words=f"the process of `{container}` is killed (SIGKILL)", act=act)


def container_killed(container: str) -> Disturbance:
    """Kill a container's first process (SIGKILL), as the kernel does with `memory.oom.group`."""

    async def act(world: World, task_id: str) -> None:
        await executor_runs(world, task_id)
        found = await world.kube.running_container(task_id, container)
        await world.node.signal_container(found, "SIGKILL")

    return Disturbance(words=f"all processes of `{container}` are killed (SIGKILL)", act=act)


def evicted() -> Disturbance:
    """Evict the Pod by the eviction API, as `kubectl drain` does."""

    async def act(world: World, task_id: str) -> None:
        await executor_runs(world, task_id)
        metadata = (await world.kube.pod(task_id))["metadata"]
        name, namespace = metadata["name"], metadata["namespace"]
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
        path = f"/api/v1/namespaces/{namespace}/pods/{name}/eviction"
        await world.kube.run("create", "--raw", path, "-f", "-", input_text=json.dumps(eviction))

    return Disturbance(words="`kubectl drain` while an executor runs", act=act)


def canceled_by_many() -> Disturbance:
    """Send ten cancels at the same moment while an executor runs."""

    async def act(world: World, task_id: str) -> None:
        await executor_runs(world, task_id)
        await asyncio.gather(*(world.client.cancel(task_id) for _ in range(10)))

    return Disturbance(words="canceled ten times at the same time while it runs", act=act)


def removed_after(surroundings: Surroundings, word: str) -> Disturbance:
    """Remove the surroundings when the system logs contain `word`."""

    async def act(world: World, task_id: str) -> None:
        await in_system_logs(word)(world, task_id)
        await surroundings.end(world)

    return Disturbance(words="until that is changed", act=act)


def preempted() -> Disturbance:
    """Preempt the task by a Job of a higher WorkloadPriorityClass, which takes the queue for two seconds."""

    async def act(world: World, task_id: str) -> None:
        await executor_runs(world, task_id)
        job = job_in_queue(world, "sleep 2", priority_class="poiesis-e2e-high")
        await world.kube.create({**job, "spec": {**job["spec"], "ttlSecondsAfterFinished": 0}})
        await in_system_logs("Preempted")(world, task_id)

    return Disturbance(words="a Job of a higher priority takes the queue while an executor runs", act=act)


def queue_stopped() -> Disturbance:
    """Drain the ClusterQueue, and open it again when the system logs report it."""

    async def act(world: World, task_id: str) -> None:
        await executor_runs(world, task_id)
        queue = await world.kube.get("localqueue", "queue")
        assert queue is not None
        where = ("patch", "clusterqueue", queue["spec"]["clusterQueue"], "--type=merge", "--patch")
        await world.kube.run(*where, '{"spec":{"stopPolicy":"HoldAndDrain"}}')
        try:
            await in_system_logs("ClusterQueueStopped")(world, task_id)
        finally:
            await world.kube.run(*where, '{"spec":{"stopPolicy":"None"}}')

    return Disturbance(words="the ClusterQueue is drained while an executor runs, and opened again", act=act)


def deactivated(words: str, when: Wait) -> Disturbance:
    """Set `spec.active` of the task's Workload to false, as an administrator would."""

    async def act(world: World, task_id: str) -> None:
        await when(world, task_id)
        workload = await world.kube.workload(task_id)
        assert workload is not None
        name = workload["metadata"]["name"]
        await world.kube.run(
            "patch", "workload", name, "--type=merge", "--patch", '{"spec":{"active":false}}'
        )

    return Disturbance(words=f"the Workload is deactivated {words}", act=act)


def in_system_logs(word: str) -> Wait:
    """Wait until the task's system logs contain `word`."""

    async def wait(world: World, task_id: str) -> None:
        async def look() -> bool:
            task = await world.client.get(task_id, "FULL")
            return any(word in line for log in task.get("logs", ()) for line in log.get("system_logs", ()))

        await eventually(look, f"{word!r} of task {task_id}")

    return wait


def live(text: str) -> Wait:
    """Wait until the reported stdout of the first executor is `text`."""

    async def wait(world: World, task_id: str) -> None:
        async def look() -> bool:
            task = await world.client.get(task_id, "FULL")
            return any(
                log.get("metadata", {}).get("executor-0.stdout") == text for log in task.get("logs", ())
            )

        await eventually(look, f"{text!r} of task {task_id}")

    return wait


def ended(container: str, *, at_once: bool = False) -> Callable[[World, str], Awaitable[bool]]:
    """Wait until the Pod's status shows that a container ended; `at_once`: check without waiting."""

    async def wait(world: World, task_id: str) -> bool:
        async def look() -> bool:
            status = container_status(await world.kube.pod(task_id), container)
            return bool(status and status["state"].get("terminated"))

        return await look() if at_once else await eventually(look, f"the end of {container}", every=0.05)

    return wait


async def no_node_found(world: World, task_id: str) -> None:
    """Wait until the scheduler reports that no node fits the Pod."""

    async def look() -> bool:
        pod = await world.kube.pod(task_id)
        return any(_unschedulable(one) for one in pod["status"].get("conditions", ()))

    await eventually(look, f"an unschedulable Pod of task {task_id}")


async def pull_failed(world: World, task_id: str) -> None:
    """Wait until the kubelet retries the pull of the first executor's image."""
    await world.kube.pull_failed(task_id)


def runs(container: str) -> Wait:
    """Wait until a container of the Pod runs."""

    async def wait(world: World, task_id: str) -> None:
        await world.kube.running_container(task_id, container, seconds=120)

    return wait


def tries_again(container: str) -> Wait:
    """Wait until the helper has logged that it will restart a failed program."""

    async def wait(world: World, task_id: str) -> None:
        await runs(container)(world, task_id)
        name = (await world.kube.pod(task_id))["metadata"]["name"]

        async def look() -> bool:
            return "restarting in" in await world.kube.run("logs", name, f"--container={container}")

        await eventually(look, f"a failure of {container} of task {task_id}")

    return wait


async def executor_runs(world: World, task_id: str) -> None:
    """Wait until the first executor has printed that it is ready."""
    # The kubelet returns no logs before it reports the container as running.
    await runs("executor-0")(world, task_id)
    name = (await world.kube.pod(task_id))["metadata"]["name"]

    async def look() -> bool:
        return "ready" in await world.kube.run("logs", name, "--container=executor-0")

    await eventually(look, f"the first output of task {task_id}")


def _unschedulable(condition: Object) -> bool:
    return condition["type"] == "PodScheduled" and condition.get("reason") == "Unschedulable"
