"""Look at a task until it has ended, and tell what is new."""

import asyncio
import shlex
import sys
import time
from dataclasses import dataclass, field

from rich.console import Console
from rich.status import Status
from rich.text import Text

from poiesis_cli.client import TesClient, View
from poiesis_cli.errors import TimedOut
from poiesis_cli.live import Follower, Piece
from poiesis_cli.progress import activity, verdict
from poiesis_cli.terminal import say, write_raw
from poiesis_cli.tes import Task
from poiesis_cli.web import printable

_LOG_POLL = 1.0  # seconds: about how old the texts of a running executor are


@dataclass
class Progress:
    """States, and what goes on, on standard error: a line for each change, and on a terminal a clock."""

    quiet: bool = False
    spin: bool = True
    _start: float = field(default_factory=time.monotonic)
    _last: tuple[str, str] = ("", "")
    _status: Status | None = None

    def note(self, task: Task) -> None:
        """Say it if it is news."""
        now = (task.state, activity(task))
        if self.quiet or now == self._last:
            return
        self._last = now
        line = f"{time.monotonic() - self._start:7.1f} s  {task.state:14} {now[1]}".rstrip()
        if self._status is not None:
            self._status.update(Text(printable(f"{task.state} {now[1]}")))
        say(line)

    def __enter__(self) -> "Progress":
        if self.spin and not self.quiet and sys.stderr.isatty():
            self._status = Console(stderr=True).status(Text("…"))
            self._status.start()
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
    """The whole task when it has ended. Raise TimedOut after `timeout` seconds; the task goes on then."""
    follower = Follower() if logs else None
    view: View = "MINIMAL" if quiet and not logs else "FULL"
    try:
        async with asyncio.timeout(timeout):
            with Progress(quiet=quiet, spin=not logs) as progress:
                async for task in client.watch(task_id, view, _LOG_POLL if logs else None):
                    progress.note(task)
                    if follower is not None:
                        for piece in follower.news(task):
                            show(piece)
            return task if view == "FULL" else await client.get(task_id, "FULL")
    except TimeoutError:
        raise TimedOut(
            f"task {task_id} has not ended in {timeout:g} s; it goes on", goes_on(task_id)
        ) from None


async def follow_logs(client: TesClient, task_id: str, follower: "LogFilter") -> Task:
    """Print what executors say until the task has ended; the task as it was then."""
    async for task in client.watch(task_id, "FULL", _LOG_POLL):
        follower.print(task)
    return task


@dataclass
class LogFilter:
    """Prints what is new of the wanted executor (None: of all) and the wanted streams."""

    executor: int | None = None
    streams: tuple[str, ...] = ("stdout", "stderr")
    printed: bool = False
    _follower: Follower = field(default_factory=Follower)

    def print(self, task: Task) -> None:
        """Standard output's text to standard output, standard error's to standard error."""
        for piece in self._follower.news(task):
            if piece.stream in self.streams and self.executor in {None, piece.executor}:
                self.printed = True
                show(piece)


def show(piece: Piece) -> None:
    """Exactly what the executor printed."""
    if piece.gap:
        say(f"poiesis: some of the {piece.stream} of executor {piece.executor} came too fast to be kept")
    write_raw(sys.stdout if piece.stream == "stdout" else sys.stderr, piece.text)


def say_verdict(task: Task, *, output: bool) -> None:
    """Why it did not end well; nothing if it did. `output`: with the last lines of what failed."""
    for line in verdict(task, output=output):
        say(f"  {line}")


def goes_on(task_id: str) -> str:
    """What a user can do with a task that was left."""
    word = shlex.quote(task_id)
    return f"follow it: poiesis wait {word}    cancel it: poiesis cancel {word}"
