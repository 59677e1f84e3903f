"""Poll a task until it has ended, and print what is new."""

import asyncio
import shlex
import sys
import time
from dataclasses import dataclass, field

from rich.status import Status
from rich.text import Text

from poiesis_cli.client import TesClient, View
from poiesis_cli.errors import TimedOut
from poiesis_cli.live import Follower, LogChunk
from poiesis_cli.progress import activity, failure, missing_outputs
from poiesis_cli.terminal import message, status, write_raw
from poiesis_cli.tes import Task
from poiesis_cli.web import printable

_LOG_POLL = 1.0  # seconds: Poiesis updates the output of a running executor about this often


@dataclass
class ProgressDisplay:
    """The task's progress on standard error: a line for each change, and a spinner on a terminal."""

    quiet: bool = False
    spin: bool = True
    _start: float = field(default_factory=time.monotonic)
    _last: tuple[str, str] = ("", "")
    _status: Status | None = None

    def update(self, task: Task) -> None:
        """Print the state and activity if they have changed."""
        now = (task.state, activity(task))
        if self.quiet or now == self._last:
            return
        self._last = now
        line = f"{time.monotonic() - self._start:7.1f} s  {task.state:14} {now[1]}".rstrip()
        if self._status is not None:
            self._status.update(Text(printable(f"{task.state} {now[1]}")))
        message(line)

    def __enter__(self) -> "ProgressDisplay":
        if self.spin and not self.quiet:
            self._status = status("…")
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()


async def wait_for_end(
    client: TesClient,
    task_id: str,
    *,
    quiet: bool,
    logs: bool,
    timeout: float | None,  # noqa: ASYNC109
) -> Task:
    """Return the ended task in the FULL view. Raise TimedOut after `timeout` seconds; the task continues."""
    follower = Follower() if logs else None
    view: View = "FULL" if logs else "MINIMAL" if quiet else "BASIC"
    try:
        async with asyncio.timeout(timeout):
            with ProgressDisplay(quiet=quiet, spin=not logs) as display:
                async for task in client.watch(task_id, view, _LOG_POLL if logs else None):
                    # Output before the state, so that the last output comes before COMPLETE.
                    if follower is not None:
                        for chunk in follower.new_chunks(task):
                            print_chunk(chunk)
                    display.update(task)
            return task if view == "FULL" else await client.get(task_id, "FULL")
    except TimeoutError:
        raise TimedOut(
            f"task {task_id} has not ended within {timeout:g} s; it continues", next_steps(task_id)
        ) from None


async def follow_logs(client: TesClient, task_id: str, printer: "LogPrinter") -> Task:
    """Print the executors' output until the task has ended; return the ended task."""
    async for task in client.watch(task_id, "FULL", _LOG_POLL):
        printer.print(task)
    return task


@dataclass
class LogPrinter:
    """Prints new output of the selected executor (None: all) and streams."""

    executor: int | None = None
    streams: tuple[str, ...] = ("stdout", "stderr")
    printed: bool = False
    _follower: Follower = field(default_factory=Follower)

    def print(self, task: Task) -> None:
        """Print stdout to standard output and stderr to standard error."""
        for chunk in self._follower.new_chunks(task):
            if chunk.stream in self.streams and self.executor in {None, chunk.executor}:
                self.printed = True
                print_chunk(chunk)


def print_chunk(chunk: LogChunk) -> None:
    """Print the executor's output unchanged, after a message if part of it is missing."""
    if chunk.gap:
        message(
            f"poiesis: part of the {chunk.stream} of executor {chunk.executor} is missing:"
            " it exceeded what the server keeps"
        )
    write_raw(sys.stdout if chunk.stream == "stdout" else sys.stderr, chunk.text)


def print_outcome(task: Task, *, logs_printed: bool) -> None:
    """Print why a task failed, which outputs are missing, and where the executors' output is."""
    for line in failure(task, output=not logs_printed):
        message(f"  {line}")
    for path in missing_outputs(task):
        message(
            f"poiesis: warning: the log lists no file for output {path}: the command may not have written it"
        )
    if task.last_attempt.has_output and not logs_printed:
        message(f"  output: poiesis logs {shlex.quote(task.id)}")


def next_steps(task_id: str) -> str:
    """Return the commands to follow or cancel a task that continues."""
    word = shlex.quote(task_id)
    return f"follow it: poiesis wait {word}    cancel it: poiesis cancel {word}"
