"""Which changes are reported, and which are delayed. The test sets the clock."""

import pytest

from poiesis_models.report import (
    ExecutorReport,
    InputReport,
    MoreText,
    OutputReport,
    Report,
    SystemLogReport,
)
from poiesis_models.runfiles import FoundInput, ResourceUsage, SentOutput, log_mark
from poiesis_models.states import TaskOutcome, TesState
from poiesis_trec.config import PodRef
from poiesis_trec.facts import ContainerOutcome, PlannedContainer, RunFiles
from poiesis_trec.filers import StartedFiler
from poiesis_trec.outbox import Outbox, Snapshot
from poiesis_trec.regular import Signature

POD = PodRef(name="poiesis-x-abcde", uid="uid-1", namespace="tasks", node="node-1")
LINE = SystemLogReport(key="k", at_ns=1, message="m")
OUTPUT_OF_EXECUTOR = b"0123456789" * 20
OUTPUT = SentOutput(url="s3://b/a", path="/a", size_bytes=1)
COMPLETE = TaskOutcome(state=TesState.COMPLETE)


def executor(end=None):
    return PlannedContainer(
        name="executor-0", files=RunFiles(), executor=0, start_ns=10, end=end, reached=True
    )


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


def whole(text, end=None, **more):
    return ExecutorReport(index=0, start_ns=10, stdout=text, stdout_bytes=end or len(text), **more)


def more(text, after):
    return ExecutorReport(
        index=0, start_ns=10, stdout_more=MoreText(after=after, text=text), stdout_bytes=after + len(text)
    )


class Clock:
    """An outbox whose reports Postgres always stores."""

    def __init__(self) -> None:
        self.outbox = Outbox(POD, interval=1, log_bytes=40)

    def report(self, at, now, *, stored=True, **how):
        def read_log(container, stream):
            seen = at.logs[container, stream]
            return OUTPUT_OF_EXECUTOR[: seen.size], seen

        pending = self.outbox.next_report(at, now, read_log, **how)
        if pending is None:
            return None
        if stored:
            self.outbox.mark_stored(pending, now)
        else:
            self.outbox.mark_failed(pending)
        return pending.report


@pytest.fixture
def clock():
    return Clock()


def test_nothing_is_reported_twice(clock):
    first = snapshot(executor(), system_logs=(LINE,))
    assert clock.report(first, 0) == report(
        executors=(ExecutorReport(index=0, start_ns=10),), system_logs=(LINE,)
    )
    assert clock.report(first, 100) is None
    assert clock.report(first, 100, force=True) == report()


def test_rejected_report_is_sent_again(clock):
    at = snapshot(executor(), system_logs=(LINE,))
    assert clock.outbox.next_report(at, 0, pytest.fail) == clock.outbox.next_report(at, 1, pytest.fail)


def test_output_is_reported_immediately_then_every_second(clock):
    assert clock.report(snapshot(executor()), 0) is not None
    assert clock.report(snapshot(executor(), log=1), 0.1).executors == (whole("0"),)
    assert clock.report(snapshot(executor(), log=2), 0.2) is None
    assert clock.outbox.due_at(snapshot(executor(), log=2), 0.5) == 1.1
    assert clock.report(snapshot(executor(), log=3), 1.1).executors == (more("12", 1),)
    assert clock.outbox.due_at(snapshot(executor(), log=3), 0.5) is None


@pytest.mark.parametrize(("age", "seconds"), [(0, 1), (59, 1), (66, 1), (78, 3), (90, 5), (100_000, 5)])
def test_long_running_output_is_reported_less_often(clock, age, seconds):
    clock.report(snapshot(executor(), log=1), 100)
    clock.report(snapshot(executor(), log=2), 100 + age + 0.001)
    more = snapshot(executor(), log=3)
    now = 100 + age + 0.001
    assert clock.outbox.interval(now) == pytest.approx(seconds, abs=0.01)
    due_at = clock.outbox.due_at(more, now)
    assert due_at == pytest.approx((now if age else 100) + seconds, abs=0.02)
    assert clock.report(more, due_at - 0.1) is None
    assert clock.report(more, due_at + seconds) is not None


def test_last_output_is_reported_with_the_end(clock):
    clock.report(snapshot(executor(), log=1), 0)
    end = ContainerOutcome(exit_code=0, end_ns=20)
    assert clock.report(snapshot(executor(end), log=2, outcome=COMPLETE), 0.1) == report(
        executors=(whole("01", end_ns=20, exit_code=0),),
        ending=COMPLETE,
    )


def test_last_output_is_reported_in_shutdown(clock):
    clock.report(snapshot(executor(), log=1), 0)
    assert clock.report(snapshot(executor(), log=2, final=True), 0.1).executors == (whole("01"),)


