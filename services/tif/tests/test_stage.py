"""The filer as its container runs it, most of it on a real S3."""

# ruff: noqa: PLR0917  # fixtures are arguments; tests may block

import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from s3_for_tests import Ended, keys_of, loaded_by, run_filer

from poiesis_models.s3credentials import S3Credentials, to_json
from poiesis_models.worklist import InputItem, WorkList
from poiesis_tif.s3_input import Kind, S3Input
from poiesis_tif.steps import Staging, Target
from poiesis_transfer.config import S3Config
from poiesis_transfer.errors import Permanent
from poiesis_transfer.free_space import FreeSpace
from poiesis_transfer.progress import Progress
from poiesis_transfer.s3 import S3Object
from poiesis_transfer.urls import S3Url

MIB = 1024 * 1024


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The task volume's data."""
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.fixture
def stage(tmp_path: Path, root: Path):
    (tmp_path / "run").mkdir()

    def stage(*inputs: tuple[str, str | None, str], s3: S3Config | None = None, **changed: str) -> Ended:
        items = tuple(
            InputItem(path=path, local=f"{root}{path}", type=kind, url=url)  # type: ignore[arg-type]
            for path, kind, url in inputs
        )
        return run_filer("poiesis_tif", WorkList(task="t", inputs=items), tmp_path / "run", s3, **changed)

    return stage


def tree(root: Path) -> dict[str, bytes | None]:
    """Files and their contents, directories and None."""
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else None
        for path in sorted(root.rglob("*"))
    }


def put(admin: Any, bucket: str, **objects: str) -> None:
    for key, body in objects.items():
        admin.put_object(Bucket=bucket, Key=key, Body=body.encode())


def found(ended: Ended) -> dict[str, str]:
    """The types that the filer reports."""
    return {one.path: one.type for one in ended.progress.inputs}


def contents(tmp_path: Path) -> WorkList:
    (tmp_path / "content-0").write_text("literal é")
    (tmp_path / "content-1").write_text("")
    return WorkList(
        task="t",
        inputs=tuple(
            InputItem(
                path=f"/in/{number}",
                local=str(tmp_path / "root" / "in" / str(number)),
                content_file=f"content-{number}",
            )
            for number in range(2)
        ),
    )


def test_literal_contents_are_staged_for_any_user(tmp_path: Path, root: Path):
    ended = run_filer("poiesis_tif", contents(tmp_path), tmp_path)
    assert (ended.code, ended.progress.files, ended.progress.bytes) == (0, 2, len("literal é".encode()))
    assert tree(root) == {"in": None, "in/0": "literal é".encode(), "in/1": b""}
    assert found(ended) == {"/in/0": "FILE", "/in/1": "FILE"}
    assert stat.S_IMODE((root / "in").stat().st_mode) == 0o777
    assert stat.S_IMODE((root / "in/0").stat().st_mode) == 0o777


def test_literal_contents_load_no_network_library(tmp_path: Path, root: Path):
    loaded = loaded_by("poiesis_tif", contents(tmp_path), tmp_path)
    assert loaded & {"asyncio", "http.client", "ssl", "botocore", "awscrt", "pydantic", "argparse"} == set()


def test_missing_content_fails_permanently(tmp_path: Path):
    work = WorkList(task="t", inputs=(InputItem(path="/a", local=str(tmp_path / "a"), content_file="no"),))
    ended = run_filer("poiesis_tif", work, tmp_path)
    assert (ended.code, ended.progress.error) == (
        65,
        "cannot read the content of input /a: No such file or directory",
    )


def test_invalid_inputs_fail_before_any_transfer(stage, root: Path):
    ended = stage(("/a", "FILE", "gopher://h/x"))
    assert ended.code == 65
    assert "unsupported URL scheme 'gopher'" in (ended.progress.error or "")
    assert tree(root) == {}


