"""A gateway in this process, its clients, and tasks in Postgres or in memory."""

import asyncio
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
import trustme

sys.path.insert(0, str(Path(__file__).parent))  # gateway_fakes, gateway_tasks: names that no other member has

from gateway_fakes import FakeDatabase, Gateway

from poiesis_gateway import reports_db
from poiesis_gateway.__main__ import serve
from poiesis_gateway.config import Config
from poiesis_gateway.reports import Database
from poiesis_gateway.tls import Certificate

Start = Callable[..., AbstractAsyncContextManager[Gateway]]


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def files(authority: trustme.CA, tmp_path: Path) -> tuple[Path, Path]:
    """Return the files of a certificate for localhost."""
    issued = authority.issue_cert("localhost")
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    issued.cert_chain_pems[0].write_to_path(certificate)
    issued.private_key_pem.write_to_path(key)
    return certificate, key


@pytest.fixture
def trust(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture
def start(
    files: tuple[Path, Path], trust: ssl.SSLContext, tmp_path: Path, free_port: Callable[[], int]
) -> Start:
    """Start a gateway with these settings; it is stopped at the end of the block."""

    @asynccontextmanager
    async def started(database: Database, **settings: object) -> AsyncIterator[Gateway]:
        config = Config.model_validate(
            {
                "dsn_file": tmp_path / "dsn",
                "certificate_file": files[0],
                "key_file": files[1],
                "port": free_port(),
                "health_port": free_port(),
                "drain_seconds": 0.01,
                **settings,
            }
        )
        gateway = Gateway(config, Certificate(*files), trust)
        server = asyncio.create_task(serve(config, gateway.certificate, database, gateway.stop))
        async with gateway.session():
            await gateway.until_ready()
            try:
                yield gateway
            finally:
                gateway.stop.set()
                async with asyncio.timeout(30):
                    await server

    return started


@pytest.fixture
def database() -> FakeDatabase:
    return FakeDatabase()


@pytest.fixture
async def gateway(start: Start, database: FakeDatabase) -> AsyncIterator[Gateway]:
    async with start(database) as started:
        yield started


@pytest.fixture(scope="module")
def recorder_dsn(postgres_dsn: str) -> str:
    """Return the DSN of the test database with the recorder's rights."""
    return postgres_dsn + "?options=-c%20role%3Dpoiesis_recorder"


@pytest.fixture
async def superuser(postgres_dsn: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(postgres_dsn)
    yield connection
    await connection.close()


@pytest.fixture
def open_reports_db(
    recorder_dsn: str, tmp_path: Path
) -> Iterator[Callable[..., AbstractAsyncContextManager[reports_db.ReportsDb]]]:
    """Open the gateway's pool of the test database."""
    dsn_file = tmp_path / "dsn"
    dsn_file.write_text(f"{recorder_dsn}\n")

    def opened(
        connections: int = 4, seconds: float = 10.0
    ) -> AbstractAsyncContextManager[reports_db.ReportsDb]:
        return reports_db.connect(dsn_file, connections=connections, seconds=seconds)

    return opened
