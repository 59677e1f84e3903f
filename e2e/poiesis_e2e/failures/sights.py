"""Visible effects of a task in addition to its outcome."""

import re
from typing import Literal

from poiesis_e2e import gateway_control
from poiesis_e2e.documents import executor_logs, only_log, seconds, system_logs
from poiesis_e2e.failures.case import Outcome, Sight
from poiesis_e2e.failures.node_disturbances import repair
from poiesis_e2e.install import RETRY_ATTEMPTS
from poiesis_e2e.kube import container_status
from poiesis_e2e.tes_client import Task
from poiesis_e2e.waiting import eventually

_LOG_BYTES = 65536  # executors.logBytes of the chart
_LEFT_OUT = re.compile(r"\[poiesis: [1-9][0-9]* bytes of earlier output left out\]\n")


def printed(text: str, *, index: int = 0, stream: str = "stdout") -> Sight:
    """Expect this exact stdout or stderr of an executor."""

    async def check(outcome: Outcome) -> None:
        assert executor_logs(outcome.task)[index].get(stream) == text

    return Sight(words=f"`{stream}` of executor {index}: {_code(text)}", check=check)


def stderr_contains(text: str, *, index: int = 0) -> Sight:
    """Expect that an executor's stderr contains this text."""

    async def check(outcome: Outcome) -> None:
        assert text in executor_logs(outcome.task)[index].get("stderr", "")

    return Sight(words=f"`stderr` of executor {index} contains {_code(text)}", check=check)


def kept_tail(text: str) -> Sight:
    """Expect that only the last bytes of a large stdout are kept."""

    async def check(outcome: Outcome) -> None:
        stdout = executor_logs(outcome.task)[0].get("stdout", "")
        mark = _LEFT_OUT.match(stdout)
        assert mark is not None
        assert stdout.endswith(text)
        assert len(stdout) == mark.end() + _LOG_BYTES

    return Sight(
        words=f"the last 64 KiB of `stdout` (`config.executors.logBytes`), to {_code(text)}", check=check
    )


def logged(text: str) -> Sight:
    """Expect that the system logs contain this text."""

    async def check(outcome: Outcome) -> None:
        assert text in system_logs(outcome.task), system_logs(outcome.task)

    return Sight(words=f"`system_logs`: {_code(text)}", check=check)


def explained(text: str) -> Sight:
    """Expect this text in exactly one line of the system logs, which may be late, except for the outcome."""

    async def check(outcome: Outcome) -> None:
        async def look() -> bool:
            task = await outcome.world.client.get(outcome.task["id"], "FULL")
            texts = [line.partition(" ")[2] for line in only_log(task).get("system_logs", [])]
            lines = [line for line in texts if text in line and not line.startswith(outcome.task["state"])]
            assert len(lines) <= 1, lines
            return len(lines) == 1

        await eventually(look, f"{text!r} in the system logs", seconds=10)

    return Sight(words=f"`system_logs`, once: {_code(text)}", check=check)


def restarted(container: str) -> Sight:
    """Expect that Kubernetes restarted a container."""

    async def check(outcome: Outcome) -> None:
        async def look() -> bool:
            status = container_status(await outcome.world.kube.pod(outcome.task["id"]), container)
            return status is not None and status["restartCount"] >= 1

        await eventually(look, f"a restart of {container}")

    return Sight(words=f"`{container}` was restarted", check=check)


def never_started(container: str) -> Sight:
    """Expect that Kubernetes never started a container; checked when the Pod has ended."""

    async def check(outcome: Outcome) -> None:
        pod = await outcome.world.kube.ended_pod(outcome.task["id"])
        status = container_status(pod, container)
        assert status is None or "waiting" in status["state"], status

    return Sight(words=f"`{container}` was never started", check=check)


def tried_again(container: str) -> Sight:
    """Expect that the helper restarted the filer `config.filerRetryAttempts` times."""

    async def check(outcome: Outcome) -> None:
        name = (await outcome.world.kube.pod(outcome.task["id"]))["metadata"]["name"]
        output = await outcome.world.kube.run("logs", name, f"--container={container}")
        assert f"(retry {RETRY_ATTEMPTS} of {RETRY_ATTEMPTS})" in output, output[-1000:]

    return Sight(words=f"`{container}` was restarted 5 times (`config.filerRetryAttempts`)", check=check)


def no_line_twice() -> Sight:
    """Expect that no line of the system logs is repeated."""

    async def check(outcome: Outcome) -> None:
        lines = only_log(outcome.task).get("system_logs", [])
        assert len(lines) == len(set(lines)), lines

    return Sight(words="each line once", check=check)


