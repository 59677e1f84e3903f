"""The page of `poiesis describe`: what happened to a task, why, and what to do next. Pure."""

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from poiesis_cli.advice import advice
from poiesis_cli.progress import activity, duration_text, failure, missing_outputs, sent_size
from poiesis_cli.tes import Task, read_time
from poiesis_cli.usage import ALL, usage_rows

Rows = Iterator[tuple[str, str]]

_CONTAINER_TIME = re.compile(r"([a-z]+-\d{1,4})\.start_time")
_CONTENT_CHARACTERS = 40


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page: rows of a label and a text."""

    heading: str
    rows: Sequence[tuple[str, str]]


def describe(task: Task, now: datetime) -> Iterator[Section]:
    """Yield the parts of the page that have rows."""
    parts = {
        "Task": _summary(task),
        "Reason": _reason(task),
        "Timeline": _timeline(task, now),
        "Requested": _requested(task),
        "Used": _used(task),
        "Inputs": _inputs(task),
        "Outputs": _outputs(task),
        "Next": _next(task),
    }
    for heading, rows in parts.items():
        if found := list(rows):
            yield Section(heading=heading, rows=found)


def _summary(task: Task) -> Rows:
    yield "id", task.id
    if task.name:
        yield "name", task.name
    yield "state", task.state
    if not task.ended and (doing := activity(task)):
        yield "now", doing
    for key, value in sorted(task.tags.items()):
        yield "tag", f"{key}={value}"
    metadata = task.last_attempt.metadata
    yield from ((key, metadata[key]) for key in ("owner", "pod", "node") if metadata.get(key))
    if len(task.attempts) > 1:
        yield "attempts", str(len(task.attempts))


def _reason(task: Task) -> Rows:
    if not task.ended:
        return
    for line in failure(task):
        yield "", line
    for path in missing_outputs(task):
        yield "", f"the log lists no file for output {path}: the command may not have written it"
    if todo := advice(task):
        yield "what to do", todo


def _timeline(task: Task, now: datetime) -> Rows:
    """Yield when the task was created and when each container ran, with its duration."""
    attempt = task.last_attempt
    created = read_time(task.creation_time)
    if created is not None:
        yield "created", _clock(created)
    for start, name, end in sorted(_container_times(task)):
        until = end or (None if task.ended else now)
        duration = "" if until is None else duration_text((until - start).total_seconds())
        note = "running" if end is None and not task.ended else _exit_note(task, name)
        since = "" if created is None else f"+{duration_text((start - created).total_seconds())}"
        yield name, "  ".join(filter(None, [_clock(start), since, duration, note]))
    if attempt.end_time is not None:
        total = "" if created is None else duration_text((attempt.end_time - created).total_seconds())
        yield "ended", "  ".join(filter(None, [_clock(attempt.end_time), total and f"after {total}"]))


def _container_times(task: Task) -> Iterator[tuple[datetime, str, datetime | None]]:
    """Yield start, name and end of each container; of executors only, if the server reports no others."""
    attempt = task.last_attempt
    reported = False
    for key, text in attempt.metadata.items():
        match, start = _CONTAINER_TIME.fullmatch(key), read_time(text)
        if match is not None and start is not None:
            reported = True
            yield start, match[1], read_time(attempt.metadata.get(f"{match[1]}.end_time"))
    if reported:
        return
    for index, log in enumerate(attempt.executors):
        if log.start_time is not None:
            yield log.start_time, f"executor-{index}", log.end_time


def _exit_note(task: Task, container: str) -> str:
    kind, _, number = container.partition("-")
    logs = task.last_attempt.executors
    if kind != "executor" or int(number) >= len(logs) or logs[int(number)].exit_code is None:
        return ""
    return f"exit code {logs[int(number)].exit_code}"


def _requested(task: Task) -> Rows:
    resources = _object(task.document.get("resources"))
    for key, unit in (("cpu_cores", ""), ("ram_gb", " GB"), ("disk_gb", " GB")):
        if resources.get(key) is not None:
            yield key, f"{resources[key]}{unit}"
    if resources.get("preemptible"):
        yield "preemptible", "yes"
    for name, value in sorted(_object(resources.get("backend_parameters")).items()):
        yield name, str(value)
    for index, executor in enumerate(task.executors):
        yield f"executor {index}", f"{executor.image}: {shlex.join(executor.command)}"


def _used(task: Task) -> Rows:
    for row in usage_rows(task):
        label = "all executors" if row.executor == ALL else f"executor {row.executor}"
        for unit, text in (("cores", row.cpu_cores), ("memory", row.memory), ("disk", row.disk)):
            if text:
                yield label, f"{unit} {text}"


def _inputs(task: Task) -> Rows:
    inputs = task.document.get("inputs")
    for one in inputs if isinstance(inputs, list) else ():
        source = _object(one).get("url")
        content = _object(one).get("content")
        text = source if isinstance(source, str) else f"content: {str(content or '')[:_CONTENT_CHARACTERS]!r}"
        yield str(_object(one).get("path", "")), text


def _outputs(task: Task) -> Rows:
    sent = task.last_attempt.outputs
    if not sent:
        for output in task.outputs:
            yield str(output.get("path", "")), f"→ {output.get('url', '')}"
    for output in sent:
        yield str(output.get("path", "")), f"{output.get('url', '')}{sent_size(output)}"


def _next(task: Task) -> Rows:
    word = shlex.quote(task.id)
    if not task.ended:
        yield "", f"poiesis wait {word}"
        yield "", f"poiesis logs -f {word}"
        yield "", f"poiesis cancel {word}"
        return
    if task.last_attempt.has_output:
        yield "", f"poiesis logs {word}"
    if task.state != "COMPLETE":
        yield "", f"poiesis logs --system {word}"
        yield "", f"poiesis rerun {word}"


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _clock(time: datetime) -> str:
    """Format in the local time zone, to the second."""
    return time.astimezone().strftime("%Y-%m-%d %H:%M:%S")