def test_failed_report_is_followed_by_the_whole_text(clock):
    clock.report(snapshot(executor(), log=1), 0)
    assert clock.report(snapshot(executor(), log=3), 1, stored=False).executors == (more("12", 1),)
    assert clock.report(snapshot(executor(), log=4), 2).executors == (whole("0123"),)
    assert clock.report(snapshot(executor(), log=5), 3).executors == (more("4", 4),)


def test_ended_executor_reports_its_whole_text_once(clock):
    ended = executor(ContainerOutcome(exit_code=0, end_ns=20))
    clock.report(snapshot(executor(), log=1), 0)
    clock.report(snapshot(executor(), log=2), 1)
    expected = whole("01", end_ns=20, exit_code=0)
    assert clock.report(snapshot(ended, log=2), 1.1).executors == (expected,)
    assert clock.report(snapshot(ended, log=2), 100) is None
    assert clock.outbox.due_at(snapshot(ended, log=2), 100) is None


def test_failed_whole_text_of_an_ended_executor_is_repeated(clock):
    ended = executor(ContainerOutcome(exit_code=0, end_ns=20))
    clock.report(snapshot(executor(), log=1), 0)
    sent = clock.report(snapshot(ended, log=2), 1, stored=False)
    assert clock.report(snapshot(ended, log=2), 2) == sent


def test_stored_whole_text_is_not_repeated_with_the_end(clock):
    ended = executor(ContainerOutcome(exit_code=0, end_ns=20))
    clock.report(snapshot(executor(), log=2), 0)
    expected = ExecutorReport(index=0, start_ns=10, end_ns=20, exit_code=0)
    assert clock.report(snapshot(ended, log=2), 1).executors == (expected,)


def test_end_is_reported_with_its_usage(clock):
    usage = ResourceUsage(user_us=1, sys_us=2, peak_memory_bytes=3)
    ended = executor(ContainerOutcome(exit_code=0, end_ns=20, usage=usage))
    clock.report(snapshot(executor(), log=2), 0)
    expected = ExecutorReport(index=0, start_ns=10, end_ns=20, exit_code=0, usage=usage)
    assert clock.report(snapshot(ended, log=2), 1).executors == (expected,)


def test_stored_text_is_limited(clock):
    def mark(count):
        return log_mark(count).decode()

    assert clock.report(snapshot(executor(), log=39), 0).executors[0].stdout is not None
    assert clock.report(snapshot(executor(), log=40), 1).executors == (more("9", 39),)
    half = OUTPUT_OF_EXECUTOR[:20].decode()
    assert clock.report(snapshot(executor(), log=50), 2).executors == (whole(mark(30) + half, 50),)
    assert clock.report(snapshot(executor(), log=70), 3).executors == (more(half, 50),)
    assert clock.report(snapshot(executor(), log=80), 4).executors == (whole(mark(60) + half, 80),)
    ended = executor(ContainerOutcome(exit_code=0, end_ns=20))
    last = whole(mark(40) + half * 2, 80, end_ns=20, exit_code=0)
    assert clock.report(snapshot(ended, log=80), 5).executors == (last,)


def test_pieces_are_limited_in_number():
    clock = Clock()
    clock.outbox = Outbox(POD, interval=1, log_bytes=1000)
    sent = [clock.report(snapshot(executor(), log=size), 10 * size).executors[0] for size in range(1, 103)]
    assert [one.stdout is not None for one in sent] == [True, *[False] * 100, True]


def test_rest_of_a_large_report_follows_before_the_outcome(clock):
    lines = tuple(SystemLogReport(key=f"k{number}", at_ns=1, message="m" * 2048) for number in range(300))
    at = snapshot(system_logs=lines, outcome=COMPLETE)
    first, second = clock.report(at, 0), clock.report(at, 0)
    assert first.system_logs + second.system_logs == lines
    assert (first.ending, second.ending) == (None, COMPLETE)
    assert len(first.to_json()) < 1024 * 1024


def test_texts_of_many_executors_are_reported_in_parts():
    outbox = Outbox(POD, interval=1, log_bytes=2**20)
    ended = ContainerOutcome(exit_code=0, end_ns=20)
    names = [f"executor-{index}" for index in range(8)]
    known = [
        PlannedContainer(name=name, files=RunFiles(), executor=index, start_ns=10, end=ended, reached=True)
        for index, name in enumerate(names)
    ]
    logs = {(name, "stdout"): Signature(1, 2**18, 1) for name in names}
    at = snapshot(*known, logs=logs, outcome=COMPLETE)
    texts, endings = {}, []
    while COMPLETE not in endings:
        pending = outbox.next_report(at, 0, lambda *_: (b"\1" * 2**18, Signature(1, 2**18, 1)))
        outbox.mark_stored(pending, 0)
        endings.append(pending.report.ending)
        texts |= {one.index: one.stdout for one in pending.report.executors if one.stdout is not None}
        assert len(pending.report.to_json().encode()) < 4 * 1024 * 1024
    mark = len(log_mark(2**17))
    assert {index: len(text) for index, text in texts.items()} == dict.fromkeys(range(8), mark + 2**17)
    assert len(endings) == 8


