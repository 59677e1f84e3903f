"""Streaming as its container runs it: a process, a real FIFO, and an HTTP server with a script."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from s3_for_tests import environment
from served_for_tests import serving

from poiesis_models.worklist import InputItem, WorkList
from poiesis_transfer.config import S3Config

BODY = bytes(range(256)) * 4096  # 1 MiB: more than a pipe holds
HALF = len(BODY) // 2
PATIENCE = 40.0  # less than a silent source is waited for
Answer = Callable[["Request"], None]


class Request(BaseHTTPRequestHandler):
    """Answered by the handlers that the server has been given, one after the other; the last one stays."""

    protocol_version = "HTTP/1.1"
    server: "Source"

    def do_GET(self) -> None:
        answers = self.server.answers
        with suppress(ConnectionError):  # clients that go away in the middle are what is tested
            (answers.pop(0) if len(answers) > 1 else answers[0])(self)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base's name
        del format, args

    def begin(self, status: int = 200, start: int = 0, **headers: str) -> None:
        self.send_response(status)
        fixed = {"content-length": str(len(BODY) - start), "etag": '"1"', "accept-ranges": "bytes"}
        if status == 206:
            fixed["content-range"] = f"bytes {start}-{len(BODY) - 1}/{len(BODY)}"
        for name, value in (fixed | {name.replace("_", "-"): text for name, text in headers.items()}).items():
            self.send_header(name, value)
        self.end_headers()

    def cut(self) -> None:
        self.wfile.flush()
        self.close_connection = True


class Source(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.answers: list[Answer] = []
        self.go_on = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/reads.bam"


@pytest.fixture
def source() -> Iterator[Source]:
    server = Source()
    with serving(server):
        yield server
        server.go_on.set()


def whole(request: Request) -> None:
    request.begin()
    request.wfile.write(BODY)


def half(request: Request) -> None:
    request.begin()
    request.wfile.write(BODY[:HALF])
    request.cut()


def half_without_ranges(request: Request) -> None:
    request.begin(accept_ranges="none")
    request.wfile.write(BODY[:HALF])
    request.cut()


def half_then_wait(request: Request) -> None:
    request.begin()
    request.wfile.write(BODY[:HALF])
    request.wfile.flush()
    request.server.go_on.wait(PATIENCE)
    request.wfile.write(BODY[HALF:])


def rest(request: Request) -> None:
    start = int(request.headers["range"].removeprefix("bytes=").partition("-")[0])
    request.begin(206, start)
    request.wfile.write(BODY[start:])


def another_version(request: Request) -> None:
    request.begin(etag='"2"')
    request.wfile.write(BODY[::-1])


def wrong_checksum(request: Request) -> None:
    request.begin(x_amz_checksum_sha256="47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=")
    request.wfile.write(BODY)


def missing(request: Request) -> None:
    request.begin(404)
    request.wfile.write(BODY)


class Streamer:
    """One container that streams `/reads.bam`, and `/other.bam` of the same source."""

    def __init__(self, tmp_path: Path, s3: S3Config | None = None) -> None:
        self._run = tmp_path / "run"
        self._run.mkdir()
        self._s3 = s3
        self._root = tmp_path
        self._process: subprocess.Popen[bytes] | None = None
        self.fifo = tmp_path / "reads.bam"
        self.other = tmp_path / "other.bam"
        for fifo in (self.fifo, self.other):
            os.mkfifo(fifo)

    def start(self, url: str) -> None:
        items = tuple(
            InputItem(path=f"/{fifo.name}", local=str(fifo), type="FILE", url=url)
            for fifo in (self.fifo, self.other)
        )
        work = self._root / "work.json"
        work.write_text(WorkList(task="t", inputs=items).to_json())
        env = environment(self._s3) | {
            "POIESIS_RUN": str(self._run),
            "POIESIS_WORK_LIST": str(work),
            "POIESIS_HTTP_ALLOW": "127.0.0.0/8",
        }
        self._process = subprocess.Popen([sys.executable, "-m", "poiesis_tif.stream"], env=env)

    def end(self, number: int = signal.SIGTERM) -> int:
        """The exit code."""
        assert self._process is not None
        self._until_it_listens(self._process.pid)
        self._process.send_signal(number)
        began = time.monotonic()
        code = self._process.wait(PATIENCE)
        assert time.monotonic() - began < 10.0  # a busy machine is not prompt
        self._process = None
        return code

    def events(self, kind: str) -> list[dict[str, Any]]:
        progress = self._run / "progress.jsonl"
        lines = progress.read_text().splitlines() if progress.exists() else []
        return [event for event in map(json.loads, lines) if event["event"] == kind]

    def states(self, path: str = "/reads.bam") -> list[str]:
        return [event["state"] for event in self.events("stream") if event["path"] == path]

    def until(self, state: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while state not in self.states():
            assert time.monotonic() < deadline, self.states()
            time.sleep(0.01)

    def _until_it_listens(self, pid: int) -> None:
        """It has its progress open: it does that when no signal can surprise it any more."""
        deadline = time.monotonic() + PATIENCE
        progress = self._run / "progress.jsonl"
        while not any(_is_file(fd, progress) for fd in Path(f"/proc/{pid}/fd").iterdir()):
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def _is_file(fd: Path, path: Path) -> bool:
    """Not if one of them is not there, or not any more: a process closes what it has opened."""
    try:
        return fd.samefile(path)
    except FileNotFoundError:
        return False


@pytest.fixture
def streamer(tmp_path: Path) -> Iterator[Streamer]:
    streamer = Streamer(tmp_path)
    yield streamer
    streamer.close()


def test_a_reader_gets_bytes_as_they_arrive(source: Source, streamer: Streamer):
    source.answers = [half_then_wait]
    streamer.start(source.url)
    with streamer.fifo.open("rb") as reader:
        assert reader.read(HALF) == BODY[:HALF]
        assert not streamer.fifo.exists()  # a second reader would take from this reader
        source.go_on.set()
        assert reader.read() == BODY[HALF:]
        assert streamer.states() == ["begun", "whole"]  # known before the end of the file is
    assert streamer.end() == 0
    assert streamer.events("progress")[-1] == {"event": "progress", "files": 1, "bytes": len(BODY)}
    assert streamer.events("error") == []


def test_a_broken_connection_resumes(source: Source, streamer: Streamer):
    source.answers = [half, rest]
    streamer.start(source.url)
    assert streamer.fifo.read_bytes() == BODY
    assert streamer.states() == ["begun", "whole"]
    assert streamer.end() == 0


@pytest.mark.parametrize(
    ("answers", "words", "came"),
    [
        pytest.param([half, another_version], "the object changed while it was read", HALF, id="changed"),
        pytest.param(
            [half_without_ranges], f"received {HALF} of {len(BODY)} bytes", HALF, id="cut, no ranges"
        ),
        pytest.param([half, missing], "not found (HTTP 404)", HALF, id="cut, then gone"),
        pytest.param([wrong_checksum], "checksum mismatch", len(BODY), id="wrong checksum"),
        pytest.param([missing], "not found (HTTP 404)", 0, id="not there"),
    ],
)
def test_a_failure_is_recorded_before_end_of_file(
    source: Source, streamer: Streamer, answers: list[Answer], words: str, came: int
):
    source.answers = list(answers)
    streamer.start(source.url)
    assert streamer.fifo.read_bytes() == BODY[:came]
    assert streamer.states() == ["begun", "failed"]
    (error,) = streamer.events("error")
    assert f"cannot fetch {source.url}" in error["message"]
    assert words in error["message"]
    source.answers = [whole]
    assert streamer.other.read_bytes() == BODY  # one that waits for it must not wait forever
    assert streamer.end() == 65


def test_a_reader_may_close_during_a_stall(source: Source, streamer: Streamer):
    source.answers = [half_then_wait]
    streamer.start(source.url)
    with streamer.fifo.open("rb") as reader:
        assert reader.read(10) == BODY[:10]
        assert len(reader.read(HALF - 10)) == HALF - 10
    streamer.until("closed")
    assert not source.go_on.is_set()
    assert streamer.events("error") == []
    assert streamer.end() == 0


def test_a_departed_reader_hides_no_checksum_mismatch(source: Source, streamer: Streamer):
    source.answers = [wrong_checksum]
    streamer.start(source.url)
    with streamer.fifo.open("rb", buffering=0) as reader:
        left = len(BODY)
        while left:
            left -= len(reader.read(left) or b"")
    streamer.until("failed")
    assert streamer.end() == 65


def test_an_unread_stream_is_no_failure(source: Source, streamer: Streamer):
    source.answers = [whole]
    streamer.start(source.url)
    assert streamer.fifo.read_bytes() == BODY
    assert streamer.states("/other.bam") == []
    assert streamer.other.is_fifo()
    assert streamer.end() == 0


@pytest.mark.parametrize("stalled", [True, False], ids=["while it waits for bytes", "while it writes"])
def test_sigterm_during_a_stream_exits_143(source: Source, streamer: Streamer, stalled: bool):
    source.answers = [half_then_wait if stalled else whole]
    streamer.start(source.url)
    with streamer.fifo.open("rb") as reader:
        assert reader.read(HALF if stalled else 10)
        assert streamer.end() == 143
        assert streamer.states() == ["begun"]
    assert streamer.events("error") == []


def test_after_a_kill_readers_get_end_of_file(source: Source, streamer: Streamer):
    source.answers = [half_then_wait]
    streamer.start(source.url)
    with streamer.fifo.open("rb") as reader:
        assert reader.read(HALF) == BODY[:HALF]
        assert streamer.end(signal.SIGKILL) == -signal.SIGKILL
        assert reader.read() == b""  # as if that were all
    assert streamer.states() == ["begun"]
    source.answers = [whole]
    streamer.start(source.url)
    assert streamer.other.read_bytes() == b""
    assert streamer.states() == ["begun", "failed"]
    (error,) = streamer.events("error")
    assert error["message"] == (
        "the container that streams /reads.bam, /other.bam was restarted; these inputs are incomplete"
    )
    assert streamer.end() == 65


def test_a_restart_after_complete_streams_succeeds(source: Source, streamer: Streamer):
    source.answers = [whole]
    streamer.start(source.url)
    assert streamer.fifo.read_bytes() == BODY
    assert streamer.other.read_bytes() == BODY
    assert streamer.end(signal.SIGKILL) == -signal.SIGKILL
    streamer.start(source.url)
    assert streamer.end() == 0


def test_an_invalid_configuration_ends_all_reads(
    streamer: Streamer,
):
    streamer.start("s3://bucket")
    assert streamer.fifo.read_bytes() == b""
    assert streamer.states() == ["begun", "failed"]
    assert streamer.end() == 65


def test_a_replaced_fifo_is_reported(source: Source, streamer: Streamer):
    source.answers = [whole]
    streamer.fifo.unlink()
    streamer.fifo.write_bytes(b"of an earlier attempt")
    streamer.start(source.url)
    streamer.until("failed")
    assert streamer.fifo.read_bytes() == b"of an earlier attempt"
    assert streamer.end() == 65


@pytest.mark.integration
@pytest.mark.parametrize(("name", "warnings"), [("my reads.bam", 0), ("my%20reads.bam", 1)])
def test_an_object_is_streamed_from_s3(  # noqa: PLR0917  # fixtures are arguments
    tmp_path: Path, s3: S3Config, admin: Any, bucket: str, name: str, warnings: int
):
    admin.put_object(Bucket=bucket, Key="my reads.bam", Body=BODY)
    streamer = Streamer(tmp_path, s3)
    try:
        streamer.start(f"s3://{bucket}/{name}")
        assert hashlib.sha256(streamer.fifo.read_bytes()).digest() == hashlib.sha256(BODY).digest()
        assert streamer.states() == ["begun", "whole"]
        assert len(streamer.events("warning")) == warnings
        assert streamer.end() == 0
    finally:
        streamer.close()
