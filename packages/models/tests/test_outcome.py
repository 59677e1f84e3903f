"""Every way in which a container can end, as a table (docs/reference/failures.md has the promises)."""

from datetime import UTC, datetime

import pytest

from poiesis_models.outcome import ContainerOutcome, outcome_of
from poiesis_models.podstatus import ContainerEnd, container_ends
from poiesis_models.report import ExecutorReport, executors_json
from poiesis_models.runfiles import ExitRecord
from poiesis_models.states import ExecutorEnd, Trouble

START, END = 3_000_000_000, 5_000_000_000


def record(code=0, *, signal=0, oom=False, term=False):
    return ExitRecord(
        exit_code=code,
        signal=signal,
        oom=oom,
        term=term,
        start_ns=10,
        end_ns=20,
        max_rss_kb=0,
        user_us=0,
        sys_us=0,
    )


def status(code, reason="Error", message="", given=None):
    return ContainerEnd(
        name="c",
        exit_code=code,
        reason=reason,
        message=message,
        record=given,
        started_ns=START,
        finished_ns=END,
    )


def by_record(code, **more):
    return ContainerOutcome(**{"exit_code": code, "start_ns": 10, "end_ns": 20, **more})


def by_status(code=None, **more):
    return ContainerOutcome(**{"exit_code": code, "start_ns": START, "end_ns": END, **more})


def trouble(reason, message):
    return Trouble(reason=reason, message=message, container="c")


LOST = trouble("ContainerStatusUnknown", "the kubelet lost c: its end is not known")
REFUSED = trouble("Error", "c could not be started: exit code 70")
NOT_STARTED = trouble("StartError", "c could not be started: no such file")


@pytest.mark.parametrize(
    ("seen", "written", "expected"),
    [
        pytest.param(None, None, None, id="nothing is known"),
        # the helper's record
        pytest.param(None, record(), by_record(0), id="success"),
        pytest.param(None, record(7), by_record(7), id="failure"),
        pytest.param(status(0), record(7), by_record(7), id="the container exits 0, its process did not"),
        pytest.param(None, record(139, signal=11), by_record(139, signal=11), id="signal"),
        pytest.param(None, record(0, term=True), by_record(143, by_platform=True), id="obeyed SIGTERM"),
        pytest.param(None, record(3, term=True), by_record(3, by_platform=True), id="failed after SIGTERM"),
        pytest.param(None, record(137, oom=True), by_record(137, oom=True), id="out of memory"),
        pytest.param(None, record(3, oom=True), by_record(137, oom=True), id="a child out of memory"),
        pytest.param(None, record(0, oom=True), by_record(137, oom=True), id="a child out of memory, hidden"),
        # the kubelet adds to it
        pytest.param(
            status(137, "OOMKilled"),
            record(137, signal=9),
            by_record(137, signal=9, oom=True),
            id="only the kubelet knows of the memory",
        ),
        pytest.param(
            status(3, "OOMKilled"),
            record(3),
            by_record(137, oom=True),
            id="of a child, only the kubelet knows",
        ),
        # the status alone
        pytest.param(status(0, "Completed"), None, by_status(0), id="success without a record"),
        pytest.param(status(7), None, by_status(7), id="failure without a record"),
        pytest.param(status(137), None, by_status(137), id="killed"),
        pytest.param(status(-1), None, by_status(0), id="a negative code"),
        pytest.param(status(3221225477), None, by_status(255), id="a code above 255"),
        pytest.param(status(137, "OOMKilled"), None, by_status(137, oom=True), id="killed for memory"),
        pytest.param(status(0, "OOMKilled"), None, by_status(137, oom=True), id="exited 0 out of memory"),
        pytest.param(status(70, "OOMKilled"), None, by_status(137, oom=True), id="the helper out of memory"),
        pytest.param(status(70), None, by_status(trouble=REFUSED), id="the helper refused"),
        pytest.param(
            status(128, "StartError", "no such file"), None, by_status(trouble=NOT_STARTED), id="not started"
        ),
        pytest.param(
            status(137, "ContainerStatusUnknown"), None, by_status(trouble=LOST), id="lost by the kubelet"
        ),
        pytest.param(status(255, "Unknown"), None, by_status(trouble=LOST), id="lost by the runtime"),
        pytest.param(status(3, "Unknown"), None, by_status(3), id="an unknown reason is no loss"),
        pytest.param(
            status(255, "Unknown", given=record(7)), record(7), by_record(7), id="lost, but it left a record"
        ),
    ],
)
def test_how_a_container_ended(seen, written, expected):
    assert outcome_of(seen, written, taken=False) == expected


