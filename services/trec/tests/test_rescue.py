"""The recorder's decisions about a killed executor whose outputs a sidecar sends."""

import asyncio
from dataclasses import replace

import pytest

from poiesis_models.plan import PodPlan
from poiesis_models.podstatus import ContainerEnd
from poiesis_models.runfiles import ExitRecord, SentOutput, Started
from poiesis_models.states import TaskOutcome, TesState, terminal_state
from poiesis_trec import system_logs
from poiesis_trec.facts import Observation, PodView, RunFiles, containers, facts, killed, wants_rescue
from poiesis_trec.filers import StartedFiler, filers

PLAN = PodPlan(
    executors=("executor-0", "executor-1"),
    ignore_error=(False, False),
    outputs=("tof-0", "tof-1"),
    rescues=("rescue-0", "rescue-1"),
)
WITHOUT = replace(PLAN, rescues=())
RUNS = RunFiles(started=Started(start_ns=10))
DEAD = replace(RUNS, helper_gone=True)
OOM = ContainerEnd(name="executor-0", exit_code=137, reason="OOMKilled", message="", record=None)
OOM_REPORTED = PodView(ends={"executor-0": OOM})
OOM_OUTCOME = TaskOutcome(
    state=TesState.EXECUTOR_ERROR,
    reason="OOMKilled",
    message="executor 0 ran out of memory",
    container="executor-0",
)


def ended(code=0, *, oom=False, term=False, **more):
    record = ExitRecord(exit_code=code, signal=0, oom=oom, term=term, start_ns=10, end_ns=20)
    return RunFiles(started=Started(start_ns=10), exit=record, **more)


def observation(plan=PLAN, *, pod=OOM_REPORTED, stop=False, cancel=False, **files):
    return Observation(
        plan=plan,
        files={name.replace("_", "-"): one for name, one in files.items()},
        pod=pod,
        cancel_requested=cancel,
        shutting_down=stop,
    )


def outcome(**case):
    one = observation(**case)
    return terminal_state(facts(one, containers(one)))


SENT = {"rescue_0": ended(), "rescue_1": ended()}


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        # the outcome waits until every sidecar has ended and all that it sent has been read
        ({"executor_0": DEAD}, None),
        ({"executor_0": RUNS}, None),  # the Pod's status arrives before the next check of the lock
        ({"executor_0": RUNS, **SENT}, OOM_OUTCOME),
        ({"executor_0": DEAD, "rescue_0": RUNS, "rescue_1": RUNS}, None),
        ({"executor_0": DEAD, "rescue_0": ended(), "rescue_1": RUNS}, None),
        ({"executor_0": DEAD, **SENT}, OOM_OUTCOME),
        ({"executor_0": DEAD, **SENT, "rescue_1": ended(caught_up=False)}, None),
        ({"executor_0": DEAD, "rescue_0": ended(65, error="denied"), "rescue_1": ended(143)}, OOM_OUTCOME),
        ({"executor_0": ended(137, oom=True), "pod": None}, None),
        ({"executor_0": ended(137, oom=True), "pod": None, **SENT}, OOM_OUTCOME),
        # the kubelet ends the recorder after them: then nothing more is sent
        ({"executor_0": DEAD, "stop": True}, OOM_OUTCOME),
        ({"executor_0": DEAD, "rescue_0": DEAD, "stop": True}, OOM_OUTCOME),
        ({"executor_0": DEAD, "rescue_0": replace(DEAD, caught_up=False), "stop": True}, None),
        # a cancel, too, waits for what is being sent
        ({"executor_0": DEAD, "cancel": True, "rescue_0": RUNS}, None),
        # where there is no such sidecar nothing waits
        ({"plan": WITHOUT, "executor_0": DEAD}, OOM_OUTCOME),
        # an executor that failed by itself is followed by tof
        ({"executor_0": ended(7, failed=True), "pod": None}, None),
        ({"executor_0": ended(143, term=True), "pod": None, "cancel": True, "stop": True}, "CANCELED"),
    ],
)
def test_outcome_waits_for_the_outputs(case, expected):
    found = outcome(**case)
    assert (found.state if expected == "CANCELED" else found) == expected


@pytest.mark.parametrize(
    ("files", "name"),
    [
        ({}, None),
        ({"executor_0": RUNS}, None),
        ({"executor_0": DEAD}, "executor-0"),
        ({"executor_0": ended(137, oom=True)}, "executor-0"),
        ({"executor_0": ended(137)}, None),
        ({"executor_0": DEAD, "executor_1": RUNS}, None),  # Kubernetes continued: it had exited with 0
        ({"executor_0": replace(DEAD, failed=True)}, None),  # Kubernetes will continue
        ({"executor_0": ended(), "executor_1": DEAD}, "executor-1"),
        ({"executor_0": ended(), "executor_1": ended(), "tof_0": DEAD}, None),
    ],
)
def test_which_executor_was_killed(files, name):
    one = killed(containers(observation(pod=None, **files)))
    assert (one and one.name) == name


@pytest.mark.parametrize(("code", "name"), [(0, None), (137, "executor-0"), (3, "executor-0")])
def test_failed_container_without_record_was_killed(code, name):
    pod = PodView(ends={"executor-0": replace(OOM, exit_code=code, reason="Error")})
    one = killed(containers(observation(pod=pod, executor_0=RUNS)))
    assert (one and one.name) == name


