"""Transfers counted between reads, and current rates."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tctl_builders import TASK

from poiesis_models.states import TesState
from poiesis_tctl.transfers import (
    FILERS,
    Figures,
    FilerFigures,
    FilerRow,
    MetricsSnapshot,
    Moved,
    Place,
    Run,
    Transfers,
)

FIRST = datetime(2025, 11, 23, 6, tzinfo=UTC)
BETWEEN = timedelta(seconds=15)
MIDNIGHT = datetime(2025, 11, 23, tzinfo=UTC)
NOTHING = Moved(0, 0)
IDLE = FilerFigures(moving=0, bytes_per_second=0, moved=NOTHING)


def run(container: str = "tif-0", **values: Any) -> Run:
    """Return a run, by default started in the minute before the first read."""
    known = {"task_id": TASK, "attempt": 0, "container": container, "start": FIRST - timedelta(minutes=1)}
    return Run(**{**known, **values})


def row(of: Run, files: int, size: int, *, rate: int = 0, moving: bool = True) -> FilerRow:
    return FilerRow(run=of, moved=Moved(files, size), bytes_per_second=rate, moving=moving)


def figures(*looks: list[FilerRow], tasks: Mapping[Place, int] | None = None) -> Figures:
    """Return the metrics after these reads."""
    transfers = Transfers()
    for number, rows in enumerate(looks):
        last = transfers.count(MetricsSnapshot(at=FIRST + number * BETWEEN, tasks=tasks or {}, filers=rows))
    return last


A, B = run(), run(attempt=1)
AGAIN = run(start=FIRST + timedelta(seconds=5))
OLD = run(start=MIDNIGHT)


@pytest.mark.parametrize(
    ("looks", "moved"),
    [
        pytest.param([[]], (0, 0), id="nothing moves"),
        pytest.param([[row(A, 3, 300)]], (0, 0), id="transfers before the first read do not count"),
        pytest.param([[row(A, 3, 300)], [row(A, 5, 350)]], (2, 50), id="the difference counts"),
        pytest.param([[], [row(A, 3, 300)]], (3, 300), id="a new run counts in full"),
        pytest.param([[], [row(A, 3, 300)], [row(A, 3, 300)]], (3, 300), id="and only once"),
        pytest.param([[], [row(A, 1, 10)], []], (1, 10), id="a vanished run stays counted"),
        pytest.param([[], [row(A, 1, 10)], [row(B, 2, 20)]], (3, 30), id="attempts are counted separately"),
        pytest.param(
            [[], [row(A, 1, 10), row(run("tif-1"), 2, 20)]], (3, 30), id="filers of one kind are added"
        ),
        pytest.param(
            [[], [row(A, 1, 10, moving=False)]], (1, 10), id="a run that ended between reads counts"
        ),
        pytest.param([[row(A, 9, 900)], [row(AGAIN, 1, 10)]], (1, 10), id="a restarted run counts in full"),
        pytest.param([[row(A, 1, 10)], [row(AGAIN, 2, 20)]], (2, 20), id="also if it is further than before"),
        pytest.param(
            [[row(A, 2, 500)], [row(A, 2, 400)], [row(A, 3, 600)]],
            (1, 100),
            id="data fetched again counts once",
        ),
        pytest.param([[row(A, 2, 500)], [row(A, 2, 400)]], (0, 0), id="counters never decrease"),
        pytest.param([[row(OLD, 3, 300)], [row(OLD, 3, 310)]], (0, 10), id="a long run continues"),
        pytest.param(
            [[], [row(OLD, 3, 300)]], (0, 0), id="an ended run that is reported again is not counted again"
        ),
        pytest.param(
            [[row(OLD, 3, 300)], [], [row(OLD, 5, 500)], [row(OLD, 6, 600)]],
            (1, 100),
            id="a silent run continues from its next report",
        ),
        pytest.param([[], [row(run("x"), 1, 1), row(run("x-0"), 1, 1)]], (0, 0), id="unknown filers"),
    ],
)
def test_transfer_is_the_difference_between_reads(looks, moved):
    found = figures(*looks).filers
    assert found["tif"].moved == moved
    assert {found["tof"].moved, found["stream"].moved} == {NOTHING}


def test_recent_run_counts_from_zero():
    edge = FIRST - timedelta(minutes=2)
    assert figures([], [row(run(start=edge), 1, 10)]).filers["tif"].moved == (1, 10)
    just_before = run(start=edge - timedelta(microseconds=1))
    assert figures([], [row(just_before, 1, 10)]).filers["tif"].moved == NOTHING


def test_run_started_during_a_pause_counts():
    """Postgres was unavailable for an hour."""
    transfers = Transfers()
    transfers.count(MetricsSnapshot(at=FIRST, tasks={}, filers=[]))
    later = FIRST + timedelta(hours=1)
    begun = run(start=FIRST + timedelta(minutes=10))
    found = transfers.count(MetricsSnapshot(at=later, tasks={}, filers=[row(begun, 1, 10)]))
    assert found.filers["tif"].moved == (1, 10)


def test_rates_include_only_moving_filers():
    rows = [
        row(run("tif-0"), 1, 10, rate=5),
        row(run("tif-1"), 1, 10, rate=7),
        row(run("tif-2"), 1, 10, rate=1000, moving=False),
        row(run("stream-0"), 4, 40, rate=9),
        row(run("rescue-0"), 2, 20, rate=3),
        row(run("tif"), 1, 10, rate=1000),
        row(run("gone-0"), 1, 10, rate=1000),
    ]
    assert figures([], rows, tasks={Place("tes", TesState.QUEUED): 3}) == Figures(
        read_at=FIRST + BETWEEN,
        tasks={Place("tes", TesState.QUEUED): 3},
        filers={
            "tif": FilerFigures(moving=2, bytes_per_second=12, moved=Moved(3, 30)),
            "tof": IDLE,
            "stream": FilerFigures(moving=1, bytes_per_second=9, moved=Moved(4, 40)),
            "rescue": FilerFigures(moving=1, bytes_per_second=3, moved=Moved(2, 20)),
        },
    )


def test_every_filer_is_exported_without_transfers():
    assert figures([]).filers == dict.fromkeys(FILERS, IDLE)


def test_only_runs_of_the_last_read_are_kept():
    transfers = Transfers()
    for number in range(3):
        rows = [row(run(f"tif-{number}"), 1, 1)]
        transfers.count(MetricsSnapshot(at=FIRST + number * BETWEEN, tasks={}, filers=rows))
    assert list(transfers._runs) == [run("tif-2")]