def stored(key: str, content: str) -> Sight:
    """Expect that an output was sent and is listed in the task's log."""

    async def check(outcome: Outcome) -> None:
        assert await outcome.world.bucket.text_if_any(key) == content
        sent = [(log["url"], log["size_bytes"]) for log in only_log(outcome.task)["outputs"]]
        assert sent == [(outcome.world.bucket.url(key), str(len(content)))]

    return Sight(words=f"the output `{key}` is stored", check=check)


def in_the_bucket(key: str, content: str) -> Sight:
    """Expect that an output was sent, although no recorder could report it."""

    async def check(outcome: Outcome) -> None:
        assert await outcome.world.bucket.text_if_any(key) == content

    return Sight(words=f"the output `{key}` is stored", check=check)


def nothing_stored() -> Sight:
    """Expect that no output was sent."""

    async def check(outcome: Outcome) -> None:
        assert await outcome.world.bucket.keys() == []
        assert only_log(outcome.task)["outputs"] == []

    return Sight(words="no output", check=check)


def pod_ended(phase: Literal["Succeeded", "Failed"]) -> Sight:
    """Expect this phase of the Pod."""

    async def check(outcome: Outcome) -> None:
        pod = await outcome.world.kube.ended_pod(outcome.task["id"])
        assert pod["status"]["phase"] == phase

    return Sight(words=f"the phase of the Pod is `{phase}`", check=check)


def no_process() -> Sight:
    """Expect that no process of the executors is left."""

    async def check(outcome: Outcome) -> None:
        assert await outcome.world.node.processes_with(outcome.world.marker) == []

    return Sight(words="no process of the executor is left", check=check)


def nothing_runs_when_its_node_is_back() -> Sight:
    """Expect that the executors end when their node is back, and that the outcome does not change."""

    async def check(outcome: Outcome) -> None:
        world = outcome.world
        await repair(world.kube, world.node)

        async def ended() -> bool:
            return not await world.node.processes_with(world.marker)

        await eventually(ended, "the end of the disconnected executors")
        task = await world.client.get(outcome.task["id"], "FULL")
        assert _end(task) == _end(outcome.task)

    return Sight(
        words="when the node is back, no process of the executor is left, and the outcome does not change",
        check=check,
    )


def _end(task: Task) -> tuple[str, ...]:
    metadata = only_log(task).get("metadata", {})
    return task["state"], *(metadata.get(key, "") for key in ("reason", "message", "reported_by"))


def ended_meanwhile() -> Sight:
    """Expect that all executors ended during the disturbance."""

    async def check(outcome: Outcome) -> None:
        assert outcome.asked_at is not None
        assert all(seconds(log["end_time"]) < outcome.asked_at for log in executor_logs(outcome.task))

    return Sight(words="all executors ended in the meantime", check=check)


def renewed_certificate_presented() -> Sight:
    """Expect that every replica presents the certificate of its Secret, without a restart."""

    async def check(outcome: Outcome) -> None:
        services = outcome.world.services
        assert await gateway_control.presents(services, await gateway_control.certificate(services))

    return Sight(words="the gateway presents the new certificate", check=check)


def recorded_afterwards() -> Sight:
    """Expect that no client saw the outcome before the disturbance was over."""

    async def check(outcome: Outcome) -> None:
        assert outcome.asked_at is not None
        assert outcome.history.seen[-1].at >= outcome.asked_at - 1, str(outcome.history)

    return Sight(words="the outcome is recorded only then", check=check)


def no_object() -> Sight:
    """Expect that no Kubernetes object of the task is left."""

    async def check(outcome: Outcome) -> None:
        kube, task_id = outcome.world.kube, outcome.task["id"]

        async def gone() -> bool:
            return not await kube.of_task("jobs,pods,secrets,serviceaccounts", task_id)

        await eventually(gone, f"no object of task {task_id}", seconds=60)

    return Sight(words="no Kubernetes object is left", check=check)


def no_workload() -> Sight:
    """Expect that no Workload of the task is left."""

    async def check(outcome: Outcome) -> None:
        kube, task_id = outcome.world.kube, outcome.task["id"]

        async def gone() -> bool:
            return await kube.workload(task_id) is None

        await eventually(gone, f"no Workload of task {task_id}")

    return Sight(words="no Workload is left", check=check)


def first_attempt(text: str, *, exit_code: int) -> Sight:
    """Expect this exit code and this text in the log of the first attempt."""

    async def check(outcome: Outcome) -> None:
        first = outcome.task["logs"][0]
        assert [log["exit_code"] for log in first["logs"]] == [exit_code]
        assert any(text in line for line in first.get("system_logs", ())), first
        assert "end_time" in first

    words = f"a first log with exit code {exit_code} and {_code(text)} in its `system_logs`"
    return Sight(words=words, check=check)


def _code(text: str) -> str:
    """Format lines as code, separated by commas: a table cell has no line breaks."""
    return ", ".join(f"`{line}`" for line in text.strip().splitlines())
