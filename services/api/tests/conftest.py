"""A real Postgres with the schema, a fake Kubernetes API server, and config.example.json."""

import importlib.util
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import pytest

from poiesis_api.config import Database, Document
from poiesis_api.postgres import open_pool

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"poiesis_api_{name}", HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


fake_kubernetes = _load("fake_kubernetes")


@pytest.fixture(scope="session")
def config() -> Document:
    return Document.load(HERE.parent / "config.example.json")


@pytest.fixture(scope="session")
def _server_dsn() -> Iterator[str]:
    given = os.environ.get("POIESIS_TEST_DSN")
    if given:
        yield given
        return
    from testcontainers.community.postgres import PostgresContainer

    image = os.environ.get("POIESIS_POSTGRES_IMAGE", "postgres:17-alpine")
    with PostgresContainer(image, driver=None) as container:
        yield container.get_connection_url()


@pytest.fixture(scope="session")
def postgres_dsn(_server_dsn: str) -> Iterator[str]:
    """A database of this session's own, with the migrations applied."""
    import asyncio

    name = f"poiesis_api_{uuid4().hex}"
    dsn = urlunsplit(urlsplit(_server_dsn)._replace(path=f"/{name}"))
    asyncio.run(_run(_server_dsn, f'CREATE DATABASE "{name}"'))
    asyncio.run(_run(dsn, *_migrations()))
    yield dsn
    asyncio.run(_run(_server_dsn, f'DROP DATABASE "{name}" WITH (FORCE)'))


async def _run(dsn: str, *statements: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


def _migrations() -> list[str]:
    files = sorted((ROOT / "migrations").glob("*.sql"))
    return [file.read_text().split("-- migrate:up", 1)[1].split("-- migrate:down", 1)[0] for file in files]


@pytest.fixture
async def pool(postgres_dsn: str) -> AsyncIterator[Any]:
    """Empty tables."""
    async with open_pool(postgres_dsn, Database()) as pool:
        await pool.execute("DELETE FROM task")
        yield pool


@pytest.fixture
async def kubernetes() -> AsyncIterator[Any]:
    """An API server that can fail; `kubernetes.client` talks to it."""
    async with fake_kubernetes.serve() as fake:
        yield fake
