"""Completion of arguments from the server and the configuration. A failure completes nothing."""

import asyncio
import io
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import replace

import click
from click.shell_completion import CompletionItem

from poiesis_cli.config import server_names
from poiesis_cli.errors import CliError
from poiesis_cli.invocation import Invocation
from poiesis_cli.tes import Task

_SECONDS = 2.0  # for all requests: the shell waits
_TASKS = 200  # the newest


def task_ids(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete ids of the newest tasks, with state and name as help."""
    call = context.ensure_object(Invocation)
    try:
        with redirect_stderr(io.StringIO()):
            tasks = asyncio.run(asyncio.wait_for(_newest(call), _SECONDS))
    except (CliError, TimeoutError):
        return []
    return [
        CompletionItem(task.id, help=f"{task.state} {task.name}".strip())
        for task in tasks
        if task.id.startswith(incomplete)
    ]


def servers(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Complete the names of the servers in the configuration."""
    call = context.ensure_object(Invocation)
    try:
        names = server_names(call.environ, call.config)
    except CliError:
        return []
    return [name for name in names if name.startswith(incomplete)]


async def _newest(call: Invocation) -> Sequence[Task]:
    call.timing = replace(call.timing, retry_for=0.0)
    async with call.client() as client:
        return [task async for task in client.list_tasks([("view", "BASIC")], _TASKS)]