@pytest.mark.integration
def test_files_and_directories_are_staged_whatever_their_names(
    stage, root: Path, s3: S3Config, admin: Any, bucket: str
):
    put(
        admin,
        bucket,
        **{
            "f": "file",
            "empty": "",
            "d/a b?#%41é": "1",
            "d/sub/x": "2",
            "d/hollow/": "",
            "dd": "beside",
            "only/": "",
        },
    )
    ended = stage(
        ("/in/file", "FILE", f"s3://{bucket}/f"),
        ("/in/empty", "FILE", f"s3://{bucket}/empty"),
        ("/in/dir", "DIRECTORY", f"s3://{bucket}/d"),
        ("/in/unknown-file", None, f"s3://{bucket}/f"),
        ("/in/unknown-dir", None, f"s3://{bucket}/d"),
        ("/in/by-slash", "FILE", f"s3://{bucket}/d/sub/"),
        ("/in/only", "DIRECTORY", f"s3://{bucket}/only/"),
        s3=s3,
    )
    assert (ended.code, ended.progress.error) == (0, None)
    directory = {"a b?#%41é": b"1", "hollow": None, "sub": None, "sub/x": b"2"}
    assert tree(root / "in") == {
        "file": b"file",
        "empty": b"",
        "dir": None,
        **{f"dir/{name}": body for name, body in directory.items()},
        "unknown-file": b"file",
        "unknown-dir": None,
        **{f"unknown-dir/{name}": body for name, body in directory.items()},
        "by-slash": None,
        "by-slash/x": b"2",
        "only": None,
    }
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (root / "in").rglob("*") if path.is_dir()}
    assert modes == {0o777}
    assert (ended.progress.files, ended.progress.bytes) == (8, 13)
    assert found(ended) == {"/in/unknown-file": "FILE", "/in/unknown-dir": "DIRECTORY"}


@pytest.mark.integration
def test_encoded_urls_are_read_by_their_decoded_keys(
    stage, root: Path, s3: S3Config, admin: Any, bucket: str
):
    put(admin, bucket, **{"sub dir/x.txt": "1", "é☂/a %41": "2", "both%20": "literal", "both ": "decoded"})
    ended = stage(
        ("/in/file", "FILE", f"s3://{bucket}/sub%20dir/x.txt"),
        ("/in/unknown", None, f"s3://{bucket}/sub%20dir/x.txt"),
        ("/in/dir", "DIRECTORY", f"s3://{bucket}/%C3%A9%E2%98%82"),
        ("/in/unknown-dir", None, f"s3://{bucket}/%C3%A9%E2%98%82"),
        ("/in/both", "FILE", f"s3://{bucket}/both%20"),
        s3=s3,
    )
    assert (ended.code, ended.progress.error) == (0, None)
    assert {name: body for name, body in tree(root / "in").items() if body is not None} == {
        "file": b"1",
        "unknown": b"1",
        "dir/a %41": b"2",
        "unknown-dir/a %41": b"2",
        "both": b"literal",
    }
    assert len(ended.progress.warnings) == 4
    assert found(ended) == {"/in/unknown": "FILE", "/in/unknown-dir": "DIRECTORY"}
    assert (
        f"input /in/file: nothing readable at s3://{bucket}/sub%20dir/x.txt; "
        f"used its percent-decoded key instead: s3://{bucket}/sub dir/x.txt"
    ) in ended.progress.warnings

    ended = stage(("/in/none", "FILE", f"s3://{bucket}/no%20such"), s3=s3)
    error = ended.progress.error or ""
    assert (ended.code, f"{bucket}/no%20such" in error, f"{bucket}/no such" in error) == (65, True, True)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("kind", "key", "words"),
    [
        ("FILE", "absent", "no such object"),
        (None, "absent", "no such object"),
        ("FILE", "d", "declare input /in/x as DIRECTORY"),
        ("DIRECTORY", "absent", "no objects with this prefix"),
        ("DIRECTORY", "f", "is an object, but input /in/x is declared as DIRECTORY"),
        ("DIRECTORY", "marker", "its key names a directory, but it has content"),
        ("DIRECTORY", "clash", "/in/x/a/b: the inputs name it both as a file and as a directory"),
    ],
)
def test_what_is_not_there_is_named(
    stage, root: Path, s3: S3Config, admin: Any, bucket: str, kind: str | None, key: str, words: str
):
    put(admin, bucket, **{"f": "", "d/a": ""})
    if key == "marker":
        admin.put_object(Bucket=bucket, Key="marker/m/", Body=b"odd")
    if key == "clash":  # this S3 refuses such keys: what a listing of another one would make is on the disk
        put(admin, bucket, **{"clash/a/b": "x"})
        (root / "in/x").mkdir(parents=True)
        (root / "in/x/a").write_text("")
    ended = stage(("/in/x", kind, f"s3://{bucket}/{key}"), s3=s3)
    assert ended.code == 65
    assert words in (ended.progress.error or "")
    assert bucket in (ended.progress.error or "") or key == "clash"


