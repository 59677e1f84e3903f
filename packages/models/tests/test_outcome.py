"""Every way in which a container can end, as a table (docs/reference/failures.md has the promises)."""

from datetime import UTC, datetime

import pytest

from poiesis_models.outcome import ContainerOutcome, outcome_of
from poiesis_models.podstatus import ContainerEnd, container_ends
from poiesis_models.report import ExecutorReport, executors_json
from poiesis_models.runfiles import ExitRecord, ResourceUsage
from poiesis_models.states import ExecutorEnd, Failure

START, END = 3_000_000_000, 5_000_000_000


USAGE = ResourceUsage(user_us=1, peak_memory_bytes=2)


def record(code=0, *, signal=0, oom=False, term=False):
    return ExitRecord(
        exit_code=code,
        signal=signal,
        oom=oom,
        term=term,
        start_ns=10,
        end_ns=20,
        usage=USAGE,
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
    return ContainerOutcome(**{"exit_code": code, "start_ns": 10, "end_ns": 20, "usage": USAGE, **more})


def by_status(code=None, **more):
    return ContainerOutcome(**{"exit_code": code, "start_ns": START, "end_ns": END, **more})


def failure(reason, message):
    return Failure(reason=reason, message=message, container="c")


LOST = failure("ContainerStatusUnknown", "the kubelet lost c: its end is not known")
NO_PROCESS = failure("Error", "c could not be started: exit code 70")
NOT_STARTED = failure("StartError", "c could not be started: no such file")


@pytest.mark.parametrize(
    ("seen", "written", "expected"),
    [
        pytest.param(None, None, None, id="no information"),
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
            id="only the kubelet reports the memory",
        ),
        pytest.param(
            status(3, "OOMKilled"),
            record(3),
            by_record(137, oom=True),
            id="a child, reported by the kubelet only",
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
        pytest.param(status(70), None, by_status(failure=NO_PROCESS), id="the helper did not start it"),
        pytest.param(
            status(128, "StartError", "no such file"), None, by_status(failure=NOT_STARTED), id="not started"
        ),
        pytest.param(
            status(137, "ContainerStatusUnknown"), None, by_status(failure=LOST), id="lost by the kubelet"
        ),
        pytest.param(status(255, "Unknown"), None, by_status(failure=LOST), id="lost by the runtime"),
        pytest.param(status(3, "Unknown"), None, by_status(3), id="an unknown reason is no loss"),
        pytest.param(
            status(255, "Unknown", given=record(7)), record(7), by_record(7), id="lost, but it left a record"
        ),
    ],
)
def test_outcome_of_container(seen, written, expected):
    assert outcome_of(seen, written, terminating=False) == expected


@pytest.mark.parametrize(
    ("seen", "written", "expected"),
    [
        pytest.param(status(143), None, by_status(143, by_platform=True), id="obeyed"),
        pytest.param(status(137), None, by_status(137, by_platform=True), id="had to be killed"),
        pytest.param(status(3), None, by_status(3), id="failed by itself before"),
        pytest.param(status(0, "Completed"), None, by_status(0), id="succeeded before"),
        pytest.param(status(137, "OOMKilled"), None, by_status(137, oom=True), id="out of memory before"),
        pytest.param(None, record(7), by_record(7), id="its record shows no SIGTERM"),
        pytest.param(
            status(137, "ContainerStatusUnknown"), None, by_status(by_platform=True, failure=LOST), id="lost"
        ),
        pytest.param(
            status(70), None, by_status(by_platform=True, failure=NO_PROCESS), id="not started by the helper"
        ),
    ],
)
def test_outcome_of_container_in_terminating_pod(seen, written, expected):
    assert outcome_of(seen, written, terminating=True) == expected


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (0, by_status(0)),
        (1, by_status(failure=failure("Error", "c could not be started: exit code 1"))),
    ],
)
def test_failure_before_process_start_has_no_code(code, expected):
    assert outcome_of(status(code), None, terminating=False, ran=False) == expected


@pytest.mark.parametrize(
    ("outcome", "succeeded"),
    [
        (by_record(0), True),
        (by_record(1), False),
        (by_record(0, by_platform=True), False),
        (by_status(failure=LOST), False),
        (by_status(), True),  # over, with an unknown code
    ],
)
def test_only_a_clean_exit_is_a_success(outcome, succeeded):
    assert outcome.succeeded is succeeded


def test_outcome_becomes_executor_end_and_report():
    outcome = by_record(137, oom=True)
    assert outcome.executor_end(2, ignore_error=True) == ExecutorEnd(
        index=2, exit_code=137, oom=True, ignore_error=True
    )
    row = ExecutorReport(index=2, start_ns=10, end_ns=20, exit_code=137, oom=True, usage=USAGE)
    assert outcome.executor_report(2) == row
    assert executors_json([row]) == (
        '[{"index":2,"start_ns":10,"end_ns":20,"exit_code":137,"oom":true,'
        '"usage":{"user_us":1,"peak_memory_bytes":2}}]'
    )


@pytest.mark.parametrize("outcome", [by_status(failure=LOST), by_status(7, end_ns=0)])
def test_no_report_without_code_or_time(outcome):
    assert outcome.executor_report(0) is None


def test_missing_start_time_is_the_end_time():
    assert by_status(7, start_ns=0).executor_report(0) == ExecutorReport(
        index=0, start_ns=END, end_ns=END, exit_code=7
    )


def test_status_times_are_exact_to_the_second():
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
