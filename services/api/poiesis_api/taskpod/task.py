"""The task to make objects for."""

from dataclasses import dataclass, field
from uuid import UUID

from poiesis_models.tes import TesTaskRequest


@dataclass(frozen=True, kw_only=True)
class Task:
    """A stored task that is about to become a Pod.

    `credentials`: names of the S3 credentials that the task may use. `gateway_ca`: PEM certificates that the
    recorder verifies the gateway with; not used with `recorder.transport` postgres.
    """

    id: UUID
    request: TesTaskRequest
    recorder_token: str = field(repr=False)
    credentials: frozenset[str] = frozenset()
    gateway_ca: str = field(default="", repr=False)
