"""The outcomes of a task as a table: plan and known facts of containers -> outcome."""

from dataclasses import replace

import pytest

from poiesis_models.plan import PodPlan
from poiesis_models.podstatus import ContainerEnd
from poiesis_models.runfiles import ExitRecord, Started
from poiesis_models.states import TaskOutcome, TesState, terminal_state
from poiesis_trec import system_logs
from poiesis_trec.facts import Observation, PodView, RunFiles, containers, facts, phase

ABORT = PodPlan(executors=("executor-0", "executor-1"), ignore_error=(False, False), upload_on_error=True)
IGNORE = PodPlan(executors=("executor-0", "executor-1"), ignore_error=(True, True), upload_on_error=False)
UPLOAD = PodPlan(
    inputs=("tif-0",),
    executors=("executor-0", "executor-1"),
    ignore_error=(False, False),
    outputs=("tof-0",),
    upload_on_error=True,
)
SKIP = PodPlan(
    inputs=("tif-0",),
    executors=("executor-0", "executor-1"),
    ignore_error=(False, False),
    outputs=("tof-0",),
    upload_on_error=False,
)
PREPARED = PodPlan(
    executors=("executor-0", "executor-1"),
    ignore_error=(False, False),
    prepared=(0, 1),
    outputs=("tof-0",),
)
STREAM = PodPlan(executors=("executor-0",), ignore_error=(False,), streams=("stream-0",))
RUNS = RunFiles(started=Started(start_ns=10))
DEAD = RunFiles(started=Started(start_ns=10), helper_gone=True)
SKIPPED = RunFiles(skipped=True)
STREAMING = replace(RUNS, streaming=("/in/a",))
CUT = "cannot fetch http://h/a: 5 of 9 bytes came"


def ended(code=0, *, signal=0, oom=False, term=False, **more):
    record = ExitRecord(exit_code=code, signal=signal, oom=oom, term=term, start_ns=10, end_ns=20)
    return RunFiles(started=Started(start_ns=10), exit=record, **more)


def terminated(name, code, reason="Error", message="", record=None):
    return ContainerEnd(
        name=name, exit_code=code, reason=reason, message=message, record=record, finished_ns=30
    )


def status(*ends, terminating=False, running=()):
    return PodView(
        ends={end.name: end for end in ends},
        running=frozenset(running),
        terminating=terminating,
    )


def outcome(plan, pod=None, cancel=False, stop=False, streams_awaited=True, **files):
    observation = Observation(
        plan=plan,
        files={name.replace("_", "-"): one for name, one in files.items()},
        pod=pod,
        cancel_requested=cancel,
        shutting_down=stop,
        streams_awaited=streams_awaited,
    )
    known = containers(observation)
    return terminal_state(facts(observation, known))


COMPLETE = TaskOutcome(state=TesState.COMPLETE)
CANCELED = TaskOutcome(state=TesState.CANCELED, reason="Canceled", message="canceled on request")


def executor_error(index, code, then=""):
    message = f"executor {index} exited with code {code}" + (f"; then: {then}" if then else "")
    return TaskOutcome(
        state=TesState.EXECUTOR_ERROR, reason="Error", message=message, container=f"executor-{index}"
    )


def out_of_memory(index):
    return TaskOutcome(
        state=TesState.EXECUTOR_ERROR,
        reason="OOMKilled",
        message=f"executor {index} ran out of memory",
        container=f"executor-{index}",
    )


