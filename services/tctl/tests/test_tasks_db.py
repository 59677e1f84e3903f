"""Statements on a real Postgres, as the role that the controller has."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import asyncpg
import pytest
from tctl_tasks import (
    add_task,
    attempts_of,
    cancel,
    executors_of,
    logs_of,
    report,
    report_filer,
    task_of,
)

from poiesis_models.report import ExecutorReport
from poiesis_models.states import TaskOutcome, TesState
from poiesis_tctl import tasks_db
from poiesis_tctl.decide import Attempt, Finish, RequeueAttempt, SystemLog, TaskRow
from poiesis_tctl.podevents import PodLine
from poiesis_tctl.tasks_db import UNFINISHED_STATES, DatabaseUnavailable, TasksDb
from poiesis_tctl.totals import Bucket, Outcome
from poiesis_tctl.transfers import FilerRow, Moved, Place, Run

pytestmark = pytest.mark.integration

FAILED = TaskOutcome(
    state=TesState.EXECUTOR_ERROR,
    reason="Error",
    message="executor 0 exited with code 7",
    container="executor-0",
)
START = datetime(2025, 11, 23, 6, tzinfo=UTC)
START_NS = int(START.timestamp()) * 10**9
ROW = ExecutorReport(index=0, start_ns=START_NS, end_ns=START_NS + 2 * 10**9, exit_code=7)
ATTEMPT = Attempt(pod_uid="pod-uid-1", pod_name="the Pod", node="node-1", start=START)
FINISH = Finish(outcome=FAILED, cancel_seen=False, attempt=ATTEMPT, executors=(ROW,), note="not reported")


@pytest.fixture
async def tasks(controller_dsn: str) -> AsyncIterator[TasksDb]:
    async with tasks_db.connect(controller_dsn, connections=4, home="tes") as db:
        yield db


async def test_load(tasks, superuser):
    task_id = await add_task(superuser)
    known = {"id": task_id, "ended": False, "claimed": False, "reported_by": None}
    assert await tasks.load(task_id) == TaskRow(
        **known, state=TesState.QUEUED, cancel_requested=False, submitted=True
    )
    await cancel(superuser, task_id)
    await superuser.execute(
        "UPDATE task SET claimed_until = now() + interval '1 minute', submitted_at = NULL WHERE id = $1",
        task_id,
    )
    assert await tasks.load(task_id) == TaskRow(
        **known | {"claimed": True}, state=TesState.CANCELING, cancel_requested=True, submitted=False
    )
    await report(superuser, task_id, state=None, outcome=TaskOutcome(state=TesState.COMPLETE))
    assert (await tasks.load(task_id)).reported_by is None  # the cancel was not seen
    assert await tasks.load(uuid4()) is None


async def test_finish_stores_what_was_not_reported(tasks, superuser):
    task_id = await add_task(superuser)
    assert await tasks.finish(task_id, FINISH)
    assert await task_of(superuser, task_id) == {
        "state": "EXECUTOR_ERROR",
        "reason": "Error",
        "message": "executor 0 exited with code 7",
        "container": "executor-0",
        "reported_by": "controller",
    }
    assert await attempts_of(superuser, task_id) == [(0, "pod-uid-1", "node-1", True)]
    assert await executors_of(superuser, task_id) == [(0, 0, 7)]
    assert await logs_of(superuser, task_id) == [
        (0, "recorder-silent", "not reported"),
        (0, "end", "EXECUTOR_ERROR: Error: executor 0 exited with code 7"),
    ]
    start = await superuser.fetchval("SELECT start_time FROM task_log WHERE task_id = $1", task_id)
    assert start == START


async def test_finish_keeps_what_was_reported(tasks, superuser):
    task_id = await add_task(superuser)
    reported = (
        ExecutorReport(index=0, start_ns=10**18, end_ns=2 * 10**18, exit_code=0, stdout="out"),
        ExecutorReport(index=1, start_ns=3 * 10**18, stdout="more"),
    )
    await report(superuser, task_id, executors=reported)
    rows = (ROW, ExecutorReport(index=1, start_ns=START_NS, end_ns=START_NS, exit_code=9, oom=True))
    assert await tasks.finish(
        task_id, Finish(outcome=FAILED, cancel_seen=False, attempt=ATTEMPT, executors=rows)
    )
    assert await executors_of(superuser, task_id) == [(0, 0, 0), (0, 1, 9)]
    kept = await superuser.fetch(
        "SELECT stdout, oom FROM executor_log WHERE task_id = $1 ORDER BY executor_index", task_id
    )
    assert [tuple(row) for row in kept] == [("out", False), ("more", True)]
    assert await attempts_of(superuser, task_id) == [(0, "pod-uid-1", "node-1", True)]


async def test_finish_without_a_pod(tasks, superuser):
    task_id = await add_task(superuser)
    assert await tasks.finish(task_id, Finish(outcome=FAILED, cancel_seen=False))
    assert await attempts_of(superuser, task_id) == []
    assert [key for _, key, _ in await logs_of(superuser, task_id)] == ["end"]


async def test_unknown_executors_are_ignored(tasks, superuser):
    task_id = await add_task(superuser, executors=1)
    rows = (ROW, ExecutorReport(index=9, start_ns=START_NS, end_ns=START_NS, exit_code=0))
    assert await tasks.finish(
        task_id, Finish(outcome=FAILED, cancel_seen=False, attempt=ATTEMPT, executors=rows)
    )
    assert await executors_of(superuser, task_id) == [(0, 0, 7)]


async def test_second_finish_changes_nothing(tasks, superuser):
    task_id = await add_task(superuser)
    await report(superuser, task_id, outcome=TaskOutcome(state=TesState.COMPLETE))
    before = await logs_of(superuser, task_id)
    assert not await tasks.finish(task_id, FINISH)
    assert (await task_of(superuser, task_id))["state"] == "COMPLETE"
    assert await executors_of(superuser, task_id) == []
    assert await logs_of(superuser, task_id) == before


async def test_concurrent_finishes_store_one_outcome(tasks, superuser):
    task_id = await add_task(superuser)
    stored = await asyncio.gather(*(tasks.finish(task_id, FINISH) for _ in range(8)))
    assert sorted(stored) == [False] * 7 + [True]
    assert await attempts_of(superuser, task_id) == [(0, "pod-uid-1", "node-1", True)]


async def test_unseen_cancel_rejects_the_outcome(tasks, superuser):
    task_id = await add_task(superuser)
    await cancel(superuser, task_id)
    assert not await tasks.finish(task_id, FINISH)
    assert await attempts_of(superuser, task_id) == []
    canceled = TaskOutcome(state=TesState.CANCELED, reason="Canceled")
    assert await tasks.finish(task_id, Finish(outcome=canceled, cancel_seen=True))
    assert (await task_of(superuser, task_id))["state"] == "CANCELED"


async def test_finish_of_unknown_task_is_no_error(tasks):
    assert not await tasks.finish(uuid4(), FINISH)


@pytest.mark.parametrize("uid", ["pod-uid-1", None])
async def test_requeue_closes_the_attempt(tasks, superuser, uid):
    task_id = await add_task(superuser)
    await report(superuser, task_id)
    for _ in range(2):
        await tasks.requeue(task_id, RequeueAttempt(pod_uid=uid, message="suspended"))
        assert (await task_of(superuser, task_id))["state"] == "QUEUED"
        assert await attempts_of(superuser, task_id) == [(0, "pod-uid-1", "node-1", True)]
        assert await logs_of(superuser, task_id) == [(0, "requeued", "suspended")]
    await report(superuser, task_id, pod_uid="pod-uid-2")
    assert (await task_of(superuser, task_id))["state"] == "RUNNING"
    assert [one[3] for one in await attempts_of(superuser, task_id)] == [True, False]


async def test_late_requeue_does_not_touch_the_next_attempt(tasks, superuser):
    task_id = await add_task(superuser)
    await report(superuser, task_id)
    await report(superuser, task_id, pod_uid="pod-uid-2")
    await tasks.requeue(task_id, RequeueAttempt(pod_uid="pod-uid-1", message="suspended"))
    assert (await task_of(superuser, task_id))["state"] == "RUNNING"
    assert [one[3] for one in await attempts_of(superuser, task_id)] == [True, False]


async def test_requeue_of_ended_task_has_no_effect(tasks, superuser):
    ended = await add_task(superuser)
    await report(superuser, ended, outcome=TaskOutcome(state=TesState.COMPLETE))
    await tasks.requeue(ended, RequeueAttempt(pod_uid=None, message="suspended"))
    assert (await task_of(superuser, ended))["state"] == "COMPLETE"
    canceling = await add_task(superuser)
    await report(superuser, canceling)
    await cancel(superuser, canceling)
    await tasks.requeue(canceling, RequeueAttempt(pod_uid="pod-uid-1", message="suspended"))
    assert (await task_of(superuser, canceling))["state"] == "CANCELING"


async def test_system_log_is_stored_once(tasks, superuser):
    task_id = await add_task(superuser)
    for message in ("first", "second"):
        await tasks.add_system_log(task_id, SystemLog(key="k", message=message))
    assert await logs_of(superuser, task_id) == [(None, "k", "first")]


async def test_unfinished_tasks_must_have_objects(tasks, superuser):
    running = await add_task(superuser, state="RUNNING")
    young = await add_task(superuser, age=10)
    waiting = await add_task(superuser, submitted=False)
    canceling = await add_task(superuser, state="CANCELING", submitted=False, canceled=True)
    ended = await add_task(superuser)
    await report(superuser, ended, outcome=TaskOutcome(state=TesState.COMPLETE))
    known = {running, young, waiting, canceling, ended}
    assert known & set(await tasks.unfinished()) == {running, canceling}


async def test_unreachable_postgres_is_database_unavailable():
    async with tasks_db.connect("postgresql://u@127.0.0.1:1/x", connections=1, home="tes") as db:
        with pytest.raises(DatabaseUnavailable):
            await db.load(uuid4())


async def test_rejected_statement_is_database_unavailable(tasks, superuser):
    task_id = await add_task(superuser)
    with pytest.raises(DatabaseUnavailable):
        await tasks.finish(task_id, Finish(outcome=TaskOutcome(state=TesState.PAUSED), cancel_seen=False))


# Events of Pods


def pod_lines(*numbers: int, pod_uid: str = "pod-uid-1") -> list[PodLine]:
    return [
        PodLine(
            pod_uid=pod_uid, key=f"event/{number}", message=f"m{number}", at=START + timedelta(seconds=number)
        )
        for number in numbers
    ]


async def lines_of(connection: asyncpg.Connection, task_id: UUID) -> list[tuple[int, str, datetime]]:
    rows = await connection.fetch(
        "SELECT attempt, message, at FROM system_log WHERE task_id = $1 ORDER BY at, id", task_id
    )
    return [tuple(row) for row in rows]


async def test_lines_have_their_time_and_occur_once(tasks, superuser):
    task_id = await add_task(superuser)
    for numbers in ((2, 1, 2), (1, 3), (3,)):
        await tasks.add_pod_lines(task_id, "pod-uid-1", pod_lines(*numbers))
    assert await lines_of(superuser, task_id) == [
        (0, f"m{number}", START + timedelta(seconds=number)) for number in (1, 2, 3)
    ]
    await tasks.add_pod_lines(
        task_id, "pod-uid-1", [PodLine(pod_uid="pod-uid-1", key="event/now", message="now")]
    )
    ((_, _, at),) = [one for one in await lines_of(superuser, task_id) if one[1] == "now"]
    assert timedelta() <= datetime.now(UTC) - at < timedelta(minutes=1)


async def test_lines_belong_to_the_attempt_of_their_pod(tasks, superuser):
    task_id = await add_task(superuser)
    await tasks.add_pod_lines(task_id, "pod-uid-1", pod_lines(1))
    await report(superuser, task_id, pod_uid="pod-uid-1")
    await tasks.add_pod_lines(task_id, "pod-uid-1", pod_lines(2))
    await tasks.requeue(task_id, RequeueAttempt(pod_uid="pod-uid-1", message="suspended"))
    await tasks.add_pod_lines(task_id, "pod-uid-2", pod_lines(3))
    await report(superuser, task_id, pod_uid="pod-uid-2")
    await tasks.add_pod_lines(task_id, "pod-uid-2", pod_lines(4))
    await tasks.add_pod_lines(task_id, "pod-uid-1", pod_lines(5))
    found = [(attempt, text) for attempt, text, _ in await lines_of(superuser, task_id) if text[0] == "m"]
    assert found == [(0, "m1"), (0, "m2"), (1, "m3"), (1, "m4"), (0, "m5")]
    assert [one[:2] for one in await attempts_of(superuser, task_id)] == [(0, "pod-uid-1"), (1, "pod-uid-2")]


async def test_claim_lines_belong_to_the_last_attempt(tasks, superuser):
    task_id = await add_task(superuser)
    await tasks.add_pod_lines(task_id, None, pod_lines(1))
    await report(superuser, task_id, pod_uid="pod-uid-1")
    await tasks.add_pod_lines(task_id, None, pod_lines(2))
    await tasks.requeue(task_id, RequeueAttempt(pod_uid="pod-uid-1", message="suspended"))
    await report(superuser, task_id, pod_uid="pod-uid-2")
    await tasks.add_pod_lines(task_id, None, pod_lines(3))
    found = [(attempt, text) for attempt, text, _ in await lines_of(superuser, task_id) if text[0] == "m"]
    assert found == [(0, "m1"), (0, "m2"), (1, "m3")]


async def test_lines_of_each_attempt_are_bounded(tasks, superuser):
    task_id = await add_task(superuser)
    await report(superuser, task_id)
    await tasks.add_system_log(task_id, SystemLog(key="FailedCreate-1", message="not an event"))
    await tasks.add_pod_lines(task_id, "pod-uid-1", pod_lines(*range(30)))
    for _ in range(2):
        await tasks.add_pod_lines(task_id, "pod-uid-1", pod_lines(*range(200)))
    await tasks.add_pod_lines(task_id, "pod-uid-1", pod_lines(300))
    found = [text for attempt, text, _ in await lines_of(superuser, task_id) if attempt == 0]
    assert found == [*(f"m{number}" for number in range(49)), "further events of this Pod are not recorded"]
    await report(superuser, task_id, pod_uid="pod-uid-2")
    await tasks.add_pod_lines(task_id, "pod-uid-2", pod_lines(1))
    assert [one[:2] for one in await lines_of(superuser, task_id) if one[0] == 1] == [(1, "m1")]


async def test_late_line_changes_nothing_else(tasks, superuser):
    task_id = await add_task(superuser)
    await report(superuser, task_id, outcome=TaskOutcome(state=TesState.COMPLETE))
    before = await superuser.fetchrow("SELECT * FROM task WHERE id = $1", task_id)
    await tasks.add_pod_lines(task_id, "pod-uid-1", pod_lines(1))
    assert await superuser.fetchrow("SELECT * FROM task WHERE id = $1", task_id) == before
    assert (0, "m1") in [one[:2] for one in await lines_of(superuser, task_id)]


async def test_line_of_unknown_task_is_dropped(tasks, superuser):
    stranger = uuid4()
    await tasks.add_pod_lines(stranger, "pod-uid-1", pod_lines(1))
    assert await lines_of(superuser, stranger) == []


async def test_tasks_of_other_namespaces_do_not_exist(tasks, superuser):
    here, there = await add_task(superuser), await add_task(superuser, namespace="lab-a")
    lab_a = tasks.within("lab-a")
    assert [await tasks.load(there), await lab_a.load(here)] == [None, None]
    assert (await tasks.load(here)).id == here
    assert (await lab_a.load(there)).id == there
    assert here in await tasks.unfinished()
    assert there not in await tasks.unfinished()
    assert await lab_a.unfinished() == [there]
    await tasks.add_pod_lines(there, "pod-uid-1", pod_lines(1))
    assert await lines_of(superuser, there) == []
    await lab_a.add_pod_lines(there, "pod-uid-1", pod_lines(1))
    assert len(await lines_of(superuser, there)) == 1


# Metrics


async def test_metrics_count_unfinished_tasks(tasks, superuser):
    await superuser.execute("DELETE FROM task")
    assert (await tasks.read_metrics(["tes"])).tasks == {
        Place("tes", TesState.QUEUED): 0,
        Place("tes", TesState.INITIALIZING): 0,
        Place("tes", TesState.RUNNING): 0,
        Place("tes", TesState.CANCELING): 0,
    }
    for state, submitted in (
        *(("QUEUED", False), ("QUEUED", False), ("QUEUED", True)),
        *(("INITIALIZING", True), ("RUNNING", True), ("RUNNING", True)),
    ):
        await add_task(superuser, state=state, submitted=submitted)
    for submitted in (False, True):
        await add_task(superuser, state="CANCELING", submitted=submitted, canceled=True)
        for state in ("COMPLETE", "EXECUTOR_ERROR", "SYSTEM_ERROR", "CANCELED", "PREEMPTED"):
            ended = await add_task(superuser, submitted=submitted, canceled=True)
            await superuser.execute(
                "SELECT finish_task($1, $2::text::tes_state, 'r', 'm', NULL, 'api', true)", ended, state
            )
    assert (await tasks.read_metrics(["tes"])).tasks == {
        Place("tes", TesState.QUEUED): 3,
        Place("tes", TesState.INITIALIZING): 1,
        Place("tes", TesState.RUNNING): 2,
        Place("tes", TesState.CANCELING): 2,
    }


async def test_metrics_have_all_states_that_are_not_terminal(superuser):
    known = await superuser.fetch(
        "SELECT state::text FROM unnest(enum_range(NULL::tes_state)) AS state WHERE NOT is_terminal(state)"
    )
    assert {row["state"] for row in known} == set(UNFINISHED_STATES)


async def test_metrics_have_the_filers_reported_recently(tasks, superuser):
    await superuser.execute("DELETE FROM task")
    running, ended, requeued = [await add_task(superuser, state="RUNNING") for _ in range(3)]
    for task_id in (running, ended, requeued):
        await report(superuser, task_id)
    await report_filer(superuser, running, "tif-0", start=START, files=3, size=300, rate=30)
    await report_filer(superuser, running, "tif-1", start=START, ended=True)
    await report_filer(superuser, running, "stream-0", start=START, reported_ago=110)
    await report_filer(superuser, running, "tof-0", start=START, reported_ago=130)  # lost
    await report_filer(superuser, running, "tof-1", start=START, reported_ago=130, ended=True)
    await report_filer(superuser, ended, "tof-0", start=START)
    assert await tasks.finish(ended, Finish(outcome=FAILED, cancel_seen=False))
    await report_filer(superuser, requeued, "tif-0", start=START)
    await tasks.requeue(requeued, RequeueAttempt(pod_uid="pod-uid-1", message="suspended"))
    await report(superuser, requeued, pod_uid="pod-uid-2")
    await report_filer(superuser, requeued, "tif-0", start=START, attempt=1)

    def row(task_id: UUID, container: str, *, attempt: int = 0, moving: bool) -> FilerRow:
        run = Run(task_id, attempt, container, START)
        return FilerRow(run=run, moved=Moved(1, 100), bytes_per_second=10, moving=moving)

    whole = FilerRow(
        run=Run(running, 0, "tif-0", START), moved=Moved(3, 300), bytes_per_second=30, moving=True
    )
    found = (await tasks.read_metrics(["tes"])).filers
    assert len(found) == 6
    assert set(found) == {
        whole,
        row(running, "tif-1", moving=False),
        row(running, "stream-0", moving=True),
        row(ended, "tof-0", moving=False),
        row(requeued, "tif-0", moving=False),
        row(requeued, "tif-0", attempt=1, moving=True),
    }


async def test_filer_reported_after_the_end_is_not_moving(tasks, superuser):
    """A recorder that was cut off made the attempt's row when the controller had ended the task."""
    await superuser.execute("DELETE FROM task")
    task_id = await add_task(superuser)
    assert await tasks.finish(task_id, Finish(outcome=FAILED, cancel_seen=False))
    await report(superuser, task_id)
    await report_filer(superuser, task_id)
    assert [row.moving for row in (await tasks.read_metrics(["tes"])).filers] == [False]


