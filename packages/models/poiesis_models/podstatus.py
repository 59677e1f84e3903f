"""Read a Pod's JSON (core/v1, as the API server sends it). Pure; standard library only."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from poiesis_models.runfiles import ExitRecord, MalformedFile


@dataclass(frozen=True, kw_only=True)
class ContainerEnd:
    """A terminated container. `record`: the helper's record in the termination message, if there is one.

    Times are Unix time in ns, exact to the second; 0 is unknown.
    """

    name: str
    exit_code: int
    reason: str
    message: str
    record: ExitRecord | None
    started_ns: int = 0
    finished_ns: int = 0


@dataclass(frozen=True, kw_only=True)
class ContainerWait:
    """A container that waits to start, with the kubelet's reason (ImagePullBackOff, …)."""

    name: str
    reason: str
    message: str


def container_statuses(pod: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the statuses of init containers, then of the others."""
    status = pod.get("status") or {}
    yield from status.get("initContainerStatuses") or ()
    yield from status.get("containerStatuses") or ()


def container_ends(pod: Mapping[str, Any]) -> dict[str, ContainerEnd]:
    """Return the terminated containers by name."""
    ends = {}
    for status in container_statuses(pod):
        terminated = (status.get("state") or {}).get("terminated")
        if terminated:
            ends[status["name"]] = ContainerEnd(
                name=status["name"],
                exit_code=int(terminated.get("exitCode", 255)),
                reason=terminated.get("reason") or "",
                message=terminated.get("message") or "",
                record=_exit_record(terminated.get("message") or ""),
                started_ns=_time_ns(terminated.get("startedAt")),
                finished_ns=_time_ns(terminated.get("finishedAt")),
            )
    return ends


def container_waits(pod: Mapping[str, Any]) -> dict[str, ContainerWait]:
    """Return the containers that cannot start, by name, without those that wait for earlier containers."""
    waits = {}
    for status in container_statuses(pod):
        waiting = (status.get("state") or {}).get("waiting")
        if waiting and waiting.get("reason") not in (None, "", "PodInitializing", "ContainerCreating"):
            waits[status["name"]] = ContainerWait(
                name=status["name"], reason=waiting["reason"], message=waiting.get("message") or ""
            )
    return waits


def running_containers(pod: Mapping[str, Any]) -> frozenset[str]:
    """Return the names of running containers, by the last status of the kubelet."""
    return frozenset(
        status["name"]
        for status in container_statuses(pod)
        if (status.get("state") or {}).get("running") is not None
    )


def _exit_record(message: str) -> ExitRecord | None:
    try:
        return ExitRecord.parse(message.encode())
    except MalformedFile:
        return None


def _time_ns(text: str | None) -> int:
    """Of a metav1.Time."""
    return int(datetime.fromisoformat(text).timestamp()) * 10**9 if text else 0
