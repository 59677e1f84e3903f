"""The settings of the controller, from environment variables that are read once at the start."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_settings import NoDecode

from poiesis_models.states import TERMINAL_STATES, TesState
from poiesis_server.settings import Count, LogLevel, Port, PostgresUrl, Seconds, SecondsOrNever, Settings


def _names(value: object) -> object:
    """Return the distinct names of a list that is separated by commas."""
    if not isinstance(value, str):
        return value
    return tuple(dict.fromkeys(name for part in value.split(",") if (name := part.strip())))


def _days_by_state(value: object) -> object:
    """Return the pairs of `COMPLETE=30,CANCELED=7` as a mapping."""
    if not isinstance(value, str):
        return value
    try:
        pairs = [pair.split("=") for pair in value.split(",") if pair.strip()]
        days = {TesState(state.strip()): _hour_or_never(float(number)) for state, number in pairs}
    except ValueError:
        days = {}
    if not days or not days.keys() <= TERMINAL_STATES:
        states = ", ".join(sorted(TERMINAL_STATES))
        raise ValueError(f"must be pairs STATE=DAYS, with 0 or at least 0.042 days, for {states}")
    return days


def _hour_or_never(days: float) -> float:
    if not (days == 0 or days >= 1 / 24):
        raise ValueError("must be 0 or at least 0.042 (an hour)")
    return days


class LeaseTimes(Settings):
    """Times of leader election, in seconds."""

    lease: Count = Field(
        15,
        alias="POIESIS_LEASE_SECONDS",
        description="how long other replicas wait for a leader that does not renew; a whole number",
    )
    renew: Seconds = Field(
        10.0,
        alias="POIESIS_RENEW_SECONDS",
        description="a leader that cannot renew for this long stops its work; less than the lease",
    )
    retry: Seconds = Field(
        2.0,
        alias="POIESIS_RETRY_SECONDS",
        description="between two attempts to take or renew the Lease; less than half of renew",
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.renew < self.lease:
            raise ValueError(
                "POIESIS_RENEW_SECONDS must be less than POIESIS_LEASE_SECONDS "
                f"({self.lease}), got {self.renew:g}"
            )
        if not self.retry * 2 < self.renew:
            raise ValueError(
                "POIESIS_RETRY_SECONDS must be less than half of POIESIS_RENEW_SECONDS "
                f"({self.renew:g}), got {self.retry:g}"
            )
        return self


class Limits(Settings):
    """How long something may last before the controller acts, in seconds."""

    image_pull: Seconds = Field(
        60.0,
        alias="POIESIS_IMAGE_PULL_SECONDS",
        description="how long an image pull may fail before the task ends",
    )
    config_error: Seconds = Field(
        30.0,
        alias="POIESIS_CONFIG_ERROR_SECONDS",
        description="the same for a container that cannot be created (CreateContainerError, …)",
    )
    start: Seconds = Field(
        300.0,
        alias="POIESIS_START_SECONDS",
        description="the same for a recorder that crashes before the first container could start",
    )
    stalled: Seconds = Field(
        60.0,
        alias="POIESIS_STALLED_SECONDS",
        description="how long a Pod with finished work, or with dead containers only, may have no outcome",
    )
    no_pod: Seconds = Field(
        60.0,
        alias="POIESIS_NO_POD_SECONDS",
        description="until system_logs mention a Pod without a node; between two checks of a rejected Pod",
    )
    unschedulable: SecondsOrNever = Field(
        0.0,
        alias="POIESIS_UNSCHEDULABLE_SECONDS",
        description="how long a Pod may be rejected or find no node before the task ends; 0: indefinitely",
    )
    node_lost: Seconds = Field(
        300.0,
        alias="POIESIS_NODE_LOST_SECONDS",
        description="how long a deleted Pod may exceed its grace period before its node counts as lost",
    )
    leftover: Seconds = Field(
        30.0,
        alias="POIESIS_LEFTOVER_SECONDS",
        description="how long a Pod may outlive a task that the controller or the api has ended",
    )


# A recorder may report until 15 minutes after the end; SQL deletes nothing before an hour has passed.
Days = Annotated[float, Field(allow_inf_nan=False), AfterValidator(_hour_or_never)]
DaysByState = Annotated[Mapping[TesState, Days], NoDecode, BeforeValidator(_days_by_state)]


class Retention(Settings):
    """When ended tasks are deleted, and where they are archived before."""

    days: Days = Field(
        90.0, alias="POIESIS_RETENTION_DAYS", description="age at which ended tasks are deleted; 0: never"
    )
    days_by_state: DaysByState = Field(
        {},
        alias="POIESIS_RETENTION_DAYS_BY_STATE",
        description="other ages of some states: COMPLETE=30,CANCELED=7",
    )
    log_days: Days = Field(
        0.0,
        alias="POIESIS_RETENTION_LOG_DAYS",
        description="age at which stdout and stderr are deleted; 0: with their task",
    )
    archive: str | None = Field(
        None,
        alias="POIESIS_RETENTION_ARCHIVE",
        description="s3://bucket/prefix for what is deleted; AWS_* and POIESIS_S3_* configure the store",
    )

    def age(self, state: TesState) -> timedelta | None:
        """Return the age at which tasks with this state are deleted; None: never."""
        return _age(self.days_by_state.get(state, self.days))

    @property
    def log_age(self) -> timedelta | None:
        """Return the age at which stdout and stderr are deleted; None: with their task."""
        return _age(self.log_days)


def _age(days: float) -> timedelta | None:
    return timedelta(days=days) if days else None


class Config(Settings):
    """All settings."""

    dsn: PostgresUrl = Field(alias="POIESIS_DSN", description="Postgres as the role poiesis_api; secret")
    pod_name: str = Field(alias="POD_NAME", description="from the downward API; the identity in the Lease")
    namespace: str = Field(
        alias="POD_NAMESPACE",
        description="from the downward API; has the Lease, and the tasks that are stored without a namespace",
    )
    tasks_namespaces: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_names)] = Field(
        (),
        alias="POIESIS_TASKS_NAMESPACES",
        description="namespaces of the tasks, separated by commas; default: POD_NAMESPACE",
    )
    kubeconfig: str | None = Field(
        None, alias="KUBECONFIG", description="one kubeconfig file; default: the Pod's own ServiceAccount"
    )
    lease_name: str = Field(
        "poiesis-tctl", alias="POIESIS_LEASE_NAME", description="name of the Lease for leader election"
    )
    lease: LeaseTimes = Field(default_factory=LeaseTimes)
    limits: Limits = Field(default_factory=Limits)
    retention: Retention = Field(default_factory=Retention)
    reconcile_seconds: Seconds = Field(
        300.0,
        alias="POIESIS_RECONCILE_SECONDS",
        description="between two comparisons of all unfinished tasks with the cluster",
    )
    kueue: bool = Field(
        False,
        alias="POIESIS_KUEUE",
        description="true: Jobs go to a queue of Kueue, so its Workloads are watched as well",
    )
    workers: Count = Field(
        8,
        alias="POIESIS_WORKERS",
        description="tasks that are processed concurrently, each with one connection to Postgres",
    )
    health_port: Port = Field(
        8080, alias="POIESIS_HEALTH_PORT", description="serves /healthz, /readyz and /metrics"
    )
    log_level: LogLevel = Field(
        "INFO", alias="POIESIS_LOG_LEVEL", description="DEBUG, INFO, WARNING or ERROR"
    )

    @property
    def watched_namespaces(self) -> tuple[str, ...]:
        """Return the namespaces of the tasks."""
        return self.tasks_namespaces or (self.namespace,)
