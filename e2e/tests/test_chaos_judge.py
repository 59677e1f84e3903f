"""A correct run has no violation, and each failure breaks its own rule."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest

from poiesis_e2e.chaos.judge import violations
from poiesis_e2e.chaos.ledger import Entry
from poiesis_e2e.chaos.plan import Fault, Kind, Plan, Submission
from poiesis_e2e.chaos.record import Injected, Observed, Record
from poiesis_e2e.chaos.report import summary
from poiesis_e2e.chaos.shapes import Shape, Step, output_key
from poiesis_e2e.tes_client import Seen, State, Task

NAME, ID = "run-0-0", "id-0"
TWO = Shape(name="two", steps=(Step(lines=3, seconds=0), Step(lines=2, seconds=0)), output="stored\n")
FAILING = Shape(name="failing", steps=(Step(lines=1, seconds=0, exit_code=7), Step(lines=1, seconds=0)))
IGNORED = Shape(
    name="ignored",
    steps=(Step(lines=1, seconds=0, exit_code=7, ignore_error=True), Step(lines=1, seconds=0)),
)
CANCELED = Shape(name="canceled", steps=(Step(lines=3, seconds=0), Step(lines=2, seconds=0)), canceled=True)


def _submission(shape: Shape) -> Submission:
    return Submission(number=0, at=0, site="claims", shape=shape)


def _states(*states: State) -> tuple[Seen, ...]:
    return tuple(Seen(state=state, at=100.0 + number) for number, state in enumerate(states))


def _entries(shape: Shape) -> tuple[Entry, ...]:
    words = [(number, word) for number in range(len(shape.running)) for word in ("started", "ended")]
    return tuple(
        Entry(task_name=NAME, executor=number, word=word, start=f"start-{number}", at=100.0 + at / 100)  # type: ignore[arg-type]
        for at, (number, word) in enumerate(words)
    )


def _task(shape: Shape, state: State) -> Task:
    outputs = []
    if shape.output is not None:
        url = f"s3://bucket/{output_key(NAME)}"
        outputs = [{"url": url, "path": "/out/data", "size_bytes": str(len(shape.output))}]
    logs = [
        {"exit_code": step.exit_code, "stdout": step.printed("stdout"), "stderr": step.printed("stderr")}
        for step in shape.running
    ]
    lines = ["2026-01-01T00:00:00Z executor 0 started", f"2026-01-01T00:00:01Z {state}: reason: words"]
    log = {
        "logs": logs,
        "outputs": outputs,
        "system_logs": lines,
        "metadata": {},
        "end_time": "2026-01-01T00:00:02Z",
    }
    task: Any = {
        "id": ID,
        "name": NAME,
        "state": state,
        "logs": [log],
        "creation_time": "2026-01-01T00:00:00Z",
    }
    return task  # type: ignore[no-any-return]


def _observed(shape: Shape) -> Observed:
    """Return a task that breaks no rule."""
    end = shape.natural_end
    return Observed(
        submission=_submission(shape),
        name=NAME,
        task_id=ID,
        states=_states("QUEUED", "INITIALIZING", "RUNNING", end),
        first=_task(shape, end),
        last=_task(shape, end),
        entries=_entries(shape),
        stored=shape.output,
    )


def _canceled() -> Observed:
    """Return a task that was canceled while its first executor ran, after one reported line."""
    task = _task(CANCELED, "CANCELED")
    task["logs"][0]["logs"] = [{"exit_code": 143, "stdout": "line 1\n", "stderr": ""}]
    return replace(
        _observed(CANCELED),
        states=_states("QUEUED", "RUNNING", "CANCELING", "CANCELED"),
        first=task,
        last=deepcopy(task),
        entries=_entries(CANCELED)[:1],
        cancel_at=101.5,
    )


def _record(*observed: Observed) -> Record:
    submission = observed[0].submission
    fault = Fault(kind=Kind.RECORDER, at=0, site="claims", pick=0, share=0)
    return Record(
        plan=Plan(seed=1, seconds=60, submissions=(submission,), faults=(fault,)),
        observed=observed,
        injected=(Injected(fault=fault, at=100.0, victims=("trec of pod",)),),
        posted={NAME: submission},
        answered={NAME: ID},
        retries={"POST: 503": 2},
    )


def _rules(record: Record) -> set[str]:
    return {found.rule for found in violations(record)}


@pytest.mark.parametrize("shape", [TWO, FAILING, IGNORED], ids=lambda shape: shape.name)
def test_correct_run_has_no_violation(shape: Shape) -> None:
    assert violations(_record(_observed(shape))) == []


def test_cancel_may_be_in_time_or_late() -> None:
    assert violations(_record(_canceled())) == []
    late = replace(_observed(CANCELED), cancel_at=102.5)
    assert violations(_record(late)) == []
    never_ran = _task(CANCELED, "CANCELED")
    never_ran["logs"][0]["logs"] = []
    unseen = replace(_canceled(), first=never_ran, last=never_ran, entries=(), cancel_at=100.1)
    assert violations(_record(unseen)) == []


# --- one task --------------------------------------------------------------------------------------------

Change = Callable[[Observed], Observed]


def _with(**fields: object) -> Change:
    return lambda one: replace(one, **fields)  # type: ignore[arg-type]


def _with_log(change: Callable[[Any], object]) -> Change:
    """Return a change of the task's log in both views."""

    def apply(one: Observed) -> Observed:
        task: Any = deepcopy(one.last)
        change(task["logs"][0])
        return replace(one, first=task, last=task)

    return apply