async def test_metrics_have_the_time_of_postgres(tasks, superuser):
    before = await superuser.fetchval("SELECT now()")
    at = (await tasks.read_metrics(["tes"])).at
    assert before <= at <= await superuser.fetchval("SELECT now()")


async def counted(superuser):
    return {
        (row["state"], row["reason"]): row["tasks"]
        for row in await superuser.fetch("SELECT state::text, reason, tasks FROM outcome_count")
    }


@pytest.fixture
async def no_counts(superuser):
    await superuser.execute("TRUNCATE task_end, outcome_count, phase_count")


@pytest.mark.usefixtures("no_counts")
async def test_ended_tasks_are_counted_once_by_state_and_reason(tasks, superuser):
    for _ in range(2):
        await tasks.finish(await add_task(superuser), FINISH)
    await report(superuser, await add_task(superuser), outcome=TaskOutcome(state=TesState.COMPLETE))
    for _ in range(2):
        await tasks.count_ended()
    totals = await tasks.read_totals()
    assert totals.outcomes == {
        Outcome(TesState.EXECUTOR_ERROR, "Error"): 2,
        Outcome(TesState.COMPLETE, ""): 1,
    }
    assert await superuser.fetchval("SELECT count(*) FROM task_end") == 0


@pytest.mark.usefixtures("no_counts")
async def test_counters_continue_under_the_next_leader(tasks, superuser, controller_dsn):
    await tasks.finish(await add_task(superuser), FINISH)
    await tasks.count_ended()
    async with tasks_db.connect(controller_dsn, connections=2, home="tes") as other:
        await other.finish(await add_task(superuser), FINISH)
        await other.count_ended()
        totals = await other.read_totals()
    assert totals.outcomes == {Outcome(TesState.EXECUTOR_ERROR, "Error"): 2}


