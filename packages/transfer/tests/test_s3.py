"""On a real S3."""

# ruff: noqa: PLR0917  # fixtures are arguments; tests may block

import dataclasses
import hashlib
import http.server
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from aiohttp.test_utils import unused_port
from s3_for_tests import keys
from served_for_tests import serving

from poiesis_transfer import checksums
from poiesis_transfer import fetch as fetch_module
from poiesis_transfer import s3 as s3_module
from poiesis_transfer.config import S3Config
from poiesis_transfer.errors import Denied, NotFound, Permanent, Retryable, TransferError
from poiesis_transfer.files import Destination, SourceFile
from poiesis_transfer.progress import Progress
from poiesis_transfer.retry import Retry
from poiesis_transfer.s3 import MIB, S3Object, S3Store, answer_error, part_size
from poiesis_transfer.stores import S3Stores
from poiesis_transfer.urls import S3Url

QUICK = Retry(attempts=2, first_seconds=0.001)
CHANGED_KEY = "a-wrong-secret-key"


@contextmanager
def opened(config: S3Config) -> Iterator[S3Stores]:
    with S3Stores(config, retry=QUICK) as store:
        yield store


def download(config: S3Config, url: S3Url, target: Path, progress: Progress) -> bytes:
    with opened(config) as store, Destination(target, "/in/f", progress) as destination:
        store.download(url, destination)
    return target.read_bytes()


def upload(config: S3Config, source: Path, url: S3Url, progress: Progress) -> None:
    with opened(config) as store, SourceFile(str(source), "/out/f") as file:
        store.upload(file, url, progress)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fetch_module, "WHOLE_BYTES", 6 * MIB)
    monkeypatch.setattr(fetch_module, "PART_BYTES", 1_000_003)
    monkeypatch.setattr(s3_module, "WHOLE_BYTES", 6 * MIB)
    monkeypatch.setattr(s3_module, "SEND_PART_BYTES", 5 * MIB)


@pytest.mark.integration
@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("size", [0, 1, MIB, 6 * MIB, 6 * MIB + 1, 12 * MIB + 7])
def test_files_of_any_size_go_there_and_back(
    s3: S3Config, bucket: str, tmp_path: Path, progress: Progress, size: int
):
    data = hashlib.shake_128(b"seed").digest(size)
    (tmp_path / "sent").write_bytes(data)
    url = S3Url(bucket, "dir/key")
    begun = time.monotonic()
    upload(s3, tmp_path / "sent", url, progress)
    assert progress._bytes == size
    assert download(s3, url, tmp_path / "came", progress) == data
    assert time.monotonic() - begun < 20  # a server that stalls on an empty body would need 30 s
    assert progress._bytes == 2 * size


@pytest.mark.integration
@pytest.mark.parametrize(
    "key",
    [
        "a b",
        "q?x=1&y",
        "h#x",
        "100%",
        "%41",
        "ünï/😀",
        "plus+plus",
        "a=b",
        "'\"",
        "x;y,z",
        "(a)[b]{c}",
        "~t",
        "-",
        "$HOME",
        "a:b@c",
        "*",
    ],
)
def test_keys_are_literal(
    s3: S3Config, admin: Any, bucket: str, tmp_path: Path, progress: Progress, key: str
):
    (tmp_path / "f").write_text(key)
    upload(s3, tmp_path / "f", S3Url(bucket, key), progress)
    assert list(keys(admin, bucket)) == [key]
    assert download(s3, S3Url(bucket, key), tmp_path / "g", progress) == key.encode()


@pytest.mark.integration
def test_a_listing_contains_only_its_directory(s3: S3Config, admin: Any, bucket: str):
    for key in ("d/", "d/a", "d/b/c ?#é", "dd/x", "d.x"):
        admin.put_object(Bucket=bucket, Key=key, Body=b"x" if not key.endswith("/") else b"")
    with opened(s3) as store:
        found = list(store.list(S3Url(bucket, "d")))
        assert found == [S3Object("d/", 0), S3Object("d/a", 1), S3Object("d/b/c ?#é", 1)]
        assert len(list(store.list(S3Url(bucket)))) == 5
        assert store.is_directory(S3Url(bucket, "d"))
        assert not store.is_directory(S3Url(bucket, "d.x"))
        assert store.is_object(S3Url(bucket, "d.x"))
        assert not store.is_object(S3Url(bucket, "d.y"))


