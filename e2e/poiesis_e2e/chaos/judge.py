"""The rules that hold for every task despite all kills. Pure: observations in, violations out.

Recorder, api, controller and connections may die at any moment, and the outcome of a task still follows from
its executors. The same holds for a restart of the kubelet, with one exception: a container that is being
started at that moment. The runtime aborts its start together with the kubelet's request (`StartError`,
"context canceled"), and Kubernetes fails a Pod with restartPolicy Never. The container never ran, and nothing
may run after it. If it is `pause`, or `tof` after a failure, the outcome is that of the executors. A recorder
that is down when a Pod ends in this way is not restarted: events that it had not reported are lost.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

from poiesis_e2e.chaos.record import Observed, Record
from poiesis_e2e.chaos.shapes import Step, Stream, output_key
from poiesis_e2e.tes_client import TERMINAL, ExecutorLog, State, Task

_ORDER: Mapping[State, int] = {
    "QUEUED": 0,
    "INITIALIZING": 1,
    "RUNNING": 2,
    "CANCELING": 3,
    **dict.fromkeys(TERMINAL, 4),
}
_CUT_OFF = re.compile("([a-z]+-[0-9]+) could not be started: .*context canceled")
# Message of the controller; 128: the runtime could not start the container.
_PAUSE_LOST = "pause exited with code 128"
_UNREPORTED = re.compile("outcome recorded by the controller .*phase Running, .* did not report it")
_RESTART_SECONDS = 60.0  # until the kubelet has detected the failure and ended the Pod
_STREAMS: tuple[Stream, ...] = ("stdout", "stderr")


@dataclass(frozen=True, kw_only=True)
class Violation:
    """A broken rule. `task_id`: None if it does not concern a single task."""

    rule: str
    words: str
    task_id: str | None = None


def violations(record: Record) -> list[Violation]:
    """Return all violations of a run."""
    return [*_run(record), *(found for one in record.observed for found in task_violations(one))]


def task_violations(one: Observed) -> list[Violation]:
    """Return all violations that concern one task."""
    found = [*_states(one), *_executions(one), *_after_the_end(one), *_left(one)]
    found += document_violations(one, one.last)
    if one.first is not None and not _is_kept(one.first, one.last):
        words = f"then {_kept(one.first)}, later {_kept(one.last)}"
        found.append(_violation(one, "a terminal state never changes", words))
    content = one.submission.shape.output
    cut = one.last["state"] == "CANCELED" or lost_start(one, one.last) is not None
    if one.stored != content and not (cut and one.stored is None):
        words = f"{_size(content)} expected, {_size(one.stored)} stored"
        found.append(_violation(one, "outputs are stored whole, once", words))
    return found


def document_violations(one: Observed, task: Task) -> list[Violation]:
    """Return the violations in the FULL view of a finished task."""
    state = task["state"]
    if state not in TERMINAL:
        return [_violation(one, "every task reaches a terminal state", f"{state}; seen: {_seen(one)}")]
    excused = state == "SYSTEM_ERROR" and lost_start(one, task) is not None
    if not excused and state not in (possible := _possible_ends(one)):
        why = [log.get("metadata") for log in task["logs"]]
        words = f"{state}, not {' or '.join(sorted(possible))}: {why}"
        return [_violation(one, "a task ends as its executors do", words)]
    return [*_system_logs(one, task), *_logs(one, task), *_outputs(one, task)]


def lost_start(one: Observed, task: Task) -> str | None:
    """Return the container whose start a kubelet restart aborted, if that ended the task's Pod."""
    found = _CUT_OFF.search(_metadata(task).get("message", ""))
    return found[1] if found is not None and _restarted_before(one) else None


def lost_recorder(one: Observed, task: Task) -> bool:
    """Return whether a lost start (also of `pause`) ended the Pod while its recorder was down."""
    if _metadata(task).get("reported_by") != "controller" or not _restarted_before(one):
        return False
    lines = task["logs"][-1].get("system_logs", [])
    return lost_start(one, task) is not None or any(_PAUSE_LOST in line for line in lines)


def unreported(task: Task) -> bool:
    """Return whether the controller recorded the outcome because a killed recorder had not come back.

    The recorder adds the rest of the logs when the kubelet has restarted it.
    """
    lines = task["logs"][-1].get("system_logs", []) if task["logs"] else []
    return any(_UNREPORTED.search(line) for line in lines)


# --- one task ------------------------------------------------------------------------------------------


