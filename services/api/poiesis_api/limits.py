"""What one user may have at a time, and whether a request keeps to it. No I/O."""

from dataclasses import dataclass, replace

from cachetools import LRUCache
from kubernetes.utils.quantity import parse_quantity

from poiesis_api.config import RateLimit, TaskPodConfig, UserLimits
from poiesis_api.errors import InvalidTask, LimitReached
from poiesis_api.mounts import needs_volume
from poiesis_api.parameters import FIELD, configured
from poiesis_models.tes import TesResources, TesTaskRequest

UNLIMITED = 2**31 - 1
RETRY_SECONDS = 30.0  # tasks end after minutes or hours: nobody knows when there is room
USERS = 10_000  # whose request rate is remembered
_GB = 10**9


@dataclass(frozen=True, kw_only=True)
class Resources:
    """In GB = 10**9 bytes."""

    cpu_cores: float
    ram_gb: float
    disk_gb: float
    gpus: float = 0


NOTHING = Resources(cpu_cores=0, ram_gb=0, disk_gb=0)


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Of one owner's tasks that have not ended. `queued`: those that no Job has been made for."""

    unfinished: int
    queued: int
    cpu_cores: float
    ram_gb: float
    disk_gb: float
    gpus: float = 0


def reserved(task: TesTaskRequest, config: TaskPodConfig) -> Resources:
    """What a task asks for, or gets where it says nothing; no disk if it needs no volume."""
    asked, default = task.resources, config.executors.default_resources
    cpu = asked.cpu_cores if asked and asked.cpu_cores else _number(default.cpu)
    ram = asked.ram_gb if asked and asked.ram_gb else _number(default.memory) / _GB
    disk = asked.disk_gb if asked and asked.disk_gb else config.volume.default_size_gb
    return Resources(
        cpu_cores=cpu, ram_gb=ram, disk_gb=disk if needs_volume(task) else 0, gpus=gpus_of(asked, config)
    )


def gpus_of(resources: TesResources | None, config: TaskPodConfig) -> float:
    """Return how many GPUs each executor gets, one executor after the other."""
    asked = resources.backend_parameters or {} if resources else {}
    extended = configured(config, asked).executors.extended_resources
    return sum(_number(extended.get(name, "0")) for name in config.backend_parameters.gpu_resource)


def _number(quantity: str) -> float:
    """Of a Kubernetes quantity."""
    return float(parse_quantity(quantity))  # type: ignore[no-untyped-call]


def active_per_owner(limits: UserLimits) -> int:
    """How many tasks of one owner the submitter makes Jobs of."""
    active = limits.active
    return active.tasks if active.tasks and active.when_reached == "queue" else UNLIMITED


def hold_back(limits: UserLimits) -> bool:
    """Whether tasks may wait for others of their owner."""
    return active_per_owner(limits) < UNLIMITED


def held_back(limits: UserLimits) -> str:
    """What such a task says in its system_logs."""
    most = active_per_owner(limits)
    return f"waits until another task of its owner ends: one user may have {most} active tasks"


def refuse(limits: UserLimits) -> bool:
    """Whether there is anything to `check`."""
    return any(limit is not None for _, limit in (*_count_limits(limits), *_sum_limits(limits)))


def check(usage: Usage, wanted: Resources, limits: UserLimits) -> None:
    """Raise LimitReached, or InvalidTask for a task that could never be taken."""
    usage = replace(usage, queued=_queued(usage, limits))
    for name, most in _count_limits(limits):
        count = getattr(usage, name)
        if most is not None and count >= most:
            raise LimitReached(f"you have {count} {name} tasks, and may have {most}", RETRY_SECONDS)
    for name, limit in _sum_limits(limits):
        used, more = getattr(usage, name), getattr(wanted, name)
        if limit is None or used + more <= limit:
            continue
        if more > limit:
            field = FIELD if name == "gpus" else f"resources.{name}"
            raise InvalidTask(f"{field}: the task takes {more:g}, and one user may have {limit:g}", field)
        sentence = (
            f"your unfinished tasks take {used:g} {name}, this one {more:g}, and you may have {limit:g}"
        )
        raise LimitReached(sentence, RETRY_SECONDS)


def _count_limits(limits: UserLimits) -> tuple[tuple[str, int | None], ...]:
    """By the names in Usage. Where further active tasks are refused, none can wait, so all are counted."""
    active = limits.active
    refused_at = active.tasks if active.when_reached == "refuse" else None
    return ("unfinished", refused_at or None), ("queued", limits.queued_tasks or None)


def _queued(usage: Usage, limits: UserLimits) -> int:
    """Where further active tasks wait, only those that are more than may be active.

    Between the end of one and the Job of the next fewer are active, and a client that keeps to both limits
    must not be refused.
    """
    return (
        min(usage.queued, max(0, usage.unfinished - active_per_owner(limits)))
        if hold_back(limits)
        else usage.queued
    )


def _sum_limits(limits: UserLimits) -> tuple[tuple[str, float | None], ...]:
    """By the names in Usage and in Resources."""
    return (
        ("cpu_cores", limits.cpu_cores or None),
        ("ram_gb", limits.ram_gb or None),
        ("disk_gb", limits.disk_gb or None),
        ("gpus", limits.gpus or None),
    )


class RequestRates:
    """A bucket of `burst` tokens for each user, into which `per_second` drop; a request takes one."""

    def __init__(self, limit: RateLimit | None) -> None:
        """Without a limit, or if its `per_second` is 0 or unset, any number of requests is allowed."""
        self._per_second = (limit.per_second or 0.0) if limit else 0.0
        self._burst = limit.burst if limit else 0
        self._full_at: LRUCache[str, float] = LRUCache(USERS)  # when the bucket will be full again

    def take(self, user: str, now: float) -> None:
        """At `now`, in seconds from anywhere. Raise LimitReached, which says when there will be one."""
        if not self._per_second:
            return
        full_at = max(now, self._full_at.get(user, now)) + 1 / self._per_second
        wait = full_at - now - self._burst / self._per_second
        if wait > 0:
            sentence = f"you may send {self._per_second:g} requests a second, or {self._burst} at once"
            raise LimitReached(sentence, wait)
        self._full_at[user] = full_at