def _ended_as(state: State) -> Change:
    return lambda one: replace(
        one, last=_task(one.submission.shape, state), first=_task(one.submission.shape, state)
    )


def _stdout(text: str) -> Change:
    return _with_log(lambda log: log["logs"][0].update(stdout=text))


def _entry(executor: int, word: str, start: str, at: float = 100.5) -> Entry:
    return Entry(task_name=NAME, executor=executor, word=word, start=start, at=at)  # type: ignore[arg-type]


BAD: list[tuple[str, str, Change]] = [
    ("it did not end", "every task reaches a terminal state", _with(last=_task(TWO, "RUNNING"), first=None)),
    ("a system error", "a task ends as its executors do", _ended_as("SYSTEM_ERROR")),
    ("canceled without a request", "a task ends as its executors do", _ended_as("CANCELED")),
    ("a false failure", "a task ends as its executors do", _ended_as("EXECUTOR_ERROR")),
    (
        "a step back",
        "states go forward",
        _with(states=_states("QUEUED", "RUNNING", "INITIALIZING", "RUNNING", "COMPLETE")),
    ),
    ("queued again", "states go forward", _with(states=_states("RUNNING", "QUEUED", "RUNNING", "COMPLETE"))),
    (
        "an end that was left",
        "states go forward",
        _with(states=_states("RUNNING", "COMPLETE", "RUNNING", "COMPLETE")),
    ),
    ("another end", "states go forward", _with(states=_states("RUNNING", "SYSTEM_ERROR", "COMPLETE"))),
    ("another end later", "a terminal state never changes", _with(first=_task(TWO, "SYSTEM_ERROR"))),
    (
        "a second start",
        "no executor runs twice",
        lambda one: replace(one, entries=(*one.entries, _entry(0, "started", "another"))),
    ),
    (
        "both at once",
        "executors run one after the other",
        lambda one: replace(one, entries=(one.entries[0], one.entries[2], one.entries[1], one.entries[3])),
    ),
    (
        "it ran on",
        "nothing runs after the end",
        lambda one: replace(one, entries=(*one.entries[:3], _entry(1, "ended", "start-1", at=103.1))),
    ),
    ("a lost line", "logs are complete and not doubled", _stdout("line 1\nline 3\n")),
    ("lost from the end", "logs are complete and not doubled", _stdout("line 1\nline 2\n")),
    ("a doubled line", "logs are complete and not doubled", _stdout("line 1\nline 2\nline 2\nline 3\n")),
    (
        "an empty log",
        "logs are complete and not doubled",
        _with_log(lambda log: log["logs"][1].pop("stderr")),
    ),
    (
        "another code",
        "exit codes are the executors' own",
        _with_log(lambda log: log["logs"][0].update(exit_code=137)),
    ),
    ("a missing log", "exit codes are the executors' own", _with_log(lambda log: log["logs"].pop())),
    (
        "an output listed twice",
        "outputs are listed once",
        _with_log(lambda log: log["outputs"].append(log["outputs"][0])),
    ),
    ("no output listed", "outputs are listed once", _with_log(lambda log: log["outputs"].clear())),
    ("no output", "outputs are stored whole, once", _with(stored=None)),
    ("an output twice in one", "outputs are stored whole, once", _with(stored="stored\nstored\n")),
    (
        "the same line again",
        "system logs have no duplicate line",
        _with_log(lambda log: log["system_logs"].insert(0, log["system_logs"][0])),
    ),
    (
        "the outcome logged twice",
        "the outcome is logged once",
        _with_log(lambda log: log["system_logs"].append("2026-01-01T00:00:09Z COMPLETE")),
    ),
    ("the outcome not logged", "the outcome is logged once", _with_log(lambda log: log["system_logs"].pop())),
    (
        "two attempts",
        "there is one attempt",
        lambda one: replace(
            one,
            first=one.last | {"logs": one.last["logs"] * 2},
            last=one.last | {"logs": one.last["logs"] * 2},
        ),
    ),
    (
        "a claim that stays",
        "nothing is left in Kubernetes",
        _with(left=("persistentvolumeclaim/poiesis-id",)),
    ),
]


