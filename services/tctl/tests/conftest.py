"""A Postgres with the schema, and a fake API server."""

import asyncio
import os
import re
import secrets
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tctl_builders, tctl_fakes, …: names that no other member has

MIGRATIONS = Path(__file__).parents[3] / "migrations"


def _up(text: str) -> str:
    return re.split(r"^-- migrate:(?:up|down).*$", text, flags=re.MULTILINE)[1]


async def _create_database(server: str, name: str) -> str:
    connection = await asyncpg.connect(server)
    try:
        await connection.execute(f'CREATE DATABASE "{name}"')
    finally:
        await connection.close()
    dsn = urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
    connection = await asyncpg.connect(dsn)
    try:
        # Roles belong to the whole server: workers that start together must not make them at once.
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock(hashtext('poiesis tests'))")
            for migration in sorted(MIGRATIONS.glob("*.sql")):
                await connection.execute(_up(migration.read_text()))
    finally:
        await connection.close()
    return dsn


async def _drop_database(server: str, name: str) -> None:
    connection = await asyncpg.connect(server)
    try:
        await connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
    finally:
        await connection.close()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """A superuser's DSN."""
    given = os.environ.get("POIESIS_TEST_DSN")
    if given:
        yield given
        return
    from testcontainers.community.postgres import PostgresContainer

    image = os.environ.get("POIESIS_POSTGRES_IMAGE", "postgres:17")
    with PostgresContainer(image, driver=None) as container:
        yield container.get_connection_url()


@pytest.fixture(scope="session")
def postgres_dsn(postgres_server: str) -> Iterator[str]:
    """A new database with the schema, for this session or worker."""
    name = f"tctl_{os.environ.get('PYTEST_XDIST_WORKER', 'main')}_{secrets.token_hex(4)}"
    yield asyncio.run(_create_database(postgres_server, name))
    asyncio.run(_drop_database(postgres_server, name))


@pytest.fixture(scope="session")
def controller_dsn(postgres_dsn: str) -> str:
    """The same database with the rights that the controller has."""
    return postgres_dsn + "?options=-c%20role%3Dpoiesis_api"


@pytest.fixture
async def superuser(postgres_dsn: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(postgres_dsn)
    yield connection
    await connection.close()


@pytest.fixture
async def fake_api() -> AsyncIterator["FakeApi"]:  # noqa: F821
    from tctl_fakes import FakeApi

    async with FakeApi().serve() as api:
        yield api