def system_error(container, message, reason="Error"):
    return TaskOutcome(state=TesState.SYSTEM_ERROR, reason=reason, message=message, container=container)


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        # containers that prepare directories
        ({"plan": PREPARED, "prepare_0": ended(), "executor_0": RUNS}, None),
        (
            {"plan": PREPARED, "prepare_0": ended(74, error="cannot copy /app")},
            system_error("prepare-0", "cannot copy /app"),
        ),
        (
            {
                "plan": PREPARED,
                "prepare_0": ended(),
                "executor_0": ended(7, failed=True),
                "prepare_1": SKIPPED,
                "executor_1": SKIPPED,
                "tof_0": ended(),
            },
            executor_error(0, 7),
        ),
        (
            {
                "plan": PREPARED,
                "prepare_0": ended(),
                "executor_0": ended(),
                "prepare_1": ended(),
                "executor_1": ended(),
                "tof_0": ended(),
            },
            COMPLETE,
        ),
        # while it runs
        ({"plan": ABORT}, None),
        ({"plan": ABORT, "executor_0": RUNS}, None),
        ({"plan": ABORT, "executor_0": ended()}, None),
        ({"plan": ABORT, "executor_0": ended(), "cancel": True}, None),
        ({"plan": ABORT, "executor_0": RUNS, "cancel": True, "stop": True}, None),
        (
            {"plan": ABORT, "executor_0": ended(7), "executor_1": RUNS},
            None,
        ),  # Kubernetes started the next one
        ({"plan": UPLOAD, "tif_0": ended(), "executor_0": ended(), "executor_1": ended()}, None),
        # success
        ({"plan": ABORT, "executor_0": ended(), "executor_1": ended()}, COMPLETE),
        (
            {
                "plan": UPLOAD,
                "tif_0": ended(),
                "executor_0": ended(),
                "executor_1": ended(),
                "tof_0": ended(),
            },
            COMPLETE,
        ),
        # an executor that fails
        ({"plan": ABORT, "executor_0": ended(7)}, executor_error(0, 7)),
        ({"plan": ABORT, "executor_0": ended(), "executor_1": ended(1)}, executor_error(1, 1)),
        ({"plan": SKIP, "tif_0": ended(), "executor_0": ended(7)}, executor_error(0, 7)),
        ({"plan": ABORT, "executor_0": ended(137, signal=9, oom=True)}, out_of_memory(0)),
        ({"plan": ABORT, "executor_0": ended(0, oom=True)}, out_of_memory(0)),
        ({"plan": IGNORE, "executor_0": ended(137, oom=True)}, out_of_memory(0)),
        ({"plan": UPLOAD, "tif_0": ended(), "executor_0": ended(137, oom=True)}, out_of_memory(0)),
        # ignore_error
        ({"plan": IGNORE, "executor_0": ended(7)}, None),
        ({"plan": IGNORE, "executor_0": ended(7), "executor_1": ended(8)}, COMPLETE),
        # outputs are sent after a failure
        ({"plan": UPLOAD, "tif_0": ended(), "executor_0": ended(7, failed=True)}, None),
        ({"plan": UPLOAD, "executor_0": ended(7, failed=True), "executor_1": SKIPPED}, None),
        (
            {"plan": UPLOAD, "executor_0": ended(7), "executor_1": SKIPPED, "tof_0": RUNS},
            None,
        ),
        (
            {"plan": UPLOAD, "executor_0": ended(7), "executor_1": SKIPPED, "tof_0": ended()},
            executor_error(0, 7),
        ),
        (
            {
                "plan": UPLOAD,
                "executor_0": ended(7),
                "executor_1": SKIPPED,
                "tof_0": ended(65, error="no bucket"),
            },
            executor_error(0, 7, "no bucket"),
        ),
        (
            {"plan": UPLOAD, "executor_0": ended(), "executor_1": ended(3), "tof_0": ended()},
            executor_error(1, 3),
        ),
        # filers
        ({"plan": UPLOAD, "tif_0": ended(65, error="s3://b/a: 404")}, system_error("tif-0", "s3://b/a: 404")),
        ({"plan": UPLOAD, "tif_0": ended(65)}, system_error("tif-0", "tif-0 exited with code 65")),
        (
            {"plan": UPLOAD, "tif_0": ended(137, oom=True)},
            system_error("tif-0", "tif-0 ran out of memory", "OOMKilled"),
        ),
        (
            {"plan": UPLOAD, "executor_0": ended(), "executor_1": ended(), "tof_0": ended(65)},
            system_error("tof-0", "tof-0 exited with code 65"),
        ),
        ({"plan": UPLOAD, "tif_0": ended(65, error="old", caught_up=False)}, None),
        # streamed inputs: an incomplete one fails the task, whatever the executor did
        ({"plan": STREAM, "executor_0": ended(), "stream_0": RUNS}, COMPLETE),
        ({"plan": STREAM, "executor_0": ended()}, COMPLETE),
        ({"plan": STREAM, "executor_0": RUNS, "stream_0": replace(RUNS, error=CUT)}, None),
        (
            {"plan": STREAM, "executor_0": ended(), "stream_0": replace(RUNS, error=CUT)},
            system_error("stream-0", CUT),
        ),
        (
            {"plan": STREAM, "executor_0": ended(3), "stream_0": replace(RUNS, error=CUT)},
            system_error("stream-0", f"{CUT}; executor 0 exited with code 3"),
        ),
        ({"plan": STREAM, "executor_0": ended(3), "stream_0": RUNS}, executor_error(0, 3)),
        ({"plan": STREAM, "executor_0": ended(), "stream_0": STREAMING}, None),
        (
            {"plan": STREAM, "executor_0": ended(), "stream_0": STREAMING, "streams_awaited": False},
            system_error("stream-0", "stream-0 did not report whether it streamed /in/a completely"),
        ),
        (
            {"plan": STREAM, "executor_0": ended(), "stream_0": replace(STREAMING, helper_gone=True)},
            system_error("stream-0", "stream-0 was killed while it streamed inputs"),
        ),
        (
            {"plan": STREAM, "executor_0": ended(), "stream_0": ended(137, signal=9)},
            system_error("stream-0", "stream-0 exited with code 137 while it streamed inputs"),
        ),
        (
            {"plan": STREAM, "executor_0": ended(), "stream_0": ended(137, oom=True)},
            system_error("stream-0", "stream-0 ran out of memory", "OOMKilled"),
        ),
        (
            {
                "plan": STREAM,
                "executor_0": ended(),
                "stream_0": ended(65, term=True, error=CUT),
                "stop": True,
            },
            system_error("stream-0", CUT),
        ),
        (
            {"plan": STREAM, "executor_0": ended(), "stream_0": replace(RUNS, error=CUT), "cancel": True},
            CANCELED,
        ),
        # ... ended early by the platform: the end of file that the executor saw is not conclusive
        (
            {
                "plan": STREAM,
                "executor_0": ended(),
                "stream_0": ended(143, term=True, streaming=("/in/a",)),
                "stop": True,
            },
            None,
        ),
        (
            {
                "plan": STREAM,
                "executor_0": ended(),
                "stream_0": replace(STREAMING, helper_gone=True),
                "stop": True,
            },
            None,
        ),
        # the platform evicts the Pod: the controller decides
        ({"plan": ABORT, "executor_0": ended(143, signal=15, term=True)}, None),
        ({"plan": ABORT, "executor_0": ended(143, term=True), "stop": True}, None),
        ({"plan": ABORT, "executor_0": ended(), "executor_1": ended(0, term=True), "stop": True}, None),
        ({"plan": UPLOAD, "tif_0": ended(143, term=True), "stop": True}, None),
        ({"plan": ABORT, "executor_0": ended(), "stop": True}, None),
        ({"plan": ABORT, "stop": True}, None),
        ({"plan": ABORT, "executor_0": ended(7), "stop": True}, executor_error(0, 7)),
        ({"plan": UPLOAD, "executor_0": ended(7, failed=True), "stop": True}, executor_error(0, 7)),
        ({"plan": IGNORE, "executor_0": ended(), "executor_1": ended(143, term=True)}, None),
        # cancel
        ({"plan": ABORT, "executor_0": ended(143, term=True), "cancel": True}, CANCELED),
        ({"plan": ABORT, "executor_0": ended(7), "cancel": True}, CANCELED),
        ({"plan": ABORT, "executor_0": ended(), "executor_1": ended(), "cancel": True}, CANCELED),
        ({"plan": UPLOAD, "tif_0": ended(143, term=True), "cancel": True}, CANCELED),
        ({"plan": ABORT, "executor_0": ended(), "cancel": True, "stop": True}, CANCELED),
        ({"plan": ABORT, "cancel": True, "stop": True}, CANCELED),
        ({"plan": ABORT, "executor_0": DEAD, "cancel": True, "stop": True}, CANCELED),
        # a killed helper: only the Pod's status has the reason
        ({"plan": ABORT, "executor_0": DEAD}, None),
        ({"plan": ABORT, "executor_0": DEAD, "stop": True}, None),
        (
            {"plan": ABORT, "executor_0": DEAD, "pod": status(terminated("executor-0", 137, "OOMKilled"))},
            out_of_memory(0),
        ),
        (
            {"plan": ABORT, "executor_0": DEAD, "pod": status(terminated("executor-0", 0, "OOMKilled"))},
            out_of_memory(0),
        ),
        (
            {"plan": ABORT, "executor_0": DEAD, "pod": status(terminated("executor-0", 137))},
            executor_error(0, 137),
        ),
        (
            {
                "plan": ABORT,
                "executor_0": DEAD,
                "pod": status(terminated("executor-0", 137), terminating=True),
            },
            None,
        ),
        (
            {
                "plan": ABORT,
                "executor_0": DEAD,
                "pod": status(
                    terminated("executor-0", 137, "ContainerStatusUnknown", "could not be located")
                ),
            },
            system_error(
                "executor-0", "the kubelet lost executor-0: could not be located", "ContainerStatusUnknown"
            ),
        ),
        (
            {"plan": ABORT, "pod": status(terminated("executor-0", 128, "StartError", "no such file"))},
            system_error("executor-0", "executor-0 could not be started: no such file", "StartError"),
        ),
        (
            {"plan": ABORT, "executor_0": RUNS, "pod": status(terminated("executor-0", 70))},
            system_error("executor-0", "executor-0 could not be started: exit code 70"),
        ),
        # ... or its termination message, which equals exit.json
        (
            {
                "plan": ABORT,
                "executor_0": DEAD,
                "pod": status(terminated("executor-0", 7, record=ended(7).exit)),
            },
            executor_error(0, 7),
        ),
        (
            {"plan": UPLOAD, "pod": status(terminated("tif-0", 65, record=ended(65).exit))},
            system_error("tif-0", "tif-0 exited with code 65"),
        ),
        # the kubelet's reason completes the record
        (
            {
                "plan": ABORT,
                "executor_0": ended(137, signal=9),
                "pod": status(terminated("executor-0", 137, "OOMKilled")),
            },
            out_of_memory(0),
        ),
        # no exit record, but Kubernetes started the next container
        ({"plan": ABORT, "executor_0": DEAD, "executor_1": ended()}, COMPLETE),
        ({"plan": IGNORE, "executor_0": DEAD, "executor_1": ended()}, COMPLETE),
        (
            {
                "plan": UPLOAD,
                "executor_0": RunFiles(started=Started(start_ns=10), failed=True),
                "executor_1": SKIPPED,
                "tof_0": ended(),
            },
            system_error("executor-0", "executor-0 failed; its exit code is not known"),
        ),
        ({"plan": ABORT, "executor_0": ended(143, term=True), "executor_1": ended()}, executor_error(0, 143)),
        # only the Pod's status shows that a container runs
        ({"plan": ABORT, "cancel": True, "stop": True, "pod": status(running=["executor-0"])}, None),
    ],
)
def test_outcome_of_a_task(case, expected):
    assert outcome(**case) == expected