@pytest.mark.parametrize(("rule", "change"), [bad[1:] for bad in BAD], ids=[bad[0] for bad in BAD])
def test_wrong_task_is_a_violation(rule: str, change: Change) -> None:
    assert _rules(_record(change(_observed(TWO)))) == {rule}


def test_nothing_may_start_after_a_failure() -> None:
    one = _observed(FAILING)
    bad = replace(one, entries=(*one.entries, _entry(1, "started", "start-1")))
    assert _rules(_record(bad)) == {"nothing runs after a failure"}


@pytest.mark.parametrize("state", ["COMPLETE", "EXECUTOR_ERROR", "SYSTEM_ERROR"])
def test_task_canceled_before_its_end_must_be_canceled(state: State) -> None:
    bad = replace(_canceled(), first=_task(CANCELED, state), last=_task(CANCELED, state))
    assert _rules(_record(bad)) == {"a task ends as its executors do"}


def test_finished_task_must_not_become_canceled() -> None:
    bad = replace(
        _observed(CANCELED),
        cancel_at=104.0,
        first=_task(CANCELED, "CANCELED"),
        last=_task(CANCELED, "CANCELED"),
    )
    assert "a task ends as its executors do" in _rules(_record(bad))


@pytest.mark.parametrize(
    ("rule", "log"),
    [
        ("exit codes are the executors' own", {"exit_code": 0, "stdout": "line 1\n"}),
        ("logs are complete and not doubled", {"exit_code": 143, "stdout": "line 2\n"}),
    ],
)
def test_log_of_canceled_executor_must_be_true(rule: str, log: dict[str, object]) -> None:
    task: Any = _canceled().last
    task["logs"][0]["logs"] = [log]
    assert _rules(_record(replace(_canceled(), first=task, last=task))) == {rule}


# --- lost starts after a kubelet restart ------------------------------------------------------------------


def _lost_start(container: str, *, restart: float, words: str = "context canceled") -> Observed:
    """Return a task with two executors, the first of which has ended, and a lost start."""
    task: Any = _task(TWO, "SYSTEM_ERROR")
    message = f"{container} could not be started: failed to create shim task: {words}: unknown"
    log = task["logs"][0]
    log["metadata"] = {"reason": "StartError", "message": message, "container": container}
    log["logs"], log["outputs"] = log["logs"][:1], []
    return replace(
        _observed(TWO),
        states=_states("QUEUED", "RUNNING", "SYSTEM_ERROR"),
        first=task,
        last=task,
        entries=_entries(TWO)[:2],
        stored=None,
        restarts=(restart,),
    )


def test_kubelet_restart_may_lose_the_starting_container() -> None:
    one = _lost_start("executor-1", restart=101.0)
    assert violations(_record(one)) == []
    assert "while it started a container: 1\n" in summary(_record(one), [])


def test_lost_filer_start_loses_outputs_of_failed_task() -> None:
    failing = replace(FAILING, output="as far as it got")
    task: Any = _task(failing, "EXECUTOR_ERROR")
    cut = "tof-0 could not be started: failed to create shim task: context canceled: unknown"
    task["logs"][0]["metadata"] = {"message": f"executor 0 exited with code 7; then: {cut}"}
    task["logs"][0]["outputs"] = []
    one = replace(_observed(failing), first=task, last=task, stored=None, restarts=(102.5,))

    assert violations(_record(one)) == []
    assert _rules(_record(replace(one, restarts=()))) == {
        "outputs are listed once",
        "outputs are stored whole, once",
    }


@pytest.mark.parametrize(
    ("rule", "one"),
    [
        ("a task ends as its executors do", _lost_start("executor-1", restart=20.0)),
        ("a task ends as its executors do", _lost_start("executor-1", restart=200.0)),
        (
            "a task ends as its executors do",
            _lost_start("executor-1", restart=101.0, words="no such directory"),
        ),
        ("a container whose start was lost has not run", _lost_start("executor-0", restart=101.0)),
        (
            "exit codes are the executors' own",
            replace(_lost_start("executor-1", restart=101.0), entries=_entries(TWO)),
        ),
    ],
    ids=[
        "long before",
        "afterwards",
        "for another reason",
        "it had run",
        "log of a finished executor is missing",
    ],
)
def test_kubelet_restart_excuses_no_other_failure(rule: str, one: Observed) -> None:
    assert rule in _rules(_record(one))


