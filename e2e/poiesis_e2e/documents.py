"""Write task documents, and read finished ones."""

from collections.abc import Awaitable, Callable
from datetime import datetime

from poiesis_e2e.tes_client import Document, Executor, ExecutorLog, State, Task, TaskLog

RunTask = Callable[[Document], Awaitable[Task]]  # the fixture `run_task`


def sh(image: str, script: str, *arguments: str) -> Executor:
    """An executor that runs a shell script; `arguments` are $0, $1, …"""
    return {"image": image, "command": ["sh", "-c", script, *arguments]}


def only_log(task: Task) -> TaskLog:
    """The log of the task's one attempt."""
    return last_log(task, attempts=1)


def last_log(task: Task, *, attempts: int) -> TaskLog:
    """The log of the last of so many attempts."""
    logs = task["logs"]
    assert len(logs) == attempts, f"{len(logs)} attempts: {logs}"
    return logs[-1]


def executor_logs(task: Task) -> list[ExecutorLog]:
    """The logs of the executors that have ended, in order."""
    return only_log(task)["logs"]


def exit_codes(task: Task) -> list[int]:
    """Their exit codes."""
    return [log["exit_code"] for log in executor_logs(task)]


def stdout(task: Task, index: int = 0) -> str:
    """What an executor printed."""
    return executor_logs(task)[index].get("stdout", "")


def system_logs(task: Task) -> str:
    """All that the system had to say."""
    return "\n".join(only_log(task).get("system_logs", []))


def reason(task: Task) -> str | None:
    """Kubernetes' word for how it ended."""
    return only_log(task).get("metadata", {}).get("reason")


def seconds(rfc3339: str) -> float:
    """Unix time of a timestamp."""
    return datetime.fromisoformat(rfc3339).timestamp()


def assert_ended(task: Task, state: State) -> None:
    """The state; shows the logs if it is another."""
    assert task["state"] == state, f"{task['state']}, not {state}: {task.get('logs')}"
