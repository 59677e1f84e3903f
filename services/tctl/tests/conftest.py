"""Connections to Postgres with the controller's rights, and a fake API server."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tctl_builders, tctl_fakes, …: names that no other member has


@pytest.fixture(scope="module")
def controller_dsn(postgres_dsn: str) -> str:
    """Return the DSN of the test database with the controller's rights."""
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