def _possible_ends(one: Observed) -> set[State]:
    """Return CANCELED if it was requested in time, and the natural outcome if all work was done by then."""
    shape = one.submission.shape
    ended_at = _ended_at(one)
    if one.cancel_at is None or (ended_at is not None and ended_at < one.cancel_at):
        return {shape.natural_end}
    last = len(shape.running) - 1
    all_done = any(entry.executor == last and entry.word == "ended" for entry in one.entries)
    return {"CANCELED", shape.natural_end} if all_done else {"CANCELED"}


def _metadata(task: Task) -> dict[str, str]:
    return task["logs"][-1].get("metadata", {}) if task["logs"] else {}


def _restarted_before(one: Observed) -> bool:
    """Return whether the kubelet was restarted shortly before the task ended."""
    ended_at = _ended_at(one)
    return ended_at is not None and any(0 < ended_at - at < _RESTART_SECONDS for at in one.restarts)


def _ended_at(one: Observed) -> float | None:
    return next((seen.at for seen in one.states if seen.state in TERMINAL), None)


def _states(one: Observed) -> Iterator[Violation]:
    for before, after in pairwise(seen.state for seen in one.states):
        # A terminal state never changes, not even to another terminal state.
        if before in TERMINAL or _ORDER[after] < _ORDER[before]:
            yield _violation(one, "states go forward", f"{before} → {after}; seen: {_seen(one)}")


def _executions(one: Observed) -> Iterator[Violation]:
    """Check the ledger: each executor starts at most once, after the previous one, none after a failure."""
    steps = one.submission.shape.running
    starts = Counter(entry.executor for entry in one.entries if entry.word == "started")
    for executor, count in starts.items():
        if count > 1:
            yield _violation(one, "no executor runs twice", f"executor {executor} started {count} times")
        if executor >= len(steps):
            yield _violation(one, "nothing runs after a failure", f"executor {executor} started")
    heard = [(entry.executor, entry.word) for entry in one.entries]
    expected = [(number, word) for number in range(len(steps)) for word in ("started", "ended")]
    if set(heard) <= set(expected) and heard != expected[: len(heard)] and max(starts.values()) == 1:
        yield _violation(one, "executors run one after the other", f"the ledger has {heard}")


def _after_the_end(one: Observed) -> Iterator[Violation]:
    ended_at = _ended_at(one)
    for entry in one.entries:
        if ended_at is not None and entry.at > ended_at:
            words = f"executor {entry.executor} {entry.word} {entry.at - ended_at:.1f} s later"
            yield _violation(one, "nothing runs after the end", words)


def _left(one: Observed) -> Iterator[Violation]:
    if one.left:
        yield _violation(one, "nothing is left in Kubernetes", ", ".join(one.left))


def _system_logs(one: Observed, task: Task) -> Iterator[Violation]:
    if len(task["logs"]) != 1:
        yield _violation(one, "there is one attempt", f"{len(task['logs'])} task logs")
        return
    lines = task["logs"][0].get("system_logs", [])
    if twice := [line for line, count in Counter(lines).items() if count > 1]:
        yield _violation(one, "system logs have no duplicate line", f"{twice}")
    outcomes = [line for line in lines if line.partition(" ")[2].partition(":")[0] == task["state"]]
    if len(outcomes) != 1:
        yield _violation(one, "the outcome is logged once", f"{len(outcomes)} times in {lines}")


def _logs(one: Observed, task: Task) -> Iterator[Violation]:
    logs, steps = task["logs"][-1]["logs"], one.submission.shape.running
    if task["state"] == "CANCELED":
        yield from _cut_logs(one, logs, steps)
        return
    if (lost := lost_start(one, task)) is not None:
        done = {entry.executor for entry in one.entries}
        steps = steps[: len(done)]
        if lost in {f"executor-{number}" for number in done}:
            yield _violation(one, "a container whose start was lost has not run", lost)
    cut = lost_recorder(one, task)
    codes, expected = [log["exit_code"] for log in logs], [step.exit_code for step in steps]
    if codes != expected:
        yield _violation(one, "exit codes are the executors' own", f"{codes}, not {expected}")
    for number, (log, step) in enumerate(zip(logs, steps, strict=False)):
        for stream in _STREAMS:
            logged, text = log.get(stream, ""), step.printed(stream)
            if logged != text and not (cut and text.startswith(logged)):
                words = f"{stream} of executor {number}: {_difference(logged, text)}"
                yield _violation(one, "logs are complete and not doubled", words)


