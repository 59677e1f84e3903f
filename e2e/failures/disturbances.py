"""What befalls a task from outside: its own cancel, or a stranger."""

from collections.abc import Awaitable, Callable

from failures.case import Disturbance, World
from kube import Object, container_status
from waiting import eventually

Wait = Callable[[World, str], Awaitable[object]]


def canceled(words: str, when: Wait) -> Disturbance:
    """The client cancels, as soon as `when` has returned; and again, which changes nothing."""

    async def act(world: World, task_id: str) -> None:
        await when(world, task_id)
        await world.client.cancel(task_id)
        await world.client.cancel(task_id)

    return Disturbance(words=f"canceled {words}", act=act)


def deleted(kind: str) -> Disturbance:
    """Somebody deletes the Pod, or the Job, while an executor runs."""

    async def act(world: World, task_id: str) -> None:
        await executor_runs(world, task_id)
        (found,) = await world.kube.of_task(kind, task_id)
        await world.kube.delete(kind, found["metadata"]["name"])

    return Disturbance(words=f"`kubectl delete {kind}` while an executor runs", act=act)


def deadline(after_seconds: int) -> Disturbance:
    """As `pod.activeDeadlineSeconds` would have it, for this Pod alone."""

    async def act(world: World, task_id: str) -> None:
        await executor_runs(world, task_id)
        name = (await world.kube.pod(task_id))["metadata"]["name"]
        patch = f'{{"spec":{{"activeDeadlineSeconds":{after_seconds}}}}}'
        await world.kube.run("patch", "pod", name, "--patch", patch)

    return Disturbance(words="`pod.activeDeadlineSeconds` passes while an executor runs", act=act)


async def no_node_found(world: World, task_id: str) -> None:
    """The scheduler has said that it cannot place the Pod."""

    async def look() -> bool:
        pod = await world.kube.pod(task_id)
        return any(_unschedulable(one) for one in pod["status"].get("conditions", ()))

    await eventually(look, f"an unschedulable Pod of task {task_id}")


async def pull_failed(world: World, task_id: str) -> None:
    """The kubelet has tried to pull the first executor's image, and tries again."""

    async def look() -> bool:
        status = container_status(await world.kube.pod(task_id), "executor-0")
        reason = status and (status["state"].get("waiting") or {}).get("reason")
        return reason in {"ErrImagePull", "ImagePullBackOff"}

    await eventually(look, f"a pull of task {task_id} that failed", seconds=120)


def runs(container: str) -> Wait:
    """This container of the Pod runs."""

    async def wait(world: World, task_id: str) -> None:
        await world.kube.running_container(task_id, container, seconds=120)

    return wait


async def executor_runs(world: World, task_id: str) -> None:
    """The first executor has had the time to say that it is ready."""
    await runs("executor-0")(world, task_id)  # until the kubelet says so, it shows no logs either
    name = (await world.kube.pod(task_id))["metadata"]["name"]

    async def look() -> bool:
        return "ready" in await world.kube.run("logs", name, "--container=executor-0")

    await eventually(look, f"the first words of task {task_id}")


def _unschedulable(condition: Object) -> bool:
    return condition["type"] == "PodScheduled" and condition.get("reason") == "Unschedulable"
