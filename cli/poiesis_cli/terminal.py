"""All printing. Results go to standard output, everything else to standard error."""

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.status import Status
from rich.table import Table
from rich.text import Text

from poiesis_cli.errors import CliError, OutputClosed
from poiesis_cli.progress import duration_text, sent_size
from poiesis_cli.tes import Task
from poiesis_cli.usage import Report, usage_rows
from poiesis_cli.web import printable

_PIPE_WIDTH = 100_000  # columns: lines are not wrapped in a pipe
_GAP = 2  # between two columns
_DISPLAY_LINES = 3  # of a TaskDisplay that are not tasks
_NAME_WIDTH = 12  # at least: other columns are left out first
_STATE_STYLES = {
    "COMPLETE": "green",
    "EXECUTOR_ERROR": "red",
    "SYSTEM_ERROR": "red",
    "PREEMPTED": "red",
    "CANCELED": "yellow",
    "CANCELING": "yellow",
    "RUNNING": "cyan",
}


def message(text: str) -> None:
    """Print a line on standard error, without the control characters that a server may have sent."""
    sys.stderr.write(printable(text) + "\n")
    sys.stderr.flush()


def print_error(error: CliError) -> None:
    """Print the message and the advice."""
    message(f"poiesis: {error}")
    if error.advice:
        message(f"  {error.advice}")


def status(text: str) -> Status | None:
    """Show a spinner on standard error; None if that is not a terminal. Stop it when done."""
    if not sys.stderr.isatty():
        return None
    spinner = Console(stderr=True).status(Text(text))
    spinner.start()
    return spinner


def write(text: str) -> None:
    """Write to standard output unchanged. Raise OutputClosed if its reader has exited."""
    write_raw(sys.stdout, text)


def write_raw(stream: TextIO, text: str) -> None:
    """Write an executor's output; lone surrogates become question marks."""
    try:
        stream.flush()
        stream.buffer.write(text.encode("utf-8", "replace"))
        stream.buffer.flush()
    except BrokenPipeError:
        # Otherwise Python would flush again at exit, and print an error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        raise OutputClosed("the output pipe is closed") from None


def write_json(document: Any) -> None:
    """Write indented JSON without escapes for non-ASCII characters."""
    write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def write_tasks(tasks: Sequence[Task]) -> None:
    """Write one line per task. A narrow terminal gets fewer columns; id and state are never cut."""
    width = Console(file=sys.stdout).width if sys.stdout.isatty() else _PIPE_WIDTH
    _print(_task_table(tasks, width), _PIPE_WIDTH)


class TaskDisplay:
    """A table of tasks on the terminal that is replaced by each `show`. `rows`: how many fit."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False)

    @property
    def rows(self) -> int:
        return max(self._console.height - _DISPLAY_LINES, 1)

    def show(self, tasks: Sequence[Task]) -> None:
        """Replace the table."""
        time = Text(datetime.now().astimezone().strftime("%H:%M:%S, Ctrl-C to exit"), style="dim")
        self._live.update(Group(_task_table(tasks, self._console.width), time), refresh=True)

    def __enter__(self) -> "TaskDisplay":
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()


def task_display() -> TaskDisplay:
    """Return a display on standard output."""
    return TaskDisplay(Console(file=sys.stdout, highlight=False))


def write_section(heading: str, rows: Sequence[tuple[str, str]]) -> None:
    """Write a heading, and below it the rows of a label and a text."""
    table = _details()
    for label, text in rows:
        table.add_row(_cell(f"  {label}"), _cell(text))
    _print(Text(heading, style="bold underline"))
    _print(table)


def _task_table(tasks: Sequence[Task], width: int) -> Table:
    now = datetime.now(UTC)
    columns = {
        "ID": [task.id for task in tasks],
        "STATE": [task.state for task in tasks],
        "EXIT": [_exit_code(task) for task in tasks],
        "CREATED": [task.creation_time[:19] for task in tasks],
        "DURATION": [_duration(task, now) for task in tasks],
        "OWNER": [task.last_attempt.metadata.get("owner", "") for task in tasks],
        "NAME": [task.name for task in tasks],
    }
    if not any(columns["OWNER"]):
        del columns["OWNER"]
    for optional in ("OWNER", "CREATED", "DURATION", "EXIT"):
        if _width(columns) > width:
            columns.pop(optional, None)
    room = max(width - _width(columns | {"NAME": []}) + len("NAME"), _NAME_WIDTH)
    columns["NAME"] = [_cut(name, room) for name in columns["NAME"]]
    return _columns(columns)


def write_task(task: Task) -> None:
    """Write the details of a task and its outcome."""
    table = _details()
    table.add_row("id", _cell(task.id))
    table.add_row("state", _state(task.state))
    for label, text in _task_details(task):
        table.add_row(label, _cell(text))
    _print(table)
    if rows := usage_rows(task):
        write("\n")
        _print(
            _columns(
                {
                    "EXECUTOR": [row.executor for row in rows],
                    "CPU CORES": [row.cpu_cores for row in rows],
                    "MEMORY": [row.memory for row in rows],
                    "DISK": [row.disk for row in rows],
                }
            )
        )


def write_report(report: Report) -> None:
    """Write a report of usage as a table."""
    _print(_columns(report.columns), _PIPE_WIDTH)


def write_service(info: Mapping[str, Any], base: str) -> None:
    """Write the known fields of service-info."""
    table = _details()
    table.add_row("url", _cell(base))
    for key in ("name", "id", "description", "type", "version", "organization", "environment", "storage"):
        if info.get(key):
            table.add_row(key, _cell(_value(info[key])))
    parameters = info.get("tesResources_backend_parameters")
    if parameters:
        table.add_row("backend parameters", _cell(_value(parameters)))
    _print(table)


def _columns(columns: Mapping[str, Sequence[str]]) -> Table:
    """Return a table with a heading per column."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in columns:
        table.add_column(heading, no_wrap=True)
    for row in zip(*columns.values(), strict=True):
        cells = dict(zip(columns, row, strict=True))
        table.add_row(*(_state(text) if key == "STATE" else _cell(text) for key, text in cells.items()))
    return table


