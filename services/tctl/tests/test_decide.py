"""What the controller decides for each state of a task and its objects."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from tctl_builders import (
    ALL_DONE,
    PLAN,
    RUNNING,
    START_NS,
    TASK,
    TREC_KILLED,
    condition,
    disrupted,
    event,
    job,
    pod,
    recorded,
    rejected,
    row,
    terminated,
    waiting,
    workload,
)

from poiesis_models.labels import TASK_LABEL, object_name
from poiesis_models.plan import PodPlan
from poiesis_models.runfiles import ResourceUsage
from poiesis_models.states import TaskOutcome, TesState
from poiesis_tctl.config import Limits
from poiesis_tctl.decide import (
    Attempt,
    Decision,
    DeleteJob,
    DeletePod,
    EndPod,
    EnsureRole,
    ExplainNoPod,
    ExplainNoStart,
    Finish,
    Recheck,
    RequeueAttempt,
    SystemLog,
    TaskView,
    decide,
    decide_no_start,
    decide_refused,
    decide_role,
    of_tasks,
    slim_job,
    slim_pod,
)
from poiesis_tctl.podevents import PodLine, event_line, line
from poiesis_tctl.podfacts import ExecutorReport, executor_reports, is_stalled, pod_facts
from poiesis_tctl.workloads import slim_workload

POD = f"poiesis-{TASK}-abcde"
JOB = f"poiesis-{TASK}"
CANCELED = TaskOutcome(state=TesState.CANCELED, reason="Canceled", message="canceled on request")
COMPLETE = TaskOutcome(state=TesState.COMPLETE)
DEFAULT = Limits()


def act(view: TaskView, *, lasted: float = 0.0, limits: Limits = DEFAULT) -> tuple[Any, ...]:
    """Return the actions when the view has lasted for this many seconds."""
    first = decide(view, {}, 1000.0, limits)
    return decide(view, first.since, 1000.0 + lasted, limits).actions


def outcome(view: TaskView, *, lasted: float = 0.0) -> TaskOutcome:
    finish = act(view, lasted=lasted)[0]
    assert isinstance(finish, Finish)
    return finish.outcome


def ended_pod(states: dict[str, Any] | None = None, **values: Any) -> dict[str, Any]:
    return pod({**ALL_DONE, "pause": terminated(1), **(states or {})}, phase="Failed", **values)


def without_containers(**values: Any) -> dict[str, Any]:
    """A Pod with the label of a task that is not a TaskPod."""
    stranger = pod(plan=None, **values)
    stranger["spec"]["initContainers"] = []
    stranger["status"]["initContainerStatuses"] = []
    return stranger


def failure(state: TesState, reason: str, message: str, container: str | None = None) -> TaskOutcome:
    return TaskOutcome(state=state, reason=reason, message=message, container=container)


def system_error(reason: str, message: str, container: str | None = None) -> TaskOutcome:
    return failure(TesState.SYSTEM_ERROR, reason, message, container)


def executor_error(reason: str, message: str, container: str) -> TaskOutcome:
    return failure(TesState.EXECUTOR_ERROR, reason, message, container)


FILES_ONLY = replace(PLAN, files_only=True)
PREEMPTIBLE = PodPlan(executors=("executor-0",), ignore_error=(False,), preemptible=True)
IGNORING = PodPlan(executors=("executor-0", "executor-1"), ignore_error=(True, False))
STOPPED = {"executor-0": recorded(143, term=True), "executor-1": waiting(), "tof-0": waiting()}

ENDED = [
    pytest.param(ended_pod(), COMPLETE, id="all done, no ack: pause exited 1"),
    pytest.param(
        ended_pod({name: terminated(0) for name in PLAN}), COMPLETE, id="all done, without any record"
    ),
    pytest.param(
        ended_pod({"executor-0": recorded(7), "executor-1": waiting(), "tof-0": waiting()}),
        executor_error("Error", "executor 0 exited with code 7", "executor-0"),
        id="an executor failed and Kubernetes aborted",
    ),
    pytest.param(
        ended_pod({"executor-0": recorded(7, 0), "executor-1": terminated(0)}),
        executor_error("Error", "executor 0 exited with code 7", "executor-0"),
        id="an executor failed, its container exited 0, the next skipped itself, outputs were sent",
    ),
    pytest.param(
        ended_pod({"executor-0": recorded(7, 0), "executor-1": terminated(0), "tof-0": recorded(65)}),
        executor_error(
            "Error", "executor 0 exited with code 7; then: tof-0 exited with code 65", "executor-0"
        ),
        id="an executor failed and then its outputs could not be sent",
    ),
    pytest.param(
        ended_pod({"executor-1": terminated(137, "OOMKilled"), "tof-0": waiting()}),
        executor_error("OOMKilled", "executor 1 ran out of memory", "executor-1"),
        id="Kubernetes reports OOMKilled",
    ),
    pytest.param(
        ended_pod({"executor-1": recorded(9, 137, oom=True), "tof-0": waiting()}),
        executor_error("OOMKilled", "executor 1 ran out of memory", "executor-1"),
        id="the helper reports out of memory, Kubernetes does not",
    ),
    pytest.param(ended_pod({"executor-0": recorded(7, 0)}, plan=IGNORING), COMPLETE, id="an ignored error"),
    pytest.param(
        ended_pod({"executor-0": terminated(137)}),
        executor_error("Error", "executor 0 exited with code 137", "executor-0"),
        id="killed by an unknown sender",
    ),
    pytest.param(
        ended_pod({"tif-0": recorded(75), "executor-0": waiting(), "executor-1": waiting()}),
        system_error("Error", "tif-0 exited with code 75", "tif-0"),
        id="inputs could not be fetched",
    ),
    pytest.param(
        ended_pod({"tif-0": terminated(0, "OOMKilled")}),
        system_error("OOMKilled", "tif-0 ran out of memory", "tif-0"),
        id="a filer ran out of memory",
    ),
    pytest.param(
        ended_pod({"tof-0": recorded(65)}),
        system_error("Error", "tof-0 exited with code 65", "tof-0"),
        id="outputs could not be sent",
    ),
    pytest.param(
        ended_pod({"executor-1": terminated(128, "StartError", "exec: no such user"), "tof-0": waiting()}),
        system_error("StartError", "executor-1 could not be started: exec: no such user", "executor-1"),
        id="the runtime could not start it",
    ),
    pytest.param(
        ended_pod({"executor-0": terminated(70), "executor-1": waiting()}),
        system_error("Error", "executor-0 could not be started: exit code 70", "executor-0"),
        id="the helper refused to start it",
    ),
    pytest.param(
        ended_pod(
            {"executor-0": terminated(137, "ContainerStatusUnknown", "could not be located")}
            | {"executor-1": waiting()}
        ),
        system_error(
            "ContainerStatusUnknown", "the kubelet lost executor-0: could not be located", "executor-0"
        ),
        id="the kubelet lost the container, its code is invented",
    ),
    pytest.param(
        ended_pod({"executor-0": terminated(255, "Unknown"), "executor-1": waiting()}),
        system_error(
            "ContainerStatusUnknown", "the kubelet lost executor-0: its end is not known", "executor-0"
        ),
        id="the node was restarted",
    ),
    pytest.param(
        ended_pod(STOPPED, reason="DeadlineExceeded", message="Pod was active on the node too long"),
        system_error("DeadlineExceeded", "Pod was active on the node too long"),
        id="wall time, the executor obeyed",
    ),
    pytest.param(
        ended_pod(STOPPED, reason="DeadlineExceeded", message="too long", deadline=604800),
        system_error(
            "DeadlineExceeded",
            "too long (604800 s: wall_time_seconds of the task, or config.pod.activeDeadlineSeconds)",
        ),
        id="wall time, with the limit that Kubernetes does not name",
    ),
    pytest.param(
        ended_pod(STOPPED, reason="DeadlineExceeded", message="too long", deadline=1),
        system_error("DeadlineExceeded", "too long"),
        id="ended by the controller itself",
    ),
    pytest.param(
        ended_pod({**STOPPED, "executor-0": terminated(137)}, reason="DeadlineExceeded", message="too long"),
        system_error("DeadlineExceeded", "too long"),
        id="wall time, the executor had to be killed",
    ),
    pytest.param(
        ended_pod({**STOPPED, "executor-0": recorded(3)}, reason="DeadlineExceeded", message="too long"),
        executor_error("Error", "executor 0 exited with code 3; then: too long", "executor-0"),
        id="failed by itself before the wall time",
    ),
    pytest.param(
        ended_pod(reason="DeadlineExceeded", message="too long"), COMPLETE, id="wall time when all was done"
    ),
    pytest.param(
        ended_pod(STOPPED, reason="Evicted", message='Usage of EmptyDir volume "task" exceeds the limit'),
        system_error("Evicted", 'Usage of EmptyDir volume "task" exceeds the limit'),
        id="evicted for its own disk use",
    ),
    pytest.param(
        pod(
            {"executor-0": recorded(143, term=True)},
            phase="Failed",
            reason="Evicted",
            message='Usage of EmptyDir volume "task" exceeds the limit',
            plan=PREEMPTIBLE,
        ),
        system_error("Evicted", 'Usage of EmptyDir volume "task" exceeds the limit'),
        id="evicted for its own disk use, preemptible",
    ),
    pytest.param(
        ended_pod(
            STOPPED,
            reason="Evicted",
            message="The node was low on resource: memory.",
            conditions=disrupted("TerminationByKubelet"),
        ),
        system_error("Evicted", "The node was low on resource: memory."),
        id="evicted for the node's sake",
    ),
    pytest.param(
        pod(
            {"executor-0": terminated(137)},
            phase="Failed",
            reason="Evicted",
            message="The node was low on resource: memory.",
            conditions=disrupted("TerminationByKubelet"),
            plan=PREEMPTIBLE,
        ),
        failure(TesState.PREEMPTED, "Evicted", "The node was low on resource: memory."),
        id="evicted for the node's sake, preemptible",
    ),
    pytest.param(
        pod(phase="Failed", reason="Preempting", message="Preempted in order to admit critical pod"),
        system_error("Preempting", "Preempted in order to admit critical pod"),
        id="preempted by the kubelet",
    ),
    pytest.param(
        pod(phase="Failed", reason="Terminated", message="Pod was terminated in response to node shutdown."),
        system_error("Terminated", "Pod was terminated in response to node shutdown."),
        id="the node was shut down",
    ),
    pytest.param(
        rejected("OutOfcpu", "Pod was rejected: node didn't have enough resource"),
        system_error("OutOfcpu", "Pod was rejected: node didn't have enough resource"),
        id="the kubelet did not admit it",
    ),
    pytest.param(
        rejected("UnexpectedAdmissionError", "Allocate failed"),
        system_error("UnexpectedAdmissionError", "Allocate failed"),
        id="the kubelet could not admit it",
    ),
    pytest.param(
        ended_pod({"tof-0": waiting()}),
        system_error("PodFailed", f"Pod {POD} failed; pause exited with code 1"),
        id="no reason is reported",
    ),
    pytest.param(ended_pod(plan=None), COMPLETE, id="all done, the plan was lost"),
    pytest.param(
        ended_pod({"trec": terminated(1), "executor-0": recorded(7)}, plan=None),
        executor_error("Error", "executor 0 exited with code 7", "executor-0"),
        id="failed, the plan was lost",
    ),
    pytest.param(
        without_containers(phase="Succeeded"),
        system_error("PodFailed", f"Pod {POD} failed; pause had not ended"),
        id="there was nothing to do in it",
    ),
]


@pytest.mark.parametrize(("ended", "expected"), ENDED)
def test_ended_pod_decides_immediately(ended, expected):
    view = TaskView(task=row(), pod=ended, job=job())
    (finish,) = decide(view, {}, 0.0, Limits()).actions
    assert finish.outcome == expected
    assert not finish.cancel_seen
    assert not view.depends_on_absence
    assert "did not report it" in finish.note


@pytest.mark.parametrize(("ended", "expected"), ENDED)
def test_cancel_wins_once_nothing_runs(ended, expected):
    (finish,) = act(TaskView(task=row(state=TesState.CANCELING, cancel_requested=True), pod=ended, job=None))
    assert (finish.outcome, finish.cancel_seen) == (CANCELED, True)


def test_finish_carries_what_the_recorder_did_not_report():
    ended = ended_pod({"executor-0": recorded(0), "executor-1": terminated(3), "tof-0": waiting()})
    (finish,) = act(TaskView(task=row(), pod=ended, job=job()))
    assert finish == Finish(
        outcome=executor_error("Error", "executor 1 exited with code 3", "executor-1"),
        cancel_seen=False,
        attempt=Attempt(
            pod_uid="pod-uid-1", pod_name=POD, node="node-1", start=datetime(2025, 11, 23, 6, tzinfo=UTC)
        ),
        executors=(
            ExecutorReport(
                index=0,
                start_ns=START_NS,
                end_ns=START_NS + 2_500_000_000,
                exit_code=0,
                usage=ResourceUsage(user_us=10, sys_us=10),
            ),
            ExecutorReport(index=1, start_ns=START_NS, end_ns=START_NS + 3_000_000_000, exit_code=3),
        ),
        note=(
            "outcome recorded by the controller from the Pod's status "
            f"(phase Failed, pause exited with code 1): the recorder of Pod {POD} did not report it"
        ),
    )


@pytest.mark.parametrize(
    ("states", "codes"),
    [
        pytest.param({"executor-0": recorded(0, term=True)}, [(0, 143, False)], id="0 after SIGTERM is 143"),
        pytest.param(
            {"executor-0": terminated(0, "OOMKilled")}, [(0, 137, True)], id="0 after OOMKilled is 137"
        ),
        pytest.param(
            {"executor-0": recorded(7, 0), "executor-1": terminated(0)},
            [(0, 7, False)],
            id="a skipped executor has no exit code",
        ),
        pytest.param({"executor-0": terminated(137, "ContainerStatusUnknown")}, [], id="an unknown code"),
        pytest.param({"executor-0": terminated(128, "StartError")}, [], id="an executor that never started"),
        pytest.param({"executor-0": RUNNING}, [], id="a running executor"),
        pytest.param({"executor-0": {"terminated": {"exitCode": 1}}}, [], id="no end time"),
        pytest.param({"executor-0": terminated(-1)}, [(0, 0, False)], id="codes are within bounds"),
        pytest.param({"executor-0": terminated(3221225477)}, [(0, 255, False)], id="codes are bytes"),
    ],
)
def test_executor_reports(states, codes):
    rows = executor_reports(pod(states))
    assert [(one.index, one.exit_code, one.oom) for one in rows] == codes


PULL = "Back-off pulling image registry.test/executor-0:1: not found"
BEGUN = {"trec": RUNNING, "tif-0": recorded(0)}


@pytest.mark.parametrize(
    ("states", "reason", "limit"),
    [
        pytest.param({**BEGUN, "executor-0": waiting(reason, PULL)}, reason, limit, id=reason)
        for reason, limit in [
            ("ErrImagePull", 60),
            ("ImagePullBackOff", 60),
            ("RegistryUnavailable", 60),
            ("ImageInspectError", 60),
            ("SignatureValidationFailed", 60),
            ("ErrImageNeverPull", 30),
            ("CreateContainerConfigError", 30),
            ("CreateContainerError", 30),
            ("RunContainerError", 30),
        ]
    ],
)
def test_container_that_cannot_start_ends_the_task(states, reason, limit):
    view = TaskView(task=row(), pod=pod(states), job=job())
    assert act(view) == (Recheck(seconds=limit),)
    assert act(view, lasted=limit - 1) == (Recheck(seconds=1),)
    finish, end = act(view, lasted=limit)
    message = f"executor-0 (registry.test/executor-0:1) cannot start: {PULL}"
    assert finish.outcome == system_error(reason, message, "executor-0")
    assert end == EndPod(name=POD, uid="pod-uid-1", why=reason)


def test_invalid_image_name_ends_the_task_immediately():
    view = TaskView(
        task=row(), pod=pod({**BEGUN, "executor-0": waiting("InvalidImageName", "bad")}), job=job()
    )
    finish, end = decide(view, {}, 0.0, Limits()).actions
    assert finish.outcome.reason == "InvalidImageName"
    assert isinstance(end, EndPod)


def test_changed_kubelet_reason_keeps_the_time():
    first = decide(
        TaskView(task=row(), pod=pod({**BEGUN, "executor-0": waiting("ErrImagePull")})), {}, 0.0, Limits()
    )
    second = decide(
        TaskView(task=row(), pod=pod({**BEGUN, "executor-0": waiting("ImagePullBackOff")})),
        first.since,
        60.0,
        Limits(),
    )
    assert second.actions[0].outcome.reason == "ImagePullBackOff"


def test_time_restarts_after_a_successful_pull():
    waits = TaskView(task=row(), pod=pod({**BEGUN, "executor-0": waiting("ErrImagePull")}))
    runs = TaskView(task=row(), pod=pod({**BEGUN, "executor-0": RUNNING}))
    since = decide(waits, {}, 0.0, Limits()).since
    assert decide(runs, since, 50.0, Limits()) == Decision()
    assert decide(waits, {}, 60.0, Limits()).actions == (Recheck(seconds=60),)


def test_recorder_image_matters_until_the_gate_opens():
    never = TaskView(task=row(), pod=pod({"trec": waiting("ImagePullBackOff", "no such tag")}), job=job())
    assert outcome(never, lasted=60).container == "trec"
    again = TaskView(task=row(), pod=pod({"trec": waiting("ImagePullBackOff"), "tif-0": RUNNING}), job=job())
    assert act(again, lasted=3600) == ()


def test_failed_executor_precedes_a_missing_image():
    states = {**BEGUN, "executor-0": recorded(7, 0), "executor-1": terminated(0)}
    view = TaskView(task=row(), pod=pod({**states, "tof-0": waiting("ErrImagePull", "gone")}), job=job())
    message = "executor 0 exited with code 7; then: tof-0 (registry.test/tof-0:1) cannot start: gone"
    assert outcome(view, lasted=60) == executor_error("Error", message, "executor-0")


def test_missing_pause_image_keeps_a_complete_task():
    states = {**ALL_DONE, "trec": RUNNING, "pause": waiting("ErrImagePull")}
    assert outcome(TaskView(task=row(), pod=pod(states), job=job()), lasted=60) == COMPLETE


def test_recorder_crash_during_executors_ends_nothing():
    states = {"trec": waiting("CrashLoopBackOff"), "tif-0": recorded(0), "executor-0": RUNNING}
    assert act(TaskView(task=row(), pod=pod(states, restarts=9), job=job()), lasted=1e6) == ()


def test_recorder_crash_between_executors_ends_nothing():
    """The next image may be being pulled, which no status shows."""
    states = {"trec": waiting("CrashLoopBackOff"), "tif-0": recorded(0), "executor-0": recorded(0)}
    assert act(TaskView(task=row(), pod=pod(states, restarts=9), job=job()), lasted=1e6) == ()


def test_restarted_recorder_may_wait_for_a_large_image():
    view = TaskView(task=row(), pod=pod({"trec": RUNNING}, restarts=2), job=job())
    assert act(view, lasted=1e6) == ()


@pytest.mark.parametrize(
    ("state", "last", "reason", "words"),
    [
        pytest.param(RUNNING, terminated(137, "OOMKilled"), "OOMKilled", "exit code 137", id="it runs again"),
        pytest.param(
            waiting("CrashLoopBackOff", "back-off 5m0s"),
            terminated(128, "StartError", "no such file"),
            "StartError",
            "no such file",
            id="it waits for its turn",
        ),
        pytest.param(
            waiting("RunContainerError", "no such file"),
            terminated(128, "StartError", "no such file"),
            "StartError",
            "no such file",
            id="it waits for its turn, as Kubernetes 1.37 has it",
        ),
        pytest.param(
            terminated(128, "StartError", "no such file"),
            terminated(137, "OOMKilled"),
            "StartError",
            "no such file",
            id="it has just ended",
        ),
        pytest.param(RUNNING, {}, "Error", "no reason reported", id="nothing is known"),
    ],
)
def test_crashing_recorder_ends_the_task(state, last, reason, words):
    broken = pod({"trec": state}, restarts=4)
    broken["status"]["initContainerStatuses"][0]["lastState"] = last
    view = TaskView(task=row(), pod=broken, job=job())
    limits = Limits(start=30)  # a container stays in none of these states for long
    assert act(view, lasted=29, limits=limits) == (Recheck(seconds=1),)
    finish, end, *_ = act(view, lasted=30, limits=limits)
    message = f"the recorder was restarted 4 times and could not start: {words}"
    assert finish.outcome == TaskOutcome(
        state=TesState.SYSTEM_ERROR, reason=reason, message=message, container="trec"
    )
    assert isinstance(end, EndPod)


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        pytest.param(
            {"trec": TREC_KILLED, "tif-0": recorded(0), "executor-0": terminated(0, "OOMKilled")},
            executor_error("OOMKilled", "executor 0 ran out of memory", "executor-0"),
            id="OOMKilled with exit code 0",
        ),
        pytest.param(
            {"trec": waiting("CrashLoopBackOff"), "tif-0": terminated(0, "OOMKilled")},
            system_error("OOMKilled", "tif-0 ran out of memory", "tif-0"),
            id="OOMKilled with exit code 0, and the recorder's status is stale",
        ),
        pytest.param(
            {"trec": TREC_KILLED, "tif-0": recorded(0)},
            system_error("PodStalled", f"every container of Pod {POD} is dead and the Pod does not end"),
            id="the sandbox was lost while an image was pulled",
        ),
        pytest.param(
            {"trec": terminated(255, "Unknown")},
            system_error("PodStalled", f"every container of Pod {POD} is dead and the Pod does not end"),
            id="the sandbox was lost while the first image was pulled",
        ),
        pytest.param(
            {"trec": terminated(255, "Unknown"), "tif-0": recorded(0), "executor-0": recorded(7, 0)},
            executor_error("Error", "executor 0 exited with code 7", "executor-0"),
            id="the sandbox was lost after an executor had failed",
        ),
    ],
)
def test_stalled_pod_is_ended(states, expected):
    view = TaskView(task=row(), pod=pod(states), job=job())
    assert act(view, lasted=59) == (Recheck(seconds=1),)
    finish, end = act(view, lasted=60)
    assert finish.outcome == expected
    assert end == EndPod(name=POD, uid="pod-uid-1", why=expected.reason)


@pytest.mark.parametrize(
    "states",
    [
        pytest.param({}, id="nothing has started"),
        pytest.param({"trec": RUNNING}, id="the recorder starts"),
        pytest.param(BEGUN, id="between two containers"),
        pytest.param({**BEGUN, "executor-0": RUNNING}, id="an executor runs"),
        pytest.param(
            {"trec": RUNNING, "tif-0": terminated(0, "OOMKilled")}, id="OOMKilled, the recorder reports"
        ),
        pytest.param(
            {"trec": waiting("CrashLoopBackOff")}, id="the recorder is restarted before anything began"
        ),
        pytest.param({"trec": TREC_KILLED}, id="the recorder has ended before anything began"),
        pytest.param({"trec": terminated(128, "StartError")}, id="the recorder could not start"),
        pytest.param({**ALL_DONE, "trec": RUNNING, "pause": RUNNING}, id="pause waits for the ack"),
    ],
)
def test_progressing_pod_is_left_alone(states):
    view = TaskView(task=row(), pod=pod(states), job=job())
    assert not is_stalled(view.pod)
    assert decide(view, {}, 0.0, Limits()) == Decision()


RESCUED = replace(PLAN, rescues=("rescue-0",))
KILLED = {
    "executor-0": terminated(137, "OOMKilled"),
    "executor-1": waiting(),
    "tof-0": waiting(),
}


@pytest.mark.parametrize("recorder", [RUNNING, terminated(137)], ids=["with recorder", "without recorder"])
def test_outputs_of_killed_executor_are_not_interrupted(recorder):
    sending = pod({**ALL_DONE, **KILLED, "trec": recorder, "rescue-0": RUNNING}, plan=RESCUED)
    assert act(TaskView(task=row(), pod=sending, job=job()), lasted=600) == ()


@pytest.mark.parametrize("sidecar", [terminated(0), terminated(65), terminated(137, "OOMKilled")])
def test_rescue_sidecar_does_not_decide_the_outcome(sidecar):
    killed = ended_pod({**KILLED, "rescue-0": sidecar}, plan=RESCUED)
    expected = executor_error("OOMKilled", "executor 0 ran out of memory", "executor-0")
    assert outcome(TaskView(task=row(), pod=killed, job=job())) == expected
    done = ended_pod({"rescue-0": sidecar}, plan=RESCUED)
    assert outcome(TaskView(task=row(), pod=done, job=job())) == COMPLETE


UNREPORTED = {**ALL_DONE, "pause": RUNNING}
UNREPORTED_FAILED = {**UNREPORTED, "executor-1": recorded(3, 0)}


@pytest.mark.parametrize(
    ("states", "restarts", "expected"),
    [
        ({**UNREPORTED, "trec": terminated(1)}, 1, COMPLETE),
        ({**UNREPORTED, "trec": waiting("CrashLoopBackOff", "back-off 40s")}, 4, COMPLETE),
        ({**UNREPORTED, "trec": RUNNING}, 3, COMPLETE),
        (
            {**UNREPORTED_FAILED, "trec": waiting("CrashLoopBackOff", "back-off 40s")},
            4,
            executor_error("Error", "executor 1 exited with code 3", "executor-1"),
        ),
        (
            {**UNREPORTED, "executor-0": recorded(3, 0), "executor-1": terminated(0), "trec": terminated(1)},
            1,
            executor_error("Error", "executor 0 exited with code 3", "executor-0"),
        ),
    ],
    ids=["dead", "crash looping", "dies repeatedly", "failed, outputs sent", "failed, the next skipped"],
)
def test_unreported_outcome_is_recorded_before_pause_exits(states, restarts, expected):
    view = TaskView(task=row(), pod=pod(states, phase="Running", restarts=restarts), job=job())
    assert act(view, lasted=59) == (Recheck(seconds=1),)
    (finish,) = act(view, lasted=60)  # and the Pod stays, for the recorder may come back with the logs
    assert finish.outcome == expected


@pytest.mark.parametrize(
    ("states", "restarts"),
    [
        ({**UNREPORTED, "trec": RUNNING}, 2),
        ({**ALL_DONE, "trec": terminated(1), "tof-0": RUNNING}, 4),
        ({**UNREPORTED, "trec": terminated(1), "executor-1": terminated(0)}, 4),
        ({**UNREPORTED, "trec": terminated(1), "executor-0": terminated(0), "executor-1": terminated(0)}, 4),
    ],
    ids=["the recorder lives", "outputs are sent", "no record", "no record at all"],
)
def test_uncertain_outcome_is_left_to_the_recorder(states, restarts):
    view = TaskView(task=row(), pod=pod(states, phase="Running", restarts=restarts), job=job())
    assert act(view, lasted=1e6) == ()


def test_unschedulable_pod_is_recorded():
    unscheduled = condition("PodScheduled", "Unschedulable", "0/3 nodes: Insufficient memory", "False")
    view = TaskView(task=row(), pod=pod(node=None, conditions=[unscheduled]), job=job())
    assert act(view, lasted=59) == (Recheck(seconds=1),)
    assert act(view, lasted=60) == (line("pod-uid-1", "FailedScheduling", "0/3 nodes: Insufficient memory"),)
    recorded = event_line(event("FailedScheduling", "0/3 nodes: Insufficient memory"))
    assert recorded is not None
    assert recorded.key == act(view, lasted=60)[0].key  # so the two are one line


@pytest.mark.parametrize(
    ("conditions", "why"),
    [
        ([condition("PodScheduled", "Unschedulable", "0/3 nodes", "False")], "0/3 nodes"),
        ([condition("PodScheduled", "SchedulerError", "binding volumes", "False")], "binding volumes"),
        ([], "no node was found, and the scheduler gave no reason"),
    ],
)
def test_unschedulable_pod_ends_the_task_at_its_limit(conditions, why):
    view, limits = (
        TaskView(task=row(), pod=pod(node=None, conditions=conditions), job=job()),
        Limits(unschedulable=90),
    )
    assert act(view, lasted=80, limits=limits)[-1] == Recheck(seconds=10)
    finish, delete = act(view, lasted=90, limits=limits)
    assert finish.outcome == system_error("Unschedulable", f"Pod {POD}: {why}")
    assert delete == DeleteJob(name=JOB, uid="job-uid-1", why="no node was found for it")


def test_gated_pod_may_wait():
    gated = condition("PodScheduled", "SchedulingGated", "Scheduling is blocked", "False")
    view = TaskView(task=row(), pod=pod(node=None, conditions=[gated]), job=job())
    assert act(view, lasted=1e6, limits=Limits(unschedulable=1)) == ()


UNREADY = condition("PodReadyToStartContainers", "", "", "False")
MOUNT = 'MountVolume.SetUp failed for volume "recorder" : secret "dsn" not found'


def test_pod_without_setup_is_explained_at_its_limit():
    stuck = pod({"trec": waiting()}, conditions=[UNREADY])
    view, limits = TaskView(task=row(state=TesState.QUEUED), pod=stuck, job=job()), Limits(unschedulable=90)
    assert act(view, lasted=80, limits=limits) == (Recheck(seconds=10),)
    assert act(view, lasted=90, limits=limits) == (ExplainNoStart(task=view.task, pod=stuck),)


def had_run():
    found = pod({"trec": waiting()}, conditions=[UNREADY])
    found["status"]["initContainerStatuses"][0]["lastState"] = terminated(137)
    return found


@pytest.mark.parametrize(
    ("found", "limit"),
    [
        pytest.param(pod({"trec": waiting()}, conditions=[UNREADY]), 0, id="the operator wants no limit"),
        pytest.param(pod({"trec": waiting()}), 1, id="its first image is being pulled"),
        pytest.param(pod({"trec": RUNNING}, conditions=[UNREADY]), 1, id="it runs, its node is behind"),
        pytest.param(had_run(), 1, id="it has run, and its node was rebooted"),
    ],
)
def test_pod_with_setup_is_not_ended(found, limit):
    view = TaskView(task=row(state=TesState.QUEUED), pod=found, job=job())
    actions = act(view, lasted=1e6, limits=Limits(unschedulable=limit))
    assert not any(isinstance(one, ExplainNoStart) for one in actions)


def warning(reason, message, second, **more):
    return {"reason": reason, "message": message, "lastTimestamp": f"2025-11-23T06:00:0{second}Z", **more}


@pytest.mark.parametrize(
    ("events", "reason", "why"),
    [
        ([warning("FailedMount", "old", 1), warning("FailedMount", MOUNT, 2)], "FailedMount", MOUNT),
        (
            [
                warning("FailedCreatePodSandBox", "no address", 3),
                warning("FailedMount", MOUNT, 2),
                warning("BackOff", "of something else", 4),
            ],
            "FailedCreatePodSandBox",
            "no address",
        ),
        ([], "PodNotStarted", "the node did not start the Pod and gave no reason"),
    ],
)
def test_pod_without_setup_has_its_last_warning(events, reason, why):
    stuck = pod({"trec": waiting()}, conditions=[UNREADY])
    finish, end = decide_no_start(ExplainNoStart(task=row(state=TesState.QUEUED), pod=stuck), events)
    assert finish.outcome == system_error(reason, f"Pod {POD}: {why}")
    assert end == EndPod(name=POD, uid="pod-uid-1", why=reason)


# A Pod on its way out, or gone


def gone(states: dict[str, Any] | None = None, **values: Any) -> dict[str, Any]:
    return pod({**ALL_DONE, **STOPPED, **(states or {})}, phase="Failed", deleted=True, **values)


FAILED_JOB = job(conditions=[condition("Failed", "BackoffLimitExceeded", "Job has reached its limit")])


@pytest.mark.parametrize(
    ("vanished", "expected"),
    [
        pytest.param(
            gone(),
            system_error("PodDeleted", f"Pod {POD} was deleted"),
            id="kubectl delete pod, the executor obeyed",
        ),
        pytest.param(
            pod({"trec": RUNNING, "tif-0": recorded(0), "executor-0": RUNNING}),
            system_error("PodDeleted", f"Pod {POD} was deleted"),
            id="last seen running",
        ),
        pytest.param(
            gone({"executor-0": recorded(3)}),
            executor_error("Error", "executor 0 exited with code 3", "executor-0"),
            id="the executor had failed by itself",
        ),
        pytest.param(
            gone(conditions=disrupted("EvictionByEvictionAPI", "Eviction API: evicting")),
            system_error("EvictionByEvictionAPI", "Eviction API: evicting"),
            id="drained",
        ),
        pytest.param(
            gone(plan=PREEMPTIBLE, conditions=disrupted("PreemptionByScheduler", "preempted by x")),
            failure(TesState.PREEMPTED, "PreemptionByScheduler", "preempted by x"),
            id="preempted by the scheduler",
        ),
        pytest.param(
            gone(conditions=disrupted("DeletionByTaintManager", "Taint manager: deleting")),
            system_error("NodeLost", "DeletionByTaintManager: Taint manager: deleting"),
            id="the node did not answer",
        ),
        pytest.param(
            gone(conditions=disrupted("DeletionByPodGC", "PodGC: node no longer exists")),
            system_error("NodeLost", "DeletionByPodGC: PodGC: node no longer exists"),
            id="the node is gone",
        ),
        pytest.param(
            gone(conditions=[condition("DisruptionTarget", "PreemptionByScheduler", status="False")]),
            system_error("PodDeleted", f"Pod {POD} was deleted"),
            id="a disruption that did not happen",
        ),
        pytest.param(gone(ALL_DONE), COMPLETE, id="all was done"),
    ],
)
def test_vanished_pod_ends_the_task_by_its_status(vanished, expected):
    view = TaskView(task=row(), job=FAILED_JOB, gone_pod=vanished)
    assert outcome(view) == expected
    assert view.depends_on_absence


def test_vanished_pod_waits_for_its_job():
    """Another Pod may follow: the Job may have been suspended for a moment."""
    view = TaskView(task=row(), job=job(), gone_pod=gone())
    assert act(view) == (Recheck(seconds=60),)
    assert outcome(view, lasted=60).reason == "PodDeleted"


@pytest.mark.parametrize(
    ("job_now", "expected"),
    [
        pytest.param(job(), system_error("PodDeleted", f"Pod {POD} was deleted"), id="the Pod alone"),
        pytest.param(job(deleted=True), system_error("JobDeleted", "the Job was deleted"), id="the Job, too"),
        pytest.param(None, system_error("JobDeleted", "the Job was deleted"), id="the Job has gone"),
    ],
)
def test_deleted_pod_has_its_reason_while_it_exists(job_now, expected):
    """The kubelet sends the last status first. The object stays until the Job controller has counted it."""
    view = TaskView(task=row(), pod=gone(), job=job_now)
    assert outcome(view) == expected
    assert view.depends_on_absence


def test_terminating_pod_is_waited_for():
    for canceled in (False, True):
        view = TaskView(
            task=row(cancel_requested=canceled), pod=pod(BEGUN, deleted=True), job=job(deleted=True)
        )
        assert all(isinstance(action, Recheck) for action in act(view))


def test_silent_node_ends_the_task_unless_canceled():
    lingers = pod(BEGUN, deleted=True)
    assert act(TaskView(task=row(), pod=lingers, job=job()), lasted=359) == (Recheck(seconds=1),)
    assert outcome(TaskView(task=row(), pod=lingers, job=job()), lasted=360).reason == "NodeLost"
    assert act(TaskView(task=row(cancel_requested=True), pod=lingers, job=None), lasted=1e6) == ()


# Kueue


@pytest.mark.parametrize("phase", ["Pending", "Failed"])
def test_terminating_pod_of_a_suspended_job_ends_nothing(phase):
    view = TaskView(task=row(), pod=pod(STOPPED, phase=phase, deleted=True), job=job(suspended=True))
    assert act(view, lasted=1e6) == ()


def test_suspended_job_waits_for_its_next_attempt():
    message = "the Job was suspended; another attempt follows"
    view = TaskView(task=row(), job=job(suspended=True), gone_pod=gone())
    assert act(view) == (RequeueAttempt(pod_uid="pod-uid-1", message=message),)
    unseen = TaskView(task=row(state=TesState.INITIALIZING), job=job(suspended=True))
    assert act(unseen) == (RequeueAttempt(pod_uid=None, message=message),)
    assert view.depends_on_absence


def test_queued_job_is_left_alone():
    assert act(TaskView(task=row(state=TesState.QUEUED), job=job(suspended=True)), lasted=1e6) == ()
    unsubmitted = row(state=TesState.QUEUED, submitted=False)
    assert act(TaskView(task=unsubmitted, job=job(suspended=True)), lasted=1e6) == ()


FULL = (
    "couldn't assign flavors to pod set main: insufficient unused quota for cpu in flavor f, %s more needed"
)
PREEMPTED = condition("Evicted", "Preempted", "Preempted to accommodate a workload")
DEACTIVATED = condition("Evicted", "Deactivated", "The workload is deactivated")
SUSPENDED = job(suspended=True)
DELETE_INACTIVE = DeleteJob(name=JOB, uid="job-uid-1", why="its Workload is not active")


def kueue(*conditions: dict[str, Any], **values: Any) -> dict[str, Any]:
    return slim_workload(workload(*conditions, **values))


def waits(message: str, reason: str = "Pending") -> dict[str, Any]:
    return kueue(condition("QuotaReserved", reason, message, status="False"))


def test_kueue_reason_is_recorded_once_for_any_quantities():
    task = row(state=TesState.QUEUED)
    (log,) = act(TaskView(task=task, job=SUSPENDED, workload=waits(FULL % "500m")))
    assert log.message == f"Kueue: Pending: {FULL % '500m'}"
    (again,) = act(TaskView(task=task, job=SUSPENDED, workload=waits(FULL % "1250m")))
    (other,) = act(
        TaskView(task=task, job=SUSPENDED, workload=waits("LocalQueue lq doesn't exist", "Inadmissible"))
    )
    assert log.key == again.key != other.key


@pytest.mark.parametrize(
    "view",
    [
        pytest.param(
            TaskView(task=row(state=TesState.QUEUED), job=job(), workload=waits(FULL)),
            id="the Job is not suspended",
        ),
        pytest.param(
            TaskView(task=row(state=TesState.QUEUED), job=SUSPENDED, workload=kueue()), id="no condition"
        ),
        pytest.param(
            TaskView(
                task=row(state=TesState.QUEUED), job=job(suspended=True, uid="other"), workload=waits(FULL)
            ),
            id="of an earlier Job",
        ),
        pytest.param(
            TaskView(
                task=row(state=TesState.QUEUED), job=SUSPENDED, workload=kueue(condition("QuotaReserved"))
            ),
            id="it has its quota",
        ),
    ],
)
def test_workload_without_a_reason_is_not_recorded(view):
    assert not [action for action in act(view) if isinstance(action, SystemLog | Finish)]


def test_evicted_attempt_ends_with_the_reason_of_kueue():
    view = TaskView(task=row(), job=SUSPENDED, gone_pod=gone(), workload=kueue(PREEMPTED))
    message = (
        "the Job was suspended by Kueue (Preempted: Preempted to accommodate a workload); "
        "another attempt follows"
    )
    assert act(view) == (RequeueAttempt(pod_uid="pod-uid-1", message=message),)


@pytest.mark.parametrize(
    ("view", "executors"),
    [
        pytest.param(
            TaskView(
                task=row(state=TesState.QUEUED), job=SUSPENDED, workload=kueue(DEACTIVATED, active=False)
            ),
            0,
            id="it never ran",
        ),
        pytest.param(
            TaskView(
                task=row(), job=SUSPENDED, gone_pod=gone(STOPPED), workload=kueue(DEACTIVATED, active=False)
            ),
            1,
            id="it ran",
        ),
    ],
)
def test_deactivated_workload_ends_the_task(view, executors):
    expected = system_error("Deactivated", "Kueue: The workload is deactivated")
    finish, delete = act(view)
    assert (finish.outcome, len(finish.executors), delete) == (expected, executors, DELETE_INACTIVE)
    assert view.depends_on_absence


def test_deactivated_workload_is_given_time_for_a_reason():
    view = TaskView(task=row(state=TesState.QUEUED), job=SUSPENDED, workload=kueue(PREEMPTED, active=False))
    assert not [action for action in act(view) if isinstance(action, Finish)]
    assert outcome(view, lasted=10) == system_error(
        "Deactivated", "Kueue: the Workload of the Job is not active"
    )


@pytest.mark.parametrize(
    "view",
    [
        pytest.param(
            TaskView(task=row(), pod=pod(BEGUN), job=job(), workload=kueue(DEACTIVATED, active=False)),
            id="the Pod still runs",
        ),
        pytest.param(
            TaskView(
                task=row(),
                pod=pod(STOPPED, deleted=True),
                job=SUSPENDED,
                workload=kueue(DEACTIVATED, active=False),
            ),
            id="the Pod is terminating",
        ),
        pytest.param(
            TaskView(
                task=row(state=TesState.QUEUED, submitted=False),
                job=SUSPENDED,
                workload=kueue(DEACTIVATED, active=False),
            ),
            id="it is not submitted",
        ),
    ],
)
def test_deactivated_workload_waits_for_its_limit(view):
    assert not [action for action in act(view, lasted=59) if isinstance(action, Finish)]


def test_cancel_precedes_kueue():
    view = TaskView(task=CANCELING, job=SUSPENDED, workload=kueue(DEACTIVATED, active=False))
    assert act(view) == (DELETE,)


def test_workload_gets_the_label_of_its_task():
    pending = condition("QuotaReserved", "Pending", "no", status="False")
    assert slim_workload(workload(pending)) == {
        "metadata": {
            "name": f"job-{JOB}-1a2b3",
            "uid": "workload-uid-1",
            "resourceVersion": "1",
            "creationTimestamp": "2025-11-23T05:59:59Z",
            "labels": {"poiesis.io/task": str(TASK)},
        },
        "job_uid": "job-uid-1",
        "active": True,
        "conditions": [pending],
    }


def test_foreign_workload_has_no_task():
    stranger = workload(owner="JobSet")
    unowned = {"metadata": {"name": "w", "uid": "u", "resourceVersion": "1"}}
    for one in (stranger, unowned):
        slim = slim_workload(one)
        assert (slim["metadata"]["labels"], slim["job_uid"], slim["active"]) == ({}, None, True)


def test_new_pod_closes_the_previous_attempt():
    view = TaskView(task=row(), pod=pod(BEGUN, name="new", uid="pod-uid-2"), job=job(), gone_pod=gone())
    assert act(view) == (RequeueAttempt(pod_uid="pod-uid-1", message=f"Pod {POD} was replaced by Pod new"),)


def test_failed_pod_ends_task_despite_suspended_job():
    view = TaskView(task=row(), pod=ended_pod({"executor-0": recorded(7)}), job=job(suspended=True))
    assert outcome(view).state is TesState.EXECUTOR_ERROR


# Cancel


CANCELING = row(state=TesState.CANCELING, cancel_requested=True)
DELETE = DeleteJob(name=JOB, uid="job-uid-1", why="canceled")
DELETE_POD = DeletePod(name=POD, uid="pod-uid-1", why="canceled")


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        pytest.param(TaskView(task=CANCELING, pod=pod(BEGUN), job=job()), (DELETE,), id="it runs"),
        pytest.param(TaskView(task=CANCELING, job=job()), (DELETE,), id="no Pod yet"),
        pytest.param(TaskView(task=CANCELING, job=job(suspended=True)), (DELETE,), id="suspended"),
        pytest.param(TaskView(task=CANCELING, job=FAILED_JOB), (DELETE,), id="failed meanwhile"),
        pytest.param(
            TaskView(task=CANCELING, job=job(), gone_pod=gone()),
            (DELETE,),
            id="the Pod is gone, the Job is not",
        ),
        pytest.param(
            TaskView(task=CANCELING, pod=pod(BEGUN, deleted=True), job=job()),
            (DELETE,),
            id="the Pod is being deleted, the Job is not",
        ),
        pytest.param(
            TaskView(task=CANCELING, pod=pod(node=None, deleted=True), job=job()),
            (DELETE,),
            id="the same without a node: another Pod may follow",
        ),
        pytest.param(
            TaskView(task=CANCELING, pod=pod(BEGUN), job=job(deleted=True)),
            (DELETE_POD,),
            id="the Job waits for its Pod",
        ),
        pytest.param(TaskView(task=CANCELING, pod=pod(BEGUN), job=None), (DELETE_POD,), id="the Job is gone"),
        pytest.param(
            TaskView(task=CANCELING, pod=pod(node=None), job=None), (DELETE_POD,), id="the Pod has no node"
        ),
        pytest.param(
            TaskView(task=CANCELING, pod=pod(BEGUN, deadline=1), job=None),
            (DELETE_POD,),
            id="an earlier release has ended the Pod",
        ),
        pytest.param(
            TaskView(task=CANCELING, pod=pod(BEGUN, deleted=True), job=None), (), id="its node ends the Pod"
        ),
        pytest.param(
            TaskView(task=CANCELING, pod=pod(BEGUN), job=None, gone_pod=pod(uid="another")),
            (DELETE_POD,),
            id="another Pod has vanished",
        ),
    ],
)
def test_cancel_deletes_the_job_and_then_the_pod(view, expected):
    assert act(view) == expected


@pytest.mark.parametrize("last_job", [None, job(deleted=True)])
def test_canceled_pod_without_a_node_ends_the_task(last_job):
    view = TaskView(task=CANCELING, pod=pod(node=None, deleted=True), job=last_job)
    (finish,) = act(view)
    assert (finish.outcome, finish.cancel_seen, finish.attempt) == (CANCELED, True, None)
    assert view.depends_on_absence


@pytest.mark.parametrize("vanished", [None, gone(), gone(ALL_DONE), pod({**BEGUN, "executor-0": RUNNING})])
@pytest.mark.parametrize("last_job", [None, job(deleted=True)])
def test_cancel_is_complete_without_objects(vanished, last_job):
    finish = act(TaskView(task=CANCELING, job=last_job, gone_pod=vanished))[0]
    assert (finish.outcome, finish.cancel_seen) == (CANCELED, True)


def test_cancel_waits_for_the_submitter():
    task = row(state=TesState.CANCELING, cancel_requested=True, submitted=False, claimed=True)
    assert act(TaskView(task=task)) == (Recheck(seconds=30),)
    free = row(state=TesState.CANCELING, cancel_requested=True, submitted=False)
    assert outcome(TaskView(task=free)) == CANCELED


# Jobs


def test_failed_job_without_a_pod():
    assert outcome(TaskView(task=row(), job=FAILED_JOB)) == system_error(
        "BackoffLimitExceeded", "Job has reached its limit"
    )


def test_complete_job_without_a_pod_completes_the_task():
    done = job(conditions=[condition("Complete", "CompletionsReached")])
    assert outcome(TaskView(task=row(), job=done)) == COMPLETE


def test_job_deleted_by_another_client_ends_the_task():
    expected = system_error("JobDeleted", "the Job was deleted")
    assert outcome(TaskView(task=row(), gone_job=job())) == expected
    assert outcome(TaskView(task=row(), gone_pod=gone(), gone_job=job())) == expected
    assert outcome(TaskView(task=row(), job=job(deleted=True))) == expected


def test_task_without_objects_is_lost():
    view = TaskView(task=row())
    assert outcome(view) == system_error("Lost", "neither the Job nor the Pod of this task exists")
    assert view.depends_on_absence


def test_unsubmitted_task_without_objects_is_kept():
    assert act(TaskView(task=row(state=TesState.QUEUED, submitted=False)), lasted=1e6) == ()


def refused(*, give_up: bool = False) -> ExplainNoPod:
    return ExplainNoPod(task=row(state=TesState.QUEUED), job_name=JOB, job_uid="job-uid-1", give_up=give_up)


def test_job_without_a_pod_is_checked_less_often():
    view = TaskView(task=row(state=TesState.QUEUED), job=job())
    assert act(view, lasted=4) == (Recheck(seconds=1),)
    assert act(view, lasted=5) == (refused(), Recheck(seconds=5))
    assert act(view, lasted=20) == (refused(), Recheck(seconds=20))
    assert act(view, lasted=1e6) == (refused(), Recheck(seconds=60))


def test_job_without_a_pod_ends_at_its_limit():
    view, limits = TaskView(task=row(state=TesState.QUEUED), job=job()), Limits(unschedulable=30)
    assert act(view, lasted=20, limits=limits) == (refused(), Recheck(seconds=10))
    assert act(view, lasted=30, limits=limits) == (refused(give_up=True), Recheck(seconds=30))


QUOTA = f'Error creating: pods "{POD}" is forbidden: exceeded quota: q'
POLICY = f'Error creating: pods "{POD}" is forbidden: violates PodSecurity "restricted:latest"'


@pytest.mark.parametrize(("asked", "message"), [(refused(), POLICY), (refused(give_up=True), QUOTA)])
def test_permanently_rejected_pod_ends_the_task(asked, message):
    assert decide_refused(asked, message) == (
        Finish(outcome=system_error("FailedCreate", message.replace(POD, JOB)), cancel_seen=False),
        DeleteJob(name=JOB, uid="job-uid-1", why="its Pod is rejected"),
    )


def test_retryable_rejection_is_recorded_once_for_any_name():
    logs = decide_refused(refused(), QUOTA)
    assert logs == decide_refused(refused(), QUOTA.replace("-abcde", "-fghij"))
    assert [one.message for one in logs] == [f"FailedCreate: {QUOTA.replace(POD, JOB)}"]


# After the end


OURS = row(state=TesState.SYSTEM_ERROR, ended=True, reported_by="controller")
THEIRS = row(state=TesState.COMPLETE, ended=True, reported_by="recorder")


@pytest.mark.parametrize(
    ("view", "lasted", "expected"),
    [
        pytest.param(
            TaskView(task=THEIRS, pod=pod(BEGUN), job=job()), 60, (Recheck(seconds=840),), id="trec's"
        ),
        pytest.param(
            TaskView(task=THEIRS, pod=pod(BEGUN), job=job()),
            900,
            (EndPod(name=POD, uid="pod-uid-1", why="its task has ended"),),
            id="trec's, but its Pod stays",
        ),
        pytest.param(
            TaskView(task=THEIRS, pod=pod({**BEGUN, "executor-0": RUNNING}), job=job()),
            29,
            (Recheck(seconds=1),),
            id="trec's, and an executor still runs",
        ),
        pytest.param(
            TaskView(task=THEIRS, pod=pod({**BEGUN, "executor-0": RUNNING}), job=job()),
            30,
            (EndPod(name=POD, uid="pod-uid-1", why="its task has ended and an executor still runs"),),
            id="trec's, and an executor still runs after 30 s",
        ),
        pytest.param(
            TaskView(
                task=THEIRS, pod=pod({"trec": TREC_KILLED, "tif-0": terminated(0, "OOMKilled")}), job=job()
            ),
            60,
            (EndPod(name=POD, uid="pod-uid-1", why="its task has ended and it is stalled"),),
            id="trec's, but its Pod can never end",
        ),
        pytest.param(TaskView(task=OURS, pod=pod(BEGUN), job=job()), 29, (Recheck(seconds=1),), id="ours"),
        pytest.param(
            TaskView(task=OURS, pod=pod(BEGUN), job=job()),
            30,
            (EndPod(name=POD, uid="pod-uid-1", why="its task has ended"),),
            id="ours, and the Pod runs",
        ),
        pytest.param(
            TaskView(task=OURS, pod=pod(node=None), job=job()),
            30,
            (DeleteJob(name=JOB, uid="job-uid-1", why="its task has ended"),),
            id="ours, and no kubelet has the Pod",
        ),
        pytest.param(
            TaskView(task=OURS, pod=pod(BEGUN, deadline=1), job=job()),
            89,
            (Recheck(seconds=1),),
            id="it ends",
        ),
        pytest.param(
            TaskView(task=OURS, pod=pod(BEGUN, deadline=1), job=job()),
            90,
            (DeleteJob(name=JOB, uid="job-uid-1", why="its Pod did not end"),),
            id="it will not end",
        ),
        pytest.param(TaskView(task=OURS, pod=pod(BEGUN, deadline=1)), 1e6, (), id="nothing more can be done"),
        pytest.param(TaskView(task=OURS, pod=ended_pod(), job=FAILED_JOB), 1e6, (), id="all has ended"),
        pytest.param(
            TaskView(task=OURS, pod=pod(BEGUN, deleted=True), job=job()), 1e6, (), id="it is terminating"
        ),
        pytest.param(TaskView(task=OURS, job=FAILED_JOB), 1e6, (), id="the time to live runs"),
        pytest.param(TaskView(task=OURS), 1e6, (), id="all has gone"),
        pytest.param(
            TaskView(task=OURS, job=job(suspended=True)),
            30,
            (DeleteJob(name=JOB, uid="job-uid-1", why="its task has ended"),),
            id="a Job that would start again",
        ),
    ],
)
def test_ended_task_frees_its_objects(view, lasted, expected):
    assert act(view, lasted=lasted) == expected


@pytest.mark.parametrize("objects", [{}, {"pod": ended_pod(), "job": job()}, {"job": FAILED_JOB}])
def test_objects_of_an_unknown_task_are_left_alone(objects):
    assert decide(TaskView(task=None, **objects), {}, 0.0, Limits()) == Decision()


# Roles and caches


def test_only_a_live_pod_needs_a_role():
    assert decide_role(pod()) == EnsureRole(task_id=TASK, pod_name=POD, pod_uid="pod-uid-1")
    assert decide_role(pod(deleted=True)) is None
    assert decide_role(ended_pod()) is None


def test_recorder_of_files_only_gets_no_role():
    assert decide_role(pod(plan=FILES_ONLY)) is None


PULLING = {**BEGUN, "executor-0": waiting("ErrImagePull", "not found")}
PULL_LINE = PodLine(
    pod_uid="pod-uid-1", key="executor-0/waiting-pull", message="executor-0: ErrImagePull: not found"
)


def test_waits_are_recorded_for_a_recorder_of_files_only():
    view = TaskView(task=row(), pod=pod(PULLING, plan=FILES_ONLY), job=job())
    assert act(view) == (PULL_LINE, Recheck(seconds=60))
    finish, end = act(view, lasted=60)
    assert (finish.outcome.reason, type(end)) == ("ErrImagePull", EndPod)


def test_waits_are_left_to_a_recorder_with_access():
    assert act(TaskView(task=row(), pod=pod(PULLING), job=job())) == (Recheck(seconds=60),)


def test_unreported_end_is_recorded_for_a_recorder_of_files_only():
    states = {"executor-0": terminated(128, "StartError", "no such directory"), "executor-1": waiting()}
    view = TaskView(task=row(), pod=ended_pod(states, plan=FILES_ONLY), job=job())
    line_, finish = act(view)
    assert line_.message == "executor-0: StartError: no such directory"
    assert (finish.outcome.reason, finish.outcome.container) == ("StartError", "executor-0")


@pytest.mark.parametrize("ended", [case.values[0] for case in ENDED])
def test_reduced_objects_decide_alike(ended):
    assert pod_facts(slim_pod(ended), cancel_requested=False) == pod_facts(ended, cancel_requested=False)
    view = TaskView(task=row(), pod=ended, job=job(suspended=True))
    slim = TaskView(task=row(), pod=slim_pod(ended), job=slim_job(job(suspended=True)))
    assert decide(slim, {}, 0.0, Limits()) == decide(view, {}, 0.0, Limits())
    assert "managedFields" not in slim_pod(ended)["metadata"]


def _labelled(item, **metadata):
    return {**item, "metadata": {**item["metadata"], **metadata}}


OTHER_JOB = {"kind": "Job", "name": "other", "uid": "u", "controller": True}


@pytest.mark.parametrize(
    "item",
    [
        pytest.param(slim_pod(_labelled(pod(), ownerReferences=[])), id="a Pod without a Job"),
        pytest.param(slim_pod(_labelled(pod(), ownerReferences=[OTHER_JOB])), id="a Pod of another Job"),
        pytest.param(
            slim_pod(
                _labelled(
                    pod(), ownerReferences=[{**OTHER_JOB, "name": object_name(TASK), "controller": False}]
                )
            ),
            id="a Pod that no Job controls",
        ),
        pytest.param(slim_job(_labelled(job(), name="other")), id="a Job of another name"),
    ],
)
def test_label_alone_makes_no_object_a_task_s(item):
    assert TASK_LABEL not in item["metadata"]["labels"]
    assert of_tasks([item, slim_pod(pod())]) == [slim_pod(pod())]


STREAM = PodPlan(executors=("executor-0",), ignore_error=(False,), streams=("stream-0",))


@pytest.mark.parametrize(
    ("stream", "values", "expected"),
    [
        (recorded(0, term=True), {}, COMPLETE),
        (
            recorded(65, term=True),
            {},
            TaskOutcome(
                state=TesState.SYSTEM_ERROR,
                reason="Error",
                message="stream-0 exited with code 65: an input may have been cut short",
                container="stream-0",
            ),
        ),
        (
            terminated(137, "OOMKilled"),
            {},
            TaskOutcome(
                state=TesState.SYSTEM_ERROR,
                reason="OOMKilled",
                message="stream-0 ran out of memory",
                container="stream-0",
            ),
        ),
        (
            recorded(143, term=True),
            {"reason": "Evicted", "message": "The node was low on resource: memory."},
            TaskOutcome(
                state=TesState.SYSTEM_ERROR,
                reason="Evicted",
                message="The node was low on resource: memory.",
            ),
        ),
    ],
    ids=["all was read", "cut short", "out of memory", "terminated in the middle"],
)
def test_end_of_a_stream_sidecar_decides(stream, values, expected):
    states = {"executor-0": recorded(0), "stream-0": stream, "pause": terminated(1)}
    ended = pod(states, phase="Failed", plan=STREAM, **values)
    assert outcome(TaskView(task=row(), pod=ended, job=job())) == expected


def test_streams_without_a_plan_are_found_by_name():
    states = {"executor-0": recorded(0), "stream-0": recorded(65, term=True)}
    ended = pod(states, phase="Failed", plan=STREAM)
    del ended["metadata"]["annotations"]
    assert pod_facts(ended, cancel_requested=False).cut_short is not None


def test_restarted_stream_sidecar_ends_nothing():
    running = pod(
        {"trec": RUNNING, "executor-0": RUNNING, "stream-0": waiting("CrashLoopBackOff")}, plan=STREAM
    )
    assert [
        one
        for one in act(TaskView(task=row(), pod=running, job=job()), lasted=10_000)
        if isinstance(one, Finish)
    ] == []
