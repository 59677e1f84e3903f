"""The settings of the gateway, from environment variables that are read once at the start."""

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from poiesis_server.settings import Count, LogLevel, Port, Seconds, Settings


class Config(Settings):
    """All settings."""

    dsn_file: Path = Field(
        alias="POIESIS_GATEWAY_DSN_FILE",
        description="file with the URL of Postgres as poiesis_recorder; read for each new connection",
    )
    certificate_file: Path = Field(
        alias="POIESIS_GATEWAY_CERTIFICATE_FILE",
        description="PEM file with the server's certificate and intermediate ones; reloaded when it changes",
    )
    key_file: Path = Field(
        alias="POIESIS_GATEWAY_KEY_FILE", description="PEM file with its private key; reloaded as well"
    )
    port: Port = Field(8443, alias="POIESIS_GATEWAY_PORT", description="serves reports over HTTPS")
    health_port: Port = Field(
        8081,
        alias="POIESIS_GATEWAY_HEALTH_PORT",
        description="serves /healthz, /readyz and /metrics over plain HTTP",
    )
    database_connections: Count = Field(
        8,
        alias="POIESIS_GATEWAY_DATABASE_CONNECTIONS",
        description="size of the Postgres pool; also the reports that are applied concurrently",
    )
    database_seconds: Seconds = Field(
        10.0,
        alias="POIESIS_GATEWAY_DATABASE_SECONDS",
        description="limit for connecting to Postgres, and for one statement",
    )
    waiting: Count = Field(
        256,
        alias="POIESIS_GATEWAY_WAITING",
        description="reports that may wait for a database connection; further ones get status 503",
    )
    waiting_seconds: Seconds = Field(
        5.0, alias="POIESIS_GATEWAY_WAITING_SECONDS", description="how long one of these waits at most"
    )
    body_bytes: Count = Field(
        4 * 1024 * 1024, alias="POIESIS_GATEWAY_BODY_BYTES", description="limit of one report"
    )
    incoming_bytes: Count | None = Field(
        None,
        alias="POIESIS_GATEWAY_INCOMING_BYTES",
        description="limit of all reports in progress together, then status 503; default: 8 times BODY_BYTES",
    )
    body_seconds: Seconds = Field(
        30.0, alias="POIESIS_GATEWAY_BODY_SECONDS", description="limit for receiving one report"
    )
    head_seconds: Seconds = Field(
        10.0,
        alias="POIESIS_GATEWAY_HEAD_SECONDS",
        description="limit for the TLS handshake and the head of the first request",
    )
    idle_seconds: Seconds = Field(
        30.0,
        alias="POIESIS_GATEWAY_IDLE_SECONDS",
        description="how long a connection may be idle after a request",
    )
    connections: Count = Field(
        2000, alias="POIESIS_GATEWAY_CONNECTIONS", description="limit of open connections"
    )
    connections_per_address: Count = Field(
        32,
        alias="POIESIS_GATEWAY_CONNECTIONS_PER_ADDRESS",
        description="the same for one client address, which is one Pod; a new one replaces an idle one",
    )
    reports_per_second: Seconds = Field(
        2.0,
        alias="POIESIS_GATEWAY_REPORTS_PER_SECOND",
        description="limit of the reports of one task, in the long run",
    )
    reports_burst: Count = Field(
        20, alias="POIESIS_GATEWAY_REPORTS_BURST", description="reports of one task that may exceed this rate"
    )
    attempts_per_second: Seconds = Field(
        0.5,
        alias="POIESIS_GATEWAY_ATTEMPTS_PER_SECOND",
        description="limit of the requests of one address with an invalid token, in the long run",
    )
    attempts_burst: Count = Field(
        20,
        alias="POIESIS_GATEWAY_ATTEMPTS_BURST",
        description="such requests of one address that may exceed this rate",
    )
    drain_seconds: Seconds = Field(
        5.0,
        alias="POIESIS_GATEWAY_DRAIN_SECONDS",
        description="how long connections are still accepted after SIGTERM",
    )
    log_level: LogLevel = Field(
        "INFO", alias="POIESIS_GATEWAY_LOG_LEVEL", description="DEBUG, INFO, WARNING or ERROR"
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.incoming_bytes is not None and self.incoming_bytes < self.body_bytes:
            raise ValueError(
                "POIESIS_GATEWAY_INCOMING_BYTES must be at least POIESIS_GATEWAY_BODY_BYTES "
                f"({self.body_bytes}), got {self.incoming_bytes}"
            )
        return self
