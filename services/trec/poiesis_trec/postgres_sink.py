"""Send reports to Postgres itself, for sites without a gateway.

Thousands of recorders share a few connections, so a connection is opened to write and closed soon after. It
may go through PgBouncer in transaction mode, so no prepared statement outlives a transaction.
"""

import asyncio
import logging
import time
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg

from poiesis_models.report import Report, ReportResponse
from poiesis_models.states import TesState
from poiesis_trec.sink import ReportRefused, ReportUnavailable

logger = logging.getLogger(__name__)

# The enum as text: asyncpg would look up an unknown type with another statement.
_RECORD = "SELECT state::text, cancel_requested, ended FROM record_report($1, $2, $3)"

_CONNECT_SECONDS = 5.0
_COMMAND_SECONDS = 15.0
_CLOSE_SECONDS = 1.0
_HOLD_SECONDS = 5.0  # then recorders that were rejected get a turn
# Classes of SQLSTATE that a retry does not change: data, constraints, rights, passwords, syntax.
_PERMANENT = frozenset({"21", "22", "23", "28", "42", "P0"})


class PostgresSink:
    """A ReportSink for Postgres."""

    def __init__(self, dsn_file: Path, task_id: UUID, token_file: Path) -> None:
        self._dsn_file, self._task_id, self._token_file = dsn_file, task_id, token_file
        self._token = ""
        self._connection: Any = None
        self._opened_at = float("-inf")

    @property
    def must_be_closed(self) -> bool:
        """Return whether the connection has been open long enough to give it to another recorder."""
        return self.is_open and time.monotonic() - self._opened_at >= _HOLD_SECONDS

    @property
    def is_open(self) -> bool:
        """Return whether the connection is open."""
        return self._connection is not None

    async def record(self, report: Report) -> ReportResponse:
        """Apply a report; applying it again has no effect. Raise ReportUnavailable or ReportRefused."""
        try:
            row = await self._call(report)
        except asyncpg.PostgresError as error:
            await self.close()
            reason = f"{error.sqlstate} {error.args[0] if error.args else ''}"
            if (error.sqlstate or "")[:2] in _PERMANENT:
                raise ReportRefused(reason) from error
            raise ReportUnavailable(reason) from error
        except OSError as error:  # before ValueError: an invalid certificate is both, and may be renewed
            await self.close()
            raise ReportUnavailable(f"{type(error).__name__}: {error}") from error
        except (ValueError, LookupError) as error:  # its text may contain parts of the DSN
            await self.close()
            raise ReportRefused(f"invalid DSN or report ({type(error).__name__})") from None
        except (asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
            await self.close()
            raise ReportUnavailable(f"{type(error).__name__}: {error}") from error
        except asyncio.CancelledError:
            self._drop()
            raise
        return ReportResponse(state=TesState(row[0]), cancel_requested=row[1], ended=row[2])

    async def close(self) -> None:
        """Close the connection, or terminate it if Postgres does not respond."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            await connection.close(timeout=_CLOSE_SECONDS)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            logger.debug("closing the connection failed: %s", error)
            connection.terminate()

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def _call(self, report: Report) -> Any:
        if self._connection is None or self._connection.is_closed():
            self._token = self._token_file.read_text(encoding="ascii", errors="replace").strip()
            self._connection = await asyncpg.connect(
                self._dsn_file.read_text().strip(),
                timeout=_CONNECT_SECONDS,
                command_timeout=_COMMAND_SECONDS,
                statement_cache_size=0,
                server_settings={"application_name": "poiesis-trec"},
            )
            self._opened_at = time.monotonic()
        async with self._connection.transaction():  # makes PgBouncer use one server connection
            return await self._connection.fetchrow(_RECORD, self._task_id, self._token, report.to_json())