@pytest.mark.integration
def test_missing_object_and_missing_bucket_differ(
    s3: S3Config, bucket: str, tmp_path: Path, progress: Progress
):
    with pytest.raises(
        NotFound, match=rf"cannot read s3://{bucket}/no \(input /in/f\) at http://.*: no such object"
    ):
        download(s3, S3Url(bucket, "no"), tmp_path / "f", progress)
    absent = S3Url("poiesis-no-such-bucket", "k")
    with pytest.raises(Permanent, match="the bucket does not exist"):
        download(s3, absent, tmp_path / "f", progress)
    (tmp_path / "sent").write_text("x")
    with pytest.raises(Permanent, match="the bucket does not exist"):
        upload(s3, tmp_path / "sent", absent, progress)
    with opened(s3) as store, pytest.raises(Permanent, match="the bucket does not exist"):
        next(store.list(absent))


@pytest.mark.integration
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"secret_access_key": CHANGED_KEY}, "rejected the service's secret key"),
        ({"access_key_id": "no-such-key"}, "rejected the service's access key"),
    ],
)
@pytest.mark.usefixtures("small_parts")
def test_invalid_credentials_fail_permanently_and_stay_hidden(
    s3: S3Config, bucket: str, tmp_path: Path, progress: Progress, changes: dict[str, str], words: str
):
    wrong = dataclasses.replace(s3, **changes)
    (tmp_path / "small").write_text("x")
    (tmp_path / "big").write_bytes(bytes(7 * MIB))
    url = S3Url(bucket, "k")
    messages = []
    with opened(wrong) as store:
        for attempt in (
            lambda: download(wrong, url, tmp_path / "f", progress),
            lambda: upload(wrong, tmp_path / "small", url, progress),
            lambda: upload(wrong, tmp_path / "big", url, progress),
            lambda: next(store.list(url)),
            lambda: store.is_object(url),
        ):
            with pytest.raises(Permanent) as failure:
                attempt()
            messages.append(str(failure.value))
    assert all(words in message for message in messages[:4])
    assert "access denied" in messages[4]  # an answer to HEAD has no body
    secrets = (
        "Signature=",
        "Credential",
        *changes.values(),
        s3.secret_access_key or "",
        s3.access_key_id or "",
    )
    assert not any(secret in message for secret in secrets for message in messages)


@pytest.mark.integration
@pytest.mark.usefixtures("small_parts")
def test_an_upload_that_fails_leaves_no_parts(
    s3: S3Config, admin: Any, bucket: str, tmp_path: Path, progress: Progress
):
    path = tmp_path / "f"
    path.write_bytes(bytes(20 * MIB))
    with opened(s3) as store, SourceFile(str(path), "/out/f") as file:
        os.truncate(path, 12 * MIB)
        with pytest.raises(Retryable, match="output /out/f changed size"):
            store.upload(file, S3Url(bucket, "k"), progress)
    assert admin.list_multipart_uploads(Bucket=bucket).get("Uploads", []) == []
    assert keys(admin, bucket) == {}
    assert progress._bytes == 0


@pytest.mark.integration
def test_a_small_file_that_shrinks_is_not_stored(
    s3: S3Config, admin: Any, bucket: str, tmp_path: Path, progress: Progress
):
    path = tmp_path / "f"
    path.write_bytes(b"12345")
    with opened(s3) as store, SourceFile(str(path), "/out/f") as file:
        path.write_bytes(b"123")
        with pytest.raises(Retryable, match="output /out/f changed size"):
            store.upload(file, S3Url(bucket, "k"), progress)
    assert keys(admin, bucket) == {}


