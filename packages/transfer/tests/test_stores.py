"""Several credentials in one filer: which one serves a URL, and errors of unusable ones."""

# ruff: noqa: PLR0917  # fixtures are arguments

import http.server
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from s3_for_tests import keys, keys_of
from served_for_tests import serving

from poiesis_models.s3credentials import S3Credentials
from poiesis_transfer import pool
from poiesis_transfer.config import S3Config
from poiesis_transfer.errors import Permanent
from poiesis_transfer.files import Destination, SourceFile
from poiesis_transfer.progress import Progress
from poiesis_transfer.retry import Retry
from poiesis_transfer.s3 import S3Object
from poiesis_transfer.stores import S3Stores
from poiesis_transfer.urls import S3Url

QUICK = Retry(attempts=2, first_seconds=0.001)


def entry(name: str, *urls: str, **fields: Any) -> S3Credentials:
    return S3Credentials(name=name, urls=urls, **fields)


def of_secret(name: str, url: str, directory: Path) -> S3Credentials:
    return entry(name, url, secret=f"{name}-keys", directory=str(directory))


def read(stores: S3Stores, url: S3Url, target: Path, progress: Progress) -> bytes:
    with Destination(target, "/in/f", progress) as destination:
        stores.download(url, destination)
    return target.read_bytes()


@pytest.fixture
def two(s3: S3Config, bucket: str, other_bucket: str, tmp_path: Path) -> list[S3Credentials]:
    """Two credentials, of which each opens its own bucket alone."""
    return [
        of_secret("lab-a", f"s3://{bucket}", keys_of(s3, bucket, tmp_path / "a")),
        of_secret("lab-b", f"s3://{other_bucket}", keys_of(s3, other_bucket, tmp_path / "b")),
    ]


@pytest.fixture
def no_keys(s3: S3Config) -> S3Config:
    """A deployment that may nothing."""
    return replace(s3, access_key_id=None, secret_access_key=None, anonymous=True)


@pytest.mark.integration
def test_each_bucket_is_asked_with_its_own_credentials(
    no_keys: S3Config,
    admin: Any,
    bucket: str,
    other_bucket: str,
    two: list[S3Credentials],
    tmp_path: Path,
    progress: Progress,
):
    (tmp_path / "sent").write_text("x")
    with S3Stores(no_keys, two, retry=QUICK) as stores:
        for place in (bucket, other_bucket):
            url = S3Url(place, "d/k")
            with SourceFile(str(tmp_path / "sent"), "/out/f") as file:
                stores.upload(file, url, progress)
            assert keys(admin, place) == {"d/k": 1}
            assert read(stores, url, tmp_path / "came", progress) == b"x"
            assert list(stores.list(S3Url(place, "d"))) == [S3Object("d/k", 1)]
            assert (stores.is_directory(S3Url(place, "d")), stores.is_object(url)) == (True, True)


@pytest.mark.integration
def test_a_refusal_names_the_credentials_and_shows_none(
    no_keys: S3Config,
    bucket: str,
    other_bucket: str,
    two: list[S3Credentials],
    tmp_path: Path,
    progress: Progress,
):
    (mine, _) = two
    stranger = replace(mine, urls=(f"s3://{other_bucket}/team",))
    (tmp_path / "sent").write_text("x")
    url = S3Url(other_bucket, "team/k")
    messages = []
    with (
        S3Stores(no_keys, [stranger], retry=QUICK) as stores,
        SourceFile(str(tmp_path / "sent"), "/o") as file,
    ):
        for attempt in (
            lambda: read(stores, url, tmp_path / "came", progress),
            lambda: stores.upload(file, url, progress),
            lambda: next(stores.list(S3Url(other_bucket, "team"))),
            lambda: stores.is_object(url),
        ):
            with pytest.raises(Permanent) as failure:
                attempt()
            messages.append(str(failure.value))
        with pytest.raises(Permanent) as of_the_deployment:
            read(stores, S3Url(other_bucket, "teams/k"), tmp_path / "came", progress)
    where = f"at {no_keys.endpoint_url} with the credentials lab-a: "
    why = "access denied: the service's credentials do not allow it (HTTP 403, AccessDenied)"
    assert messages[0] == f"cannot read {url} (input /in/f) {where}{why}"
    assert all(where + why in message for message in messages)
    assert "lab-a" not in str(of_the_deployment.value)
    secrets = [path.read_text() for path in (tmp_path / "a").iterdir()]
    assert not any(secret in message for secret in secrets for message in messages)


