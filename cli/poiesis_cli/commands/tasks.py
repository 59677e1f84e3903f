"""Commands about tasks that exist: list, get, describe, logs, cancel."""

import asyncio
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import click

from poiesis_cli import many, terminal
from poiesis_cli.client import Params, TesClient, View
from poiesis_cli.commands.completion import task_ids
from poiesis_cli.commands.waiting import write_task
from poiesis_cli.description import describe as describe_task
from poiesis_cli.errors import BadUsage, CliError, Exit, Interrupted
from poiesis_cli.follow import LogPrinter, follow_logs
from poiesis_cli.invocation import (
    SINCE,
    Invocation,
    OneOf,
    WholeNumber,
    check_ids_or_tags,
    common_options,
    config_option,
    server_option,
    tags_option,
)
from poiesis_cli.terminal import message
from poiesis_cli.tes import STATES, Task, read_time


@click.command(name="list")
@common_options
@click.option(
    "--state", type=OneOf(STATES, case_sensitive=False), metavar="STATE", help="Only tasks in this state."
)
@tags_option
@click.option("--name-prefix", metavar="TEXT", help="Only tasks whose name starts with this text.")
@click.option(
    "--limit",
    type=WholeNumber(0),
    default=100,
    show_default=True,
    metavar="N",
    help="List at most N tasks; 0 for all.",
)
@click.option(
    "--since",
    type=SINCE,
    metavar="TIME",
    help="Only tasks created after this: an age such as 90s, 30m, 2h or 7d, or an RFC 3339 time.",
)
@click.option("--watch", is_flag=True, help="Refresh the table until Ctrl-C.")
@click.pass_obj
def list_(
    call: Invocation,
    /,
    *,
    state: str | None,
    tags: Sequence[str],
    name_prefix: str | None,
    limit: int,
    since: datetime | None,
    watch: bool,
) -> int:
    """List tasks, usually the newest first.

    The table has one line per task, also in a pipe; --output json prints the documents.
    With --since, listing ends at the first older task, so the server must list the newest first.

    \b
    poiesis list --state RUNNING --tag project=x
    poiesis list --watch --since 1h
    poiesis list --limit 0 --output json | jq -r '.tasks[].id'
    """
    filters = [("view", "BASIC")]
    if state:
        filters.append(("state", state.upper()))
    if name_prefix:
        filters.append(("name_prefix", name_prefix))
    filters += many.tag_filters(tags)

    if watch:
        return _watch(call, filters, limit, since)

    async def work() -> list[Task]:
        async with call.client() as client:
            # One more than the limit shows whether there are more.
            return await _list(client, filters, limit + 1 if limit else None, since)

    tasks = call.run(work())
    shown = tasks[:limit] if limit else tasks
    if call.output == "json":
        terminal.write_json({"tasks": [task.document for task in shown]})
    else:
        terminal.write_tasks(shown)
    if len(tasks) > len(shown):
        message(f"poiesis: there are more than {limit} tasks; list all with --limit 0")
    return Exit.OK


@click.command()
@common_options
@click.argument("task_id", metavar="ID", shell_complete=task_ids)
@click.option(
    "--view",
    type=OneOf(["MINIMAL", "BASIC", "FULL"], case_sensitive=False),
    default="FULL",
    show_default=True,
    help="How much the server returns.",
)
@click.pass_obj
def get(call: Invocation, /, task_id: str, view: Any) -> int:
    """Show one task.

    \b
    poiesis get ID
    poiesis get ID --output json | jq '.logs[-1].logs[].exit_code'
    """

    write_task(call, call.run(_get(call, task_id, view.upper())))
    return Exit.OK


@click.command()
@server_option
@config_option
@click.argument("task_id", metavar="ID", shell_complete=task_ids)
@click.pass_obj
def describe(call: Invocation, /, task_id: str) -> int:
    """Show what happened to a task, why, and what to do next.

    \b
    poiesis describe ID
    """
    task = call.run(_get(call, task_id, "FULL"))
    for section in describe_task(task, datetime.now(UTC)):
        terminal.write_section(section.heading, section.rows)
    return Exit.OK


