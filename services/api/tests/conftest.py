"""Empty tables, a fake Kubernetes API server, config.example.json, and what our OpenAPI document promises."""

import importlib.util
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from poiesis_api.config import Database, Document
from poiesis_api.openapi import document
from poiesis_api.postgres import open_pool

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


@pytest.fixture(scope="session")
def config() -> Document:
    return Document.load(HERE.parent / "config.example.json")


@pytest.fixture(scope="session")
def conformance(config: Document) -> Any:
    """For a client's `middlewares`: what is answered against the document."""
    return conformance_.Conformance(document(config.service_info))


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
