"""Gives the two service roles their logins.

`poiesis_api` and `poiesis_recorder` hold the rights (the SQL files grant them). A DSN names either its role
itself, which then gets LOGIN and the DSN's password, or another login role, which is made a member.
"""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from poiesis_migrations.bounds import set_bounds
from poiesis_migrations.config import Config, Dsn
from poiesis_migrations.schema import lock_out_other_runs

API_ROLE = "poiesis_api"
RECORDER_ROLE = "poiesis_recorder"
_CONNECT_SECONDS = 30

_SET_PASSWORD = "ALTER ROLE %I LOGIN PASSWORD %L"  # noqa: S105
_GRANT_ROLE = "GRANT %I TO %I"
_IS_MEMBER = "SELECT pg_has_role($1, $2, 'USAGE')"
_ROLE_EXISTS = "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)"
# A recorder's DSN is inside every TaskPod: whatever its user may read, every task may read.
_MAY_TOUCH_TASKS = "SELECT has_table_privilege($1, 'public.task', 'SELECT, INSERT, UPDATE, DELETE')"

logger = logging.getLogger(__name__)


class RoleRefused(Exception):
    """A service cannot log in, or could do too much; the message has the statement for the operator."""


async def let_services_log_in(config: Config) -> None:
    """Set the passwords of the service logins. Raise RoleRefused. Running it again has no further effect."""
    try:
        db = await asyncpg.connect(config.owner.url, timeout=_CONNECT_SECONDS)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise RoleRefused(f"cannot connect as {config.owner.user}: {error}") from error
    try:
        for role, dsn in ((API_ROLE, config.api), (RECORDER_ROLE, config.recorder)):
            await _let_log_in(db, role, dsn)
        await _refuse_a_recorder_with_table_rights(db, config.recorder.user)
        async with _in_turn(db):
            await set_bounds(db, config)
    finally:
        await db.close()


async def _let_log_in(db: asyncpg.Connection, role: str, dsn: Dsn) -> None:
    if dsn.user == role:
        await _set_password(db, role, dsn)
    else:
        await _make_member(db, role, dsn.user)


async def _set_password(db: asyncpg.Connection, role: str, dsn: Dsn) -> None:
    if dsn.password is None:
        logger.info("the DSN of %s has no password: its login is left as it is", role)
        return
    try:
        await _execute(db, _SET_PASSWORD, role, dsn.password)
    except asyncpg.InsufficientPrivilegeError as error:
        if not await _can_log_in(dsn):
            raise RoleRefused(
                f"the migration user may not give {role} its password ({error}), and {role} cannot log in "
                f"with its DSN. Let an administrator run: ALTER ROLE {role} LOGIN PASSWORD '<as in DSN>'; "
                f"or give the migration user CREATEROLE, and ADMIN OPTION on {role}"
            ) from error
        logger.info("%s logs in with a password that an administrator gave it", role)
    else:
        logger.info("%s logs in with the password of its DSN", role)


async def _make_member(db: asyncpg.Connection, role: str, user: str) -> None:
    if not await db.fetchval(_ROLE_EXISTS, user):
        raise RoleRefused(
            f"the DSN names user {user}, which does not exist. Create it, or use {role}, which is made here"
        )
    if await db.fetchval(_IS_MEMBER, user, role):
        logger.info("%s has the rights of %s", user, role)
        return
    try:
        await _execute(db, _GRANT_ROLE, role, user)
    except asyncpg.InsufficientPrivilegeError as error:
        raise RoleRefused(
            f"the migration user may not make {user} a member of {role} ({error}). "
            f'Let an administrator run: GRANT {role} TO "{user}";'
        ) from error
    logger.info("%s was made a member of %s", user, role)


async def _refuse_a_recorder_with_table_rights(db: asyncpg.Connection, user: str) -> None:
    if await db.fetchval(_MAY_TOUCH_TASKS, user):
        raise RoleRefused(
            f"the recorder's user {user} has rights on the task table: its DSN is in every task's Pod, "
            f"so it must have none. Use {RECORDER_ROLE}, or a login role that is a member of it alone"
        )


async def _execute(db: asyncpg.Connection, template: str, *names: str) -> None:
    """Run a statement that takes no parameters; the server itself quotes what goes into it."""
    async with _in_turn(db), db.transaction():
        places = ", ".join(f"${number}::text" for number in range(2, len(names) + 2))
        statement = await db.fetchval(f"SELECT format($1::text, {places})", template, *names)
        await db.execute(statement)


@asynccontextmanager
async def _in_turn(db: asyncpg.Connection) -> AsyncIterator[None]:
    """Hold one transaction, because ALTER ROLE by two at once fails ("tuple concurrently updated")."""
    async with db.transaction():
        await lock_out_other_runs(db)
        yield


async def _can_log_in(dsn: Dsn) -> bool:
    try:
        db = await asyncpg.connect(dsn.url, timeout=_CONNECT_SECONDS)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return False
    await db.close()
    return True
