"""The connection pool, and the one place where a driver's exception becomes StorageUnavailable."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import asyncpg

from poiesis_api.config import Database
from poiesis_api.errors import StorageUnavailable

logger = logging.getLogger(__name__)

Connection = Any  # asyncpg.Connection or its pool proxy
Pool = Any  # asyncpg.Pool

_AWAY = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # the driver met the server's farewell on an idle connection
    asyncpg.OperatorInterventionError,  # shutdown, crash
    asyncpg.TooManyConnectionsError,
    asyncpg.ReadOnlySQLTransactionError,  # a standby that is about to be promoted
    asyncpg.InvalidPasswordError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.UndefinedTableError,  # not migrated yet
    asyncpg.UndefinedColumnError,  # by this release
)
_BROKEN = (  # the connection under a statement, and not Postgres as a whole
    ConnectionError,
    asyncpg.PostgresConnectionError,
    asyncpg.InternalClientError,
    asyncpg.AdminShutdownError,  # pg_terminate_backend, and the farewell of a server that is replaced
    asyncpg.CrashShutdownError,
)
_REPLACED = 2  # connections that may break under one statement


@asynccontextmanager
async def open_pool(dsn: str, config: Database) -> AsyncIterator[Pool]:
    """Connects when it is needed, so that the process starts without Postgres."""
    pool = asyncpg.create_pool(
        dsn,
        min_size=0,
        max_size=config.max_connections,
        command_timeout=config.timeout_seconds,
        timeout=config.timeout_seconds,
        init=_without_jit,
        reset=_nothing_to_reset,
        server_settings={"application_name": "poiesis-api"},
    )
    async with pool:
        await _warm(pool, min(config.min_connections, config.max_connections))
        try:
            yield pool
        finally:
            pool.terminate()


async def _without_jit(connection: Connection) -> None:
    """Our statements are short; compiling the estimated worst of them took a second."""
    await connection.execute("SET jit = off")


async def _nothing_to_reset(_: Connection) -> None:
    """No statement of ours leaves anything in the session; the default costs a round trip a request."""


async def _warm(pool: Pool, connections: int) -> None:
    try:
        opened = await asyncio.gather(*(pool.acquire() for _ in range(connections)))
    except _AWAY as error:
        logger.warning("Postgres does not answer yet", extra={"error": str(error)})
        return
    for connection in opened:
        await pool.release(connection)


@contextmanager
def driver_errors() -> Iterator[None]:
    """Raise StorageUnavailable if Postgres is away. No error holds a row, for in it may be a signed URL."""
    try:
        yield
    except OSError as error:  # before ValueError: a certificate that cannot be verified is both
        raise StorageUnavailable("the database does not answer; try again") from error
    except ValueError:  # the driver's own DataError, an InterfaceError: a mistake of ours
        raise
    except _AWAY as error:
        raise StorageUnavailable("the database does not answer; try again") from error
    except asyncpg.PostgresError as error:
        error.detail = None
        raise


@asynccontextmanager
async def transaction(pool: Pool) -> AsyncIterator[Connection]:
    """Raise StorageUnavailable."""
    with driver_errors():
        async with pool.acquire() as connection, connection.transaction():
            yield connection


async def fetch(pool: Pool, sql: str, *values: object) -> list[Any]:
    """For statements that may run twice: a connection that breaks under one is replaced, and so is the next.

    After a failover every pooled connection is dead, and some of them do not know yet: where one broke,
    none of those that were open with it is trusted.
    """
    with driver_errors():
        for _ in range(_REPLACED):
            try:
                return list(await pool.fetch(sql, *values))
            except _BROKEN as error:
                logger.info("a connection broke", extra={"error": repr(error)})
                await pool.expire_connections()
        return list(await pool.fetch(sql, *values))


async def execute(pool: Pool, sql: str, *values: object) -> None:
    """Raise StorageUnavailable."""
    with driver_errors():
        await pool.execute(sql, *values)
