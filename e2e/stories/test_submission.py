"""As an operator I lose apis at the worst moment, and every task is created once and has one outcome."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import aiohttp
import pytest

from poiesis_e2e.documents import assert_ended, exit_codes, only_log, sh, stdout, system_logs
from poiesis_e2e.kube import COMPONENT_LABEL, Kube, Node, Object
from poiesis_e2e.tes_client import Document, Task, TesClient, TesError
from poiesis_e2e.transport import files_only
from poiesis_e2e.waiting import eventually
from poiesis_e2e.webhook import PROBE, Refusal, admission, rule
from poiesis_lab.images import Images

pytestmark = [pytest.mark.e2e, pytest.mark.disruptive]

_MADE = ("Job", "Secret", *(() if files_only() else ("ServiceAccount",)), "PersistentVolumeClaim")
_BY_POD = "authentication.kubernetes.io/pod-name"
_OF_TASKS = "has(object.metadata.labels) && 'poiesis.io/task' in object.metadata.labels"
_RULES = [
    rule("CREATE", "batch", "jobs"),
    rule("CREATE", "", "secrets", "serviceaccounts", "persistentvolumeclaims"),
]
_PROBE: Object = {
    "apiVersion": "v1",
    "kind": "Secret",
    "metadata": {"name": PROBE, "labels": {"poiesis.io/task": "none"}},
}


@pytest.mark.core
async def test_tasks_of_killed_apis_run_once(
    third_client: TesClient, third_kube: Kube, images: Images
) -> None:
    pods = [one["metadata"]["name"] for one in await third_kube.of_component("pods", "api")]
    task_ids = [
        await third_client.create({"executors": [sh(images.busybox, 'echo "$0"', str(number))]})
        for number in range(6)
    ]
    await third_kube.service.run("delete", "pods", *pods, "--grace-period=0", "--force")
    await _answers(third_kube, third_client, gone=pods)

    await asyncio.gather(*(third_client.wait(task_id, timeout=120) for task_id in task_ids))
    for number, task_id in enumerate(task_ids):
        await _assert_ran_once(third_client, third_kube, task_id, f"{number}\n")


@pytest.mark.parametrize("kind", _MADE)
async def test_task_runs_once_when_apis_die_during_creation(
    kind: str, third_client: TesClient, third_kube: Kube, node: Node, images: Images
) -> None:
    made: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def review(asked: Object) -> Sequence[Object]:
        if asked["kind"]["kind"] == kind and not made.done():
            await _kill_apis(third_kube, node)
            made.set_result(asked["name"])
        return ()

    async with admission(third_kube, node, review, rules=_RULES, probe=_PROBE, condition=_OF_TASKS):
        task_id = await third_client.create(_with_volume(images))
        name = await asyncio.wait_for(made, 30)
        await _replace_apis(third_kube, third_client)
        await third_client.wait(task_id, timeout=120)

    assert task_id in name
    await _assert_ran_once(third_client, third_kube, task_id, "made\n")


async def test_task_submitted_by_two_apis_runs_once(
    third_client: TesClient, third_kube: Kube, node: Node, images: Images
) -> None:
    """The first api is paused after it sent the Job, and continues when the other has taken over."""
    makers: list[str] = []

    async def review(asked: Object) -> Sequence[Object]:
        (maker,) = asked["userInfo"]["extra"][_BY_POD]
        if not makers:
            await _signal(third_kube, node, maker, "SIGSTOP")
        makers.append(maker)
        return ()

    try:
        async with admission(third_kube, node, review, rules=_RULES, probe=_PROBE, condition=_OF_TASKS):
            task_id = await third_client.create(_with_volume(images))

            async def runs() -> bool:
                return bool(await third_kube.of_task("pods", task_id))

            await eventually(runs, "a Pod created by the other api", seconds=60)
    finally:
        await _signal(third_kube, node, makers[0], "SIGCONT")
    await eventually(third_client.answers, "a response of both apis")
    await third_client.wait(task_id, timeout=120)

    assert len(set(makers)) == 2
    await _assert_ran_once(third_client, third_kube, task_id, "made\n")


async def test_cancel_during_object_creation_leaves_nothing(
    third_client: TesClient, third_kube: Kube, node: Node, images: Images
) -> None:
    canceled: list[str] = []

    async def review(asked: Object) -> Sequence[Object]:
        task_id = asked["object"]["metadata"]["labels"]["poiesis.io/task"]
        if asked["kind"]["kind"] == "Secret" and not canceled:
            canceled.append(task_id)
            await third_client.cancel(task_id)
        return ()

    async with admission(third_kube, node, review, rules=_RULES, probe=_PROBE, condition=_OF_TASKS):
        task_id = await third_client.create(_with_volume(images))
        await third_client.wait(task_id, timeout=60)

    assert canceled == [task_id]
    await _assert_canceled_before_anything_ran(third_client, third_kube, task_id)


async def test_cancel_survives_death_of_its_apis(
    third_client: TesClient, third_kube: Kube, node: Node, images: Images
) -> None:
    task_id = await third_client.create({"executors": [sh(images.busybox, "echo ready; sleep 600")]})
    await third_client.wait(task_id, until={"RUNNING"})
    tried: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def review(asked: Object) -> Sequence[Object]:
        """Block the deletion of the Job until an api has tried it and has been killed."""
        if asked["operation"] == "DELETE" and not tried.done():
            (pod,) = asked["userInfo"]["extra"][_BY_POD]
            if pod in await _api_containers(third_kube):
                await _kill_apis(third_kube, node)
                if not tried.done():  # the other api may try meanwhile
                    tried.set_result(asked["name"])
            raise Refusal("the api has died, or will")
        return ()

    rules = [rule("DELETE", "batch", "jobs"), rule("CREATE", "", "secrets")]
    async with admission(third_kube, node, review, rules=rules, probe=_PROBE):
        with suppress(aiohttp.ClientError, TesError):  # it dies before or after its response
            await third_client.cancel(task_id)
        name = await asyncio.wait_for(tried, 30)
        await _replace_apis(third_kube, third_client)
        history = await third_client.wait(task_id, timeout=60)

    assert task_id in name
    assert history.state == "CANCELED"
    task = await third_client.get(task_id, "FULL")
    assert exit_codes(task) == [143]
    assert system_logs(task).count("cancel requested by anonymous") == 1


async def test_queued_task_is_canceled_at_once(
    third_client: TesClient, third_kube: Kube, images: Images
) -> None:
    """`config.queue.maxActiveTasks` is 4. The active tasks need not be schedulable."""
    document: Document = {"executors": [sh(images.busybox, "sleep 600")]}

    async def active() -> bool:
        jobs = [await third_kube.of_task("jobs", task_id) for task_id in busy]
        return all(jobs)

    busy = [await third_client.create(document) for _ in range(4)]
    try:
        await eventually(active, "the maximum number of Jobs")
        waiting = await third_client.create({"executors": [sh(images.busybox, "echo never")]})
        assert (await third_client.get(waiting))["state"] == "QUEUED"
        await third_client.cancel(waiting)
        await third_client.wait(waiting, timeout=30)
    finally:
        await asyncio.gather(*map(third_client.cancel, busy))

    await _assert_canceled_before_anything_ran(third_client, third_kube, waiting)
    await asyncio.gather(*(third_client.wait(task_id, timeout=120) for task_id in busy))


async def test_exactly_one_of_cancel_and_outcome_wins(third_client: TesClient, images: Images) -> None:
    """Each task is canceled slightly later than the previous one, around the moment of its end."""
    document: Document = {"executors": [sh(images.busybox, "echo done")]}

    async def race(number: int) -> Task:
        task_id = await third_client.create(document)
        await third_client.wait(task_id, until={"RUNNING"}, every=0.02)
        await asyncio.sleep(number * 0.05)
        await third_client.cancel(task_id)
        await third_client.wait(task_id, timeout=60)
        return await third_client.get(task_id, "FULL")

    tasks = [task for turn in range(3) for task in await asyncio.gather(*map(race, range(turn, 24, 3)))]

    for task in tasks:
        assert task["state"] in {"COMPLETE", "CANCELED"}
        assert (await third_client.get(task["id"], "FULL")) == task
        ends = [line for line in only_log(task).get("system_logs", []) if _is_outcome(line)]
        assert len(ends) <= 1, ends
        if task["state"] == "COMPLETE":
            assert exit_codes(task) == [0]


# --- shared helpers ------------------------------------------------------------------------------------


def _with_volume(images: Images) -> Document:
    return {"executors": [sh(images.busybox, "echo made")], "volumes": ["/data"]}


def _is_outcome(line: str) -> bool:
    return any(f" {state}" in line for state in ("COMPLETE", "CANCELED", "SYSTEM_ERROR", "EXECUTOR_ERROR"))


async def _api_containers(kube: Kube) -> dict[str, str]:
    """Return the running containers of the apis, by Pod."""
    return await kube.service.running_containers(f"{COMPONENT_LABEL}=api", "api")


async def _kill_apis(kube: Kube, node: Node) -> None:
    for container in (await _api_containers(kube)).values():
        await node.signal_container(container, "SIGKILL")


async def _replace_apis(kube: Kube, client: TesClient) -> None:
    """Replace the Pods of the apis: the kubelet's back-off applies to restarted containers only."""
    gone = [one["metadata"]["name"] for one in await kube.of_component("pods", "api")]
    for name in gone:
        await kube.service.delete("pod", name)
    await _answers(kube, client, gone=gone)


