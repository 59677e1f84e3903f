"""What the page and its document are served with. That the page works in a browser: test_browser.py."""

import gzip
import hashlib
import json
import re
from pathlib import Path

import pytest
from aiohttp.test_utils import TestClient, TestServer

import poiesis_api
from poiesis_api import openapi
from poiesis_api.app import make_app

BASE = "/ga4gh/tes/v1"
DIRECTORY = Path(poiesis_api.__file__).parent / "swagger_ui"


@pytest.fixture
async def client(config, make_services):
    """Of an app without a database."""
    app = make_app(make_services(config, pool=None, submitter=None))
    async with TestClient(TestServer(app), auto_decompress=False) as client:
        yield client


async def test_the_document_is_served_as_it_is_made(client, config):
    response = await client.get(f"{BASE}/openapi.json", headers={"Accept-Encoding": "identity"})
    assert response.content_type == "application/json"
    assert await response.json() == openapi.document(config.service_info)


async def test_page_uses_only_served_files_without_inline_code(client):
    response = await client.get(f"{BASE}/ui", headers={"Accept-Encoding": "identity"})
    page = await response.text()
    assert response.content_type == "text/html"
    links = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(links) >= 5
    for link in set(links) - {"data:,"}:
        assert (await client.get(f"{BASE}/{link}")).status == 200, link
    assert re.findall(r"<script(?![^>]* src=)|<style| style=| on\w+=|https?:", page) == []


FILES = ("openapi.json", "ui", "ui/swagger-ui-bundle.js", "ui/swagger-ui.css", "ui/page.js", "ui/page.css")


@pytest.mark.parametrize("name", FILES)
async def test_every_file_may_load_from_this_server_alone(client, name):
    headers = (await client.get(f"{BASE}/{name}")).headers
    policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"


@pytest.mark.parametrize("name", FILES)
async def test_a_file_is_the_same_compressed_and_not(client, name):
    plain = await client.get(f"{BASE}/{name}", headers={"Accept-Encoding": "identity"})
    packed = await client.get(f"{BASE}/{name}", headers={"Accept-Encoding": "br, gzip"})
    assert "Content-Encoding" not in plain.headers
    assert packed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(await packed.read()) == await plain.read()


@pytest.mark.parametrize("name", FILES)
async def test_cached_file_is_not_sent_again(client, name):
    etag = (await client.get(f"{BASE}/{name}")).headers["ETag"]
    again = await client.get(f"{BASE}/{name}", headers={"If-None-Match": etag})
    assert (again.status, await again.read(), again.headers["ETag"]) == (304, b"", etag)
    assert (await client.get(f"{BASE}/{name}", headers={"If-None-Match": '"other"'})).status == 200


@pytest.mark.parametrize(
    "name", ["ui/", "ui/index.html", "ui/lock.json", "ui/..%2Fapp.py", "ui/LICENSE", "openapi"]
)
async def test_nothing_else_of_the_package_is_served(client, name):
    assert (await client.get(f"{BASE}/{name}")).status == 404


def test_swagger_ui_is_what_was_locked():
    lock = json.loads((DIRECTORY / "lock.json").read_text())
    for name, digest in lock["sha256"].items():
        compressed = DIRECTORY / f"{name}.gz"
        content = (
            gzip.decompress(compressed.read_bytes())
            if compressed.exists()
            else (DIRECTORY / name).read_bytes()
        )
        assert hashlib.sha256(content).hexdigest() == digest, name
    ours = {"index.html", "page.js", "page.css", "lock.json"}
    theirs = {
        f"{name}.gz" if name.startswith("swagger-ui") and "LICENSE" not in name else name
        for name in lock["sha256"]
    }
    assert {path.name for path in DIRECTORY.iterdir()} == ours | theirs


def test_page_is_smaller_than_600_kb():
    assert sum(path.stat().st_size for path in DIRECTORY.iterdir()) < 600_000
