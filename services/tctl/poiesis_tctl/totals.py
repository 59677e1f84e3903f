"""Outcomes of tasks, durations of their phases, and sizes of the database, as Postgres counts them. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from poiesis_models.states import TesState

PHASES = ("queued", "initializing", "running")
# Upper bounds of the histograms, in seconds. Counts of a bound that no longer exists belong to the next one.
BUCKETS = (1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400, 43200, 86400, 259200, inf)
OTHER = "Other"
# Reasons that are a label of their own. A recorder may report any text, so all others are counted as OTHER.
REASONS = frozenset(
    {
        # executors and filers
        *("Error", "OOMKilled", "StartError", "ContainerCannotRun", "ContainerStatusUnknown"),
        *("DeadlineExceeded", "Canceled"),
        # images and containers that cannot be created (kubelet)
        *("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"),
        *("ImageInspectError", "RegistryUnavailable", "SignatureValidationFailed"),
        *("CreateContainerConfigError", "CreateContainerError", "RunContainerError"),
        *("FailedMount", "FailedAttachVolume", "FailedMapVolume", "FailedCreatePodSandBox"),
        # Pods and nodes (kubelet, scheduler, Pod conditions)
        *("Evicted", "EvictionByEvictionAPI", "PreemptionByScheduler", "DeletionByTaintManager"),
        *("DeletionByPodGC", "TerminationByKubelet", "Preempting", "NodeShutdown", "Terminated"),
        *("NodeAffinity", "NodeLost", "NodeSelector", "UnexpectedAdmissionError", "Unschedulable"),
        *("OutOfcpu", "OutOfmemory", "OutOfpods", "OutOfephemeral-storage"),
        # the controller and the api
        *(
            "BackoffLimitExceeded",
            "PodStalled",
            "PodFailed",
            "PodDeleted",
            "JobDeleted",
            "Lost",
            "FailedCreate",
        ),
        *("NoFiler", "InvalidTask", "RecorderNotASidecar", "Unreachable"),
        # the API server and Kueue
        *("Invalid", "Forbidden", "BadRequest", "NotFound", "RequestEntityTooLarge", "Deactivated"),
    }
)


class Outcome(NamedTuple):
    """A terminal state and its reason: one of REASONS, OTHER, or empty if the task has none."""

    state: TesState
    reason: str


class Bucket(NamedTuple):
    """Tasks whose phase took at most `le` seconds and longer than the next smaller bound."""

    le: float
    tasks: int
    seconds: float


class Table(NamedTuple):
    """A table with Postgres' estimate of its rows, and its size with indexes."""

    rows: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Totals:
    """One read of the counters and sizes."""

    outcomes: Mapping[Outcome, int]
    phases: Mapping[str, Sequence[Bucket]]
    tables: Mapping[str, Table]
    database_bytes: int


def cumulative(buckets: Sequence[Bucket]) -> tuple[list[tuple[float, int]], float]:
    """Return (upper bound, tasks up to it) for each of BUCKETS, and the sum of all seconds."""
    counts = [(le, sum(one.tasks for one in buckets if one.le <= le)) for le in map(float, BUCKETS)]
    return counts, sum(one.seconds for one in buckets)