def test_skipped_executor_has_no_end():
    observation = Observation(
        plan=UPLOAD,
        files={"executor-0": ended(7, failed=True), "executor-1": SKIPPED},
        pod=status(
            terminated("executor-0", 0, record=ended(7).exit), terminated("executor-1", 0, "Completed")
        ),
    )
    assert [(one.name, one.end is None) for one in containers(observation) if one.executor is not None] == [
        ("executor-0", False),
        ("executor-1", True),
    ]


@pytest.mark.parametrize(
    ("files", "state"),
    [
        ({}, TesState.INITIALIZING),
        ({"tif-0": RUNS}, TesState.INITIALIZING),
        ({"tif-0": ended()}, TesState.INITIALIZING),
        ({"tif-0": ended(), "executor-0": RUNS}, TesState.RUNNING),
        ({"executor-1": SKIPPED}, TesState.RUNNING),
        ({"tof-0": RUNS, "executor-0": ended()}, TesState.RUNNING),
    ],
)
def test_task_is_running_from_its_first_executor(files, state):
    assert phase(containers(Observation(plan=UPLOAD, files=files))) is state


def test_pod_view_from_an_api_server_response():
    view = PodView.from_json(
        {
            "metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"},
            "status": {
                "initContainerStatuses": [
                    {"name": "trec", "state": {"running": {}}},
                    {
                        "name": "executor-0",
                        "state": {
                            "terminated": {
                                "exitCode": 7,
                                "reason": "Error",
                                "finishedAt": "1970-01-01T00:00:05Z",
                            }
                        },
                    },
                    {"name": "executor-1", "state": {"waiting": {"reason": "PodInitializing"}}},
                ]
            },
        }
    )
    assert view.terminating
    assert view.ends["executor-0"].finished_ns == 5 * 10**9
    assert view.running == {"trec"}
    assert view.waits == {}


