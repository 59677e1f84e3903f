"""Which events are recorded in system_logs, and how."""

from datetime import UTC, datetime

import pytest
from tctl_builders import TASK, event

from poiesis_models.labels import TASK_LABEL
from poiesis_tctl.podevents import event_line, slim_event

POD = f"poiesis-{TASK}-abcde"
PULLED = 'Successfully pulled image "tool:1" in 1.5s (1.5s including waiting). Image size: 2223 bytes.'
NOT_FOUND = 'Failed to pull image "tool:1": failed to resolve reference "tool:1": tool:1: not found'


@pytest.mark.parametrize(
    ("about", "expected"),
    [
        (
            event("FailedScheduling", "0/3 nodes are available: 3 Insufficient cpu."),
            "FailedScheduling: 0/3 nodes are available: 3 Insufficient cpu.",
        ),
        (
            event("Scheduled", f"Successfully assigned tes/{POD} to node-1", kind="Normal"),
            f"Scheduled: Successfully assigned tes/{POD} to node-1",
        ),
        (
            event("Pulling", 'Pulling image "tool:1"', kind="Normal", container="executor-0"),
            'executor-0: Pulling: Pulling image "tool:1"',
        ),
        (
            event("Pulled", PULLED, kind="Normal", container="executor-0"),
            f"executor-0: Pulled: {PULLED}",
        ),
        (event("Failed", NOT_FOUND, container="trec"), f"trec: Failed: {NOT_FOUND}"),
        (
            event("BackOff", "Back-off restarting failed container trec", container="trec"),
            "trec: BackOff: Back-off restarting failed container trec",
        ),
        (
            event("FailedMount", 'MountVolume.SetUp failed for volume "spec": secret "x" not found'),
            'FailedMount: MountVolume.SetUp failed for volume "spec": secret "x" not found',
        ),
        (event("FailedAttachVolume", "Multi-Attach error"), "FailedAttachVolume: Multi-Attach error"),
        (
            event("Evicted", "The node was low on resource: memory."),
            "Evicted: The node was low on resource: memory.",
        ),
        (
            event("Preempted", "Preempted by pod x on node n", kind="Normal"),
            "Preempted: Preempted by pod x on node n",
        ),
        (
            event("TaintManagerEviction", "Marking for deletion Pod tes/x", kind="Normal"),
            "TaintManagerEviction: Marking for deletion Pod tes/x",
        ),
        (
            event("TriggeredScaleUp", "pod triggered scale-up: [...]", kind="Normal"),
            "TriggeredScaleUp: pod triggered scale-up: [...]",
        ),
        (event("SomethingNew", "that is wrong"), "SomethingNew: that is wrong"),
    ],
    ids=lambda value: value["reason"] if isinstance(value, dict) else "",
)
def test_recorded_events(about, expected):
    recorded = event_line(about)
    assert recorded is not None
    assert recorded.message == expected
    assert recorded.pod_uid == "pod-uid-1"


MISSING = 'storageclass.storage.k8s.io "fast" not found'


@pytest.mark.parametrize(
    ("reason", "message", "kind"),
    [
        ("ProvisioningFailed", MISSING, "Warning"),
        ("FailedBinding", "no persistent volumes available for this claim", "Normal"),
    ],
)
def test_claim_events_belong_to_no_pod(reason, message, kind):
    claim = event(reason, message, kind=kind, about="PersistentVolumeClaim", suffix="", uid="claim-uid-1")
    recorded = event_line(claim)
    assert recorded is not None
    assert (recorded.pod_uid, recorded.message) == (None, f"{reason}: {message}")
    assert slim_event(claim)["metadata"]["labels"] == {TASK_LABEL: str(TASK)}


@pytest.mark.parametrize(
    "about",
    [
        event("SuccessfulCreate", "Created pod", about="Job", suffix=""),
        event("FailedCreate", "no quota", about="Job", suffix=""),
        event("ProvisioningFailed", "x", about="PersistentVolumeClaim"),
    ],
    ids=["Job", "also a warning", "another's claim"],
)
def test_events_of_other_objects_are_left_out(about):
    assert "labels" not in slim_event(about)["metadata"]


