"""Empty tables, a fake Kubernetes, a fake OpenID Provider, an example of a configuration, our document."""

import importlib.util
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import trustme
from aiohttp.test_utils import TestClient, TestServer

from poiesis_api.app import make_app
from poiesis_api.config import Database, Document, UserLimits
from poiesis_api.handlers import Services
from poiesis_api.identity.authenticators import NoAuthenticator
from poiesis_api.limits import RequestRates
from poiesis_api.openapi import document
from poiesis_api.postgres import open_pool
from poiesis_api.submitter import Submitter

HERE = Path(__file__).parent


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"poiesis_api_{name}", HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


fake_kubernetes = _load("fake_kubernetes")
conformance_ = _load("conformance")
fake_issuer = _load("fake_issuer")


@pytest.fixture(scope="session")
def gateway_ca_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate authority of the gateway."""
    path = tmp_path_factory.mktemp("gateway") / "ca.crt"
    trustme.CA().cert_pem.write_to_path(path)
    return path


@pytest.fixture(scope="session")
def config(gateway_ca_file: Path) -> Document:
    example = Document.load(HERE.parent / "config.example.json")
    assert example.gateway is not None
    gateway = example.gateway.model_copy(update={"ca_file": str(gateway_ca_file)})
    return example.model_copy(update={"gateway": gateway})


@pytest.fixture(scope="session")
def conformance(config: Document) -> Any:
    """For a client's `middlewares`: what is answered against the document."""
    return conformance_.Conformance(document(config.service_info))


@pytest.fixture(scope="session")
def make_services() -> Callable[..., Services]:
    """Makes Services of one user without limits: `pool`, `submitter`, `config`."""

    def make(config: Document, **parts: Any) -> Services:
        unlimited = config.model_copy(update={"user_limits": UserLimits()})
        return Services(config=unlimited, authenticator=NoAuthenticator(), rates=RequestRates(None), **parts)

    return make


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


@pytest.fixture
async def client(
    pool: Any, kubernetes: Any, config: Document, conformance: Any, make_services: Any
) -> AsyncIterator[TestClient[Any, Any]]:
    """A client of an api without users; every response must conform to our OpenAPI document."""
    services = make_services(config, pool=pool, submitter=Submitter(pool, kubernetes.client, config))
    async with TestClient(TestServer(make_app(services)), middlewares=[conformance]) as client:
        yield client


@pytest.fixture
async def issuer() -> AsyncIterator[Any]:
    """An OpenID Provider with one key, `first`, for ES256."""
    async with fake_issuer.serve() as fake:
        fake.rotate()
        yield fake


@pytest.fixture(scope="session")
def make_keyring() -> Callable[[], Any]:
    """Make keys and tokens of OpenID Providers that are not reachable."""

    def make() -> Any:
        fake = fake_issuer.FakeIssuer()
        fake.url = "https://sso.example.org"
        fake.rotate()
        return fake

    return make


@pytest.fixture
def keyring(make_keyring: Callable[[], Any]) -> Any:
    """One of them."""
    return make_keyring()
