"""The gateway's statements in Postgres, and the one place where a driver's exception gets a meaning.

PgBouncer in transaction mode may be in between: settings hold for one transaction, and no prepared statement
outlives it.
"""

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg

from poiesis_gateway.errors import DatabaseUnavailable, MalformedReport
from poiesis_gateway.metrics import DATABASE
from poiesis_models.outages import Outage, outage
from poiesis_models.report import ReportResponse
from poiesis_models.states import TesState
from poiesis_server.settings import check_postgres_url

logger = logging.getLogger(__name__)

Pool = Any  # asyncpg.Pool

_ACCESS = "SELECT state, cancel_requested, ended, closed FROM recorder_access($1, $2, NULL)"
# The bytes are decoded by Postgres, which spares a copy of the text.
_REPORT = """
SELECT state, cancel_requested, ended, closed
  FROM gateway_report($1, $2, convert_from($3::bytea, 'UTF8')::jsonb)
"""
_SETTINGS = """
SET LOCAL statement_timeout = {statement_ms};
SET LOCAL lock_timeout = {lock_ms};
SET LOCAL idle_in_transaction_session_timeout = {idle_ms};
SET LOCAL jit = off;
"""
_QUOTED_CHARACTERS = 200  # of an error message, which may quote the report
_MARGIN_SECONDS = 2.0  # the client waits longer, so that Postgres decides what is rolled back
_BROKEN = (  # errors of one connection, not of Postgres as a whole
    ConnectionError,
    asyncpg.PostgresConnectionError,
    asyncpg.InternalClientError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
)
# Classes of SQLSTATE that are a fault of the report: cardinality, data, constraints, complexity, a trigger's.
_OF_THE_REPORT = frozenset({"21", "22", "23", "54", "P0"})


@dataclass(frozen=True, kw_only=True)
class Result:
    """The task after a report. `closed`: its reports are refused, and nothing was written."""

    response: ReportResponse
    closed: bool


@asynccontextmanager
async def connect(dsn_file: Path, *, connections: int, seconds: float) -> AsyncIterator["ReportsDb"]:
    """Open a pool that connects when needed, so that the process starts without Postgres."""

    async def open_connection(*_: object, **options: Any) -> Any:
        """Read the file each time: its password may have been replaced."""
        dsn = dsn_file.read_text().strip()  # noqa: ASYNC240 - a few bytes of a mounted Secret
        check_postgres_url(dsn)
        return await asyncpg.connect(dsn, **options)

    pool = asyncpg.create_pool(
        min_size=0,
        max_size=connections,
        connect=open_connection,
        reset=_nothing_to_reset,
        timeout=seconds,
        command_timeout=seconds + _MARGIN_SECONDS,
        statement_cache_size=0,
        server_settings={"application_name": "poiesis-gateway"},
    )
    async with pool:
        DATABASE.watch(pool)
        try:
            yield ReportsDb(pool, seconds)
        finally:
            pool.terminate()  # no report is in progress any more


async def _nothing_to_reset(_: object) -> None:
    """Skip the default reset, a round trip per report: our statements leave no state in the session."""


class ReportsDb:
    """Both statements. Every method raises DatabaseUnavailable or MalformedReport."""

    def __init__(self, pool: Pool, seconds: float) -> None:
        milliseconds = round(seconds * 1000)
        self._pool = pool
        self._settings = _SETTINGS.format(
            statement_ms=milliseconds, lock_ms=milliseconds // 2, idle_ms=milliseconds
        )

    async def access(self, task_id: UUID, token: str) -> Result | None:
        """Return the task, without a lock or a write. Return None if the token is not valid for it."""
        return await self._row(_ACCESS, task_id, token)

    async def report(self, task_id: UUID, token: str, body: bytes | bytearray) -> Result | None:
        """Apply a report, which is safe to repeat. Return None if the token is not valid for the task."""
        return await self._row(_REPORT, task_id, token, body)

    async def _row(self, sql: str, *values: object) -> Result | None:
        """Run a repeatable statement. A broken connection is replaced once, and with it all idle ones."""
        with _driver_errors():
            try:
                row = await self._attempt(sql, *values)
            except _BROKEN as error:
                logger.info("connection lost, retrying", extra={"error": type(error).__name__})
                await self._pool.expire_connections()
                row = await self._attempt(sql, *values)
        return None if row is None else _result(row)

    async def _attempt(self, sql: str, *values: object) -> Any:
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(self._settings)
            return await connection.fetchrow(sql, *values)


def _result(row: Any) -> Result:
    response = ReportResponse(
        state=TesState(row["state"]), cancel_requested=row["cancel_requested"], ended=row["ended"]
    )
    return Result(response=response, closed=row["closed"])


@contextmanager
def _driver_errors() -> Iterator[None]:
    try:
        yield
    except asyncpg.PostgresError as error:
        raise _of_postgres(error) from error
    except (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:  # with TimeoutError
        raise _unavailable(Outage.AWAY) from error
    except ValueError as error:  # the file's content is no DSN, which may be replaced; its text may be secret
        logger.error("the DSN is invalid", extra={"error": type(error).__name__})  # noqa: TRY400
        raise _unavailable(Outage.AWAY) from None


def _unavailable(met: Outage, detail: str = "") -> DatabaseUnavailable:
    DATABASE.failed(met)
    return DatabaseUnavailable(met.value + detail)


def _of_postgres(error: asyncpg.PostgresError) -> Exception:
    """Decide by SQLSTATE. Errors never contain a row."""
    code = error.sqlstate or ""
    if code[:2] in _OF_THE_REPORT:
        first_line = str(error).partition("\n")[0][:_QUOTED_CHARACTERS]  # the others are details
        return MalformedReport(
            f"Postgres rejects the report: SQLSTATE {code}: {first_line}",
            reason=f"Postgres rejects the report: SQLSTATE {code}",
        )
    met = outage(code)
    if met is None:  # a right that is missing, an invalid statement: a defect here or in the database
        logger.error("unexpected error of postgres", extra={"sqlstate": code})
        met = Outage.AWAY
    return _unavailable(met, f" (SQLSTATE {code})")