@pytest.mark.integration
def test_missing_bucket_and_invalid_credentials_are_permanent(stage, s3: S3Config, bucket: str):
    ended = stage(("/in/x", None, "s3://poiesis-no-such-bucket/d/"), s3=s3)
    assert (ended.code, "the bucket does not exist" in (ended.progress.error or "")) == (65, True)
    wrong = S3Config(
        endpoint_url=s3.endpoint_url, access_key_id=s3.access_key_id, secret_access_key="not-the-secret"
    )
    ended = stage(("/in/x", "FILE", f"s3://{bucket}/d"), s3=wrong)
    assert (ended.code, "rejected the service's secret key" in (ended.progress.error or "")) == (
        65,
        True,
    )
    assert not any(secret in ended.log for secret in (s3.access_key_id or "", "not-the-secret", "Signature="))


def test_unreachable_storage_is_retryable(stage):
    nowhere = S3Config(
        endpoint_url="http://127.0.0.1:1", access_key_id="the-id", secret_access_key="the-secret"
    )
    ended = stage(("/in/x", "FILE", "s3://b/k"), s3=nowhere)
    assert (ended.code, "cannot connect" in (ended.progress.error or "")) == (75, True)


@pytest.mark.integration
def test_each_input_uses_its_own_credentials(
    stage, root: Path, tmp_path: Path, s3: S3Config, admin: Any, bucket: str, other_bucket: str
):
    put(admin, bucket, **{"d/a": "1", "d/sub/b": "2"})
    put(admin, other_bucket, k="3")
    entries = [
        S3Credentials(
            name=f"of-{name}",
            urls=(f"s3://{name}/",),
            secret="keys",
            directory=str(keys_of(s3, name, tmp_path / name)),
        )
        for name in (bucket, other_bucket)
    ]
    no_keys = S3Config(endpoint_url=s3.endpoint_url)
    wanted = (("/in/d", None, f"s3://{bucket}/d"), ("/in/k", "FILE", f"s3://{other_bucket}/k"))
    ended = stage(*wanted, s3=no_keys, POIESIS_S3_CREDENTIALS=to_json(entries))
    assert (ended.code, ended.progress.error) == (0, None)
    assert tree(root / "in") == {"d": None, "d/a": b"1", "d/sub": None, "d/sub/b": b"2", "k": b"3"}

    ended = stage(*wanted, s3=no_keys, POIESIS_S3_CREDENTIALS=to_json(entries[:1]))
    assert (ended.code, "AWS_ACCESS_KEY_ID" in (ended.progress.error or "")) == (65, True)


def test_a_secret_that_is_not_there_is_named(stage, tmp_path: Path):
    entry = S3Credentials(name="lab", urls=("s3://b",), secret="lab-keys", directory=str(tmp_path / "none"))
    ended = stage(("/in/k", "FILE", "s3://b/k"), POIESIS_S3_CREDENTIALS=to_json([entry]))
    expected = "credentials lab: the Secret lab-keys does not exist or has no AWS_ACCESS_KEY_ID"
    assert (ended.code, ended.progress.error) == (65, expected)