@pytest.mark.integration
@pytest.mark.usefixtures("small_parts")
def test_a_change_during_the_download_is_detected(
    s3: S3Config, admin: Any, bucket: str, tmp_path: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch
):
    admin.put_object(Bucket=bucket, Key="k", Body=bytes(7 * MIB))
    version = s3_module._Object.version

    def seen_and_then_changed(self: Any, answer: Any) -> Any:
        found = version(self, answer)
        admin.put_object(Bucket=bucket, Key="k", Body=os.urandom(7 * MIB))
        return found

    monkeypatch.setattr(s3_module._Object, "version", seen_and_then_changed)
    with pytest.raises(Retryable, match="changed while it was read"):
        download(s3, S3Url(bucket, "k"), tmp_path / "f", progress)
    assert not (tmp_path / "f").exists()


@pytest.mark.integration
def test_an_invalid_bucket_name_fails_permanently(s3: S3Config, tmp_path: Path, progress: Progress):
    with pytest.raises(Permanent):
        download(s3, S3Url("A_B", "k"), tmp_path / "f", progress)


def test_an_unreachable_store_is_retryable(tmp_path: Path, progress: Progress):
    address = f"127.0.0.1:{unused_port()}"
    nowhere = S3Config(
        endpoint_url=f"http://user:password@{address}", access_key_id="the-id", secret_access_key="the-secret"
    )
    where = rf"at http://{address}: cannot connect \(connection refused\)"
    with pytest.raises(Retryable, match=where) as failure:
        download(nowhere, S3Url("b", "k"), tmp_path / "f", progress)
    assert not any(secret in str(failure.value) for secret in ("the-", "password"))


def test_a_missing_ca_bundle_is_named(progress: Progress):
    no_keys = S3Config(anonymous=True, ca_bundle="/no/ca")
    with opened(no_keys) as store, pytest.raises(Permanent, match="AWS_CA_BUNDLE: /no/ca"):
        store.is_object(S3Url("b", "k"))


@pytest.mark.parametrize(
    ("size", "expected"),
    [(1, 16 * MIB), (10_000 * 16 * MIB, 16 * MIB), (10_000 * 16 * MIB + 1, 17 * MIB), (5 * 2**40, 525 * MIB)],
)
def test_parts_grow_with_the_size(size: int, expected: int):
    assert part_size(size) == expected
    assert -(-size // part_size(size)) <= 10_000


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (404, "NoSuchKey", NotFound),
        (404, "404", NotFound),
        (404, "NoSuchBucket", Permanent),
        (404, "NoSuchUpload", Retryable),
        (403, "", Denied),
        (403, "AccessDenied", Denied),
        (403, "InvalidAccessKeyId", Permanent),
        (400, "RequestTimeout", Retryable),
        (400, "InvalidArgument", Permanent),
        (409, "OperationAborted", Retryable),
        (412, "PreconditionFailed", Retryable),
        (503, "SlowDown", Retryable),
        (400, "BadDigest", Retryable),
        (400, "MalformedXML", Retryable),
        (500, "InternalError", Retryable),
        (301, "PermanentRedirect", Permanent),
        (200, "", Permanent),
    ],
)
def test_responses_are_retryable_or_permanent(status: int, code: str, kind: type[TransferError]):
    assert type(answer_error("x", status, code, {})) is kind


@pytest.mark.integration
@pytest.mark.parametrize("key", ["/".join(["k" * 200] * 5) + "/" + "l" * 19, "Reads.fq", "reads.fq"])
def test_long_and_mixed_case_keys_stay_separate(
    s3: S3Config, admin: Any, bucket: str, tmp_path: Path, progress: Progress, key: str
):
    admin.put_object(Bucket=bucket, Key=key.swapcase(), Body=b"the other")
    (tmp_path / "f").write_text(key)
    upload(s3, tmp_path / "f", S3Url(bucket, key), progress)
    assert keys(admin, bucket)[key] == len(key)
    assert download(s3, S3Url(bucket, key), tmp_path / "g", progress) == key.encode()


