"""Operations on many tasks of one server: find, create, cancel, and wait for all of them."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from rich.status import Status
from rich.text import Text

from poiesis_cli.client import TesClient
from poiesis_cli.errors import CliError, TimedOut
from poiesis_cli.progress import duration_text, failure
from poiesis_cli.terminal import message, status
from poiesis_cli.tes import STATES, Task
from poiesis_cli.timing import next_poll

_CONCURRENT = 8  # requests
_LINE_SECONDS = 30.0  # between two lines of progress without a terminal
_FAILURES_SHOWN = 10  # tasks whose reasons are printed

_T = TypeVar("_T")
_R = TypeVar("_R")
Read = Callable[[], Awaitable[Sequence[Task]]]


async def for_each(items: Iterable[_T], work: Callable[[_T], Awaitable[_R]]) -> list[_R]:
    """Return the results in the order of the items; at most _CONCURRENT run at a time.

    The first error cancels the others and is raised.
    """
    free = asyncio.Semaphore(_CONCURRENT)

    async def one(item: _T) -> _R:
        async with free:
            return await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(one(item)) for item in items]
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from errors
    return [each.result() for each in running]


def tag_filters(tags: Sequence[str]) -> list[tuple[str, str]]:
    """Return the query parameters of `KEY[=VALUE]`; TES 1.1 pairs keys and values by position."""
    filters: list[tuple[str, str]] = []
    for tag in tags:
        key, _, value = tag.partition("=")
        filters += [("tag_key", key), ("tag_value", value)]
    return filters


async def find(client: TesClient, tags: Sequence[str]) -> list[Task]:
    """Return all tasks with these tags, in the MINIMAL view."""
    return [task async for task in client.list_tasks([("view", "MINIMAL"), *tag_filters(tags)])]


async def full_ids(client: TesClient, task_ids: Sequence[str]) -> list[str]:
    """Return the complete ids. Raise NotFound."""

    async def one(task_id: str) -> str:
        return (await client.with_full_id(task_id, client.get)).id or task_id

    return list(dict.fromkeys(await for_each(task_ids, one)))


def by_id(client: TesClient, task_ids: Sequence[str]) -> Read:
    """Read tasks with one request for each that has not ended."""
    ended: dict[str, Task] = {}

    async def one(task_id: str) -> Task:
        task = ended.get(task_id) or await client.get(task_id)
        if task.ended:
            ended[task_id] = task
        return task

    return lambda: for_each(task_ids, one)


def by_tags(client: TesClient, tags: Sequence[str], task_ids: Sequence[str]) -> Read:
    """Read tasks with one request for all of them; other tasks with the same tags are left out."""
    wanted = set(task_ids)

    async def read() -> Sequence[Task]:
        return [task for task in await find(client, tags) if task.id in wanted]

    return read


async def create_all(
    client: TesClient, documents: Sequence[Mapping[str, Any]], created: dict[int, str]
) -> None:
    """Create tasks; `created` gets the id of each by its index, also when an error ends the operation."""

    async def one(item: tuple[int, Mapping[str, Any]]) -> None:
        index, document = item
        created[index] = await client.create(document)

    await for_each(enumerate(documents), one)


async def cancel_one(client: TesClient, task_id: str) -> Task | CliError:
    """Return the task after the cancel, or the error."""

    async def cancel_and_get(full: str) -> Task:
        await client.cancel(full)
        return await client.get(full)

    try:
        return await client.with_full_id(task_id, cancel_and_get)
    except CliError as error:
        return error


async def wait_for_all(
    client: TesClient,
    read: Read,
    *,
    quiet: bool,
    timeout: float | None,  # noqa: ASYNC109
) -> list[Task]:
    """Return the ended tasks in the MINIMAL view. Raise TimedOut after `timeout` seconds; tasks continue."""
    start = time.monotonic()
    try:
        async with asyncio.timeout(timeout):
            with CountDisplay(quiet=quiet) as display:
                while True:
                    tasks = list(await read())
                    display.update(tasks)
                    if all(task.ended for task in tasks):
                        return tasks
                    await asyncio.sleep(next_poll(client.timing, time.monotonic() - start))
    except TimeoutError:
        raise TimedOut(f"not all tasks have ended within {timeout:g} s; they continue") from None


@dataclass
class CountDisplay:
    """The number of tasks by state on standard error: one changing line on a terminal, else some lines."""

    quiet: bool = False
    _start: float = field(default_factory=time.monotonic)
    _last: str = ""
    _printed_at: float | None = None
    _status: Status | None = None

    def update(self, tasks: Sequence[Task]) -> None:
        """Show the numbers if they have changed."""
        text = counts(tasks)
        now = time.monotonic()
        due = self._printed_at is None or now - self._printed_at >= _LINE_SECONDS
        if self._status is not None:
            self._status.update(Text(f"{duration_text(now - self._start)}  {text}"))
        elif not self.quiet and text != self._last and (due or all(task.ended for task in tasks)):
            message(f"{now - self._start:7.1f} s  {text}")
            self._last, self._printed_at = text, now

    def __enter__(self) -> "CountDisplay":
        if not self.quiet:
            self._status = status("…")
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()


def counts(tasks: Sequence[Task]) -> str:
    """Return the number of tasks by state, for example `3 tasks: 1 RUNNING, 2 COMPLETE`."""
    found = Counter(task.state for task in tasks)
    order = [*STATES, *sorted(set(found) - set(STATES))]
    by_state = ", ".join(f"{found[state]} {state}" for state in order if found[state])
    return f"{len(tasks)} {'task' if len(tasks) == 1 else 'tasks'}: {by_state or 'none'}"


async def ended_in_full(client: TesClient, tasks: Sequence[Task]) -> list[Task]:
    """Return the same tasks; those that are not COMPLETE in the FULL view, for their reasons and codes."""

    async def one(task: Task) -> Task:
        return task if task.state == "COMPLETE" else await client.get(task.id, "FULL")

    return await for_each(tasks, one)


def failures(tasks: Sequence[Task]) -> Iterator[str]:
    """Yield a line for each of the first tasks that failed, and one for the number of the others."""
    failed = [task for task in tasks if task.state != "COMPLETE"]
    for task in failed[:_FAILURES_SHOWN]:
        reason = next(failure(task, output=False), "")
        yield "  ".join(filter(None, [task.id, task.state, task.name, reason]))
    if len(failed) > _FAILURES_SHOWN:
        yield f"and {len(failed) - _FAILURES_SHOWN} more"


def worst_exit_code(tasks: Sequence[Task]) -> int:
    """Return 0 if all tasks are COMPLETE, else the highest exit code of a task."""
    return max((task.exit_code for task in tasks), default=0)
