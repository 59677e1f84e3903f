"""Where reports go: the gateway, or Postgres itself. Both call the SQL function `record_report`."""

from typing import Protocol

from poiesis_models.report import Report, ReportResponse
from poiesis_trec.config import Config


class ReportUnavailable(Exception):
    """A retryable failure: not connected, overloaded, restarting. The report may have been applied or not.

    `retry_after`: seconds that the other side asked to wait, None if it did not.
    """

    def __init__(self, reason: str, *, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class ReportRefused(Exception):
    """A permanent failure: an invalid token or password, a report that is not accepted."""


class ReportSink(Protocol):
    """One connection, open while there are reports to send."""

    @property
    def is_open(self) -> bool:
        """Return whether the connection is open."""

    @property
    def must_be_closed(self) -> bool:
        """Return whether the connection should be given to another recorder."""

    async def record(self, report: Report) -> ReportResponse:
        """Apply a report; applying it again has no effect. Raise ReportUnavailable or ReportRefused."""

    async def close(self) -> None:
        """Close the connection."""


def report_sink(config: Config) -> ReportSink:
    """Return the sink of the configured transport. Only its modules are imported: asyncpg costs memory."""
    if config.gateway is not None:
        from poiesis_trec.gateway_sink import GatewaySink

        return GatewaySink(config.gateway, config.task_id, config.token_file)
    from poiesis_trec.postgres_sink import PostgresSink

    return PostgresSink(config.dsn_file, config.task_id, config.token_file)
