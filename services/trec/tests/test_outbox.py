"""What is told, and what is held back. A clock that the test turns."""

import pytest

from poiesis_models.report import ExecutorReport, InputReport, OutputReport, Report, SystemLogReport
from poiesis_models.runfiles import FoundInput, SentOutput
from poiesis_models.states import Ending, TesState
from poiesis_trec.config import PodRef
from poiesis_trec.facts import Container, End, Files
from poiesis_trec.filers import Filer
from poiesis_trec.outbox import Outbox, Snapshot
from poiesis_trec.regular import Signature

POD = PodRef(name="poiesis-x-abcde", uid="uid-1", namespace="tasks", node="node-1")
LINE = SystemLogReport(key="k", at_ns=1, message="m")
OUTPUT = SentOutput(url="s3://b/a", path="/a", size_bytes=1)
COMPLETE = Ending(state=TesState.COMPLETE)


def executor(end=None):
    return Container(name="executor-0", files=Files(), executor=0, start_ns=10, end=end, seen=True)


def snapshot(*containers, log=0, outputs=(), **more):
    logs = {("executor-0", "stdout"): Signature(1, log, log)} if log else {}
    return Snapshot(
        **{
            "at_ns": 0,
            "state": TesState.RUNNING,
            "containers": containers,
            "logs": logs,
            "outputs": {"tof-0": outputs},
            "system_logs": (),
            **more,
        }
    )


def report(**fields):
    return Report(
        pod_uid="uid-1", pod_name="poiesis-x-abcde", node="node-1", state=TesState.RUNNING, **fields
    )


class Clock:
    """An outbox whose reports Postgres always takes."""

    def __init__(self) -> None:
        self.outbox = Outbox(POD, interval=1)

    def tell(self, at, now, **how):
        draft = self.outbox.draft(
            at, now, lambda _, __: (f"text {now}", at.logs["executor-0", "stdout"]), **how
        )
        if draft is None:
            return None
        self.outbox.told(draft, now)
        return draft.report


@pytest.fixture
def clock():
    return Clock()


def test_nothing_is_told_twice(clock):
    first = snapshot(executor(), system_logs=(LINE,))
    assert clock.tell(first, 0) == report(
        executors=(ExecutorReport(index=0, start_ns=10),), system_logs=(LINE,)
    )
    assert clock.tell(first, 100) is None
    assert clock.tell(first, 100, anyway=True) == report()


def test_what_postgres_did_not_take_is_told_again(clock):
    at = snapshot(executor(), system_logs=(LINE,))
    assert clock.outbox.draft(at, 0, pytest.fail) == clock.outbox.draft(at, 1, pytest.fail)


def test_the_first_output_is_told_at_once_and_more_once_a_second(clock):
    assert clock.tell(snapshot(executor()), 0) is not None
    assert clock.tell(snapshot(executor(), log=1), 0.1).executors[0].stdout == "text 0.1"
    assert clock.tell(snapshot(executor(), log=2), 0.2) is None
    assert clock.outbox.due_at(snapshot(executor(), log=2), 0.5) == 1.1
    assert clock.tell(snapshot(executor(), log=3), 1.1).executors[0].stdout == "text 1.1"
    assert clock.outbox.due_at(snapshot(executor(), log=3), 0.5) is None


@pytest.mark.parametrize(
    ("age", "seconds"), [(0, 1), (59, 1), (66, 1), (90, 5), (180, 20), (240, 30), (100_000, 30)]
)
def test_a_task_that_writes_for_long_is_reported_less_often(clock, age, seconds):
    clock.tell(snapshot(executor(), log=1), 100)
    clock.tell(snapshot(executor(), log=2), 100 + age + 0.001)
    more = snapshot(executor(), log=3)
    now = 100 + age + 0.001
    assert clock.outbox.interval(now) == pytest.approx(seconds, abs=0.01)
    due_at = clock.outbox.due_at(more, now)
    assert due_at == pytest.approx((now if age else 100) + seconds, abs=0.02)
    assert clock.tell(more, due_at - 0.1) is None
    assert clock.tell(more, due_at + seconds) is not None


def test_the_last_output_is_told_with_the_end(clock):
    clock.tell(snapshot(executor(), log=1), 0)
    end = End(exit_code=0, end_ns=20)
    assert clock.tell(snapshot(executor(end), log=2, ending=COMPLETE), 0.1) == report(
        executors=(ExecutorReport(index=0, start_ns=10, end_ns=20, exit_code=0, stdout="text 0.1"),),
        ending=COMPLETE,
    )