def _lost_pause(*, reporter: str = "controller", restart: float = 101.0, code: int = 128) -> Observed:
    """Return a finished task whose recorder was down and had reported half of the first executor's log."""
    task: Any = _task(TWO, "COMPLETE")
    log = task["logs"][0]
    log["metadata"] = {"reported_by": reporter}
    log["system_logs"].insert(
        0, f"2026-01-01T00:00:00Z the controller did (phase Failed, pause exited with code {code})"
    )
    log["logs"][0]["stdout"] = "line 1\n"
    log["logs"][1]["stdout"] = log["logs"][1]["stderr"] = ""
    log["outputs"] = []
    return replace(_observed(TWO), first=task, last=task, restarts=(restart,))


def test_lost_start_loses_logs_of_a_dead_recorder() -> None:
    one = _lost_pause()
    assert violations(_record(one)) == []
    assert "while its recorder was down: 1\n" in summary(_record(one), [])


def _late_recorder() -> Observed:
    """Return a task that the controller ended, and whose killed recorder completed the logs afterwards."""
    one = _observed(TWO)
    first: Any = deepcopy(one.last)
    note = "outcome recorded by the controller from the Pod's status (phase Running, pause had not ended): it"
    first["logs"][0]["system_logs"].insert(0, f"2026-01-01T00:00:00Z {note} did not report it")
    last = deepcopy(first)
    first["logs"][0]["logs"][1]["stdout"] = ""
    first["logs"][0]["outputs"] = []
    return replace(one, first=first, last=last)


def test_late_recorder_may_complete_logs() -> None:
    one = _late_recorder()
    assert violations(_record(one)) == []
    assert one.first is not None
    assert _rules(_record(replace(one, last=one.first))) >= {"logs are complete and not doubled"}


def test_late_recorder_may_change_nothing_else() -> None:
    one = _late_recorder()
    changed: Any = deepcopy(one.last)
    changed["logs"][0]["end_time"] = "2026-01-01T01:00:00Z"
    assert "a terminal state never changes" in _rules(_record(replace(one, last=changed)))


@pytest.mark.parametrize(
    "one",
    [_lost_pause(reporter="recorder"), _lost_pause(restart=20.0), _lost_pause(code=1)],
    ids=["the recorder was there", "no restart", "pause ran"],
)
def test_logs_must_be_complete_without_lost_start(one: Observed) -> None:
    assert _rules(_record(one)) == {"logs are complete and not doubled", "outputs are listed once"}


def test_other_rules_hold_after_a_lost_start() -> None:
    one = _lost_pause()
    wrong: Any = deepcopy(one.last)
    wrong["logs"][0]["logs"][0].update(exit_code=1, stdout="line 2\n")
    found = _rules(_record(replace(one, first=wrong, last=wrong, stored=None)))
    assert found == {
        "exit codes are the executors' own",
        "logs are complete and not doubled",
        "outputs are stored whole, once",
    }


# --- the run ---------------------------------------------------------------------------------------------


def test_unanswered_post_may_have_created_a_task() -> None:
    one = _observed(TWO)
    task: Any = deepcopy(one.last)
    task["logs"][0]["outputs"][0]["url"] = f"s3://bucket/{output_key('run-0-1')}"
    lost = replace(one, name="run-0-1", task_id="id-1", first=task, last=task)
    record = replace(
        _record(one, lost),
        posted={NAME: one.submission, "run-0-1": one.submission, "run-0-2": one.submission},
    )
    assert violations(record) == []


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        ("an accepted task stays", lambda record: replace(record, observed=())),
        ("a client that retries succeeds", lambda record: replace(record, answered={})),
        (
            "a POST makes one task",
            lambda record: replace(
                record, observed=(*record.observed, replace(record.observed[0], task_id="id-1"))
            ),
        ),
        (
            "only known tasks run",
            lambda record: replace(record, strays=(_entry(0, "started", "s"),)),
        ),
        (
            "the api returns 503 while it is unavailable",
            lambda record: replace(record, wrong_answers=("GET: 500",)),
        ),
    ],
)
def test_wrong_run_is_a_violation(rule: str, change: Callable[[Record], Record]) -> None:
    assert _rules(change(_record(_observed(TWO)))) == {rule}


def test_report_counts_faults_outcomes_times_and_violations() -> None:
    record = _record(replace(_observed(TWO), left=("pod/p",)))
    text = summary(record, violations(record))

    assert "seed 1, 60 s\n" in text
    assert "1 tasks submitted, 1 created, 0 by a POST without a response" in text
    assert "trec killed: 1 times, 1 hit" in text
    assert "two: COMPLETE 1; median 2.0 s, longest 2.0 s" in text
    assert "client retries: POST: 503 2" in text
    assert "violations: 1\n  nothing is left in Kubernetes: task id-0: run-0-0 (two): pod/p\n" in text