@click.command()
@server_option
@config_option
@click.argument("task_id", metavar="ID", shell_complete=task_ids)
@click.option("-f", "--follow", is_flag=True, help="Print new output until the task has ended.")
@click.option("--executor", type=WholeNumber(0), metavar="N", help="Only executor N; the first is 0.")
@click.option("--stream", type=OneOf(["stdout", "stderr"]), help="Only this stream.")
@click.option("--system", is_flag=True, help="Print the server's messages about the task instead.")
@click.pass_obj
def logs(
    call: Invocation,
    /,
    task_id: str,
    *,
    follow: bool,
    executor: int | None,
    stream: str | None,
    system: bool,
) -> int:
    """Print the output of a task's executors.

    Their standard error goes to standard error.

    With -f, Poiesis returns output while an executor runs; most other servers return it when it has ended.

    \b
    poiesis logs -f ID
    poiesis logs ID --executor 1 --stream stderr
    """
    if follow and system:
        raise BadUsage(
            "--follow cannot be combined with --system", f"see the progress: poiesis wait {task_id}"
        )
    call.task_id = task_id if follow else None
    printer = LogPrinter(executor=executor, streams=(stream,) if stream else ("stdout", "stderr"))

    async def work() -> Task:
        async with call.client(waiting=follow) as client:

            async def read(full: str) -> Task:
                return await (follow_logs(client, full, printer) if follow else client.get(full, "FULL"))

            return await client.with_full_id(task_id, read)

    task = call.run(work())
    if system:
        for attempt in task.attempts:
            terminal.write("".join(f"{line}\n" for line in attempt.system_logs))
        return Exit.OK
    printer.print(task)
    if not printer.printed:
        message(f"poiesis: no such output of task {task_id} ({task.state})")
    return Exit.OK


@click.command()
@common_options
@click.argument("ids", metavar="[ID...]", nargs=-1, shell_complete=task_ids)
@tags_option
@click.pass_obj
def cancel(call: Invocation, /, ids: Sequence[str], tags: Sequence[str]) -> int:
    """Cancel tasks, given by their ids or their tags. Tasks that have ended stay unchanged.

    \b
    poiesis cancel ID
    poiesis cancel --tag run=7
    """
    check_ids_or_tags(ids, tags)

    async def work() -> dict[str, Task | CliError]:
        async with call.client() as client:
            chosen = ids or [task.id for task in await many.find(client, tags) if not task.ended]
            tasks = await many.for_each(chosen, lambda task_id: many.cancel_one(client, task_id))
            return dict(zip(chosen, tasks, strict=True))

    outcomes = call.run(work())
    if not outcomes:
        message(f"poiesis: no task with the tags {', '.join(tags)} is unfinished")
    if call.output == "json":
        terminal.write_json([_cancel_result(task_id, one) for task_id, one in outcomes.items()])
    for task_id, one in outcomes.items():
        if isinstance(one, CliError):
            terminal.print_error(one)
        elif one.ended and one.state != "CANCELED":
            message(f"poiesis: task {task_id} had already ended: {one.state}")
        elif call.output != "json":
            terminal.write(f"{task_id}\n")
    return max((one.exit for one in outcomes.values() if isinstance(one, CliError)), default=Exit.OK)


def _cancel_result(task_id: str, one: Task | CliError) -> dict[str, str | None]:
    if isinstance(one, CliError):
        return {"id": task_id, "state": None, "error": str(one)}
    return {"id": task_id, "state": one.state, "error": None}


async def _get(call: Invocation, task_id: str, view: View) -> Task:
    async with call.client() as client:
        return await client.with_full_id(task_id, lambda full: client.get(full, view))


async def _list(
    client: TesClient, filters: Params, limit: int | None, since: datetime | None, *, spin: bool = True
) -> list[Task]:
    """Collect tasks, with a counter on a terminal: a long list takes many requests."""
    tasks: list[Task] = []
    spinner = terminal.status("listing tasks") if spin else None
    try:
        async for task in client.list_tasks(filters, limit):
            if since is not None and _is_older(task, since):
                break
            tasks.append(task)
            if spinner is not None and len(tasks) % 100 == 0:
                spinner.update(f"listing tasks: {len(tasks)}")
    finally:
        if spinner is not None:
            spinner.stop()
    return tasks


def _is_older(task: Task, since: datetime) -> bool:
    created = read_time(task.creation_time)
    return created is not None and created < since


def _watch(call: Invocation, filters: Params, limit: int, since: datetime | None) -> int:
    """Refresh the newest tasks that fit on the terminal, until Ctrl-C."""
    if call.output == "json" or not sys.stdout.isatty():
        raise BadUsage("--watch requires a terminal", "in a script: poiesis wait --tag KEY=VALUE")

    async def work() -> None:
        async with call.client(waiting=True) as client:
            with terminal.task_display() as display:
                while True:
                    room = min(limit or display.rows, display.rows)
                    display.show(await _list(client, filters, room, since, spin=False))
                    await asyncio.sleep(call.timing.refresh)

    try:
        call.run(work())
    except Interrupted:
        return Exit.OK
    return Exit.OK
