"""The task to make objects for."""

from dataclasses import dataclass, field
from uuid import UUID

from poiesis_models.tes import TesTaskRequest


@dataclass(frozen=True, kw_only=True)
class RecorderPostgres:
    """The recorder's DSN, and the PEM certificates of the authority of Postgres' certificate, if private."""

    dsn: str = field(repr=False)
    ca: str | None = None


NO_POSTGRES = RecorderPostgres(dsn="")


@dataclass(frozen=True, kw_only=True)
class Task:
    """A stored task that is about to become a Pod.

    `nonce`: random, new for each Job (`poiesis_models.labels.NONCE_LABEL`). `credentials`: names of the S3
    credentials that the task may use. `gateway_ca`: PEM certificates that the recorder verifies the gateway
    with; not used with `recorder.transport` postgres. `postgres`: not used with gateway.
    """

    id: UUID
    request: TesTaskRequest
    nonce: str
    recorder_token: str = field(repr=False)
    credentials: frozenset[str] = frozenset()
    gateway_ca: str = field(default="", repr=False)
    postgres: RecorderPostgres = NO_POSTGRES
