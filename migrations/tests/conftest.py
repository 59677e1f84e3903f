"""A database of its own for every test, and the migration run."""

import asyncio
import os
import secrets
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
import pytest_asyncio

Run = Callable[..., Awaitable[tuple[int, str]]]

SQL_DIRECTORY = Path(__file__).parents[1]


def in_database(dsn: str, name: str) -> str:
    return urlsplit(dsn)._replace(path=f"/{name}").geturl()


def as_user(dsn: str, user: str, password: str) -> str:
    parts = urlsplit(dsn)
    return parts._replace(netloc=f"{user}:{password}@{parts.hostname}:{parts.port or 5432}").geturl()


@pytest_asyncio.fixture
async def database(postgres_server: str) -> AsyncIterator[str]:
    """DSN of an empty database, in which the server's superuser works."""
    name = f"migrations_{secrets.token_hex(6)}"
    admin = await asyncpg.connect(postgres_server)
    # Roles and their passwords belong to the whole server: one test at a time, whatever process runs it.
    await admin.execute("SELECT pg_advisory_lock(hashtext('migration tests'))")
    await admin.execute(f"CREATE DATABASE {name}")
    yield in_database(postgres_server, name)
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()


@pytest.fixture
def environment(database: str) -> dict[str, str]:
    """What the migration run needs; a password with every character that quoting can trip over."""
    password = "p'%27%40\\%3A%2Fé" + secrets.token_hex(4)
    return {
        "POIESIS_MIGRATIONS_DSN": database,
        "POIESIS_API_DSN": as_user(database, "poiesis_api", password),
        "POIESIS_RECORDER_DSN": as_user(database, "poiesis_recorder", password),
        "POIESIS_MIGRATIONS_DIRECTORY": str(SQL_DIRECTORY),
        "POIESIS_MIGRATIONS_WAIT_SECONDS": "10",
    }


@pytest.fixture
def run(environment: dict[str, str]) -> Run:
    """Exit code and output of `python -m poiesis_migrations` with these arguments."""

    async def run(*arguments: str, **changed: str) -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "poiesis_migrations", *arguments),
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(SQL_DIRECTORY), **environment, **changed},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode is not None
        return process.returncode, output.decode()

    return run


@pytest_asyncio.fixture
async def db(database: str, run: Run) -> AsyncIterator[asyncpg.Connection]:
    """The owner's connection to a migrated database."""
    code, output = await run()
    assert code == 0, output
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()


@pytest_asyncio.fixture
async def role(postgres_server: str, database: str) -> AsyncIterator[Callable[[str], Awaitable[str]]]:
    """Make a role with these attributes; it is dropped after the test."""
    admin = await asyncpg.connect(postgres_server)
    made: list[str] = []

    async def make(attributes: str) -> str:
        name = f"migrations_{secrets.token_hex(6)}"
        await admin.execute(f"CREATE ROLE {name} {attributes}")
        made.append(name)
        return name

    yield make
    inside = await asyncpg.connect(database)
    for name in made:
        await inside.execute(f"REASSIGN OWNED BY {name} TO CURRENT_USER")
        await inside.execute(f"DROP OWNED BY {name}")
        await admin.execute(f"DROP ROLE {name}")
    await inside.close()
    await admin.close()
