"""A real Postgres, S3 or Keycloak for every test that asks for one; how many examples hypothesis makes.

`make test` starts them once and says where they are (POIESIS_TEST_DSN, POIESIS_TEST_S3,
POIESIS_TEST_KEYCLOAK); a test that is run by hand starts the lab's own, which stay until `make down`.

The examples are the same in every run, so that no change fails for another's mistake; POIESIS_FUZZ_EXAMPLES
(`make fuzz`) makes so many of each test, and new ones.
"""

import asyncio
import logging
import os
import random
import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
from hypothesis import settings

from poiesis_migrations import schema
from poiesis_models.logs import JsonFormatter

settings.register_profile("same", derandomize=True, deadline=None, print_blob=True)
settings.register_profile(
    "new",
    derandomize=False,
    deadline=None,
    print_blob=True,
    max_examples=int(os.environ.get("POIESIS_FUZZ_EXAMPLES") or 1000),
)
settings.load_profile("new" if os.environ.get("POIESIS_FUZZ_EXAMPLES") else "same")

pytest_plugins = ["pytester"]
MIGRATIONS = Path(__file__).parent / "migrations"


@dataclass(frozen=True, kw_only=True)
class S3Endpoint:
    """Where it answers, and an administrator's keys."""

    url: str
    access_key: str
    secret_key: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class KeycloakServer:
    """Where it answers, and who administers it."""

    url: str
    administrator: str
    password: str = field(repr=False)


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """Return a function that returns a free port, each port once.

    They are below those that the kernel gives to connections, which would take them meanwhile.
    """
    ports = iter(random.sample(range(20_000, 30_000), 10_000))

    def free() -> int:
        for port in ports:
            with suppress(OSError), socket.create_server(("", port)):
                return port
        raise AssertionError("no free port")

    return free


@pytest.fixture(autouse=True)
def _configured_logging() -> Iterator[None]:
    """Undo the logging that a program's `main` configures: its stderr is closed after the test."""
    yield
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if isinstance(handler.formatter, JsonFormatter):
            root.removeHandler(handler)
            root.setLevel(logging.WARNING)


@pytest.fixture(scope="session")
def postgres_server() -> str:
    """A superuser's DSN."""
    given = os.environ.get("POIESIS_TEST_DSN")
    if given:
        return given
    from poiesis_lab import backends, daemon

    daemon.ensure()
    return backends.start_postgres("poiesis-postgres-integration").dsn


@pytest.fixture(scope="module")
def postgres_dsn(postgres_server: str) -> Iterator[str]:
    """A superuser's DSN of a new database with the schema, for this module."""
    name = f"poiesis_{secrets.token_hex(8)}"
    dsn = urlunsplit(urlsplit(postgres_server)._replace(path=f"/{name}"))
    asyncio.run(_create(postgres_server, name, dsn))
    yield dsn
    asyncio.run(_execute(postgres_server, f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture(scope="session")
def s3_endpoint() -> S3Endpoint:
    """MinIO; its buckets are whatever earlier tests left."""
    url = os.environ.get("POIESIS_TEST_S3")
    if url:
        return S3Endpoint(
            url=url,
            access_key=os.environ["POIESIS_TEST_S3_ACCESS_KEY"],
            secret_key=os.environ["POIESIS_TEST_S3_SECRET_KEY"],
        )
    from poiesis_lab import backends, daemon

    daemon.ensure()
    minio = backends.start_minio()
    return S3Endpoint(url=minio.url, access_key=minio.access_key, secret_key=minio.secret_key)


@pytest.fixture(scope="session")
def keycloak() -> KeycloakServer:
    """Keycloak, an OpenID Provider; its realms are whatever earlier tests left."""
    url = os.environ.get("POIESIS_TEST_KEYCLOAK")
    if url:
        return KeycloakServer(
            url=url,
            administrator=os.environ["POIESIS_TEST_KEYCLOAK_ADMINISTRATOR"],
            password=os.environ["POIESIS_TEST_KEYCLOAK_PASSWORD"],
        )
    from poiesis_lab import backends, daemon

    daemon.ensure()
    server = backends.start_keycloak()
    return KeycloakServer(url=server.url, administrator=server.administrator, password=server.password)


async def _create(server: str, name: str, dsn: str) -> None:
    lock = await asyncpg.connect(server)
    try:
        # Roles belong to the whole server: workers that start together must not make them at once.
        await lock.execute("SELECT pg_advisory_lock(hashtext('migration tests'))")
        await lock.execute(f"CREATE DATABASE {name}")
        database = await asyncpg.connect(dsn)
        try:
            await schema.apply(database, MIGRATIONS)
        finally:
            await database.close()
    finally:
        await lock.close()


async def _execute(dsn: str, *statements: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()
