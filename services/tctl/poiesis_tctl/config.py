"""What the environment says: the values that `__main__` reads once at the start.

| variable | default | what |
|---|---|---|
| POIESIS_DSN | required, secret | Postgres, role poiesis_api |
| POD_NAME | required | downward API; the identity in the Lease |
| POD_NAMESPACE | required | downward API; the only namespace that is watched |
| KUBECONFIG | none | one kubeconfig file; without it the Pod's own ServiceAccount |
| POIESIS_LEASE_NAME | poiesis-tctl | the Lease of leader election |
| POIESIS_LEASE_SECONDS | 15 | how long others wait for a silent leader; whole seconds |
| POIESIS_RENEW_SECONDS | 10 | a leader that cannot renew for so long stops its work; less than the lease |
| POIESIS_RETRY_SECONDS | 2 | between two tries to take or renew the Lease; less than half of renew |
| POIESIS_IMAGE_PULL_SECONDS | 60 | how long an image may fail to be pulled before the task ends |
| POIESIS_CONFIG_ERROR_SECONDS | 30 | the same for a container that cannot be made (CreateContainerError, …) |
| POIESIS_START_SECONDS | 300 | the same for a recorder that crashes before the first container could start |
| POIESIS_STALLED_SECONDS | 60 | how long a Pod may sit with all work done, or all dead, and its end untold |
| POIESIS_NO_POD_SECONDS | 60 | after which a Pod without a node is told of; between looks at a refused one |
| POIESIS_UNSCHEDULABLE_SECONDS | 0 | how long a Pod may be refused or find no node; 0 = for ever |
| POIESIS_NODE_LOST_SECONDS | 300 | how long past its grace a deleted Pod may linger before its node is lost |
| POIESIS_LEFTOVER_SECONDS | 30 | how long a Pod may outlive a task that the controller or the api has ended |
| POIESIS_RECONCILE_SECONDS | 300 | between two comparisons of all unfinished tasks with the cluster |
| POIESIS_KUEUE | false | true: Jobs go to a queue of Kueue, so its Workloads are watched, too |
| POIESIS_WORKERS | 8 | tasks looked at concurrently; also the size of the Postgres pool |
| POIESIS_HEALTH_PORT | 8080 | /healthz, /readyz and /metrics |
| POIESIS_LOG_LEVEL | INFO | DEBUG, INFO, WARNING, ERROR |
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Self, TypeVar

_Number = TypeVar("_Number", int, float)
_LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
_MAX_PORT = 65535


class ConfigError(Exception):
    """A variable is missing or malformed; the message names it."""


@dataclass(frozen=True, kw_only=True)
class LeaseTimes:
    """Seconds. `lease` is whole: the Lease object holds an integer."""

    lease: int = 15
    renew: float = 10.0
    retry: float = 2.0


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long, in seconds, something may last before the controller acts; see the table above."""

    image_pull: float = 60.0
    config_error: float = 30.0
    start: float = 300.0
    stalled: float = 60.0
    no_pod: float = 60.0
    unschedulable: float = 0.0  # 0: for ever
    node_lost: float = 300.0
    leftover: float = 30.0


@dataclass(frozen=True, kw_only=True)
class Config:
    """All that can be set."""

    dsn: str = field(repr=False)
    pod_name: str
    namespace: str
    kubeconfig: str | None = None
    lease_name: str = "poiesis-tctl"
    lease: LeaseTimes = LeaseTimes()
    limits: Limits = Limits()
    reconcile_seconds: float = 300.0
    kueue: bool = False
    workers: int = 8
    health_port: int = 8080
    log_level: str = "INFO"

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Self:
        """Raise ConfigError naming the variable."""
        return cls(
            dsn=_dsn(env, "POIESIS_DSN"),
            pod_name=_required(env, "POD_NAME"),
            namespace=_required(env, "POD_NAMESPACE"),
            kubeconfig=env.get("KUBECONFIG") or None,
            lease_name=env.get("POIESIS_LEASE_NAME") or "poiesis-tctl",
            lease=_lease_times(env),
            limits=_limits(env),
            reconcile_seconds=_seconds(env, "POIESIS_RECONCILE_SECONDS", 300),
            kueue=_flag(env, "POIESIS_KUEUE"),
            workers=_whole(env, "POIESIS_WORKERS", 8),
            health_port=_port(env, "POIESIS_HEALTH_PORT", 8080),
            log_level=_log_level(env, "POIESIS_LOG_LEVEL", "INFO"),
        )


