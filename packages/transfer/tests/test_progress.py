import threading
import time
from pathlib import Path

import pytest

from poiesis_models import runfiles
from poiesis_models.runfiles import FoundInput, SentOutput, parse_progress
from poiesis_models.worklist import InputItem
from poiesis_transfer.progress import Progress


def lines(run: Path) -> list[bytes]:
    return (run / runfiles.PROGRESS).read_bytes().splitlines()


def test_every_event_is_what_the_recorder_reads(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with Progress(tmp_path) as progress:
        progress.moved(10)
        progress.sent(url="s3://b/é\n", path="/o/\udcff", size_bytes=10)
        progress.warning("odd")
        progress.error("bad")
    assert parse_progress((tmp_path / runfiles.PROGRESS).read_bytes()) == runfiles.FilerProgress(
        files=1,
        bytes=10,
        outputs=(SentOutput(url="s3://b/é\n", path="/o/\ufffd", size_bytes=10),),
        warnings=("odd",),
        error="bad",
    )
    assert [(one.levelname, one.message) for one in caplog.records] == [("WARNING", "odd"), ("ERROR", "bad")]


def test_only_types_missing_in_task_are_reported(tmp_path: Path):
    with Progress(tmp_path) as progress:
        progress.found(InputItem(path="/declared", local="/x", type="FILE", url="s3://b/a"), "FILE")
        progress.found(InputItem(path="/found", local="/y", url="s3://b/a"), "DIRECTORY")
    found = parse_progress((tmp_path / runfiles.PROGRESS).read_bytes()).inputs
    assert found == (FoundInput(path="/found", type="DIRECTORY"),)


def test_totals_are_recorded_once_a_second(tmp_path: Path):
    now = 100.0
    with Progress(tmp_path, clock=lambda: now) as progress:
        for _ in range(10):
            now += 0.25
            progress.moved(1)
    assert [parse_progress(line + b"\n").bytes for line in lines(tmp_path)] == [4, 8, 10]


def test_bytes_of_failed_attempts_are_subtracted(tmp_path: Path):
    with Progress(tmp_path) as progress:
        progress.moved(10)
        progress.moved(-10)
        progress.moved(3)
    assert parse_progress(b"\n".join([*lines(tmp_path), b""])).bytes == 3


@pytest.mark.parametrize("left", [b'{"event":"war', b'{"event":"warning","message":"a"}\n{"ev', b"", b"\n"])
def test_half_a_line_does_not_corrupt_the_next(tmp_path: Path, left: bytes):
    (tmp_path / runfiles.PROGRESS).write_bytes(left)
    with Progress(tmp_path) as progress:
        progress.warning("b")
    read = parse_progress((tmp_path / runfiles.PROGRESS).read_bytes())
    assert read.warnings == (("a", "b") if b"}\n" in left else ("b",))


def test_no_message_is_longer_than_a_reader_takes(tmp_path: Path):
    with Progress(tmp_path) as progress:
        progress.error('"\x01é' * 5000)
    assert len(lines(tmp_path)[0]) < runfiles.PROGRESS_LINE_BYTES


def test_warnings_after_a_hundred_are_omitted(tmp_path: Path):
    with Progress(tmp_path) as progress:
        for number in range(1000):
            progress.warning(str(number))
    warnings = parse_progress((tmp_path / runfiles.PROGRESS).read_bytes()).warnings
    assert (len(warnings), warnings[99], warnings[100]) == (
        101,
        "99",
        "more than 100 warnings; further warnings omitted",
    )


def test_the_last_bytes_before_a_stall_are_recorded(tmp_path: Path):
    with Progress(tmp_path) as progress:
        progress.moved(5)
        progress.moved(6)
        assert lines(tmp_path) == []
        deadline = time.monotonic() + 10
        while not lines(tmp_path) and time.monotonic() < deadline:
            threading.Event().wait(0.01)
        assert [parse_progress(line + b"\n").bytes for line in lines(tmp_path)] == [11]


def test_no_timer_outlives_the_filer(tmp_path: Path):
    with Progress(tmp_path) as progress:
        progress.moved(5)
        (teller,) = [one for one in threading.enumerate() if isinstance(one, threading.Timer)]
    teller.join(10)
    assert not teller.is_alive()
    assert len(lines(tmp_path)) == 1
