"""Everything that is printed. Results go to standard output, what accompanies them to standard error."""

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from poiesis_cli.errors import CliError, OutputClosed
from poiesis_cli.progress import size_text
from poiesis_cli.tes import Task
from poiesis_cli.web import printable

_PIPE_WIDTH = 100_000  # columns: whoever reads a pipe wants whole lines
_STATE_STYLES = {
    "COMPLETE": "green",
    "EXECUTOR_ERROR": "red",
    "SYSTEM_ERROR": "red",
    "PREEMPTED": "red",
    "CANCELED": "yellow",
    "CANCELING": "yellow",
    "RUNNING": "cyan",
}


def say(text: str) -> None:
    """A line on standard error, without the control characters that a server may have put into it."""
    sys.stderr.write(printable(text) + "\n")
    sys.stderr.flush()


def say_error(error: CliError) -> None:
    """What is wrong, and what to do next."""
    say(f"poiesis: {error}")
    if error.advice:
        say(f"  {error.advice}")


def write(text: str) -> None:
    """To standard output, as it is. Raise OutputClosed if nobody reads it."""
    write_raw(sys.stdout, text)


def write_raw(stream: TextIO, text: str) -> None:
    """An executor's words, whatever they are: half a surrogate pair becomes a question mark."""
    try:
        stream.flush()
        stream.buffer.write(text.encode("utf-8", "replace"))
        stream.buffer.flush()
    except BrokenPipeError:
        # Else Python would try again, and complain, when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        raise OutputClosed("nobody reads the output") from None


def write_json(document: Any) -> None:
    """Indented; every character as itself."""
    write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def write_tasks(tasks: Iterable[Task]) -> None:
    """A line a task."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("ID", "STATE", "CREATED"):
        table.add_column(heading, no_wrap=True)
    table.add_column("NAME", overflow="fold")
    for task in tasks:
        table.add_row(_cell(task.id), _state(task.state), _cell(task.creation_time[:19]), _cell(task.name))
    _print(table)


def write_task(task: Task) -> None:
    """The facts of one, and how it ended."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("id", _cell(task.id))
    table.add_row("state", _state(task.state))
    for label, text in _facts(task):
        table.add_row(label, _cell(text))
    _print(table)


def write_service(info: Mapping[str, Any], base: str) -> None:
    """Service-info: what there is of it."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("url", _cell(base))
    for key in ("name", "id", "description", "type", "version", "organization", "environment", "storage"):
        if info.get(key):
            table.add_row(key, _cell(_words(info[key])))
    parameters = info.get("tesResources_backend_parameters")
    if parameters:
        table.add_row("backend parameters", _cell(_words(parameters)))
    _print(table)


def _facts(task: Task) -> Iterable[tuple[str, str]]:
    if task.name:
        yield "name", task.name
    if task.creation_time:
        yield "created", task.creation_time
    for key, value in sorted(task.tags.items()):
        yield "tag", f"{key}={value}"
    logs = task.last_attempt.executors
    for index, executor in enumerate(task.executors):
        code = logs[index].exit_code if index < len(logs) else None
        end = "" if code is None else f"  → exit code {code}"
        yield f"executor {index}", f"{executor.image}: {_command(executor.command)}{end}"
    if len(task.attempts) > 1:
        yield "attempts", str(len(task.attempts))
    metadata = task.last_attempt.metadata
    if metadata.get("reason"):
        yield "reason", metadata["reason"]
    if metadata.get("message"):
        yield "message", metadata["message"]
    for output in task.last_attempt.outputs:
        yield "output", f"{output.get('url')}{_size(output.get('size_bytes'))}"
    for line in task.last_attempt.system_logs:
        yield "log", line


def _command(command: Sequence[str]) -> str:
    return " ".join(
        json.dumps(word, ensure_ascii=False) if not word or " " in word else word for word in command
    )


def _size(value: object) -> str:
    """TES: a string; a number from some servers."""
    text = str(value)
    return f"  {size_text(int(text))}" if text.isascii() and text.isdigit() else ""


def _words(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return ", ".join(_words(one) for one in value.values() if one)
    if isinstance(value, Sequence):
        return "\n".join(_words(one) for one in value)
    return json.dumps(value)


def _cell(text: str) -> Text:
    """No markup of a server's is obeyed."""
    return Text("\n".join(printable(line) for line in text.split("\n")))


def _state(state: str) -> Text:
    return Text(printable(state), style=_STATE_STYLES.get(state, ""))


def _print(table: Table) -> None:
    terminal = sys.stdout.isatty()
    console = Console(file=sys.stdout, highlight=False, width=None if terminal else _PIPE_WIDTH)
    with console.capture() as capture:
        console.print(table)
    write("".join(line.rstrip() + "\n" for line in capture.get().splitlines()))
