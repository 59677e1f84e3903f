"""The limits of one user, and whether a request respects them. No I/O."""

from dataclasses import dataclass, replace

from kubernetes.utils.quantity import parse_quantity

from poiesis_api.config import RateLimit, TaskPodConfig, UserLimits
from poiesis_api.errors import InvalidTask, LimitReached, Loggable
from poiesis_api.mounts import needs_volume
from poiesis_api.parameters import FIELD, with_parameters
from poiesis_models.rates import TokenBuckets
from poiesis_models.tes import TesResources, TesTaskRequest

UNLIMITED = 2**31 - 1
RETRY_SECONDS = 30.0  # tasks take minutes to hours: when the next one ends is unknown
USERS = 10_000  # most users whose request rate is remembered
_GB = 10**9


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Quantities of a task; sizes in GB = 10**9 bytes."""

    cpu_cores: float
    ram_gb: float
    disk_gb: float
    gpus: float = 0


NO_RESOURCES = Resources(cpu_cores=0, ram_gb=0, disk_gb=0)


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Sums over one owner's unfinished tasks. `queued`: those that have no Job yet."""

    unfinished: int
    queued: int
    cpu_cores: float
    ram_gb: float
    disk_gb: float
    gpus: float = 0


def reserved_resources(task: TesTaskRequest, config: TaskPodConfig) -> Resources:
    """Return the resources that a task requests, or else the defaults; no disk if it needs no volume."""
    asked, default = task.resources, config.executors.default_resources
    cpu = asked.cpu_cores if asked and asked.cpu_cores else _number(default.cpu)
    ram = asked.ram_gb if asked and asked.ram_gb else _number(default.memory) / _GB
    disk = asked.disk_gb if asked and asked.disk_gb else config.volume.default_size_gb
    return Resources(
        cpu_cores=cpu, ram_gb=ram, disk_gb=disk if needs_volume(task) else 0, gpus=gpus_of(asked, config)
    )


def gpus_of(resources: TesResources | None, config: TaskPodConfig) -> float:
    """Return how many GPUs each executor gets; executors run one after the other."""
    asked = resources.backend_parameters or {} if resources else {}
    extended = with_parameters(config, asked).executors.extended_resources
    kinds = {kind.value for kind in config.backend_parameters.gpu_resource}
    return sum(_number(extended.get(name, "0")) for name in kinds)


def _number(quantity: str) -> float:
    """Parse a Kubernetes quantity."""
    return float(parse_quantity(quantity))  # type: ignore[no-untyped-call]


def active_per_owner(limits: UserLimits) -> int:
    """Return how many tasks of one owner may have Jobs at a time."""
    active = limits.active
    return active.tasks if active.tasks and active.when_reached == "queue" else UNLIMITED


def queues_excess(limits: UserLimits) -> bool:
    """Return whether tasks over the limit of active tasks wait in the queue."""
    return active_per_owner(limits) < UNLIMITED


def queued_note(limits: UserLimits) -> str:
    """Return the line in the system_logs of a task that waits for its owner's other tasks."""
    most = active_per_owner(limits)
    return f"waiting: the owner already has {most} active tasks (the per-user limit)"


def has_limits(limits: UserLimits) -> bool:
    """Return whether there is a limit for `check_limits`."""
    return any(limit is not None for _, limit in (*_count_limits(limits), *_sum_limits(limits)))


def check_limits(usage: Usage, wanted: Resources, limits: UserLimits) -> None:
    """Raise LimitReached, or InvalidTask for a task that alone exceeds a limit."""
    usage = replace(usage, queued=_queued(usage, limits))
    for name, most in _count_limits(limits):
        count = getattr(usage, name)
        if most is not None and count >= most:
            raise LimitReached(
                "limit reached: {count} of {limit} {name} tasks",
                RETRY_SECONDS,
                limit=most,
                count=count,
                name=Loggable(name),
            )
    for name, limit in _sum_limits(limits):
        used, more = getattr(usage, name), getattr(wanted, name)
        if limit is None or used + more <= limit:
            continue
        if more > limit:
            field = FIELD if name == "gpus" else f"resources.{name}"
            raise InvalidTask(
                "{field} must be at most {limit:g} (the per-user limit), got {more:g}",
                field,
                limit=limit,
                more=more,
            )
        raise LimitReached(
            "limit reached: your unfinished tasks use {used:g} of {limit:g} {name}; this task needs {more:g}",
            RETRY_SECONDS,
            limit=limit,
            used=used,
            name=Loggable(name),
            more=more,
        )


def _count_limits(limits: UserLimits) -> tuple[tuple[str, int | None], ...]:
    """Return the limits by their names in Usage. If excess tasks are rejected, all unfinished ones count."""
    active = limits.active
    refused_at = active.tasks if active.when_reached == "refuse" else None
    return ("unfinished", refused_at or None), ("queued", limits.queued_tasks or None)


def _queued(usage: Usage, limits: UserLimits) -> int:
    """Return how many queued tasks count: if excess tasks wait, only those over the limit of active ones.

    Between the end of one task and the Job of the next, fewer are active; a client that respects both limits
    must not be rejected then.
    """
    return (
        min(usage.queued, max(0, usage.unfinished - active_per_owner(limits)))
        if queues_excess(limits)
        else usage.queued
    )


def _sum_limits(limits: UserLimits) -> tuple[tuple[str, float | None], ...]:
    """Return the limits by their names in Usage and Resources."""
    return (
        ("cpu_cores", limits.cpu_cores or None),
        ("ram_gb", limits.ram_gb or None),
        ("disk_gb", limits.disk_gb or None),
        ("gpus", limits.gpus or None),
    )


class RequestRates:
    """A token bucket per user: `burst` tokens at most, refilled at `per_second`; a request takes one."""

    def __init__(self, limit: RateLimit | None) -> None:
        """Without a limit, or if its `per_second` is 0 or unset, any number of requests is allowed."""
        self._per_second = (limit.per_second or 0.0) if limit else 0.0
        self._burst = limit.burst if limit else 0
        self._buckets = TokenBuckets(per_second=self._per_second, burst=self._burst, keys=USERS)

    def take(self, user: str, now: float) -> None:
        """Take a token at `now` (seconds, any origin). Raise LimitReached with the time until one is free."""
        if not self._per_second:
            return
        wait = self._buckets.take(user, now)
        if wait > 0:
            raise LimitReached(
                "rate limit reached: {limit:g} requests per second, {burst} in a burst",
                wait,
                limit=self._per_second,
                burst=self._burst,
            )