@pytest.mark.integration
@pytest.mark.usefixtures("small_parts")
def test_the_holes_of_a_sparse_file_are_zeros(
    s3: S3Config, admin: Any, bucket: str, tmp_path: Path, progress: Progress
):
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(9 * MIB)
        file.seek(7 * MIB)
        file.write(b"here")
    upload(s3, tmp_path / "sparse", S3Url(bucket, "k"), progress)
    stored = admin.get_object(Bucket=bucket, Key="k")["Body"].read()
    assert stored == bytes(7 * MIB) + b"here" + bytes(2 * MIB - 4)


@pytest.mark.integration
@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("size", [1000, 12 * MIB])
def test_uploads_store_a_checksum_for_downloads(
    s3: S3Config, admin: Any, bucket: str, tmp_path: Path, progress: Progress, size: int
):
    (tmp_path / "f").write_bytes(os.urandom(size))
    upload(s3, tmp_path / "f", S3Url(bucket, "k"), progress)
    head = admin.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    crc = checksums.of_blocks("crc64nvme", [(tmp_path / "f").read_bytes()]).digest()
    assert (head["ChecksumCRC64NVME"], head["ChecksumType"]) == (checksums.in_base64(crc), "FULL_OBJECT")
    download(s3, S3Url(bucket, "k"), tmp_path / "g", progress)
    assert (tmp_path / "g").read_bytes() == (tmp_path / "f").read_bytes()


@pytest.mark.integration
@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("with_checksums", [True, False])
@pytest.mark.parametrize("stored", [True, False])
def test_an_upload_with_a_lost_response_is_recognized(
    s3: S3Config,
    admin: Any,
    bucket: str,
    tmp_path: Path,
    progress: Progress,
    monkeypatch: pytest.MonkeyPatch,
    with_checksums: bool,
    stored: bool,
):
    (tmp_path / "f").write_bytes(os.urandom(12 * MIB))
    admin.put_object(Bucket=bucket, Key="k", Body=bytes(12 * MIB))  # an older one of the same size
    post = S3Store.post

    def lost(self: S3Store, what: str, url: S3Url, query: Any, *rest: Any) -> Any:
        if "uploadId" in query:
            if stored:
                post(self, what, url, query, *rest)
            raise Retryable(f"{what}: HTTP 404 NoSuchUpload")
        return post(self, what, url, query, *rest)

    monkeypatch.setattr(S3Store, "post", lost)
    config = dataclasses.replace(s3, checksums=with_checksums)
    if stored:
        upload(config, tmp_path / "f", S3Url(bucket, "k"), progress)
    else:
        with pytest.raises(Retryable, match="NoSuchUpload"):
            upload(config, tmp_path / "f", S3Url(bucket, "k"), progress)


@pytest.mark.integration
def test_a_public_bucket_needs_no_credentials(
    s3: S3Config, admin: Any, bucket: str, tmp_path: Path, progress: Progress
):
    admin.put_object(Bucket=bucket, Key="k", Body=b"open")
    statement = {
        "Effect": "Allow",
        "Principal": "*",
        "Action": ["s3:GetObject"],
        "Resource": f"arn:aws:s3:::{bucket}/*",
    }
    admin.put_bucket_policy(
        Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    )
    no_keys = S3Config(endpoint_url=s3.endpoint_url, anonymous=True)
    assert download(no_keys, S3Url(bucket, "k"), tmp_path / "f", progress) == b"open"


