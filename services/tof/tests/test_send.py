"""The filer as its container runs it, on a real S3."""

# ruff: noqa: PLR0917  # fixtures are arguments; tests may block

import hashlib
import http.server
import os
import queue
import secrets
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from s3_for_tests import Ended, environment, keys, keys_of, run_filer
from served_for_tests import serving_http

from poiesis_models.runfiles import SentOutput
from poiesis_models.s3credentials import S3Credentials, to_json
from poiesis_models.worklist import OutputItem, WorkList
from poiesis_transfer.config import S3Config

MIB = 1024 * 1024


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root/out").mkdir(parents=True)
    return tmp_path / "root"


@pytest.fixture
def send(tmp_path: Path, root: Path):
    (tmp_path / "run").mkdir()

    def send(
        *outputs: tuple[str, str], s3: S3Config | None = None, prefix: str = "/out", **changed: str
    ) -> Ended:
        items = tuple(
            OutputItem(
                path=path,
                local=f"{root}{path}",
                url=url,
                wildcard="*" in path,
                path_prefix=prefix if "*" in path else None,
            )
            for path, url in outputs
        )
        return run_filer("poiesis_tof", WorkList(task="t", outputs=items), tmp_path / "run", s3, **changed)

    return send


@pytest.mark.integration
def test_outputs_are_stored_and_recorded(send, root: Path, s3: S3Config, admin: Any, bucket: str):
    (root / "out/dir/sub").mkdir(parents=True)
    for name, text in {
        "file": "1",
        "empty": "",
        "dir/a b?#%41é": "22",
        "dir/sub/c": "333",
        "x.txt": "4444",
    }.items():
        (root / "out" / name).write_text(text)
    ended = send(
        ("/out/file", f"s3://{bucket}/renamed"),
        ("/out/empty", f"s3://{bucket}/empty"),
        ("/out/dir", f"s3://{bucket}/d/"),
        ("/out/*.txt", f"s3://{bucket}/wild"),
        ("/out/optional", f"s3://{bucket}/optional"),
        s3=s3,
    )
    assert (ended.code, ended.progress.error) == (0, None)
    stored = {"renamed": 1, "empty": 0, "d/a b?#%41é": 2, "d/sub/c": 3, "wild/x.txt": 4}
    assert keys(admin, bucket) == stored
    paths = {
        "renamed": "/out/file",
        "empty": "/out/empty",
        "d/a b?#%41é": "/out/dir/a b?#%41é",
        "d/sub/c": "/out/dir/sub/c",
        "wild/x.txt": "/out/x.txt",
    }
    assert set(ended.progress.outputs) == {
        SentOutput(url=f"s3://{bucket}/{key}", path=paths[key], size_bytes=size)
        for key, size in stored.items()
    }
    assert ended.progress.warnings == ("output /out/optional was not produced",)
    assert (ended.progress.files, ended.progress.bytes) == (5, 10)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("keys_are", "stored"),
    [
        ("literal", {"my%20out/a b%41", "wild%2Fcard/a b%41", "f%20%C3%A9"}),
        ("decoded", {"my out/a b%41", "wild/card/a b%41", "f é"}),
    ],
)
def test_output_keys_follow_the_configuration(
    send, root: Path, s3: S3Config, admin: Any, bucket: str, keys_are: str, stored: set[str]
):
    (root / "out/a b%41").write_text("x")
    ended = send(
        ("/out", f"s3://{bucket}/my%20out/"),
        ("/out/a*", f"s3://{bucket}/wild%2Fcard"),
        ("/out/a b%41", f"s3://{bucket}/f%20%C3%A9"),
        s3=s3,
        POIESIS_S3_OUTPUT_KEYS=keys_are,
    )
    assert (ended.code, ended.progress.error) == (0, None)
    assert set(keys(admin, bucket)) == stored
    encoded = keys_are == "decoded"
    name = "a%20b%2541" if encoded else "a b%41"
    assert {output.url for output in ended.progress.outputs} == {  # in the form in which the task names URLs
        f"s3://{bucket}/my%20out/{name}",
        f"s3://{bucket}/wild%2Fcard/{name}",
        f"s3://{bucket}/f%20%C3%A9",
    }