@pytest.mark.integration
def test_the_deployments_credentials_are_for_all_else(
    s3: S3Config, admin: Any, bucket: str, other_bucket: str, tmp_path: Path, progress: Progress
):
    admin.put_object(Bucket=bucket, Key="k", Body=b"x")
    public = entry("public", f"s3://{bucket}/public/", f"s3://{other_bucket}", anonymous=True)
    with S3Stores(s3, [public], retry=QUICK) as stores:
        assert read(stores, S3Url(bucket, "k"), tmp_path / "came", progress) == b"x"
        for url in (S3Url(bucket, "public/k"), S3Url(other_bucket, "k")):
            with pytest.raises(Permanent, match="with the credentials public: access denied"):
                stores.is_object(url)


@pytest.mark.integration
def test_unusable_credentials_fail_only_their_urls(
    s3: S3Config, admin: Any, bucket: str, other_bucket: str, tmp_path: Path, progress: Progress
):
    admin.put_object(Bucket=bucket, Key="k", Body=b"x")
    broken = of_secret("lab", f"s3://{other_bucket}", tmp_path / "none")
    untrusted = entry("private", "s3://private", anonymous=True, ca_file=str(tmp_path / "no.crt"))
    with S3Stores(s3, [broken, untrusted], retry=QUICK) as stores:
        assert read(stores, S3Url(bucket, "k"), tmp_path / "came", progress) == b"x"
        missing = "credentials lab: the Secret lab-keys does not exist or has no AWS_ACCESS_KEY_ID"
        for _ in range(2):
            with pytest.raises(Permanent, match=missing):
                stores.is_object(S3Url(other_bucket, "k"))
        with pytest.raises(Permanent, match=r"credentials private: .*no\.crt contains no certificates"):
            stores.is_object(S3Url("private", "k"))


class Recorder(http.server.ThreadingHTTPServer):
    """An S3 that has everything; remembers paths and headers, and how many came at once."""

    request_queue_size = 64

    def __init__(self, seconds: float = 0) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seconds = seconds
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.now = self.most = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Recorder

    def do_HEAD(self) -> None:
        recorder = self.server
        with recorder.lock:
            recorder.seen.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
            recorder.now += 1
            recorder.most = max(recorder.most, recorder.now)
        time.sleep(recorder.seconds)
        with recorder.lock:
            recorder.now -= 1
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        """Nothing is logged."""


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    server = Recorder(seconds=0.1)
    with serving(server):
        yield server


def test_an_entrys_ways_are_its_own(recorder: Recorder, tmp_path: Path):
    (tmp_path / "AWS_ACCESS_KEY_ID").write_text("own-id")
    (tmp_path / "AWS_SECRET_ACCESS_KEY").write_text("own-secret")
    deployment = S3Config(
        endpoint_url="http://127.0.0.1:1", region="eu-1", access_key_id="a", secret_access_key="b"
    )
    entries = [
        replace(
            of_secret("paying", "s3://paid", tmp_path),
            endpoint=f"http://localhost:{recorder.server_port}",
            region="eu-2",
            addressing_style="path",
            requester_pays=True,
        ),
        entry("public", "s3://public", endpoint=recorder.url, anonymous=True),
    ]
    with S3Stores(deployment, entries, retry=QUICK) as stores:
        assert stores.is_object(S3Url("paid", "k"))
        assert stores.is_object(S3Url("public", "k"))
    (paid_path, paid), (public_path, public) = recorder.seen
    assert (paid_path, paid["x-amz-request-payer"]) == ("/paid/k", "requester")
    assert "Credential=own-id/" in paid["authorization"]
    assert "/eu-2/s3/aws4_request" in paid["authorization"]
    assert public_path == "/public/k"
    assert not {"authorization", "x-amz-request-payer"} & public.keys()


def test_all_stores_share_16_concurrent_requests(recorder: Recorder, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ssl, "create_default_context", lambda **_: None)
    entries = [
        entry(
            f"e{number}", f"s3://bucket-{number}", endpoint=recorder.url, anonymous=True, ca_file=f"/{number}"
        )
        for number in range(4)
    ]
    urls = [S3Url(f"bucket-{number % 4}", f"k{number}") for number in range(120)]
    with S3Stores(S3Config(anonymous=True), entries, retry=QUICK) as stores:
        pool.for_each(urls, lambda url: _ask(stores, url), concurrency=60, interrupt=stores.interrupt)
        assert len(stores._webs) == 4
    assert len(recorder.seen) == 120
    assert recorder.most <= pool.CONCURRENCY


def _ask(stores: S3Stores, url: S3Url) -> None:
    assert stores.is_object(url)
