"""Calls of rclone's remote control, with a fake at its socket."""

import json
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from served_for_tests import serving

from poiesis_rclone.daemon import Rclone, running
from poiesis_transfer import pool
from poiesis_transfer.errors import NotFound, Permanent, Retryable

SECONDS = 60  # until a wait that does not end fails the test


class Control(socketserver.ThreadingUnixStreamServer):
    """Answers what it was asked; `hang` is not answered before the end."""

    daemon_threads = True

    def __init__(self, path: Path) -> None:
        self.hangs, self.over = threading.Event(), threading.Event()
        super().__init__(str(path), _Handler)

    def get_request(self) -> tuple[Any, Any]:
        connection, _ = super().get_request()
        return connection, ("here", 0)


class _Handler(BaseHTTPRequestHandler):
    server: Control

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/hang":
            self.server.hangs.set()
            self.server.over.wait(SECONDS)
            return
        status = 404 if self.path == "/operations/none" else 200
        body = json.dumps({"error": "object not found"} if status != 200 else {"asked": asked}).encode()
        self.send_response_only(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Nothing is logged."""


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    server = Control(tmp_path / "socket")
    with serving(server):
        yield server
        server.over.set()


@pytest.fixture
def rclone(control: Control, tmp_path: Path) -> Rclone:
    return Rclone(tmp_path / "socket", ())


def test_parameters_go_and_the_answer_comes_as_json(rclone: Rclone):
    assert rclone.call("operations/stat", "x", remote="ü?#") == {"asked": {"remote": "ü?#"}}


def test_a_failure_is_named(rclone: Rclone):
    with pytest.raises(NotFound, match="cannot read x: object not found"):
        rclone.call("operations/none", "cannot read x")


def test_a_missing_rclone_is_retryable(tmp_path: Path):
    with pytest.raises(Retryable, match="cannot read x: rclone exited unexpectedly"):
        Rclone(tmp_path / "socket", ()).call("operations/stat", "cannot read x")


def test_a_failure_ends_waits_for_responses(control: Control, rclone: Rclone):
    def work(number: int) -> None:
        if number == 0:
            assert control.hangs.wait(SECONDS)
            raise Permanent("zero")
        rclone.call("hang", "one")

    with pytest.raises(Permanent, match="zero"):
        pool.for_each(range(2), work, interrupt=rclone.interrupt)


def test_an_interrupted_call_is_not_the_failure(control: Control, rclone: Rclone):
    def inner(number: int) -> None:
        assert control.hangs.wait(SECONDS)
        raise Retryable("inner")

    def work(number: int) -> None:
        if number == 0:
            pool.for_each(range(1), inner, interrupt=rclone.interrupt)
        else:
            rclone.call("hang", "outer")

    with pytest.raises(Retryable, match="inner"):
        pool.for_each(range(2), work, interrupt=rclone.interrupt)


@pytest.mark.parametrize(
    ("end", "kind", "words"),
    [
        ("exit 3", Retryable, "it exited with 3"),
        ("kill -9 $$", Retryable, "it exited with -9"),
        ("exit 1", Permanent, "check rclone.conf and the variables"),  # as for RCLONE_TPSLIMIT=x
    ],
)
def test_a_failed_start_is_retryable_unless_misconfigured(
    tmp_path: Path, end: str, kind: type[Exception], words: str
):
    (tmp_path / "rclone").write_text(f"#!/bin/sh\n{end}\n")
    (tmp_path / "rclone").chmod(0o755)
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    with (
        pytest.raises(kind, match=words),
        running(tmp_path / "rclone.conf", tmp_path, [], env),
    ):
        pass
