"""helper wait: exits as the acknowledgement requires."""

import os
import signal
import subprocess
import time

import pytest


@pytest.fixture
def waiting(start_helper, tmp_path):
    return lambda *words: start_helper("wait", "--ack", tmp_path / "ack", *words)


@pytest.mark.parametrize(
    ("content", "code"), [(b"0", 0), (b"0\n", 0), (b"1\n", 1), (b"7", 1), (b"\n", 1), (b"failed", 1)]
)
@pytest.mark.parametrize("when", ["before", "during"])
def test_wait_exits_as_the_acknowledgement_says(waiting, tmp_path, content, code, when):
    process = waiting() if when == "during" else None
    (tmp_path / "new").write_bytes(content)
    (tmp_path / "new").rename(tmp_path / "ack")
    process = process or waiting()
    assert (*process.communicate(timeout=60), process.returncode) == (b"", b"", code)


def test_wait_reacts_without_polling(waiting, tmp_path):
    def latency() -> float:
        (tmp_path / "ack").unlink(missing_ok=True)
        process = waiting()
        time.sleep(0.05)
        begin = time.monotonic()
        (tmp_path / "ack").write_bytes(b"0")
        process.wait(10)
        return time.monotonic() - begin

    assert min(latency() for _ in range(3)) < 0.2


def test_wait_needs_content(waiting, tmp_path):
    (tmp_path / "ack").touch()
    process = waiting()
    time.sleep(0.1)
    assert process.poll() is None
    (tmp_path / "ack").write_bytes(b"0")
    assert process.wait(10) == 0


def test_wait_finds_a_file_whose_directory_came_later(helper, tmp_path):
    with subprocess.Popen([helper, "wait", "--ack", tmp_path / "later/ack"]) as process:
        time.sleep(0.1)
        (tmp_path / "later").mkdir()
        (tmp_path / "later/ack").write_bytes(b"0")
        assert process.wait(5) == 0


def test_wait_reports_a_missing_acknowledgement(waiting, tmp_path):
    process = waiting("--timeout", "1")
    _, err = process.communicate(timeout=60)
    message = b"poiesis: no acknowledgement in %b within 1 s\n" % os.fsencode(tmp_path / "ack")
    assert (process.returncode, err) == (1, message)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_wait_ends_at_once_on_a_signal(waiting, number):
    process = waiting()
    process.send_signal(number)
    assert process.wait(10) == 1
