"""The time and content of reports about filers."""

import pytest

from poiesis_models.plan import PodPlan
from poiesis_models.report import FilerReport
from poiesis_models.runfiles import ExitRecord, Started
from poiesis_trec.facts import Observation, RunFiles, containers
from poiesis_trec.filers import StartedFiler, StoredFilerReport, due_ns, filers, report

SECOND = 10**9
START = 1000 * SECOND
PLAN = PodPlan(
    inputs=("tif-0",),
    executors=("executor-0",),
    ignore_error=(False,),
    outputs=("tof-0",),
    streams=("stream-0",),
)


def at(seconds):
    return START + int(seconds * SECOND)


def filer(*, end=None, count=0, start=0):
    return StartedFiler(
        container="tif-0",
        start_ns=at(start),
        end_ns=None if end is None else at(end),
        files=1,
        bytes=count,
    )


def last(when, *, end=None, count=0, start=0):
    reported = FilerReport(
        container="tif-0",
        start_ns=at(start),
        end_ns=None if end is None else at(end),
        files=1,
        bytes=count,
        bytes_per_second=0,
    )
    return StoredFilerReport(report=reported, at_ns=at(when))


@pytest.mark.parametrize(
    ("now", "before", "due"),
    [
        pytest.param(filer(), None, at(10), id="a started filer: not at once, most end soon"),
        pytest.param(filer(), last(10), at(20), id="a running filer: every ten seconds"),
        pytest.param(filer(), last(120), at(140), id="a long run: less often"),
        pytest.param(filer(), last(5000), at(5060), id="a run of hours: every minute"),
        pytest.param(filer(count=5), last(10, count=5), at(20), id="a stalled filer: as well"),
        pytest.param(filer(start=30), last(12), at(40), id="a restarted filer: from its start"),
        pytest.param(filer(end=3), None, 0, id="an ended filer: at once"),
        pytest.param(filer(end=30), last(20), 0, id="the end"),
        pytest.param(filer(end=30), last(30, end=30), None, id="the end is reported once"),
        pytest.param(filer(end=31), last(30, end=30), None, id="also with another end time"),
        pytest.param(filer(end=31, count=9), last(30, end=30), 0, id="progress after the end"),
        pytest.param(filer(start=40, end=50), last(30, end=30), 0, id="the end of a second run"),
        pytest.param(filer(), last(30, end=30), at(40), id="a filer that continues"),
    ],
)
def test_due_time_of_filer_reports(now, before, due):
    assert due_ns(now, before) == due


@pytest.mark.parametrize(
    ("now", "before", "seconds", "rate"),
    [
        pytest.param(filer(count=500), None, 10, 50, id="first report: since the start"),
        pytest.param(filer(count=800), last(10, count=500), 20, 30, id="later: since the last report"),
        pytest.param(filer(count=500), last(10, count=500), 20, 0, id="0 while it stalls"),
        pytest.param(filer(count=400), last(10, count=500), 20, 0, id="0 while it fetches again"),
        pytest.param(
            filer(count=100, start=15), last(10, count=500), 20, 20, id="restarted: since the start"
        ),
        pytest.param(filer(count=600, end=20), last(10, count=500), 21, 30, id="ended: of the whole run"),
        pytest.param(filer(count=600, end=0), None, 0, 0, id="0 for no duration"),
        pytest.param(filer(count=2**63 - 1), None, 0.5, 2**63 - 1, id="at most a bigint"),
    ],
)
def test_rate_of_a_filer(now, before, seconds, rate):
    reported = report(now, before, at(seconds))
    assert reported.bytes_per_second == rate
    assert (reported.container, reported.start_ns, reported.end_ns, reported.files, reported.bytes) == (
        "tif-0",
        now.start_ns,
        now.end_ns,
        1,
        now.bytes,
    )


def runs(**more):
    return RunFiles(started=Started(start_ns=10), **more)


def over():
    record = ExitRecord(
        exit_code=0,
        signal=0,
        oom=False,
        term=False,
        start_ns=10,
        end_ns=20,
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
        ({"stream-0": runs(streaming=("/in/a",), streaming_since_ns=50)}, [("stream-0", None, 0, 0)]),
        ({"stream-0": runs(streaming_since_ns=50, moved_files=1, moved_bytes=9)}, [("stream-0", 99, 1, 9)]),
    ],
)
def test_filers_that_have_started(files, found):
    observation = Observation(plan=PLAN, files=files)
    seen = filers(observation, containers(observation), 99)
    assert [(one.container, one.end_ns, one.files, one.bytes) for one in seen] == found


def test_stream_starts_with_its_first_input():
    observation = Observation(plan=PLAN, files={"stream-0": runs(streaming_since_ns=50)})
    (seen,) = filers(observation, containers(observation), 99)
    assert seen.start_ns == 50