async def _signal(kube: Kube, node: Node, pod: str, signal: str) -> None:
    await node.signal_container((await _api_containers(kube))[pod], signal)


async def _answers(kube: Kube, client: TesClient, *, gone: list[str]) -> None:
    """Wait until new apis are ready and the Service routes to them."""

    async def replaced() -> bool:
        (deployment,) = await kube.of_component("deployments", "api")
        names = {one["metadata"]["name"] for one in await kube.of_component("pods", "api")}
        return (
            not names & set(gone)
            and deployment["status"].get("readyReplicas", 0) == deployment["spec"]["replicas"]
        )

    await eventually(replaced, "new apis", seconds=90)
    await eventually(client.answers, "responses of the new apis")


async def _assert_ran_once(client: TesClient, kube: Kube, task_id: str, text: str) -> None:
    task = await client.get(task_id, "FULL")
    assert_ended(task, "COMPLETE")
    assert exit_codes(task) == [0]
    assert stdout(task) == text
    assert len(only_log(task)["logs"]) == 1
    assert [len(await kube.of_task(kind, task_id)) for kind in ("jobs", "pods")] == [1, 1]


async def _assert_canceled_before_anything_ran(client: TesClient, kube: Kube, task_id: str) -> None:
    task = await client.get(task_id, "FULL")
    assert_ended(task, "CANCELED")
    assert not any(log.get("logs") for log in task.get("logs", ()))

    async def gone() -> bool:
        return not await kube.of_task("jobs,pods,secrets,serviceaccounts,persistentvolumeclaims", task_id)

    await eventually(gone, f"no object of task {task_id}")
