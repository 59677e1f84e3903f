"""The connection pool, and the one place where a driver's exception becomes StorageUnavailable."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import asyncpg

from poiesis_api.config import Database
from poiesis_api.errors import StorageUnavailable
from poiesis_api.metrics import DATABASE
from poiesis_models.outages import Outage, outage

logger = logging.getLogger(__name__)

Connection = Any  # asyncpg.Connection or its pool proxy
Pool = Any  # asyncpg.Pool

_BROKEN = (  # errors of one connection, not of Postgres as a whole
    ConnectionError,
    asyncpg.PostgresConnectionError,
    asyncpg.InternalClientError,
    asyncpg.AdminShutdownError,  # pg_terminate_backend, or a shutdown
    asyncpg.CrashShutdownError,
)
_REPLACED = 2  # retries of one statement after a broken connection
WAIT_SECONDS = 10.0  # for a free connection of the pool
_IDLE_SECONDS = 15  # of a session in a transaction; then Postgres ends it and releases its locks
_SESSION = """
SET jit = off;  -- statements are short; compiling the worst one took a second
SET statement_timeout = {statement_ms};
SET idle_in_transaction_session_timeout = {idle_ms};
SET tcp_keepalives_idle = 10;
SET tcp_keepalives_interval = 5;
SET tcp_keepalives_count = 3;
SET tcp_user_timeout = 20000;
"""
_MARGIN_SECONDS = 2.0  # the client waits longer, so that Postgres decides what is rolled back


@asynccontextmanager
async def open_pool(dsn: str, config: Database) -> AsyncIterator[Pool]:
    """Yield a pool that connects on demand, so that the process starts without Postgres."""
    session = _SESSION.format(
        statement_ms=round(config.timeout_seconds * 1000), idle_ms=round(_IDLE_SECONDS * 1000)
    )

    async def prepare(connection: Connection) -> None:
        """Set the session's parameters by statement: PgBouncer rejects unknown startup parameters."""
        await connection.execute(session)

    pool = asyncpg.create_pool(
        dsn,
        min_size=0,
        max_size=config.max_connections,
        command_timeout=config.timeout_seconds + _MARGIN_SECONDS,
        timeout=config.timeout_seconds,
        init=prepare,
        reset=_nothing_to_reset,
        server_settings={"application_name": "poiesis-api"},
    )
    async with pool:
        DATABASE.watch(pool)
        await _warm(pool, min(config.min_connections, config.max_connections))
        try:
            yield pool
        finally:
            pool.terminate()


async def _nothing_to_reset(_: Connection) -> None:
    """Skip the default reset, a round trip per request: our statements leave no state in the session."""


async def _warm(pool: Pool, connections: int) -> None:
    try:
        with driver_errors():
            opened = await asyncio.gather(*(pool.acquire() for _ in range(connections)))
    except StorageUnavailable as error:
        logger.warning("postgres unavailable at start", extra={"error": str(error.__cause__)})
        return
    for connection in opened:
        await pool.release(connection)


@contextmanager
def driver_errors() -> Iterator[None]:
    """Translate retryable errors of the driver to StorageUnavailable.

    Errors never contain a row, which may contain signed URLs.
    """
    try:
        yield
    except (
        OSError
    ) as error:  # before ValueError: a certificate that cannot be verified is both; with TimeoutError
        raise _unavailable(Outage.AWAY) from error
    except ValueError:  # the driver's own DataError, an InterfaceError: a defect of this service
        raise
    except (
        asyncpg.InterfaceError,
        asyncpg.InternalClientError,
    ) as error:  # a connection closed under the driver
        raise _unavailable(Outage.AWAY) from error
    except asyncpg.PostgresError as error:
        met = outage(error.sqlstate)
        if met is not None:
            raise _unavailable(met) from error
        error.detail = None
        raise


def _unavailable(met: Outage) -> StorageUnavailable:
    DATABASE.failed(met)
    return StorageUnavailable(met)


@asynccontextmanager
async def transaction(pool: Pool, *, readonly: bool = False) -> AsyncIterator[Connection]:
    """Yield a connection in a transaction. Only if it is read-only do its statements share a snapshot.

    Raise StorageUnavailable.
    """
    isolation = "repeatable_read" if readonly else "read_committed"
    with driver_errors():
        async with (
            DATABASE.connection(pool, WAIT_SECONDS) as connection,
            connection.transaction(isolation=isolation, readonly=readonly),
        ):
            yield connection


async def fetch(pool: Pool, sql: str, *values: object) -> list[Any]:
    """Run a repeatable statement and return its rows. Up to _REPLACED broken connections are replaced.

    After a failover every pooled connection is dead, so one broken connection makes the pool replace all.
    Raise StorageUnavailable.
    """
    with driver_errors():
        for _ in range(_REPLACED):
            try:
                return await _fetch(pool, sql, *values)
            except _BROKEN as error:
                logger.info("connection lost, retrying", extra={"error": repr(error)})
                await pool.expire_connections()
        return await _fetch(pool, sql, *values)


async def _fetch(pool: Pool, sql: str, *values: object) -> list[Any]:
    async with DATABASE.connection(pool, WAIT_SECONDS) as connection:
        return list(await connection.fetch(sql, *values))


async def execute(pool: Pool, sql: str, *values: object) -> None:
    """Run one statement. Raise StorageUnavailable."""
    with driver_errors():
        async with DATABASE.connection(pool, WAIT_SECONDS) as connection:
            await connection.execute(sql, *values)
