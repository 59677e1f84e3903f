"""The configuration, from the environment and the recorder's volume. Nothing else reads the environment."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from uuid import UUID

from poiesis_models import paths
from poiesis_models.plan import MalformedPlan, PodPlan

_HTTPS = re.compile(
    r"https://(?:(?P<name>[A-Za-z0-9.-]{1,253})|\[(?P<address>[0-9A-Fa-f:.]{2,45})\]):(?P<port>[0-9]{1,5})/?"
)
_PORTS = 65535
_POSTGRES_IDLE_SECONDS = 1.2  # Postgres has few connections
_GATEWAY_IDLE_SECONDS = (
    6.0  # longer than the longest interval of reports, because TLS costs more than a connection
)


class ConfigError(ValueError):
    """The recorder cannot start. The message names the variable or file and contains no secret."""


@dataclass(frozen=True, kw_only=True)
class PodRef:
    """The Pod that contains this recorder."""

    name: str
    uid: str
    namespace: str
    node: str


@dataclass(frozen=True, kw_only=True)
class KubernetesApi:
    """The API server. The token rotates, so both files are read for each connection."""

    host: str
    port: int
    token_file: Path
    ca_file: Path


@dataclass(frozen=True, kw_only=True)
class Gateway:
    """The gateway. Its certificate may be renewed, so `ca_file` is read for each connection."""

    host: str
    port: int
    ca_file: Path


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of one recorder. Tokens and passwords may change: their files are read for each connection.

    Without `gateway`, reports go to Postgres with the DSN in `dsn_file`. Without `kubernetes` (by the plan,
    or outside a cluster), the Pod is not watched.
    """

    task_id: UUID
    plan: PodPlan
    pod: PodRef
    token_file: Path
    gateway: Gateway | None = None
    dsn_file: Path
    runs: Path
    ack_file: Path
    rescue_file: Path
    kubernetes: KubernetesApi | None = None
    install: tuple[str, ...] = ()  # the postStart hook's command
    log_bytes: int = 64 * 1024  # kept per stream and executor
    grace_seconds: float = 30
    log_interval_seconds: float = 1.0  # between two reports of one stream in its first minute; grows to 5 s
    rescan_seconds: float = 3.0  # the directories are read again even without inotify events
    idle_seconds: float = _POSTGRES_IDLE_SECONDS  # an idle connection is closed after this time

    @classmethod
    def from_env(cls, env: Mapping[str, str], *, root: Path = Path("/")) -> Self:
        """Read the configuration; `root` is a prefix of the fixed paths, for tests. Raise ConfigError."""
        gateway = _gateway(env, root)
        dsn_file = _below(root, paths.RECORDER_DSN)
        plan = _plan(env, "POIESIS_PLAN")
        return cls(
            task_id=_uuid(env, "POIESIS_TASK_ID"),
            plan=plan,
            pod=PodRef(
                name=_text(env, "POD_NAME"),
                uid=_text(env, "POD_UID"),
                namespace=_text(env, "POD_NAMESPACE"),
                node=_text(env, "NODE_NAME"),
            ),
            token_file=_existing(_below(root, paths.RECORDER_TOKEN)),
            gateway=gateway,
            dsn_file=dsn_file if gateway is not None else _existing(dsn_file),
            runs=_below(root, paths.RUNS),
            ack_file=_below(root, paths.ACK_FILE),
            rescue_file=_below(root, paths.RESCUE_FILE),
            kubernetes=None if plan.files_only else _kubernetes(env, root),
            install=_command(env, "POIESIS_INSTALL"),
            log_bytes=_number(env, "POIESIS_LOG_BYTES", 64 * 1024, 0, 2**26),
            grace_seconds=_number(env, "POIESIS_GRACE_SECONDS", 30, 1, 2**31),
            idle_seconds=_POSTGRES_IDLE_SECONDS if gateway is None else _GATEWAY_IDLE_SECONDS,
        )


def _gateway(env: Mapping[str, str], root: Path) -> Gateway | None:
    url = env.get("POIESIS_GATEWAY_URL")
    if not url:
        return None
    found = _HTTPS.fullmatch(url)
    if found is None or not 1 <= int(found["port"]) <= _PORTS:
        raise ConfigError(f"POIESIS_GATEWAY_URL must be https://host:port, got {url!r}")
    ca_file = _existing(_below(root, paths.GATEWAY_CA))
    return Gateway(host=found["name"] or found["address"], port=int(found["port"]), ca_file=ca_file)


def _kubernetes(env: Mapping[str, str], root: Path) -> KubernetesApi | None:
    if "KUBERNETES_SERVICE_HOST" not in env:
        return None
    return KubernetesApi(
        host=env["KUBERNETES_SERVICE_HOST"],
        port=_number(env, "KUBERNETES_SERVICE_PORT_HTTPS", 443, 1, _PORTS),
        token_file=_below(root, paths.KUBERNETES_TOKEN),
        ca_file=_below(root, paths.KUBERNETES_CA),
    )


def _below(root: Path, path: str) -> Path:
    return root / path.lstrip("/")


def _text(env: Mapping[str, str], name: str) -> str:
    value = env.get(name, "")
    if not value:
        raise ConfigError(f"{name} is not set")
    return value


def _uuid(env: Mapping[str, str], name: str) -> UUID:
    value = _text(env, name)
    try:
        return UUID(value)
    except ValueError as error:
        raise ConfigError(f"{name} must be a UUID, got {value!r}") from error


def _plan(env: Mapping[str, str], name: str) -> PodPlan:
    try:
        plan = PodPlan.from_json(_text(env, name))
    except MalformedPlan as error:
        raise ConfigError(f"{name}: {error}") from error
    if not plan.executors:
        raise ConfigError(f"{name} has no executors")
    if any("/" in container or container in {"", ".", ".."} for container in plan):
        raise ConfigError(f"{name} has a container name that is not a valid directory name")
    return plan


def _command(env: Mapping[str, str], name: str) -> tuple[str, ...]:
    try:
        words = json.loads(env.get(name) or "[]")
    except ValueError as error:
        raise ConfigError(f"{name} is not JSON: {error}") from error
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ConfigError(f"{name} must be a JSON list of strings")
    return tuple(words)


def _number(env: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    value = env.get(name) or str(default)
    if not value.isascii() or not value.isdigit() or not low <= int(value) <= high:
        raise ConfigError(f"{name} must be a whole number between {low} and {high}, got {value!r}")
    return int(value)


def _existing(path: Path) -> Path:
    """Return the path of a file that is not empty."""
    try:
        text = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {type(error).__name__}") from error
    if not text:
        raise ConfigError(f"{path} is empty")
    return path
