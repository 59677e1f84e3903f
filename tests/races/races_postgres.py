"""A real Postgres behind the gates, with a clock that the test moves.

Transactions are executed as a whole, one after the other: locks and isolation are the responsibility of
Postgres and not part of the search.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from races_scheduler import Process

# The services' statements call now(); this function is first in the search path.
CLOCK = """
DROP SCHEMA IF EXISTS races CASCADE;
CREATE SCHEMA races;
CREATE TABLE races.clock (at timestamptz NOT NULL);
INSERT INTO races.clock VALUES ('2026-01-01T00:00:00Z');
CREATE OR REPLACE FUNCTION public.now() RETURNS timestamptz
    LANGUAGE sql STABLE AS 'SELECT at FROM races.clock';
ALTER TABLE task ALTER created_at SET DEFAULT public.now(), ALTER next_submit_at SET DEFAULT public.now();
"""
PASS = "UPDATE races.clock SET at = at + make_interval(secs => $1)"


async def connect(dsn: str) -> asyncpg.Connection:
    """Open the connection that all processes share."""
    connection = await asyncpg.connect(dsn, server_settings={"search_path": "public, pg_catalog"})
    await connection.execute("SET jit = off")
    return connection


class GatedPool:
    """The pool of a process: the shared connection, with a gate before each statement or transaction."""

    def __init__(self, process: Process, connection: asyncpg.Connection) -> None:
        self._process, self._connection = process, connection

    async def fetch(self, sql: str, *values: object) -> Any:
        return await self._request("fetch", sql, values)

    async def fetchval(self, sql: str, *values: object) -> Any:
        return await self._request("fetchval", sql, values)

    async def execute(self, sql: str, *values: object) -> Any:
        return await self._request("execute", sql, values)

    async def expire_connections(self) -> None:
        """Do nothing: the shared connection stays valid."""

    @asynccontextmanager
    async def acquire(self, *, timeout: float | None = None) -> AsyncIterator[asyncpg.Connection]:  # noqa: ASYNC109, ARG002
        scheduler = self._process.scheduler
        fate = await scheduler.gate(self._process, "transaction", _lost)
        scheduler.begin()
        try:
            yield self._connection
        finally:
            scheduler.end()
        scheduler.after(self._process, fate, "transaction", _lost)

    async def _request(self, method: str, sql: str, values: tuple[object, ...]) -> Any:
        return await self._process.scheduler.request(
            self._process,
            " ".join(sql.split()[:5]),
            lambda: getattr(self._connection, method)(sql, *values),
            _lost,
        )


class GatedConnection:
    """The connection of a recorder, whose only transaction is a single statement."""

    def __init__(self, process: Process, connection: asyncpg.Connection) -> None:
        self._process, self._connection = process, connection

    def is_closed(self) -> bool:
        return False

    async def close(self, *, timeout: float) -> None:  # noqa: ASYNC109
        """Do nothing: the connection is shared."""

    def terminate(self) -> None:
        """Do nothing: the connection is shared."""

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        yield

    async def fetchrow(self, sql: str, *values: object) -> Any:
        return await self._process.scheduler.request(
            self._process, "record_report", lambda: self._connection.fetchrow(sql, *values), _lost
        )


def _lost(what: str) -> Exception:
    return asyncpg.ConnectionDoesNotExistError(f"connection lost during {what}")
