"""Select events of a TaskPod and its PersistentVolumeClaim for system_logs. Pure.

Events contain what neither the recorder nor the Pod's status has: which node was found or why none, why
there is no volume, what was pulled and how long that took, and what prevents the recorder from starting. No
decision depends on them: a kubelet drops events beyond 25 per Pod (client-go, tools/record), and events
expire. What prevents another container from starting is recorded from the Pod's status (`podlines`).
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any
from uuid import UUID

from poiesis_models.labels import OBJECT_NAME, POD_SUFFIX, TASK_LABEL, TREC_CONTAINER
from poiesis_models.runfiles import sanitized

Object = Mapping[str, Any]

# Events that are never recorded are not requested.
SELECTOR: Mapping[str, str] = MappingProxyType(
    {
        "fieldSelector": "involvedObject.kind!=Job,involvedObject.kind!=Workload,"
        "reason!=Created,reason!=Started,reason!=Killing"
    }
)

FAILED_SCHEDULING = "FailedScheduling"
_NORMAL = frozenset(
    {
        "Scheduled",
        "Preempted",  # the scheduler's, about the victim
        "FailedBinding",  # of a claim
        "TaintManagerEviction",
        "SandboxChanged",
        "TriggeredScaleUp",  # the cluster autoscaler's
        "NotTriggerScaleUp",
        "Pulling",
    }
)
_QUIET = frozenset({"DNSConfigForming"})  # of the node, with every Pod
_PULLED = "Successfully pulled"  # an image that was already present has the same reason
_BARE = re.compile(r"Error: \w+")  # a waiting reason; another event has the message

_POD, _CLAIM = "Pod", "PersistentVolumeClaim"
_NAMES = {_POD: re.compile(OBJECT_NAME + POD_SUFFIX), _CLAIM: re.compile(OBJECT_NAME)}
_CONTAINER = re.compile(r"spec\.(?:initContainers|containers)\{(.+)\}")
_VARIABLE = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{12,}|[0-9]+(?:\.[0-9]+)?")
_MESSAGE_CHARACTERS = 2048
_KEY_CHARACTERS = 1000  # a scheduler cuts the message of its event at 1024, and not that of its condition


@dataclass(frozen=True, kw_only=True)
class PodLine:
    """A line of system_logs about a Pod, or a PersistentVolumeClaim (`pod_uid` None). `at` None: now.

    A key occurs once in an attempt.
    """

    pod_uid: str | None
    key: str
    message: str
    at: datetime | None = None


def slim_event(event: Object) -> Object:
    """Reduce an event to its line, with the label of its task. Without a task or a line there is no label."""
    metadata = {key: event["metadata"].get(key) for key in ("name", "uid", "resourceVersion")}
    about = _about(event)
    name = _NAMES.get(about.get("kind") or "")
    match = None if name is None else name.fullmatch(about.get("name") or "")
    line = None if match is None else event_line(event)
    if match is None or line is None:
        return {"metadata": metadata}
    return {"metadata": {**metadata, "labels": {TASK_LABEL: str(UUID(match["task"]))}}, "line": line}


def event_line(event: Object) -> PodLine | None:
    """Return the line of an event, None if it is not recorded."""
    about, reason, message = _about(event), event.get("reason"), event.get("message")
    uid = about.get("uid")
    if not uid or not reason or not message:
        return None
    container = _container(event)
    if not _is_recorded(event.get("type") or "", reason, message, container):
        return None
    pod_uid = uid if about.get("kind") == _POD else None
    return line(pod_uid, reason, message, container=container, at=_time(event))


def line(
    pod_uid: str | None,
    reason: str,
    message: str,
    *,
    container: str | None = None,
    at: datetime | None = None,
) -> PodLine:
    """Return a line with Kubernetes' message. Lines that differ only in numbers and names share a key."""
    reported = f"{reason}: {sanitized(message).strip()}"
    text = reported if container is None else f"{container}: {reported}"
    constant = _VARIABLE.sub("#", _NAMES[_POD].sub("#", text[:_KEY_CHARACTERS]))
    key = key_of(f"event/{reason}", constant)
    return PodLine(pod_uid=pod_uid, key=key, message=text[:_MESSAGE_CHARACTERS], at=at)


def key_of(kind: str, constant: str) -> str:
    """Return the key of a line of system_logs, the same for lines of a kind with the same constant part."""
    return f"{kind}-{hashlib.sha256(constant.encode()).hexdigest()[:12]}"


def _is_recorded(kind: str, reason: str, message: str, container: str | None) -> bool:
    if kind == "Warning":
        has_status_line = container is not None and container != TREC_CONTAINER
        return not has_status_line and reason not in _QUIET and _BARE.fullmatch(message) is None
    return reason in _NORMAL or (reason == "Pulled" and message.startswith(_PULLED))


def _about(event: Object) -> Object:
    return event.get("involvedObject") or {}


def _container(event: Object) -> str | None:
    match = _CONTAINER.fullmatch(_about(event).get("fieldPath") or "")
    return None if match is None else match[1]


def _time(event: Object) -> datetime | None:
    """Return when the event happened first. Timestamps have seconds, most names of events nanoseconds."""
    exact = _parsed(event.get("eventTime"))
    if exact is not None:
        return exact
    coarse = _parsed(event.get("firstTimestamp")) or _parsed(event["metadata"].get("creationTimestamp"))
    named = _named(event["metadata"].get("name") or "")
    if coarse is None or named is None or not timedelta() <= named - coarse < timedelta(seconds=1):
        return coarse
    return named


def _named(name: str) -> datetime | None:
    """Return the time in an event's name, `<Pod>.<hexadecimal nanoseconds>` (client-go, tools/record)."""
    try:
        return datetime.fromtimestamp(int(name.rpartition(".")[2], 16) / 1e9, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _parsed(time: str | None) -> datetime | None:
    """Parse a metav1.Time or MicroTime. Return None for anything else."""
    if not time:
        return None
    try:
        parsed = datetime.fromisoformat(time)
    except ValueError:
        return None
    return parsed if parsed.tzinfo is not None else None