class Scripted(http.server.BaseHTTPRequestHandler):
    """An S3 that responds by `script`, a list of (status, headers, body)."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server = cast("Any", self.server)
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        server.seen.append((self.path, dict(self.headers.items())))
        status, headers, body = server.script.pop(0)
        self.send_response_only(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_PUT = do_GET  # noqa: N815

    def log_message(self, *args: Any) -> None:
        """Nothing is logged."""


@pytest.fixture
def scripted():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Scripted)
    cast("Any", server).seen = []
    with serving(server):
        yield server


def there(server: Any, **changes: Any) -> S3Config:
    url = f"http://127.0.0.1:{server.server_port}"
    return S3Config(endpoint_url=url, access_key_id="the-id", secret_access_key="the-secret", **changes)


def test_a_bucket_of_another_region_is_asked_there(scripted, tmp_path: Path, progress: Progress):
    moved = b"<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-9</Region></Error>"
    scripted.script = [(400, {}, moved), (200, {}, b"x"), (200, {}, b"y")]
    with opened(there(scripted)) as store:
        for number in range(2):
            with Destination(tmp_path / str(number), "/in/f", progress) as destination:
                store.download(S3Url("b", "k"), destination)
    scopes = [headers["authorization"].split("/")[2] for _, headers in scripted.seen]
    assert scopes == ["us-east-1", "eu-9", "eu-9"]


@pytest.mark.parametrize("region", ["evil.example/", "eu-9.evil", "EU-9", "eu 9", "x" * 41, ""])
def test_an_invalid_region_is_ignored(scripted, tmp_path: Path, progress: Progress, region: str):
    scripted.script = [
        (301, {"x-amz-bucket-region": region}, b"<Error><Code>PermanentRedirect</Code></Error>")
    ]
    with pytest.raises(Permanent, match="another region"):
        download(there(scripted), S3Url("b", "k"), tmp_path / "f", progress)
    assert len(scripted.seen) == 1


def test_checksums_are_dropped_for_old_stores(scripted, tmp_path: Path, progress: Progress):
    digest = hashlib.md5(b"x", usedforsecurity=False).hexdigest()
    scripted.script = [
        (501, {}, b"<Error><Code>NotImplemented</Code></Error>"),
        (200, {"ETag": f'"{digest}"'}, b""),
    ]
    (tmp_path / "f").write_bytes(b"x")
    upload(there(scripted), tmp_path / "f", S3Url("b", "k"), progress)
    assert ["x-amz-checksum-crc64nvme" in headers for _, headers in scripted.seen] == [True, False]


def test_an_upload_with_other_stored_bytes_fails(scripted, tmp_path: Path, progress: Progress):
    scripted.script = [(200, {"ETag": f'"{"0" * 32}"'}, b"")] * 2
    (tmp_path / "f").write_bytes(b"x")
    with pytest.raises(Retryable, match="checksum mismatch: stored data does not match the data sent"):
        upload(there(scripted), tmp_path / "f", S3Url("b", "k"), progress)
    assert progress._bytes == 0


def test_who_pays_and_who_asks_is_signed(scripted, tmp_path: Path, progress: Progress):
    scripted.script = [(200, {}, b"x")]
    download(
        there(scripted, requester_pays=True, session_token="t"), S3Url("b", "k"), tmp_path / "f", progress
    )
    ((path, headers),) = scripted.seen
    assert (path, headers["x-amz-request-payer"], headers["x-amz-security-token"]) == (
        "/b/k",
        "requester",
        "t",
    )
    assert "x-amz-request-payer;x-amz-security-token" in headers["authorization"]


@pytest.mark.parametrize(
    ("style", "bucket", "endpoint", "host", "path"),
    [
        ("auto", "lab", "https://s3.example", "lab.s3.example", "/k"),
        ("auto", "lab.x", "https://s3.example", "s3.example", "/lab.x/k"),
        ("auto", "lab", "http://10.1.1.1:9000", "10.1.1.1", "/lab/k"),
        ("path", "lab", "https://s3.example/base/", "s3.example", "/base/lab/k"),
        ("virtual", "lab", "https://s3.example:8443", "lab.s3.example", "/k"),
        ("auto", "lab", None, "lab.s3.eu-9.amazonaws.com", "/k"),
    ],
)
def test_where_a_bucket_answers(style: Any, bucket: str, endpoint: str | None, host: str, path: str):
    config = S3Config(endpoint_url=endpoint, addressing_style=style)
    place, found = s3_module._place(config, S3Url(bucket, "k"), "eu-9")
    assert (place.host, found) == (host, path)