@pytest.mark.usefixtures("no_counts")
async def test_concurrent_leaders_count_each_task_once(tasks, superuser):
    for _ in range(20):
        await tasks.finish(await add_task(superuser, executors=0), Finish(outcome=FAILED, cancel_seen=False))
    await asyncio.gather(*(tasks.count_ended() for _ in range(3)))
    assert await counted(superuser) == {("EXECUTOR_ERROR", "Error"): 20}


@pytest.mark.usefixtures("no_counts")
async def test_unknown_reasons_are_counted_as_other(tasks, superuser):
    for number in range(3):
        outcome = TaskOutcome(state=TesState.SYSTEM_ERROR, reason=f"Reason{number}", message="m")
        await report(superuser, await add_task(superuser), outcome=outcome)
    await tasks.count_ended()
    assert await counted(superuser) == {("SYSTEM_ERROR", "Other"): 3}


@pytest.mark.usefixtures("no_counts")
async def test_phases_are_measured_from_stored_times(tasks, superuser):
    task_id = await add_task(superuser, executors=1)
    await report(superuser, task_id, executors=(ExecutorReport(index=0, start_ns=START_NS),))
    await superuser.execute(
        "UPDATE task SET created_at = $2::timestamptz - interval '100 seconds' WHERE id = $1", task_id, START
    )
    await superuser.execute(
        "UPDATE task_log SET start_time = $2::timestamptz - interval '4 seconds' WHERE task_id = $1",
        task_id,
        START,
    )
    await tasks.finish(task_id, Finish(outcome=FAILED, cancel_seen=False))
    await superuser.execute(
        "UPDATE task SET ended_at = $2::timestamptz + interval '7200 seconds' WHERE id = $1", task_id, START
    )
    await tasks.count_ended()
    assert (await tasks.read_totals()).phases == {
        "queued": [Bucket(120, 1, 96)],
        "initializing": [Bucket(5, 1, 4)],
        "running": [Bucket(7200, 1, 7200)],
    }


@pytest.mark.usefixtures("no_counts")
async def test_task_without_a_pod_is_only_queued(tasks, superuser):
    task_id = await add_task(superuser)
    await tasks.finish(task_id, Finish(outcome=FAILED, cancel_seen=False))
    await tasks.count_ended()
    phases = (await tasks.read_totals()).phases
    assert [phase for phase, buckets in phases.items() if buckets] == ["queued"]


async def test_sizes_name_each_table(tasks):
    totals = await tasks.read_totals()
    assert {"task", "system_log", "executor_log"} <= totals.tables.keys()
    assert totals.database_bytes > totals.tables["task"].bytes >= 0