def _details() -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    return table


def _task_details(task: Task) -> Iterable[tuple[str, str]]:
    if task.name:
        yield "name", task.name
    if task.creation_time:
        yield "created", task.creation_time
    if duration := _duration(task, datetime.now(UTC)):
        yield "duration", duration
    for key, value in sorted(task.tags.items()):
        yield "tag", f"{key}={value}"
    yield from _executor_details(task)
    if len(task.attempts) > 1:
        yield "attempts", str(len(task.attempts))
    metadata = task.last_attempt.metadata
    for label, key in (("waiting", "waiting_reason"), ("reason", "reason"), ("message", "message")):
        if metadata.get(key):
            yield label, metadata[key]
    for output in task.last_attempt.outputs:
        yield "output", f"{output.get('url')}{sent_size(output)}"
    for line in task.last_attempt.system_logs:
        yield "log", line


def _executor_details(task: Task) -> Iterable[tuple[str, str]]:
    logs = task.last_attempt.executors
    for index, executor in enumerate(task.executors):
        code = logs[index].exit_code if index < len(logs) else None
        end = "" if code is None else f"  → exit code {code}"
        yield f"executor {index}", f"{executor.image}: {_command(executor.command)}{end}"


def _exit_code(task: Task) -> str:
    """Return 0, or the exit code of the executor that failed."""
    if task.state == "COMPLETE":
        return "0"
    return str(task.failed_executor[1]) if task.state == "EXECUTOR_ERROR" and task.failed_executor else ""


def _duration(task: Task, now: datetime) -> str:
    """Return how long the last attempt has run; empty if its times are missing."""
    start, end = task.last_attempt.start_time, task.last_attempt.end_time
    if start is None or (end is None and task.ended):
        return ""
    return duration_text(((end or now) - start).total_seconds())


def _width(columns: Mapping[str, Sequence[str]]) -> int:
    """Return the least width of a table, whose NAME column may be cut."""
    widths = [max(map(len, (heading, *texts))) for heading, texts in columns.items() if heading != "NAME"]
    name = max(map(len, ("NAME", *columns["NAME"])))
    return sum(widths) + min(name, _NAME_WIDTH) + _GAP * len(widths)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _command(command: Sequence[str]) -> str:
    return " ".join(
        json.dumps(word, ensure_ascii=False) if not word or " " in word else word for word in command
    )


def _value(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return ", ".join(_value(one) for one in value.values() if one)
    if isinstance(value, Sequence):
        return "\n".join(_value(one) for one in value)
    return json.dumps(value)


def _cell(text: str) -> Text:
    """Return plain text: rich must not interpret markup from a server."""
    return Text("\n".join(printable(line) for line in text.split("\n")))


def _state(state: str) -> Text:
    return Text(printable(state), style=_STATE_STYLES.get(state, ""))


def _print(table: RenderableType, width: int | None = None) -> None:
    terminal = sys.stdout.isatty()
    console = Console(file=sys.stdout, highlight=False, width=width if terminal else _PIPE_WIDTH)
    with console.capture() as capture:
        console.print(table)
    write("".join(line.rstrip() + "\n" for line in capture.get().splitlines()))
