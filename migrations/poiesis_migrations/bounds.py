"""Limit the database resources that the services' logins may use, beyond their rights on tables.

Without a gateway the recorder's DSN is in every TaskPod. So its role gets no more connections than the
services leave, its sessions cannot hold locks for long, and what Postgres gives every role (temporary tables,
large objects) is revoked. What the migration user may not change is logged and left unchanged.
"""

import logging
from collections.abc import Sequence

import asyncpg

from poiesis_migrations.config import Config

_SPARE = 5  # connections for administrators
# Of sessions that hold something: recorders write one short statement; the controller's last longer.
_RECORDER_SETTINGS = {"idle_in_transaction_session_timeout": "15s", "statement_timeout": "20s"}
_SERVICE_SETTINGS = {"idle_in_transaction_session_timeout": "60s"}
# A client that vanishes (a lost node) must not keep its session for hours.
_KEEPALIVE = {
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "20s",
}
_CONNECTIONS = """
SELECT current_setting('max_connections')::integer
       - current_setting('superuser_reserved_connections')::integer
"""
_LARGE_OBJECTS = """
SELECT oid::regprocedure::text FROM pg_proc
 WHERE pronamespace = 'pg_catalog'::regnamespace
   AND proname IN ('lo_creat', 'lo_create', 'lo_from_bytea', 'lo_put', 'lowrite', 'lo_import', 'lo_open')
"""

logger = logging.getLogger(__name__)


def recorder_connections(usable: int, services: int) -> int:
    """Return the connections of all recorders: the rest after the services, at least a quarter of all."""
    return max(usable - services - _SPARE, usable // 4, 1)


async def set_bounds(db: asyncpg.Connection, config: Config) -> None:
    """Set the bounds of the logins that the DSNs name. Every run sets them again."""
    limit = config.recorder_connections
    if limit == 0:
        limit = recorder_connections(await db.fetchval(_CONNECTIONS), config.service_connections)
    recorder, api = await _quoted(db, config.recorder.user), await _quoted(db, config.api.user)
    await _try(db, f"ALTER ROLE {recorder} CONNECTION LIMIT {limit}")
    for role, settings in ((recorder, _RECORDER_SETTINGS), (api, _SERVICE_SETTINGS)):
        for name, value in (settings | _KEEPALIVE).items():
            await _try(db, f"ALTER ROLE {role} SET {name} = '{value}'")
    database = await db.fetchval("SELECT quote_ident(current_database())")
    await _try(db, f"REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC")
    await _try(db, "REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    functions: Sequence[str] = [row[0] for row in await db.fetch(_LARGE_OBJECTS)]
    await _try(db, f"REVOKE EXECUTE ON FUNCTION {', '.join(functions)} FROM PUBLIC")


async def _quoted(db: asyncpg.Connection, name: str) -> str:
    return str(await db.fetchval("SELECT quote_ident($1)", name))


async def _try(db: asyncpg.Connection, statement: str) -> None:
    """Run a statement and log a missing right, which for REVOKE is only a warning of Postgres."""
    try:
        async with db.transaction():  # a savepoint: the caller's transaction continues
            await db.execute(statement)
    except asyncpg.InsufficientPrivilegeError as error:
        logger.info("left unchanged: %s (%s)", statement, error)
