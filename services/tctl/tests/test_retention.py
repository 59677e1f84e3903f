"""Which tasks are due, as tables."""

from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest

from poiesis_models.states import TesState
from poiesis_tctl import retention
from poiesis_tctl.config import Retention
from poiesis_tctl.retention import EndedTask, Sweep

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def ended(number: int, at: datetime = NOON) -> EndedTask:
    return EndedTask(id=UUID(int=number), namespace="tes", ended_at=at)


def test_each_terminal_state_has_an_age():
    swept = list(retention.sweeps(Retention(days=90, days_by_state={TesState.COMPLETE: 30})))
    assert {sweep.state: sweep.age.days for sweep in swept} == {
        TesState.COMPLETE: 30,
        TesState.CANCELED: 90,
        TesState.EXECUTOR_ERROR: 90,
        TesState.PREEMPTED: 90,
        TesState.SYSTEM_ERROR: 90,
    }


def test_zero_deletes_nothing():
    kept = Retention(days=0, days_by_state={TesState.CANCELED: 7})
    assert list(retention.sweeps(kept)) == [
        Sweep(kind="tasks", state=TesState.CANCELED, age=timedelta(days=7))
    ]
    assert list(retention.sweeps(Retention(days=0))) == []


def test_logs_are_deleted_after_tasks():
    *tasks, logs = retention.sweeps(Retention(log_days=1))
    assert logs == Sweep(kind="logs", age=timedelta(days=1))
    assert {sweep.kind for sweep in tasks} == {"tasks"}


def test_batch_has_only_tasks_that_may_be_deleted():
    tasks = [ended(number) for number in range(4)]
    assert retention.batch(tasks, lambda task: task.id.int % 2 == 1) == [tasks[1], tasks[3]]
    assert retention.batch(tasks, lambda _: False) == []


def test_batch_ends_with_the_day():
    late = NOON.replace(hour=23, minute=30)
    elsewhere = late.astimezone(timezone(timedelta(hours=2)))
    tasks = [ended(1, late), ended(2, elsewhere), ended(3, late + timedelta(hours=1))]
    assert retention.batch(tasks, lambda _: True) == tasks[:2]


@pytest.mark.parametrize(
    ("size", "seconds", "following"),
    [(100, 0.6, 50), (1, 5.0, 1), (30, 0.1, 60), (80, 0.1, 100), (100, 0.1, 100)],
)
def test_slow_batches_become_smaller(size, seconds, following):
    assert retention.next_size(size, seconds) == following


@pytest.mark.parametrize(("seconds", "pause"), [(0.0, 0.1), (0.01, 0.1), (1.0, 4.0)])
def test_deletion_takes_a_fifth_of_the_time(seconds, pause):
    assert retention.pause_seconds(seconds) == pause
