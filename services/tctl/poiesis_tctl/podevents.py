"""Which events of a TaskPod and its claim are worth a line of system_logs, and what the line says. Pure.

Events tell what neither the recorder nor the Pod's status does: how a node was found or why not, why there
is no volume, what was pulled and in what time, and what keeps the recorder itself from starting. They are no
more than that: a kubelet drops what exceeds 25 of a Pod (client-go, tools/record), and they expire. So they
decide nothing. What keeps another container from starting the recorder tells, by the Pod's status.
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
from poiesis_models.runfiles import storable

Object = Mapping[str, Any]

# What nobody wants to know of need not be sent.
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
_PULLED = "Successfully pulled"  # there is no such event's reason: it is the same for an image that was there
_BARE = re.compile(r"Error: \w+")  # a waiting reason; another event says why

_POD, _CLAIM = "Pod", "PersistentVolumeClaim"
_NAMES = {_POD: re.compile(OBJECT_NAME + POD_SUFFIX), _CLAIM: re.compile(OBJECT_NAME)}
_CONTAINER = re.compile(r"spec\.(?:initContainers|containers)\{(.+)\}")
_VARIABLE = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{12,}|[0-9]+(?:\.[0-9]+)?")
_MESSAGE_CHARACTERS = 2048
_TELLING_CHARACTERS = 1000  # a scheduler cuts its event's message, and not its condition's, at 1024


@dataclass(frozen=True, kw_only=True)
class PodLine:
    """A line about a Pod, or a claim (`pod_uid` None); once for each `key` in an attempt. `at` None: now."""

    pod_uid: str | None
    key: str
    message: str
    at: datetime | None = None


def slim_event(event: Object) -> Object:
    """The line alone, labelled with its task. What is no task's or says nothing gets no label."""
    metadata = {key: event["metadata"].get(key) for key in ("name", "uid", "resourceVersion")}
    about = _about(event)
    name = _NAMES.get(about.get("kind") or "")
    match = None if name is None else name.fullmatch(about.get("name") or "")
    line = None if match is None else event_line(event)
    if match is None or line is None:
        return {"metadata": metadata}
    return {"metadata": {**metadata, "labels": {TASK_LABEL: str(UUID(match["task"]))}}, "line": line}


def event_line(event: Object) -> PodLine | None:
    """None if it is not worth one."""
    about, reason, message = _about(event), event.get("reason"), event.get("message")
    uid = about.get("uid")
    if not uid or not reason or not message:
        return None
    container = _container(event)
    if not _is_worth_a_line(event.get("type") or "", reason, message, container):
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
    """In Kubernetes' words. Two that differ in no more than numbers and names made up for them are one."""
    said = f"{reason}: {storable(message).strip()}"
    text = said if container is None else f"{container}: {said}"
    constant = _VARIABLE.sub("#", _NAMES[_POD].sub("#", text[:_TELLING_CHARACTERS]))
    key = key_of(f"event/{reason}", constant)
    return PodLine(pod_uid=pod_uid, key=key, message=text[:_MESSAGE_CHARACTERS], at=at)


def key_of(kind: str, constant: str) -> str:
    """The key of a line of system_logs: one for all lines of this kind that have this in common."""
    return f"{kind}-{hashlib.sha256(constant.encode()).hexdigest()[:12]}"


def _is_worth_a_line(kind: str, reason: str, message: str, container: str | None) -> bool:
    if kind == "Warning":
        told_by_recorder = container is not None and container != TREC_CONTAINER
        return not told_by_recorder and reason not in _QUIET and _BARE.fullmatch(message) is None
    return reason in _NORMAL or (reason == "Pulled" and message.startswith(_PULLED))


def _about(event: Object) -> Object:
    return event.get("involvedObject") or {}


def _container(event: Object) -> str | None:
    match = _CONTAINER.fullmatch(_about(event).get("fieldPath") or "")
    return None if match is None else match[1]


def _time(event: Object) -> datetime | None:
    """When it happened first. Reporters say so to the second, but most name an event by the nanosecond."""
    exact = _parsed(event.get("eventTime"))
    if exact is not None:
        return exact
    coarse = _parsed(event.get("firstTimestamp")) or _parsed(event["metadata"].get("creationTimestamp"))
    named = _named(event["metadata"].get("name") or "")
    if coarse is None or named is None or not timedelta() <= named - coarse < timedelta(seconds=1):
        return coarse
    return named


def _named(name: str) -> datetime | None:
    """From `<Pod>.<hexadecimal nanoseconds>` (client-go, tools/record)."""
    try:
        return datetime.fromtimestamp(int(name.rpartition(".")[2], 16) / 1e9, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _parsed(time: str | None) -> datetime | None:
    """A metav1.Time or MicroTime."""
    if not time:
        return None
    try:
        parsed = datetime.fromisoformat(time)
    except ValueError:
        return None
    return parsed if parsed.tzinfo is not None else None