@pytest.mark.parametrize(
    ("seen", "written", "expected"),
    [
        pytest.param(status(143), None, by_status(143, by_platform=True), id="obeyed"),
        pytest.param(status(137), None, by_status(137, by_platform=True), id="had to be killed"),
        pytest.param(status(3), None, by_status(3), id="failed by itself before"),
        pytest.param(status(0, "Completed"), None, by_status(0), id="succeeded before"),
        pytest.param(status(137, "OOMKilled"), None, by_status(137, oom=True), id="out of memory before"),
        pytest.param(None, record(7), by_record(7), id="the record says that it was not told to end"),
        pytest.param(
            status(137, "ContainerStatusUnknown"), None, by_status(by_platform=True, trouble=LOST), id="lost"
        ),
        pytest.param(status(70), None, by_status(by_platform=True, trouble=REFUSED), id="refused"),
    ],
)
def test_how_a_container_ended_in_a_pod_that_goes(seen, written, expected):
    assert outcome_of(seen, written, taken=True) == expected


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (0, by_status(0)),
        (1, by_status(trouble=trouble("Error", "c could not be started: exit code 1"))),
    ],
)
def test_a_failure_without_a_started_process_is_no_exit_code(code, expected):
    assert outcome_of(status(code), None, taken=False, ran=False) == expected


@pytest.mark.parametrize(
    ("outcome", "well"),
    [
        (by_record(0), True),
        (by_record(1), False),
        (by_record(0, by_platform=True), False),
        (by_status(trouble=LOST), False),
        (by_status(), True),  # over, with an unknown code
    ],
)
def test_only_a_clean_end_is_well(outcome, well):
    assert outcome.well is well


def test_an_outcome_is_the_executors_fact_and_row():
    outcome = by_record(137, oom=True)
    assert outcome.executor_end(2, ignore_error=True) == ExecutorEnd(
        index=2, exit_code=137, oom=True, ignore_error=True
    )
    row = ExecutorReport(index=2, start_ns=10, end_ns=20, exit_code=137, oom=True)
    assert outcome.executor_report(2) == row
    assert executors_json([row]) == '[{"index":2,"start_ns":10,"end_ns":20,"exit_code":137,"oom":true}]'


@pytest.mark.parametrize("outcome", [by_status(trouble=LOST), by_status(7, end_ns=0)])
def test_without_code_or_time_there_is_no_row(outcome):
    assert outcome.executor_report(0) is None


def test_an_end_without_a_start_began_when_it_ended():
    assert by_status(7, start_ns=0).executor_report(0) == ExecutorReport(
        index=0, start_ns=END, end_ns=END, exit_code=7
    )


def test_times_of_a_status_are_read_to_the_second():
    terminated = {
        "exitCode": 7,
        "startedAt": "2025-11-23T06:00:00Z",
        "finishedAt": "2025-11-23T06:00:03Z",
    }
    pod = {"status": {"initContainerStatuses": [{"name": "c", "state": {"terminated": terminated}}]}}
    end = container_ends(pod)["c"]
    start = int(datetime(2025, 11, 23, 6, tzinfo=UTC).timestamp()) * 10**9
    assert (end.started_ns, end.finished_ns) == (start, start + 3 * 10**9)
    del terminated["startedAt"], terminated["finishedAt"]
    end = container_ends(pod)["c"]
    assert (end.started_ns, end.finished_ns) == (0, 0)