@pytest.mark.parametrize(
    ("name", "files", "line"),
    [
        ("executor-0", ended(), "executor 0 exited with code 0"),
        ("executor-0", ended(7), "executor 0 exited with code 7"),
        ("executor-0", ended(139, signal=11), "executor 0 was killed by signal 11 (exit code 139)"),
        ("executor-0", ended(137, signal=9, oom=True), "executor 0 ran out of memory (exit code 137)"),
        ("executor-0", ended(0, term=True), "executor 0 received SIGTERM and exited with code 143"),
        ("tif-0", ended(moved_files=3, moved_bytes=12345), "tif-0 staged 3 files, 12345 bytes"),
        ("tof-0", ended(moved_files=1, moved_bytes=1), "tof-0 sent 1 file, 1 byte"),
        ("tif-0", ended(65, error="s3://b/a\0: 404"), "tif-0 exited with code 65: s3://b/a\ufffd: 404"),
    ],
)
def test_system_log_line_of_an_ended_container(name, files, line):
    known = containers(Observation(plan=UPLOAD, files={name: files}))
    lines = {one.key: one for one in system_logs.lines(known, None, 99)}
    assert lines[f"{name}/ended"].message == line
    assert lines[f"{name}/ended"].at_ns == 20
    assert lines[f"{name}/started"].at_ns == 10


@pytest.mark.parametrize(
    ("seconds", "line"),
    [
        (0.9, "tif-0 staged 3 files, 419753086 bytes"),
        (16.24, "tif-0 staged 3 files, 419753086 bytes in 16.2 s (25.8 MB/s)"),
    ],
)
def test_long_transfer_has_a_rate_in_system_logs(seconds, line):
    record = ExitRecord(
        exit_code=0, signal=0, oom=False, term=False, start_ns=10, end_ns=10 + int(seconds * 1e9)
    )
    files = {"tif-0": replace(RUNS, exit=record, moved_files=3, moved_bytes=419753086)}
    known = containers(Observation(plan=UPLOAD, files=files))
    lines = {one.key: one for one in system_logs.lines(known, None, 99)}
    assert lines["tif-0/ended"].message == line
