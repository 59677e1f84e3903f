"""AWS' standard chain, against a service of our own that gives credentials as a container role's does."""

import http.server
import json
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from poiesis_transfer.config import S3Config
from poiesis_transfer.credentials import Chain, identity
from poiesis_transfer.errors import Permanent
from poiesis_transfer.sigv4 import Credentials


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path):
    """No credentials in the environment, in files or at the node's metadata service."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def role(nowhere, monkeypatch: pytest.MonkeyPatch):
    """Credentials that are renewed whenever they are asked for; the list of what was given."""
    given: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            given.append(f"key-{len(given)}")
            soon = datetime.now(UTC) + timedelta(seconds=30)
            answer = {"AccessKeyId": given[-1], "SecretAccessKey": "s", "Token": "t"}
            body = json.dumps({**answer, "Expiration": soon.strftime("%Y-%m-%dT%H:%M:%SZ")}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            """Nothing is logged."""

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.05,))
        serving.start()
        monkeypatch.setenv(
            "AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://127.0.0.1:{server.server_port}/role"
        )
        yield given
        server.shutdown()
        serving.join()


def test_a_roles_credentials_are_renewed_before_they_expire(role):
    chain = identity(S3Config())
    first = chain.credentials()
    assert first == Credentials(role[-1], "s", "t")
    assert chain.credentials() == Credentials(role[-1], "s", "t") != first


def test_without_any_identity_the_variables_are_named(nowhere):
    with pytest.raises(Permanent, match="AWS_ACCESS_KEY_ID"):
        Chain().credentials()


def test_keys_that_are_given_come_before_the_chain_and_nobody_signs_for_public_buckets(role):
    keys = S3Config(access_key_id="a", secret_access_key="b", session_token="c")
    assert identity(keys).credentials() == Credentials("a", "b", "c")
    assert identity(S3Config(anonymous=True)).credentials() is None
    assert role == []
