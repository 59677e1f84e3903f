"""Write task documents, and read finished ones."""

from collections.abc import Awaitable, Callable
from datetime import datetime

from poiesis_e2e.tes_client import Document, Executor, ExecutorLog, State, Task, TaskLog

RunTask = Callable[[Document], Awaitable[Task]]  # the fixture `run_task`


def sh(image: str, script: str, *arguments: str) -> Executor:
    """Return an executor that runs a shell script; `arguments` are $0, $1, …"""
    return {"image": image, "command": ["sh", "-c", script, *arguments]}


def only_log(task: Task) -> TaskLog:
    """Return the log of the task's only attempt."""
    return last_log(task, attempts=1)


def last_log(task: Task, *, attempts: int) -> TaskLog:
    """Return the log of the last of `attempts` attempts."""
    logs = task["logs"]
    assert len(logs) == attempts, f"{len(logs)} attempts: {logs}"
    return logs[-1]


def executor_logs(task: Task) -> list[ExecutorLog]:
    """Return the logs of the executors that have ended, in order."""
    return only_log(task)["logs"]


def exit_codes(task: Task) -> list[int]:
    """Return the exit codes of the executors that have ended."""
    return [log["exit_code"] for log in executor_logs(task)]


def stdout(task: Task, index: int = 0) -> str:
    """Return an executor's stdout."""
    return executor_logs(task)[index].get("stdout", "")


def system_logs(task: Task) -> str:
    """Return the system logs as one text."""
    return "\n".join(only_log(task).get("system_logs", []))


def reason(task: Task) -> str | None:
    """Return the reason of the outcome."""
    return only_log(task).get("metadata", {}).get("reason")


def seconds(rfc3339: str) -> float:
    """Return a timestamp as Unix time."""
    return datetime.fromisoformat(rfc3339).timestamp()


def assert_ended(task: Task, state: State) -> None:
    """Assert the state of a task; show its logs if it differs."""
    assert task["state"] == state, f"{task['state']}, not {state}: {task.get('logs')}"
