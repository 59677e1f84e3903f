import itertools

import pytest

from poiesis_models.states import (
    RULES,
    TERMINAL_STATES,
    ExecutorEnd,
    Facts,
    Failure,
    TaskOutcome,
    TesState,
    terminal_state,
)

OK = ExecutorEnd(index=0, exit_code=0)
FAILED = ExecutorEnd(index=1, exit_code=7)
OOM = ExecutorEnd(index=1, exit_code=137, oom=True)
IGNORED = ExecutorEnd(index=1, exit_code=7, ignore_error=True)
EVICTED = Failure(reason="Evicted", message="the node was low on memory")
CUT = Failure(reason="Error", message="cannot fetch http://h/x: 5 of 9 bytes came", container="stream-0")
UPLOAD = Failure(reason="Error", message="s3://b/k: access denied", container="tof-0")


@pytest.mark.parametrize(
    ("facts", "outcome"),
    [
        pytest.param(
            Facts(running=True, done=True, cancel_requested=True), None, id="nothing ends while it runs"
        ),
        pytest.param(Facts(running=False), None, id="no rule applies"),
        pytest.param(
            Facts(running=False, done=True, executors=[OK]),
            TaskOutcome(state=TesState.COMPLETE),
            id="all done",
        ),
        pytest.param(
            Facts(running=False, done=True, cancel_requested=True),
            TaskOutcome(state=TesState.CANCELED, reason="Canceled", message="canceled on request"),
            id="a cancel stored before the end wins",
        ),
        pytest.param(
            Facts(running=False, executors=[OK, FAILED]),
            TaskOutcome(
                state=TesState.EXECUTOR_ERROR,
                reason="Error",
                message="executor 1 exited with code 7",
                container="executor-1",
            ),
            id="an executor failed",
        ),
        pytest.param(
            Facts(running=False, executors=[OK, OOM]),
            TaskOutcome(
                state=TesState.EXECUTOR_ERROR,
                reason="OOMKilled",
                message="executor 1 ran out of memory",
                container="executor-1",
            ),
            id="an executor ran out of memory",
        ),
        pytest.param(
            Facts(running=False, executors=[ExecutorEnd(index=0, exit_code=0, oom=True, ignore_error=True)]),
            TaskOutcome(
                state=TesState.EXECUTOR_ERROR,
                reason="OOMKilled",
                message="executor 0 ran out of memory",
                container="executor-0",
            ),
            id="out of memory is never ignored, not even with exit code 0",
        ),
        pytest.param(
            Facts(running=False, done=True, executors=[OK, IGNORED]),
            TaskOutcome(state=TesState.COMPLETE),
            id="an ignored error is no end",
        ),
        pytest.param(
            Facts(running=False, executors=[OK], cut_short=CUT),
            TaskOutcome(
                state=TesState.SYSTEM_ERROR, reason="Error", message=CUT.message, container="stream-0"
            ),
            id="an input that was cut short, whatever the executor did",
        ),
        pytest.param(
            Facts(running=False, executors=[FAILED], cut_short=CUT, disruption=EVICTED, preemptible=True),
            TaskOutcome(
                state=TesState.SYSTEM_ERROR,
                reason="Error",
                message=f"{CUT.message}; executor 1 exited with code 7",
                container="stream-0",
            ),
            id="an input that was cut short before the executor that failed of it",
        ),
        pytest.param(
            Facts(running=False, cancel_requested=True, cut_short=CUT),
            TaskOutcome(state=TesState.CANCELED, reason="Canceled", message="canceled on request"),
            id="a cancel before an input that was cut short",
        ),
        pytest.param(
            Facts(running=False, executors=[FAILED], failure=UPLOAD),
            TaskOutcome(
                state=TesState.EXECUTOR_ERROR,
                reason="Error",
                message="executor 1 exited with code 7; then: s3://b/k: access denied",
                container="executor-1",
            ),
            id="the executor's error wins over the upload's and both are reported",
        ),
        pytest.param(
            Facts(
                running=False,
                executors=[ExecutorEnd(index=0, exit_code=143, by_platform=True)],
                disruption=EVICTED,
            ),
            TaskOutcome(state=TesState.SYSTEM_ERROR, reason="Evicted", message="the node was low on memory"),
            id="an executor that the platform ended did not fail",
        ),
        pytest.param(
            Facts(running=False, disruption=EVICTED, preemptible=True),
            TaskOutcome(state=TesState.PREEMPTED, reason="Evicted", message="the node was low on memory"),
            id="PREEMPTED only for preemptible tasks",
        ),
        pytest.param(
            Facts(running=False, failure=UPLOAD, executors=[OK]),
            TaskOutcome(
                state=TesState.SYSTEM_ERROR,
                reason="Error",
                message="s3://b/k: access denied",
                container="tof-0",
            ),
            id="a failed upload is never COMPLETE",
        ),
        pytest.param(
            Facts(running=False, failure=UPLOAD, executors=[OK], done=True),
            TaskOutcome(
                state=TesState.SYSTEM_ERROR,
                reason="Error",
                message="s3://b/k: access denied",
                container="tof-0",
            ),
            id="not even if something claims that all is done",
        ),
    ],
)
def test_first_applicable_rule_decides_outcome(facts: Facts, outcome: TaskOutcome | None):
    assert terminal_state(facts) == outcome


def test_outcome_is_terminal_and_absent_while_running():
    for running, cancel, done, preemptible in itertools.product([True, False], repeat=4):
        for disruption, failure in itertools.product([None, EVICTED], [None, UPLOAD]):
            for executors in ([], [OK], [FAILED], [OOM], [IGNORED]):
                outcome = terminal_state(
                    Facts(
                        running=running,
                        cancel_requested=cancel,
                        done=done,
                        preemptible=preemptible,
                        disruption=disruption,
                        failure=failure,
                        executors=executors,
                    )
                )
                if running:
                    assert outcome is None
                elif cancel:
                    assert outcome is not None
                    assert outcome.state == TesState.CANCELED
                elif outcome is not None:
                    assert outcome.state in TERMINAL_STATES - {TesState.CANCELED}


def test_every_outcome_has_a_rule():
    assert [rule.__name__ for rule in RULES] == [
        "_canceled",
        "_cut_short",
        "_executor_error",
        "_disrupted",
        "_other_failure",
        "_complete",
    ]