def _lease_times(env: Mapping[str, str]) -> LeaseTimes:
    times = LeaseTimes(
        lease=_whole(env, "POIESIS_LEASE_SECONDS", 15),
        renew=_seconds(env, "POIESIS_RENEW_SECONDS", 10),
        retry=_seconds(env, "POIESIS_RETRY_SECONDS", 2),
    )
    if not times.renew < times.lease:
        raise ConfigError("POIESIS_RENEW_SECONDS must be less than POIESIS_LEASE_SECONDS")
    if not times.retry * 2 < times.renew:
        raise ConfigError("POIESIS_RETRY_SECONDS must be less than half of POIESIS_RENEW_SECONDS")
    return times


def _limits(env: Mapping[str, str]) -> Limits:
    return Limits(
        image_pull=_seconds(env, "POIESIS_IMAGE_PULL_SECONDS", 60),
        config_error=_seconds(env, "POIESIS_CONFIG_ERROR_SECONDS", 30),
        start=_seconds(env, "POIESIS_START_SECONDS", 300),
        stalled=_seconds(env, "POIESIS_STALLED_SECONDS", 60),
        no_pod=_seconds(env, "POIESIS_NO_POD_SECONDS", 60),
        unschedulable=_seconds_or_never(env, "POIESIS_UNSCHEDULABLE_SECONDS"),
        node_lost=_seconds(env, "POIESIS_NODE_LOST_SECONDS", 300),
        leftover=_seconds(env, "POIESIS_LEFTOVER_SECONDS", 30),
    )


def _required(env: Mapping[str, str], name: str) -> str:
    value = env.get(name)
    if not value:
        raise ConfigError(f"{name} is not set")
    return value


def _dsn(env: Mapping[str, str], name: str) -> str:
    dsn = _required(env, name)
    if not dsn.startswith(("postgres://", "postgresql://")):
        raise ConfigError(f"{name} must begin with postgresql://")  # without the value: it is a secret
    return dsn


def _seconds(env: Mapping[str, str], name: str, default: float) -> float:
    return _positive(env, name, default, float, "a positive number of seconds")


def _seconds_or_never(env: Mapping[str, str], name: str) -> float:
    """0, also by default, for never."""
    text = env.get(name)
    try:
        if not text or float(text) == 0:
            return 0.0
    except ValueError as error:
        raise ConfigError(f"{name} must be a number of seconds or 0, not {text!r}") from error
    return _seconds(env, name, 0.0)


def _whole(env: Mapping[str, str], name: str, default: int) -> int:
    return _positive(env, name, default, int, "a positive whole number")


def _positive(
    env: Mapping[str, str], name: str, default: _Number, parse: Callable[[str], _Number], what: str
) -> _Number:
    text = env.get(name)
    if not text:
        return default
    try:
        value = parse(text)
    except ValueError as error:
        raise ConfigError(f"{name} must be {what}, not {text!r}") from error
    if not (isfinite(value) and value > 0):
        raise ConfigError(f"{name} must be {what}, not {text!r}")
    return value


def _flag(env: Mapping[str, str], name: str) -> bool:
    """False by default."""
    text = env.get(name) or "false"
    if text not in {"true", "false"}:
        raise ConfigError(f"{name} must be true or false, not {text!r}")
    return text == "true"


def _port(env: Mapping[str, str], name: str, default: int) -> int:
    port = _whole(env, name, default)
    if port > _MAX_PORT:
        raise ConfigError(f"{name} must be a port, not {port}")
    return port


def _log_level(env: Mapping[str, str], name: str, default: str) -> str:
    level = (env.get(name) or default).upper()
    if level not in _LOG_LEVELS:
        raise ConfigError(f"{name} must be one of {', '.join(_LOG_LEVELS)}, not {level!r}")
    return level