def _cut_logs(one: Observed, logs: list[ExecutorLog], steps: tuple[Step, ...]) -> Iterator[Violation]:
    """Check the logs of a canceled task: each is a prefix of the expected output."""
    done = {entry.executor for entry in one.entries if entry.word == "ended"}
    for number, (log, step) in enumerate(zip(logs, steps, strict=False)):
        if log["exit_code"] == 0 and number not in done:
            words = f"0 of executor {number}, which did not end by itself"
            yield _violation(one, "exit codes are the executors' own", words)
        for stream in _STREAMS:
            logged, text = log.get(stream, ""), step.printed(stream)
            if not text.startswith(logged):
                words = f"{stream} of executor {number}: {_difference(logged, text)}"
                yield _violation(one, "logs are complete and not doubled", words)


def _outputs(one: Observed, task: Task) -> Iterator[Violation]:
    content = one.submission.shape.output
    if task["state"] == "CANCELED" or lost_start(one, task) is not None:
        return
    listed = [
        (log["url"].partition("//")[2].partition("/")[2], log["size_bytes"])
        for log in task["logs"][-1]["outputs"]
    ]
    expected = [] if content is None else [(output_key(one.name), str(len(content)))]
    if listed != expected and not (lost_recorder(one, task) and not listed):
        yield _violation(one, "outputs are listed once", f"{listed}, not {expected}")


def _is_kept(first: Task, last: Task) -> bool:
    """Return whether a finished task is unchanged, except for what a late recorder added to its logs."""
    if not unreported(first):
        return _kept(first) == _kept(last)
    return _kept(first, late=True) == _kept(last, late=True) and all(
        after.get(stream, "").startswith(before.get(stream, ""))
        for before, after in zip(_executor_logs(first), _executor_logs(last), strict=True)
        for stream in _STREAMS
    )


def _kept(task: Task, *, late: bool = False) -> dict[str, object]:
    """Return the fields that never change after a task has ended. System logs may still be added.

    `late`: without what a recorder adds that was down at the end.
    """
    fields = ("metadata", "start_time", "end_time", *(() if late else ("logs", "outputs")))
    return {
        "state": task["state"],
        "logs": [{key: log.get(key) for key in fields} for log in task["logs"]],
        "exit codes": [log["exit_code"] for log in _executor_logs(task)],
    }


def _executor_logs(task: Task) -> list[ExecutorLog]:
    return [executor for log in task["logs"] for executor in log["logs"]]


# --- the run -------------------------------------------------------------------------------------------


def _run(record: Record) -> Iterator[Violation]:
    ids: dict[str, list[str]] = {name: [] for name in record.posted}
    for one in record.observed:
        ids[one.name].append(one.task_id)
    for name, found in ids.items():
        if len(found) > 1:
            yield Violation(rule="a POST makes one task", words=f"{name} made {', '.join(found)}")
        answer = record.answered.get(name)
        if answer is not None and answer not in found:
            yield Violation(rule="an accepted task stays", words=f"{name} is not listed", task_id=answer)
    for submission in record.plan.submissions:
        if not any(record.posted[name] == submission for name in record.answered):
            words = f"task {submission.number} was never accepted"
            yield Violation(rule="a client that retries succeeds", words=words)
    for entry in record.strays:
        words = f"executor {entry.executor} of {entry.task_name} {entry.word}"
        yield Violation(rule="only known tasks run", words=words)
    for words in record.wrong_answers:
        yield Violation(rule="the api returns 503 while it is unavailable", words=words)


def _violation(one: Observed, rule: str, words: str) -> Violation:
    return Violation(
        rule=rule, words=f"{one.name} ({one.submission.shape.name}): {words}", task_id=one.task_id
    )


def _seen(one: Observed) -> str:
    return " > ".join(seen.state for seen in one.states)


def _size(content: str | None) -> str:
    return "nothing" if content is None else f"{len(content)} bytes"


def _difference(logged: str, expected: str) -> str:
    """Describe where two texts diverge."""
    logged_lines, lines = logged.splitlines(), expected.splitlines()
    same = next(
        (at for at, (one, other) in enumerate(zip(logged_lines, lines, strict=False)) if one != other),
        min(len(logged_lines), len(lines)),
    )
    return (
        f"{len(logged_lines)} lines for {len(lines)}; from line {same + 1} on"
        f" {logged_lines[same : same + 2]} for {lines[same : same + 2]}"
    )