@pytest.mark.integration
def test_sendable_files_are_sent_before_failing(send, root: Path, s3: S3Config, admin: Any, bucket: str):
    (root / "out/good").write_text("x")
    for name in (b"a\xff", b"b\xff", b"c\xff"):
        (root / "out" / os.fsdecode(name)).write_text("x")
    ended = send(("/out", f"s3://{bucket}/o"), s3=s3)
    assert ended.code == 65
    assert (
        ended.progress.error == "output /out/a\ufffd: its name is not UTF-8, which URLs require; and 2 more"
    )
    assert keys(admin, bucket) == {"o/good": 1}


@pytest.mark.integration
def test_nothing_outside_the_tasks_data_is_ever_sent(
    send, root: Path, tmp_path: Path, s3: S3Config, admin: Any, bucket: str
):
    (tmp_path / "secret").write_text("secret")
    for name, target in {
        "a": "/proc/self/environ",
        "b": "../../secret",
        "c": str(tmp_path / "secret"),
        "d": "/",
        "e": "/proc",
    }.items():
        (root / "out" / name).symlink_to(target)
    ended = send(
        ("/out", f"s3://{bucket}/o"), ("/out/*", f"s3://{bucket}/w"), ("/out/a", f"s3://{bucket}/a"), s3=s3
    )
    assert ended.code == 0
    assert keys(admin, bucket) == {}
    assert (
        "/out/a was left out: the symbolic link /out/a leads to /proc/self/environ"
        in ended.progress.warnings[0]
    )


@pytest.mark.integration
def test_missing_bucket_and_invalid_credentials_are_permanent(send, root: Path, s3: S3Config, bucket: str):
    (root / "out/f").write_text("x")
    ended = send(("/out/f", "s3://poiesis-no-such-bucket/k"), s3=s3)
    assert ended.code == 65
    assert "cannot write s3://poiesis-no-such-bucket/k (output /out/f)" in (ended.progress.error or "")
    assert "the bucket does not exist" in (ended.progress.error or "")
    wrong = S3Config(
        endpoint_url=s3.endpoint_url, access_key_id=s3.access_key_id, secret_access_key="not-the-secret"
    )
    ended = send(("/out/f", f"s3://{bucket}/k"), s3=wrong)
    assert (ended.code, "rejected the service's secret key" in (ended.progress.error or "")) == (
        65,
        True,
    )
    assert not any(secret in ended.log for secret in (s3.access_key_id or "", "not-the-secret", "Signature="))


def test_unreachable_storage_is_retryable(send, root: Path):
    (root / "out/f").write_text("x")
    nowhere = S3Config(
        endpoint_url="http://127.0.0.1:1", access_key_id="the-id", secret_access_key="the-secret"
    )
    ended = send(("/out/f", "s3://b/k"), s3=nowhere)
    assert (ended.code, "cannot connect" in (ended.progress.error or "")) == (75, True)


def test_missing_credentials_are_named(send, root: Path):
    (root / "out/f").write_text("x")
    no_keys = S3Config(endpoint_url="http://127.0.0.1:1")
    ended = send(("/out/f", "s3://b/k"), s3=no_keys)
    assert (ended.code, "AWS_ACCESS_KEY_ID" in (ended.progress.error or "")) == (65, True)


