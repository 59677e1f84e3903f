"""The command wait, and the waiting of run."""

import time
from collections.abc import Sequence

import click

from poiesis_cli import many, terminal
from poiesis_cli.commands.completion import task_ids
from poiesis_cli.errors import BadUsage, CliError, Interrupted, NotFound, TimedOut
from poiesis_cli.follow import next_steps, print_outcome, wait_for_end
from poiesis_cli.invocation import (
    Invocation,
    check_ids_or_tags,
    common_options,
    logs_option,
    quiet_option,
    tags_option,
    timeout_option,
)
from poiesis_cli.progress import duration_text
from poiesis_cli.terminal import message
from poiesis_cli.tes import Task


@click.command()
@common_options
@quiet_option
@click.argument("ids", metavar="[ID...]", nargs=-1, shell_complete=task_ids)
@tags_option
@logs_option
@timeout_option
@click.pass_obj
def wait(
    call: Invocation, /, ids: Sequence[str], tags: Sequence[str], logs: bool, timeout: float | None
) -> int:
    """Wait for the end of tasks, given by their ids or their tags.

    Prints the progress. Exits with the exit code of the task, or with the highest one of several.
    If the server does not respond, requests are retried for ten minutes. Ctrl-C leaves the tasks running.

    \b
    poiesis wait ID && echo good
    poiesis wait ID --quiet --timeout 3600
    poiesis wait --tag run=7
    """
    if len(ids) == 1 and not tags:
        call.task_id = ids[0]
        return wait_for_one(
            call, ids[0], logs=logs, timeout=timeout, result=not logs or call.output == "json"
        )
    if logs:
        raise BadUsage("--logs requires one ID", "print the output of a task: poiesis logs ID")
    found = _find(call, ids, tags)
    return report_all(call, task_ids=found, tags=() if ids else tags, timeout=timeout)


def wait_for_one(call: Invocation, task_id: str, *, logs: bool, timeout: float | None, result: bool) -> int:
    """Wait for the end of a task, print its outcome and return its exit code."""

    async def work() -> Task:
        async with call.client(waiting=True) as client:
            return await client.with_full_id(
                task_id,
                lambda full: wait_for_end(client, full, quiet=call.quiet, logs=logs, timeout=timeout),
            )

    try:
        task = call.run(work())
    except (TimedOut, Interrupted, NotFound, BadUsage):
        raise
    except CliError:
        message(f"poiesis: stopped watching task {task_id}, which may continue: {next_steps(task_id)}")
        raise
    if not call.quiet:
        print_outcome(task, logs_printed=logs)
    if result:
        write_task(call, task)
    return task.exit_code


def report_all(
    call: Invocation, *, task_ids: Sequence[str], tags: Sequence[str], timeout: float | None
) -> int:
    """Wait for tasks, print a summary with the first failures, and return the highest exit code.

    `tags`: those that all these tasks have; they are then read with one request.
    """
    start = time.monotonic()

    async def work() -> list[Task]:
        async with call.client(waiting=True) as client:
            read = many.by_tags(client, tags, task_ids) if tags else many.by_id(client, task_ids)
            tasks = await many.wait_for_all(client, read, quiet=call.quiet, timeout=timeout)
            return await many.ended_in_full(client, tasks)

    try:
        tasks = call.run(work())
    except Interrupted:
        raise Interrupted("interrupted; the tasks continue", _next_steps(tags)) from None
    if not call.quiet:
        message(f"{many.counts(tasks)} in {duration_text(time.monotonic() - start)}")
        for line in many.failures(tasks):
            message(f"  {line}")
    if call.output == "json":
        terminal.write_json(
            [{"id": task.id, "state": task.state, "exit_code": task.exit_code} for task in tasks]
        )
    return many.worst_exit_code(tasks)


def _find(call: Invocation, ids: Sequence[str], tags: Sequence[str]) -> list[str]:
    """Return complete ids. Raise BadUsage for neither ids nor tags, or for both; NotFound."""
    check_ids_or_tags(ids, tags)

    async def work() -> list[str]:
        async with call.client() as client:
            if ids:
                return await many.full_ids(client, ids)
            return [task.id for task in await many.find(client, tags)]

    found = call.run(work())
    if not found:
        raise NotFound(f"no task has the tags {', '.join(tags)}", "see poiesis list")
    return found


def _next_steps(tags: Sequence[str]) -> str:
    if not tags:
        return "follow them: poiesis wait ID..."
    options = " ".join(f"--tag {tag}" for tag in tags)
    return f"follow them: poiesis wait {options}    cancel them: poiesis cancel {options}"


def write_task(call: Invocation, task: Task) -> None:
    """Write a task as a table or as JSON."""
    if call.as_json:
        terminal.write_json(task.document)
    else:
        terminal.write_task(task)