@pytest.mark.parametrize(
    "about",
    [
        event("ProvisioningSucceeded", "x", kind="Normal", about="PersistentVolumeClaim", suffix=""),
        event("Created", "Created container: trec", kind="Normal", container="trec"),
        event("Started", "Started container trec", kind="Normal", container="trec"),
        event("Killing", "Stopping container trec", kind="Normal", container="trec"),
        event("Pulled", 'Container image "x" already present on machine', kind="Normal", container="trec"),
        event("BackOff", 'Back-off pulling image "x"', kind="Normal", container="trec"),
        event("Failed", "Error: ErrImagePull", container="trec"),
        event("Failed", "Error: ImagePullBackOff", container="trec"),
        event("DNSConfigForming", "Nameserver limits were exceeded"),
        event("DeadlineExceeded", "Pod was active on the node longer than", kind="Normal"),
        event("SuccessfulAttachVolume", "AttachVolume.Attach succeeded", kind="Normal"),
        pytest.param(event("Failed", NOT_FOUND, container="executor-0"), id="reported by the recorder"),
        pytest.param(
            event("InspectFailed", "bad name", container="pause"), id="also reported by the recorder"
        ),
        pytest.param(event("FailedMount", ""), id="without a message"),
        pytest.param(event("FailedMount", "x", uid=""), id="without a uid"),
    ],
    ids=lambda about: f"{about['reason']}: {about['message']}",
)
def test_events_that_are_not_recorded(about):
    assert event_line(about) is None


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (event("FailedMount", "x", count=1), event("FailedMount", "x", count=900, name="e2"), True),
        (event("FailedMount", "x"), event("FailedMount", "y"), False),
        (event("FailedMount", "x"), event("FailedAttachVolume", "x"), False),
        (event("Failed", "x", container="trec"), event("Failed", "x"), False),
        (
            event("FailedScheduling", "0/3 nodes: 1 cpu, 2 memory"),
            event("FailedScheduling", "0/12 nodes: 11 cpu, 1 memory"),
            True,
        ),
        (
            event("FailedCreatePodSandBox", f'network for sandbox "{"0a" * 32}": no address'),
            event("FailedCreatePodSandBox", f'network for sandbox "{"1b" * 32}": no address'),
            True,
        ),
        (
            event(
                "BackOff",
                f"Back-off restarting {POD}_tes(519f02a3-34ea-4a79-b53d-a2049f9f1c5c)",
                container="trec",
            ),
            event(
                "BackOff",
                f"Back-off restarting poiesis-{TASK}-zzzzz_tes(00000000-34ea-4a79-b53d-a2049f9f1c5c)",
                container="trec",
                suffix="-zzzzz",
            ),
            True,
        ),
        (event("FailedMount", "x" * 1020 + " ..."), event("FailedMount", "x" * 3000), True),
    ],
    ids=[
        "repeated", "another message", "another reason", "another place", "numbers", "made-up names",
        "the Pod", "cut",
    ],
)  # fmt: skip
def test_lines_with_one_key_are_equal(one, other, same):
    first, second = event_line(one), event_line(other)
    assert first is not None
    assert second is not None
    assert (first.key == second.key) is same


SECOND = datetime(2025, 11, 23, 6, tzinfo=UTC)
HALF_PAST_NS = int(SECOND.timestamp()) * 10**9 + 500_000_000


@pytest.mark.parametrize(
    ("values", "at"),
    [
        ({"time": "2025-11-23T06:00:00.250000Z", "first": None}, SECOND.replace(microsecond=250_000)),
        ({}, SECOND),
        ({"name": f"{HALF_PAST_NS:x}"}, SECOND.replace(microsecond=500_000)),
        ({"name": f"{HALF_PAST_NS + 10**9:x}"}, SECOND),
        ({"name": "f" * 300}, SECOND),
        ({"first": None}, None),
        ({"first": "yesterday"}, None),
        ({"first": "2025-11-23T06:00:00"}, None),
    ],
    ids=["exact", "to the second", "named", "named otherwise", "unnamed", "none", "no time", "no zone"],
)  # fmt: skip
def test_line_has_the_time_of_the_event(values, at):
    recorded = event_line(event("FailedMount", "x", **values))
    assert recorded is not None
    assert recorded.at == at


def test_time_may_be_of_the_object():
    about = event("FailedMount", "x", first=None)
    about["metadata"]["creationTimestamp"] = "2025-11-23T06:00:00Z"
    recorded = event_line(about)
    assert recorded is not None
    assert recorded.at == SECOND


def test_line_is_sanitized_and_bounded():
    recorded = event_line(event("FailedMount", " a\0b\ud800c" + "x" * 5000))
    assert recorded is not None
    assert recorded.message.startswith("FailedMount: a\ufffdb?cx")
    assert len(recorded.message) == 2048


def test_event_is_reduced_to_its_line():
    about = event("FailedMount", "x")
    about["metadata"]["resourceVersion"] = "7"
    assert slim_event(about) == {
        "metadata": {
            "name": f"{POD}.e1",
            "uid": "uid-of-e1",
            "resourceVersion": "7",
            "labels": {TASK_LABEL: str(TASK)},
        },
        "line": event_line(about),
    }


@pytest.mark.parametrize(
    "name",
    [
        "postgres-0", f"poiesis-{TASK}", f"x-poiesis-{TASK}-abcde", f"poiesis-{TASK}-abcde-x", None, "",
        "poiesis-tctl-5f7d8c9b4-abcde",
    ],
)  # fmt: skip
def test_events_of_other_pods_are_not_kept(name):
    about = event("FailedMount", "x")
    about["involvedObject"]["name"] = name
    assert slim_event(about) == {
        "metadata": {"name": f"{POD}.e1", "uid": "uid-of-e1", "resourceVersion": None}
    }
