"""Apply the SQL of this release: each migration once, the functions at every run, all in one transaction.

`NNNN_name.sql` is a migration with a `migrate:up` and a `migrate:down` part; `functions/name.sql` holds the
whole of a function. The table schema_migrations lists the applied migrations. Both have dbmate's format.
"""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import asyncpg

from poiesis_migrations.config import Config

NOTHING = "0000"  # the version before the first migration
_CONNECT_SECONDS = 30
_RETRY_SECONDS = 1.0
_PART = re.compile(r"^-- migrate:(up|down)\b.*$", re.MULTILINE)

_MAKE_LIST = "CREATE TABLE IF NOT EXISTS schema_migrations (version varchar(128) PRIMARY KEY)"
# A row lock would not do for the first run, and an advisory lock can be taken by every role of the database.
_LOCK_LIST = "LOCK TABLE schema_migrations IN SHARE ROW EXCLUSIVE MODE"
_LOCK_TIMEOUT = "SET LOCAL lock_timeout = '300s'"
_APPLIED = "SELECT version FROM schema_migrations ORDER BY version"
_ADD = "INSERT INTO schema_migrations (version) VALUES ($1)"
_REMOVE = "DELETE FROM schema_migrations WHERE version = $1"
_SIGNATURES = """
SELECT oid::regprocedure::text AS signature, xmin::text AS written FROM pg_proc
 WHERE proname = $1 AND pronamespace = 'public'::regnamespace
"""

logger = logging.getLogger(__name__)


class MigrationFailed(Exception):
    """The schema is as it was before the run; the message names the file."""


@dataclass(frozen=True, kw_only=True)
class Migration:
    """One file. `version` is the number at the start of its name."""

    version: str
    file: str
    up: str
    down: str

    @classmethod
    def read(cls, file: Path) -> Self:
        """Raise MigrationFailed if the file does not have both parts in order."""
        _, *parts = _PART.split(file.read_text())
        if parts[::2] != ["up", "down"]:
            raise MigrationFailed(f"{file.name} must have a part migrate:up, followed by a part migrate:down")
        return cls(version=file.name.partition("_")[0], file=file.name, up=parts[1], down=parts[3])


async def migrate(config: Config) -> None:
    """Bring the database to the schema of this release. Raise MigrationFailed."""
    async with _connection(config) as db:
        await apply(db, config.directory)


async def apply(db: asyncpg.Connection, directory: Path) -> None:
    """Apply the migrations that the database does not have, then all functions. Raise MigrationFailed."""
    async with _in_turn(db):
        applied = await _applied(db)
        for migration in _migrations(directory):
            if migration.version not in applied:
                with _failures_of(migration.file):
                    await db.execute(migration.up)
                    await db.execute(_ADD, migration.version)
                logger.info("applied %s", migration.file)
        for name, text in _functions(directory):
            with _failures_of(f"functions/{name}.sql"):
                await _replace(db, name, text)


async def lock_out_other_runs(db: asyncpg.Connection) -> None:
    """Wait for other runs, and let them wait for the end of this transaction."""
    await db.execute(_LOCK_TIMEOUT)
    await db.execute(_LOCK_LIST)


async def undo(config: Config, version: str) -> None:
    """Undo the migrations after `version`, newest first. Raise MigrationFailed.

    Functions stay as they are, except for those that a migration drops: the release that has this version
    replaces them when its own migrations run.
    """
    known = {migration.version: migration for migration in _migrations(config.directory)}
    async with _connection(config) as db, _in_turn(db):
        applied = await _applied(db)
        if version not in (NOTHING, *applied):
            raise MigrationFailed(f"no applied migration {version!r} (applied: {', '.join(applied)})")
        for later in reversed([one for one in applied if one > version]):
            if later not in known:
                raise MigrationFailed(f"migration {later} is of a newer release: undo it with that release")
            with _failures_of(known[later].file):
                await db.execute(known[later].down)
                await db.execute(_REMOVE, later)
            logger.info("undid %s", known[later].file)


def _migrations(directory: Path) -> list[Migration]:
    return [Migration.read(file) for file in sorted(directory.glob("*.sql"))]


def _functions(directory: Path) -> list[tuple[str, str]]:
    """Return the names and texts of the functions."""
    return [(file.stem, file.read_text()) for file in sorted((directory / "functions").glob("*.sql"))]


async def _applied(db: asyncpg.Connection) -> list[str]:
    return [row["version"] for row in await db.fetch(_APPLIED)]


async def _replace(db: asyncpg.Connection, name: str, text: str) -> None:
    """Run `text`, and leave no function of this name but those that it defines.

    CREATE OR REPLACE keeps a function's identity, so sessions that call it are not disturbed. It cannot
    change the type of a result, and with other arguments it makes a second function: then the old one is
    dropped.
    """
    before = await _signatures(db, name)
    try:
        async with db.transaction():
            await db.execute(text)
    except asyncpg.InvalidFunctionDefinitionError:
        await _drop(db, before)
        await db.execute(text)
    after = await _signatures(db, name)
    old = [signature for signature, written in after.items() if before.get(signature) == written]
    if len(old) == len(after):
        raise MigrationFailed(f"functions/{name}.sql must define a function {name}")
    await _drop(db, old)


async def _signatures(db: asyncpg.Connection, name: str) -> dict[str, str]:
    """Signatures of a name, and the transaction that wrote each last."""
    return {row["signature"]: row["written"] for row in await db.fetch(_SIGNATURES, name)}


async def _drop(db: asyncpg.Connection, signatures: Iterable[str]) -> None:
    for signature in signatures:
        await db.execute(f"DROP FUNCTION {signature}")
        logger.info("dropped %s", signature)


@asynccontextmanager
async def _in_turn(db: asyncpg.Connection) -> AsyncIterator[None]:
    """Hold one transaction. Other runs wait until it has ended."""
    with (
        _failures_of("schema_migrations"),
        suppress(asyncpg.UniqueViolationError),
    ):  # another run creates it now
        await db.execute(_MAKE_LIST)
    async with db.transaction():
        with _failures_of("schema_migrations"):
            await lock_out_other_runs(db)
        yield


@asynccontextmanager
async def _connection(config: Config) -> AsyncIterator[asyncpg.Connection]:
    db = await _connected(config)
    try:
        yield db
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise MigrationFailed(f"the database did not complete the run: {error}") from error
    finally:
        await db.close()


async def _connected(config: Config) -> asyncpg.Connection:
    """Wait for a database that does not answer yet: an embedded one starts at the same time."""
    clock = asyncio.get_running_loop().time
    until = clock() + config.wait_seconds
    while True:
        try:
            return await asyncpg.connect(config.owner.url, timeout=_CONNECT_SECONDS)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            if clock() >= until:
                raise MigrationFailed(f"cannot connect as {config.owner.user}: {error}") from error
            logger.info("cannot connect, retrying: %s", error)
        await asyncio.sleep(_RETRY_SECONDS)


@contextmanager
def _failures_of(file: str) -> Iterator[None]:
    try:
        yield
    except asyncpg.InsufficientPrivilegeError as error:
        raise MigrationFailed(
            f"{file}: {error}. A migration user that may not create roles needs poiesis_api and "
            "poiesis_recorder to exist: let an administrator create them"
        ) from error
    except asyncpg.PostgresError as error:
        raise MigrationFailed(f"{file}: {error}") from error
