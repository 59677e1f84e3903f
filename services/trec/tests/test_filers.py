"""When Postgres is told of filers, and what."""

import pytest

from poiesis_models.plan import Plan
from poiesis_models.report import FilerReport
from poiesis_models.runfiles import ExitRecord, Started
from poiesis_trec.facts import Files, Situation, containers
from poiesis_trec.filers import Filer, Told, due_ns, filers, report

SECOND = 10**9
START = 1000 * SECOND
PLAN = Plan(
    inputs=("tif-0",),
    executors=("executor-0",),
    ignore_error=(False,),
    outputs=("tof-0",),
    streams=("stream-0",),
)


def at(seconds):
    return START + int(seconds * SECOND)


def filer(*, end=None, count=0, start=0):
    return Filer(
        container="tif-0",
        start_ns=at(start),
        end_ns=None if end is None else at(end),
        files=1,
        bytes=count,
    )


def told(when, *, end=None, count=0, start=0):
    said = FilerReport(
        container="tif-0",
        start_ns=at(start),
        end_ns=None if end is None else at(end),
        files=1,
        bytes=count,
        bytes_per_second=0,
    )
    return Told(report=said, at_ns=at(when))


@pytest.mark.parametrize(
    ("now", "before", "due"),
    [
        pytest.param(filer(), None, at(10), id="one that has begun: not at once, most are soon done"),
        pytest.param(filer(), told(10), at(20), id="one that runs: every ten seconds"),
        pytest.param(filer(), told(120), at(140), id="one that runs longer: less often"),
        pytest.param(filer(), told(5000), at(5060), id="one that runs for hours: every minute"),
        pytest.param(filer(count=5), told(10, count=5), at(20), id="one that stands still: as well"),
        pytest.param(filer(start=30), told(12), at(40), id="one that was started again: anew"),
        pytest.param(filer(end=3), None, 0, id="one that has ended: at once"),
        pytest.param(filer(end=30), told(20), 0, id="its end"),
        pytest.param(filer(end=30), told(30, end=30), None, id="its end is not told twice"),
        pytest.param(filer(end=31), told(30, end=30), None, id="not even at another time"),
        pytest.param(filer(end=31, count=9), told(30, end=30), 0, id="what came after its end"),
        pytest.param(filer(start=40, end=50), told(30, end=30), 0, id="the end of a second start"),
        pytest.param(filer(), told(30, end=30), at(40), id="one that goes on"),
    ],
)
def test_due_time_of_filer_reports(now, before, due):
    assert due_ns(now, before) == due


@pytest.mark.parametrize(
    ("now", "before", "seconds", "rate"),
    [
        pytest.param(filer(count=500), None, 10, 50, id="at first: since its start"),
        pytest.param(filer(count=800), told(10, count=500), 20, 30, id="then: since it was told of"),
        pytest.param(filer(count=500), told(10, count=500), 20, 0, id="none while it stands still"),
        pytest.param(filer(count=400), told(10, count=500), 20, 0, id="none while it fetches again"),
        pytest.param(filer(count=100, start=15), told(10, count=500), 20, 20, id="anew after a new start"),
        pytest.param(filer(count=600, end=20), told(10, count=500), 21, 30, id="in the end: of all of it"),
        pytest.param(filer(count=600, end=0), None, 0, 0, id="of no time there is none"),
        pytest.param(filer(count=2**63 - 1), None, 0.5, 2**63 - 1, id="as much as Postgres can hold"),
    ],
)
def test_rate_of_a_filer(now, before, seconds, rate):
    said = report(now, before, at(seconds))
    assert said.bytes_per_second == rate
    assert (said.container, said.start_ns, said.end_ns, said.files, said.bytes) == (
        "tif-0",
        now.start_ns,
        now.end_ns,
        1,
        now.bytes,
    )


def runs(**more):
    return Files(started=Started(start_ns=10), **more)


def over():
    record = ExitRecord(
        exit_code=0,
        signal=0,
        oom=False,
        term=False,
        start_ns=10,
        end_ns=20,
        max_rss_kb=0,
        user_us=0,
        sys_us=0,
    )
    return runs(exit=record, moved_files=2, moved_bytes=7)


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({}, []),
        ({"tif-0": runs(moved_files=1, moved_bytes=5)}, [("tif-0", None, 1, 5)]),
        ({"tif-0": over(), "executor-0": runs()}, [("tif-0", 20, 2, 7)]),
        (
            {"tif-0": over(), "executor-0": over(), "tof-0": runs()},
            [("tif-0", 20, 2, 7), ("tof-0", None, 0, 0)],
        ),
        ({"stream-0": runs()}, []),
        ({"stream-0": runs(pouring=("/in/a",), poured_ns=50)}, [("stream-0", None, 0, 0)]),
        ({"stream-0": runs(poured_ns=50, moved_files=1, moved_bytes=9)}, [("stream-0", 99, 1, 9)]),
    ],
)
def test_filers_that_have_started(files, found):
    situation = Situation(plan=PLAN, files=files)
    seen = filers(situation, containers(situation), 99)
    assert [(one.container, one.end_ns, one.files, one.bytes) for one in seen] == found


def test_stream_starts_with_its_first_input():
    situation = Situation(plan=PLAN, files={"stream-0": runs(poured_ns=50)})
    (seen,) = filers(situation, containers(situation), 99)
    assert seen.start_ns == 50