@pytest.mark.integration
@pytest.mark.parametrize("kind", ["DIRECTORY", None])
def test_a_restart_starts_from_scratch(
    stage, root: Path, s3: S3Config, admin: Any, bucket: str, kind: str | None
):
    put(admin, bucket, **{"d/a": "1", "d/b": "2"})
    inputs = ("/in", kind, f"s3://{bucket}/d")
    assert stage(inputs, s3=s3).code == 0
    (root / "in/a").write_text("spoilt")
    (root / "in/b").unlink()
    ended = stage(inputs, s3=s3)
    assert (ended.code, ended.progress.files) == (0, 2)
    assert tree(root / "in") == {"a": b"1", "b": b"2"}


@pytest.mark.integration
def test_300_small_files_arrive(stage, root: Path, s3: S3Config, admin: Any, bucket: str):
    expected = {f"{number % 7}/f{number}": secrets.token_bytes(number * 10) for number in range(300)}
    for key, body in expected.items():
        admin.put_object(Bucket=bucket, Key=f"many/{key}", Body=body)
    ended = stage(("/in", "DIRECTORY", f"s3://{bucket}/many"), s3=s3)
    assert (ended.code, ended.progress.files) == (0, 300)
    assert {name: body for name, body in tree(root / "in").items() if body is not None} == expected
    assert ended.max_rss_mib < 128


@pytest.mark.integration
def test_a_big_file_needs_no_more_memory(
    stage, root: Path, tmp_path: Path, s3: S3Config, admin: Any, bucket: str
):
    digest = hashlib.sha256()
    with (tmp_path / "big").open("wb") as file:
        for _ in range(200):
            block = os.urandom(MIB)
            digest.update(block)
            file.write(block)
    admin.upload_file(str(tmp_path / "big"), bucket, "big")
    (tmp_path / "big").unlink()
    ended = stage(("/in/big", "FILE", f"s3://{bucket}/big"), s3=s3)
    assert (ended.code, ended.progress.files, ended.progress.bytes) == (0, 1, 200 * MIB)
    with (root / "in/big").open("rb") as file:
        assert hashlib.file_digest(file, "sha256").digest() == digest.digest()
    assert ended.max_rss_mib < 128


def test_a_hostile_listing_cannot_leave_the_mount(tmp_path: Path):
    class Listing:
        def list(self, directory: S3Url) -> Iterator[S3Object]:
            assert directory == S3Url("b", "d")
            yield S3Object("d/../../escaped", 1)

    class OneStore:
        s3 = Listing()

        def interrupt(self) -> None:
            """Do nothing: no request waits."""

    target = Target(local=tmp_path / "root/in", path="/in", number=0)
    with Progress(tmp_path) as progress:
        clients: Any = OneStore()
        staging = Staging(clients=clients, contents=tmp_path, progress=progress, free_space=FreeSpace())
        with pytest.raises(Permanent, match="cannot stage key"):
            S3Input(target, S3Url("b", "d"), Kind.DIRECTORY).stage(staging)
    assert [path.name for path in tmp_path.iterdir()] == ["progress.jsonl"]


@pytest.mark.integration
@pytest.mark.parametrize("order", [1, -1])
def test_the_deeper_of_overlapping_inputs_wins(
    stage, root: Path, s3: S3Config, admin: Any, bucket: str, order: int
):
    names = ("one/dos/only", "one/dos/same", "one/top", "two/same", "top")
    put(admin, bucket, **{name: name for name in names})
    inputs = [
        ("/d/dos", "DIRECTORY", f"s3://{bucket}/two"),
        ("/d", "DIRECTORY", f"s3://{bucket}/one"),
        ("/d/top", "FILE", f"s3://{bucket}/top"),
    ]
    assert stage(*inputs[::order], s3=s3).code == 0
    assert {name: text for name, text in tree(root).items() if text is not None} == {
        "d/dos/only": b"one/dos/only",
        "d/dos/same": b"two/same",
        "d/top": b"top",
    }