def test_unreadable_log_is_retried_when_it_changes(clock):
    end = ContainerOutcome(exit_code=0, end_ns=20)
    at = snapshot(executor(end), log=1)
    pending = clock.outbox.next_report(at, 0, lambda *_: None)
    clock.outbox.mark_stored(pending, 0)
    assert clock.outbox.next_report(at, 1, pytest.fail) is None
    assert clock.outbox.due_at(at, 0.5) is None


def test_outcome_is_reported_with_the_last_outputs(clock):
    many = tuple(SentOutput(url=f"s3://b/{n}", path=f"/{n}", size_bytes=n) for n in range(1001))
    first = clock.report(snapshot(outputs=many, outcome=COMPLETE), 0)
    assert (len(first.outputs), first.ending) == (1000, None)
    assert clock.report(snapshot(outputs=many[1000:], outcome=COMPLETE), 0) == report(
        outputs=(OutputReport(url="s3://b/1000", path="/1000", size_bytes=1000),), ending=COMPLETE
    )


def test_outputs_are_reported_every_second(clock):
    assert clock.report(snapshot(outputs=(OUTPUT,)), 0).outputs
    assert clock.report(snapshot(outputs=(OUTPUT,)), 0.5) is None
    assert clock.outbox.due_at(snapshot(outputs=(OUTPUT,)), 0.5) == 1
    assert clock.report(snapshot(outputs=(OUTPUT,)), 1).outputs


def test_types_of_inputs_are_reported_every_ten_seconds(clock):
    def at(*paths, **more):
        return snapshot(inputs=tuple(FoundInput(path=path, type="FILE") for path in paths), **more)

    assert [one.path for one in clock.report(at("/a"), 0).inputs] == ["/a"]
    assert clock.report(at("/a"), 100) is None
    clock.report(at("/a", "/b"), 100)
    assert clock.report(at("/a", "/b", "/c"), 101) is None
    assert clock.outbox.due_at(at("/a", "/b", "/c"), 101) == 110
    assert [one.path for one in clock.report(at("/a", "/b", "/c"), 110).inputs] == ["/c"]


def test_types_of_inputs_join_any_report(clock):
    clock.report(snapshot(inputs=(FoundInput(path="/a", type="FILE"),)), 0)
    more = (FoundInput(path="/a", type="FILE"), FoundInput(path="/b", type="DIRECTORY"))
    assert clock.report(snapshot(inputs=more, outcome=COMPLETE), 1) == report(
        inputs=(InputReport(path="/b", type="DIRECTORY"),), ending=COMPLETE
    )


def test_executor_without_exit_code_stays_open(clock):
    sent = clock.report(snapshot(executor(ContainerOutcome(exit_code=None, end_ns=20))), 0)
    assert sent.executors == (ExecutorReport(index=0, start_ns=10),)


def test_running_filer_is_reported_periodically(clock):
    second = 10**9

    def moved(count, now, end_ns=None):
        one = StartedFiler(container="tif-0", start_ns=0, end_ns=end_ns, files=1, bytes=count)
        return snapshot(filers=(one,), at_ns=now * second)

    assert clock.report(moved(5, 1), 101).filers == ()  # forced
    assert clock.report(moved(5, 9), 109) is None
    assert clock.outbox.due_at(moved(5, 9), 109) == 110
    (sent,) = clock.report(moved(50, 10), 110).filers
    assert (sent.container, sent.files, sent.bytes, sent.bytes_per_second) == ("tif-0", 1, 50, 5)
    assert clock.outbox.due_at(moved(50, 11), 111) == 120
    (sent,) = clock.report(moved(60, 12, end_ns=12 * second), 112).filers
    assert (sent.end_ns, sent.bytes_per_second) == (12 * second, 5)
    assert clock.report(moved(60, 13, end_ns=12 * second), 113) is None
    assert clock.outbox.due_at(moved(60, 13, end_ns=12 * second), 113) is None


def test_rejected_filer_report_is_sent_again(clock):
    at = snapshot(filers=(StartedFiler(container="tif-0", start_ns=0, end_ns=1, files=1, bytes=5),))
    refused = clock.outbox.next_report(at, 0, None)
    assert clock.report(at, 1) == refused.report