def test_container_that_never_started_was_not_killed():
    assert killed(containers(observation(executor_0=RunFiles()))) is None


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ({"executor_0": ended(137, oom=True), "pod": None}, True),
        ({"executor_0": ended(137, oom=True), "plan": WITHOUT}, False),
        ({"executor_0": DEAD}, False),  # its Pod ends by itself
        ({"executor_0": ended(1)}, False),
    ],
)
def test_outputs_are_requested_if_helper_survived(case, expected):
    one = observation(**case)
    assert wants_rescue(one, containers(one)) is expected


def lines_of(**case):
    one = observation(**case)
    return [line.message for line in system_logs.rescue_lines(one, containers(one), 99)]


STARTED = "rescue-0 started: executor 0 was killed before outputs could be sent"


@pytest.mark.parametrize(
    ("case", "lines"),
    [
        ({}, []),
        ({"rescue_0": RUNS}, [STARTED]),
        (
            {"rescue_0": ended(moved_files=2, moved_bytes=1)},
            [STARTED, "rescue-0 sent 2 files, 1 byte"],
        ),
        (
            {"rescue_0": ended(65, error="/o/a: permission denied", moved_files=1, moved_bytes=5)},
            [STARTED, "rescue-0 sent 1 file, 5 bytes; not all outputs were sent: /o/a: permission denied"],
        ),
        (
            {"rescue_0": ended(75, moved_files=1, moved_bytes=5)},
            [STARTED, "rescue-0 sent 1 file, 5 bytes; not all outputs were sent: it exited with code 75"],
        ),
        (
            {"rescue_0": ended(143, term=True, moved_files=1, moved_bytes=5)},
            [STARTED, "rescue-0 sent 1 file, 5 bytes and reached its time limit"],
        ),
        (
            {"rescue_0": ended(137, oom=True, warnings=("/o/b was not produced",))},
            [
                STARTED,
                "rescue-0: /o/b was not produced",
                "rescue-0 sent 0 files, 0 bytes and ran out of memory",
            ],
        ),
        (
            {"rescue_0": DEAD, "stop": True},
            [
                STARTED,
                "rescue-0 sent 0 files, 0 bytes and was killed",
                "rescue-1 did not run: no output was sent",
            ],
        ),
    ],
)
def test_system_logs_report_sent_and_missing_outputs(case, lines):
    assert lines_of(executor_0=DEAD, **case) == lines


def test_sidecar_progress_is_a_filer_report():
    one = observation(executor_0=DEAD, rescue_0=replace(RUNS, moved_files=3, moved_bytes=7))
    assert list(filers(one, containers(one), 99)) == [
        StartedFiler(container="rescue-0", start_ns=10, end_ns=None, files=3, bytes=7)
    ]


@pytest.fixture
def sending(lab):
    lab.configure(plan=replace(PLAN, outputs=("tof-0",), rescues=("rescue-0",)))
    return lab


def asked(lab):
    return lab.config.rescue_file.exists()


@pytest.mark.integration
async def test_rescued_outputs_are_recorded_before_the_outcome(sending, task):
    async with sending.recording():
        sending.helper("executor-0").start().end(137, signal=9, oom=True)
        await sending.eventually(lambda: asyncio.to_thread(asked, sending), True)
        await sending.eventually(task.executors, [(0, 137, True, "", "")])
        assert await task.state() == "RUNNING"
        rescue = sending.helper("rescue-0").start()
        rescue.progress(event="output", url="s3://b/o", path="/o", size_bytes=5)
        rescue.progress(event="progress", files=1, bytes=5)
        rescue.end()
        await sending.eventually(task.state, "EXECUTOR_ERROR")
        assert await task.outputs() == [("/o", "s3://b/o", 5)]
    row = await task.row()
    assert (row["reason"], row["reported_by"]) == ("OOMKilled", "recorder")
    assert "rescue-0 sent 1 file, 5 bytes" in await task.system_logs()
    assert sending.config.ack_file.read_text() == "1"


@pytest.mark.integration
async def test_many_outputs_are_all_recorded_in_shutdown(sending, task):
    sent = [SentOutput(url=f"s3://b/{index}", path=f"/o/{index}", size_bytes=1) for index in range(2500)]
    async with sending.recording():
        sending.helper("executor-0").start().end(137, signal=9, oom=True)
        await sending.eventually(lambda: asyncio.to_thread(asked, sending), True)
        rescue = sending.helper("rescue-0").start()
        for one in sent:
            rescue.progress(event="output", url=one.url, path=one.path, size_bytes=1)
        rescue.killed()
    assert len(await task.outputs()) == 2500
    assert await task.state() == "EXECUTOR_ERROR"


@pytest.mark.integration
async def test_restarted_recorder_waits_for_the_outputs(sending, task):
    sending.helper("executor-0").start().end(137, signal=9, oom=True)
    await sending.killed_after(task.executors, [(0, 137, True, "", "")])
    assert await task.state() == "RUNNING"
    async with sending.recording():
        sending.helper("rescue-0").start().end(65)
        await sending.eventually(task.state, "EXECUTOR_ERROR")