def test_the_last_output_is_told_in_shutdown(clock):
    clock.tell(snapshot(executor(), log=1), 0)
    assert clock.tell(snapshot(executor(), log=2, final=True), 0.1).executors[0].stdout == "text 0.1"


def test_a_log_that_cannot_be_read_is_not_tried_until_it_changes(clock):
    end = End(exit_code=0, end_ns=20)
    at = snapshot(executor(end), log=1)
    draft = clock.outbox.draft(at, 0, lambda *_: None)
    clock.outbox.told(draft, 0)
    assert clock.outbox.draft(at, 1, pytest.fail) is None
    assert clock.outbox.due_at(at, 0.5) is None


def test_the_end_waits_for_the_last_outputs(clock):
    many = tuple(SentOutput(url=f"s3://b/{n}", path=f"/{n}", size_bytes=n) for n in range(1001))
    first = clock.tell(snapshot(outputs=many, ending=COMPLETE), 0)
    assert (len(first.outputs), first.ending) == (1000, None)
    assert clock.tell(snapshot(outputs=many[1000:], ending=COMPLETE), 0) == report(
        outputs=(OutputReport(url="s3://b/1000", path="/1000", size_bytes=1000),), ending=COMPLETE
    )


def test_outputs_are_told_once_a_second(clock):
    assert clock.tell(snapshot(outputs=(OUTPUT,)), 0).outputs
    assert clock.tell(snapshot(outputs=(OUTPUT,)), 0.5) is None
    assert clock.outbox.due_at(snapshot(outputs=(OUTPUT,)), 0.5) == 1
    assert clock.tell(snapshot(outputs=(OUTPUT,)), 1).outputs


def test_types_of_inputs_are_reported_every_ten_seconds(clock):
    def at(*paths, **more):
        return snapshot(inputs=tuple(FoundInput(path=path, type="FILE") for path in paths), **more)

    assert [one.path for one in clock.tell(at("/a"), 0).inputs] == ["/a"]
    assert clock.tell(at("/a"), 100) is None
    clock.tell(at("/a", "/b"), 100)
    assert clock.tell(at("/a", "/b", "/c"), 101) is None
    assert clock.outbox.due_at(at("/a", "/b", "/c"), 101) == 110
    assert [one.path for one in clock.tell(at("/a", "/b", "/c"), 110).inputs] == ["/c"]


def test_types_of_inputs_go_along_with_any_report(clock):
    clock.tell(snapshot(inputs=(FoundInput(path="/a", type="FILE"),)), 0)
    more = (FoundInput(path="/a", type="FILE"), FoundInput(path="/b", type="DIRECTORY"))
    assert clock.tell(snapshot(inputs=more, ending=COMPLETE), 1) == report(
        inputs=(InputReport(path="/b", type="DIRECTORY"),), ending=COMPLETE
    )


def test_an_end_without_a_known_code_leaves_the_executor_open(clock):
    told = clock.tell(snapshot(executor(End(exit_code=None, end_ns=20))), 0)
    assert told.executors == (ExecutorReport(index=0, start_ns=10),)


def test_a_filer_that_runs_is_told_of_now_and_then(clock):
    second = 10**9

    def moved(count, now, end_ns=None):
        one = Filer(container="tif-0", start_ns=0, end_ns=end_ns, files=1, bytes=count)
        return snapshot(filers=(one,), at_ns=now * second)

    assert clock.tell(moved(5, 1), 101).filers == ()  # told for another reason
    assert clock.tell(moved(5, 9), 109) is None
    assert clock.outbox.due_at(moved(5, 9), 109) == 110
    (said,) = clock.tell(moved(50, 10), 110).filers
    assert (said.container, said.files, said.bytes, said.bytes_per_second) == ("tif-0", 1, 50, 5)
    assert clock.outbox.due_at(moved(50, 11), 111) == 120
    (said,) = clock.tell(moved(60, 12, end_ns=12 * second), 112).filers
    assert (said.end_ns, said.bytes_per_second) == (12 * second, 5)
    assert clock.tell(moved(60, 13, end_ns=12 * second), 113) is None
    assert clock.outbox.due_at(moved(60, 13, end_ns=12 * second), 113) is None


def test_what_postgres_did_not_take_of_a_filer_is_told_again(clock):
    at = snapshot(filers=(Filer(container="tif-0", start_ns=0, end_ns=1, files=1, bytes=5),))
    refused = clock.outbox.draft(at, 0, None)
    assert clock.tell(at, 1) == refused.report
