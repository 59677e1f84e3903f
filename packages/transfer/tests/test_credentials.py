"""AWS' standard chain, against services of our own that give credentials as a container role's and STS do."""

import http.server
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl

import pytest
from served_for_tests import serving_http

from poiesis_transfer.config import S3Config
from poiesis_transfer.credentials import DefaultChain, identity
from poiesis_transfer.errors import Permanent
from poiesis_transfer.sigv4 import Credentials


class Quiet(http.server.BaseHTTPRequestHandler):
    """Logs nothing."""

    def answer(self, text: str, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *args: Any) -> None:
        """Nothing is logged."""


def soon() -> str:
    """A time so near that what expires then is renewed at once."""
    return (datetime.now(UTC) + timedelta(seconds=30)).strftime("%Y-%m-%dT%H:%M:%SZ")


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

    class Handler(Quiet):
        def do_GET(self) -> None:
            given.append(f"key-{len(given)}")
            answer = {"AccessKeyId": given[-1], "SecretAccessKey": "s", "Token": "t"}
            self.answer(json.dumps({**answer, "Expiration": soon()}), "application/json")

    with serving_http(Handler) as url:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{url}/role")
        yield given


def test_a_roles_credentials_are_renewed_before_they_expire(role):
    chain = identity(S3Config())
    first = chain.credentials()
    assert first == Credentials(role[-1], "s", "t")
    assert chain.credentials() == Credentials(role[-1], "s", "t") != first


def test_the_chain_ignores_keys_in_the_environment(role, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "the-deployments")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the-deployments")
    assert DefaultChain("us-east-1").credentials() == Credentials(role[-1], "s", "t")


def test_without_any_identity_the_variables_are_named(nowhere):
    with pytest.raises(Permanent, match="AWS_ACCESS_KEY_ID"):
        DefaultChain("us-east-1").credentials()


STS_ANSWER = """<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>{key}</AccessKeyId><SecretAccessKey>s</SecretAccessKey>
<SessionToken>t</SessionToken><Expiration>{expires}</Expiration></Credentials></AssumeRoleWithWebIdentityResult>
</AssumeRoleWithWebIdentityResponse>"""


@pytest.fixture
def sts(nowhere, monkeypatch: pytest.MonkeyPatch, tmp_path):
    """An STS that gives keys for the token in the file `token`; the forms that it was sent."""
    asked: list[dict[str, str]] = []

    class Handler(Quiet):
        def do_POST(self) -> None:
            form = dict(parse_qsl(self.rfile.read(int(self.headers["Content-Length"])).decode()))
            asked.append(form)
            answer = STS_ANSWER.format(key=f"key-of-{form['WebIdentityToken']}", expires=soon())
            self.answer(answer, "text/xml")

    with serving_http(Handler) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", url)
        monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::1:role/tes")
        monkeypatch.setenv("AWS_ROLE_SESSION_NAME", "poiesis-1")
        monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
        yield asked


def test_a_web_identity_token_is_read_per_renewal(sts, tmp_path):
    (tmp_path / "token").write_text("token-one")
    chain = identity(S3Config())
    assert chain.credentials() == Credentials("key-of-token-one", "s", "t")
    (tmp_path / "token").write_text("token-two")
    assert chain.credentials() == Credentials("key-of-token-two", "s", "t")
    assert sts[0]["RoleArn"] == "arn:aws:iam::1:role/tes"
    assert sts[0]["RoleSessionName"] == "poiesis-1"


def test_configured_keys_come_before_the_chain(role):
    keys = S3Config(access_key_id="a", secret_access_key="b", session_token="c")
    assert identity(keys).credentials() == Credentials("a", "b", "c")
    assert identity(S3Config(anonymous=True)).credentials() is None
    assert role == []