@pytest.mark.integration
def test_each_file_uses_the_closest_credentials(
    send, root: Path, tmp_path: Path, s3: S3Config, admin: Any, bucket: str, other_bucket: str
):
    for name in ("here/a", "here/team/b"):
        (root / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "out" / name).write_text("x")
    given = to_json(
        [
            S3Credentials(
                name="bucket",
                urls=(f"s3://{bucket}",),
                secret="keys",
                directory=str(keys_of(s3, bucket, tmp_path / "keys")),
            ),
            S3Credentials(
                name="team", urls=(f"s3://{bucket}/here/team", f"s3://{other_bucket}"), anonymous=True
            ),
        ]
    )
    no_keys = S3Config(endpoint_url=s3.endpoint_url)
    ended = send(("/out/here/a", f"s3://{bucket}/here/a"), s3=no_keys, POIESIS_S3_CREDENTIALS=given)
    assert (ended.code, keys(admin, bucket)) == (0, {"here/a": 1})
    ended = send(("/out/here", f"s3://{bucket}/here"), s3=no_keys, POIESIS_S3_CREDENTIALS=given)
    assert (ended.code, keys(admin, bucket)) == (65, {"here/a": 1})
    message = ended.progress.error or ""
    assert f"s3://{bucket}/here/team/b (output /out/here/team/b) at {s3.endpoint_url} with the" in message
    assert "the credentials team: access denied" in message
    secret = (tmp_path / "keys/AWS_SECRET_ACCESS_KEY").read_text()
    assert secret not in ended.log + message


@pytest.mark.integration
def test_300_small_files_are_stored(send, root: Path, s3: S3Config, admin: Any, bucket: str):
    expected = {f"many/{number % 7}/f{number}": number * 10 for number in range(300)}
    for key, size in expected.items():
        path = root / "out" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(secrets.token_bytes(size))
    ended = send(("/out", f"s3://{bucket}"), s3=s3)
    assert (ended.code, ended.progress.files, len(ended.progress.outputs)) == (0, 300, 300)
    assert keys(admin, bucket) == expected
    assert ended.max_rss_mib < 128


@pytest.mark.integration
def test_a_big_file_needs_no_more_memory(send, root: Path, s3: S3Config, admin: Any, bucket: str):
    digest = hashlib.sha256()
    with (root / "out/big").open("wb") as file:
        for _ in range(200):
            block = os.urandom(MIB)
            digest.update(block)
            file.write(block)
    ended = send(("/out/big", f"s3://{bucket}/big"), s3=s3)
    assert (ended.code, ended.progress.files, ended.progress.bytes) == (0, 1, 200 * MIB)
    stored = hashlib.sha256()
    for block in admin.get_object(Bucket=bucket, Key="big")["Body"].iter_chunks(MIB):
        stored.update(block)
    assert stored.digest() == digest.digest()
    assert ended.max_rss_mib < 128


class Stalling(http.server.BaseHTTPRequestHandler):
    """An S3 that begins uploads and then takes no part of them."""

    protocol_version = "HTTP/1.1"
    asked: queue.Queue[str]
    over: threading.Event

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self._answer(b"<R xmlns='x'><UploadId>the-upload</UploadId></R>")

    def do_PUT(self) -> None:
        self.asked.put("PUT")
        self.over.wait()
        self.close_connection = True

    def do_DELETE(self) -> None:
        self.asked.put(self.path)
        self._answer(b"")

    def _answer(self, body: bytes) -> None:
        self.send_response_only(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Nothing is logged."""


def test_sigterm_aborts_a_hanging_upload(tmp_path: Path, root: Path):
    with (root / "out/big").open("wb") as file:
        file.truncate(100 * MIB)
    item = OutputItem(path="/out/big", local=f"{root}/out/big", url="s3://b/k")
    (tmp_path / "work.json").write_text(WorkList(task="t", outputs=(item,)).to_json(), encoding="utf-8")

    class Handler(Stalling):
        asked = queue.Queue()
        over = threading.Event()

    with serving_http(Handler) as url:
        there = S3Config(endpoint_url=url, access_key_id="a", secret_access_key="b")
        places = {"POIESIS_RUN": str(tmp_path), "POIESIS_WORK_LIST": str(tmp_path / "work.json")}
        with subprocess.Popen(
            [sys.executable, "-m", "poiesis_tof"], env=environment(there) | places, stderr=subprocess.PIPE
        ) as process:
            try:
                assert Handler.asked.get(timeout=60) == "PUT"
                process.send_signal(signal.SIGTERM)
                process.communicate(timeout=40)  # less than an idle connection is waited for
            finally:
                process.kill()
                Handler.over.set()
    assert process.returncode == 143
    asked = []
    while not Handler.asked.empty():
        asked.append(Handler.asked.get())
    assert "/b/k?uploadId=the-upload" in asked
