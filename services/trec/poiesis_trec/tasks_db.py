"""The recorder's one call to Postgres.

Thousands of recorders share a few connections: ours is opened to write, and closed by its owner soon after.
It may lead through PgBouncer in transaction mode, so nothing is prepared beyond one transaction.
"""

import asyncio
import logging
import time
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg

from poiesis_models.report import Answer, Report
from poiesis_models.states import TesState

logger = logging.getLogger(__name__)

# The enum as text: asyncpg would look an unknown type up in a statement of its own.
_RECORD = "SELECT state::text, cancel_requested, ended FROM record_report($1, $2, $3)"

_CONNECT_SECONDS = 5.0
_COMMAND_SECONDS = 15.0
_CLOSE_SECONDS = 1.0
_HOLD_SECONDS = 5.0  # then others that were refused get a turn
# Classes of SQLSTATE that the next try will not change: data, constraints, rights, passwords, syntax.
_LASTING = frozenset({"21", "22", "23", "28", "42", "P0"})


class DatabaseUnavailable(Exception):
    """Not now: connection refused or lost, too many connections, a restart, a lock. Try again."""


class ReportRefused(Exception):
    """Postgres understood and said no: a wrong token or password, data that it does not take."""


class TasksDb:
    """One connection, open while there is something to write."""

    def __init__(self, dsn_file: Path, task_id: UUID, token: str) -> None:
        self._dsn_file, self._task_id, self._token = dsn_file, task_id, token
        self._connection: Any = None
        self._opened_at = float("-inf")

    @property
    def has_had_its_turn(self) -> bool:
        """Return whether the connection has been open long enough to give it to another recorder."""
        return self.is_open and time.monotonic() - self._opened_at >= _HOLD_SECONDS

    @property
    def is_open(self) -> bool:
        """Whether close() has something to do."""
        return self._connection is not None

    async def record(self, report: Report) -> Answer:
        """Apply a report; applying it again changes nothing. Raises DatabaseUnavailable or ReportRefused."""
        try:
            row = await self._call(report)
        except asyncpg.PostgresError as error:
            await self.close()
            said = f"{error.sqlstate} {error.args[0] if error.args else ''}"
            if (error.sqlstate or "")[:2] in _LASTING:
                raise ReportRefused(said) from error
            raise DatabaseUnavailable(said) from error
        except (
            OSError
        ) as error:  # before ValueError: a certificate that cannot be verified is both, and may be renewed
            await self.close()
            raise DatabaseUnavailable(f"{type(error).__name__}: {error}") from error
        except (ValueError, LookupError) as error:  # its text may hold parts of the DSN
            await self.close()
            raise ReportRefused(f"the DSN or the report cannot be used ({type(error).__name__})") from None
        except (asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
            await self.close()
            raise DatabaseUnavailable(f"{type(error).__name__}: {error}") from error
        except asyncio.CancelledError:
            self._drop()
            raise
        return Answer(state=TesState(row[0]), cancel_requested=row[1], ended=row[2])

    async def close(self) -> None:
        """Give the connection back, at once if it does not answer."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            await connection.close(timeout=_CLOSE_SECONDS)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            logger.debug("the connection did not end well: %s", error)
            connection.terminate()

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def _call(self, report: Report) -> Any:
        if self._connection is None or self._connection.is_closed():
            self._connection = await asyncpg.connect(
                self._dsn_file.read_text().strip(),
                timeout=_CONNECT_SECONDS,
                command_timeout=_COMMAND_SECONDS,
                statement_cache_size=0,
                server_settings={"application_name": "poiesis-trec"},
            )
            self._opened_at = time.monotonic()
        async with self._connection.transaction():  # keeps PgBouncer on one server connection
            return await self._connection.fetchrow(_RECORD, self._task_id, self._token, report.to_json())
