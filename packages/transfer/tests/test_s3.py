"""On a real S3."""

# ruff: noqa: PLR0917  # fixtures are arguments; tests may block

import dataclasses
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import unused_port

from poiesis_transfer import fetch as fetch_module
from poiesis_transfer import s3 as s3_module
from poiesis_transfer.config import S3Config
from poiesis_transfer.errors import NotFound, Passing, Permanent, TransferError
from poiesis_transfer.files import Landing, SourceFile
from poiesis_transfer.progress import Progress
from poiesis_transfer.retry import Retry
from poiesis_transfer.s3 import MIB, S3Object, S3Store, answer_error, part_size
from poiesis_transfer.urls import S3Url
from s3_for_tests import keys

QUICK = Retry(attempts=2, first_seconds=0.001)
CHANGED_KEY = "a-wrong-secret-key"


@contextmanager
def opened(config: S3Config) -> Iterator[S3Store]:
    with S3Store.open(config, retry=QUICK) as store:
        yield store


def download(config: S3Config, url: S3Url, target: Path, progress: Progress) -> bytes:
    with opened(config) as store, Landing(target, "/in/f", progress) as landing:
        store.download(url, landing)
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
def test_a_listing_has_everything_below_a_directory_and_nothing_beside_it(
    s3: S3Config, admin: Any, bucket: str
):
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
def test_a_missing_object_and_a_missing_bucket_are_told_apart(
    s3: S3Config, bucket: str, tmp_path: Path, progress: Progress
):
    with pytest.raises(
        NotFound, match=rf"cannot read s3://{bucket}/no \(input /in/f\) at http://.*: there is no such object"
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
        ({"secret_access_key": CHANGED_KEY}, "does not accept the service's secret key"),
        ({"access_key_id": "nobody-we-know"}, "does not know the service's access key"),
    ],
)
@pytest.mark.usefixtures("small_parts")
def test_wrong_credentials_are_a_permanent_failure_that_shows_none(
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
        with pytest.raises(Passing, match="output /out/f changed its size"):
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
        with pytest.raises(Passing, match="output /out/f changed its size"):
            store.upload(file, S3Url(bucket, "k"), progress)
    assert keys(admin, bucket) == {}


@pytest.mark.integration
@pytest.mark.usefixtures("small_parts")
def test_an_object_that_changes_while_it_is_read_is_noticed(
    s3: S3Config, admin: Any, bucket: str, tmp_path: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch
):
    admin.put_object(Bucket=bucket, Key="k", Body=bytes(7 * MIB))
    version = s3_module._Object.version

    def seen_and_then_changed(self: Any, answer: Any) -> Any:
        found = version(self, answer)
        admin.put_object(Bucket=bucket, Key="k", Body=os.urandom(7 * MIB))
        return found

    monkeypatch.setattr(s3_module._Object, "version", seen_and_then_changed)
    with pytest.raises(Passing, match="changed while it was read"):
        download(s3, S3Url(bucket, "k"), tmp_path / "f", progress)
    assert not (tmp_path / "f").exists()


@pytest.mark.integration
def test_a_bucket_name_that_s3_does_not_allow_is_a_permanent_failure(
    s3: S3Config, tmp_path: Path, progress: Progress
):
    with pytest.raises(Permanent):
        download(s3, S3Url("A_B", "k"), tmp_path / "f", progress)


def test_a_store_that_cannot_be_reached_is_a_passing_failure(tmp_path: Path, progress: Progress):
    address = f"127.0.0.1:{unused_port()}"
    nowhere = S3Config(
        endpoint_url=f"http://user:password@{address}", access_key_id="the-id", secret_access_key="the-secret"
    )
    where = rf"at http://{address}: no connection \(connection refused\)"
    with pytest.raises(Passing, match=where) as failure:
        download(nowhere, S3Url("b", "k"), tmp_path / "f", progress)
    assert not any(secret in str(failure.value) for secret in ("the-", "password"))


def test_a_ca_bundle_that_is_not_there_is_named(progress: Progress):
    with pytest.raises(Permanent, match="AWS_CA_BUNDLE: /no/ca"), opened(S3Config(ca_bundle="/no/ca")):
        pass


@pytest.mark.parametrize(
    ("size", "expected"),
    [(1, 16 * MIB), (10_000 * 16 * MIB, 16 * MIB), (10_000 * 16 * MIB + 1, 17 * MIB), (5 * 2**40, 525 * MIB)],
)
def test_parts_grow_so_that_there_are_never_too_many(size: int, expected: int):
    assert part_size(size) == expected
    assert -(-size // part_size(size)) <= 10_000


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (404, "NoSuchKey", NotFound),
        (404, "404", NotFound),
        (404, "NoSuchBucket", Permanent),
        (404, "NoSuchUpload", Passing),
        (403, "", Permanent),
        (403, "AccessDenied", Permanent),
        (400, "RequestTimeout", Passing),
        (400, "InvalidArgument", Permanent),
        (409, "OperationAborted", Passing),
        (412, "PreconditionFailed", Passing),
        (503, "SlowDown", Passing),
        (500, "InternalError", Passing),
        (301, "PermanentRedirect", Permanent),
        (200, "", Permanent),
    ],
)
def test_an_answer_says_whether_trying_again_may_help(status: int, code: str, kind: type[TransferError]):
    assert type(answer_error("x", status, code, {})) is kind
