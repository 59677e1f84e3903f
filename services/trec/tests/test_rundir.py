"""Run directories with arbitrary files of an executor."""

import asyncio
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from poiesis_models.plan import PodPlan
from poiesis_models.runfiles import LOG_MARK_BYTES, FoundInput, SentOutput, Started
from poiesis_trec.facts import RunFiles
from poiesis_trec.helperlock import is_held
from poiesis_trec.progress import ProgressFile
from poiesis_trec.regular import open_regular, read_regular, signature
from poiesis_trec.rundir import RunDirectories, RunDirectory

PLAN = PodPlan(executors=("executor-0",), ignore_error=(False,), outputs=("tof-0",))


@pytest.fixture
def directory(lab) -> RunDirectory:
    return RunDirectory(lab.config.runs / "executor-0", plan=PLAN, log_bytes=100)


def test_missing_directory_is_empty(directory):
    directory.refresh(check_lock=True)
    assert directory.files == RunFiles()
    assert directory.logs == {}


def test_running_helper_holds_its_lock(directory, lab):
    one = lab.helper("executor-0").start()
    directory.refresh(check_lock=True)
    assert directory.files == RunFiles(started=Started(start_ns=one.start_ns))
    one.killed()
    directory.refresh(check_lock=True)
    assert directory.files.helper_gone


def test_ended_helper_is_not_gone(directory, lab):
    lab.helper("executor-0").start().end(3)
    directory.refresh(check_lock=True)
    assert not directory.files.helper_gone
    assert directory.files.exit is not None
    assert directory.files.exit.exit_code == 3


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"exit_code": "0"}', b" " * 2000, b"\xff\0", b"[" * 1000]
)
def test_malformed_exit_record_is_ignored(directory, lab, content):
    one = lab.helper("executor-0").start()
    one.put("exit.json", content)
    directory.refresh(check_lock=True)
    assert directory.files.exit is None
    assert not directory.files.helper_gone
    one.end(4)
    directory.refresh(check_lock=False)
    assert directory.files.exit is not None
    assert directory.files.exit.exit_code == 4


def test_overwritten_started_file_still_counts(directory, lab):
    one = lab.helper("executor-0").start()
    (one.directory / "started").write_bytes(b"never")
    directory.refresh(check_lock=True)
    assert directory.files.started is not None
    assert not directory.files.helper_gone
    (one.directory / "started").unlink()
    directory.refresh(check_lock=True)
    assert directory.files.started is not None


def _forge(one, exit_code=0):
    """Write an exit record as an executor, while the helper runs."""
    lock, one.lock = one.lock, -1
    one.end(exit_code)
    one.lock = lock


def test_exit_record_counts_after_the_helper_exits(directory, lab):
    one = lab.helper("executor-0").start()
    _forge(one)
    for check_lock in (False, True):
        directory.refresh(check_lock=check_lock)
        assert directory.files == RunFiles(started=Started(start_ns=one.start_ns))
        assert directory.unconfirmed
    one.end(3)
    directory.refresh(check_lock=False)
    assert directory.files.exit is not None
    assert directory.files.exit.exit_code == 3
    assert not directory.unconfirmed


def test_earlier_exit_record_is_read_again(directory, lab, monkeypatch):
    one = lab.helper("executor-0").start()
    _forge(one)

    def the_helper_ends_first(path):
        one.end(3)
        return is_held(path)

    monkeypatch.setattr("poiesis_trec.rundir.is_held", the_helper_ends_first)
    directory.refresh(check_lock=False)
    assert directory.files.exit is not None
    assert directory.files.exit.exit_code == 3


@pytest.mark.parametrize("seen_first", [True, False])
@pytest.mark.parametrize("there", [True, False])
def test_removed_started_file_still_counts(directory, lab, seen_first, there):
    one = lab.helper("executor-0").start()
    if seen_first:
        directory.refresh(check_lock=False)
    (one.directory / "started").unlink()
    if there:
        one.put("started", b'{"start_ns":1}')
    _forge(one)
    directory.refresh(check_lock=True)
    assert directory.files.exit is None
    assert not directory.files.helper_gone
    one.killed()
    directory.refresh(check_lock=False)
    assert directory.files.exit is not None


def test_record_in_a_closed_directory_is_ignored(directory, lab, monkeypatch):
    def closed(*_):
        raise PermissionError(13, "Permission denied")

    one = lab.helper("executor-0").start()
    _forge(one)
    monkeypatch.setattr("poiesis_trec.helperlock.os.open", closed)
    assert is_held(one.directory)
    monkeypatch.undo()
    monkeypatch.setattr("poiesis_trec.rundir.is_held", lambda _: True)
    directory.refresh(check_lock=True)
    assert directory.files.exit is None


def test_restarted_filer_gets_its_new_end(lab):
    directory = RunDirectory(lab.config.runs / "tof-0", plan=PLAN, log_bytes=100)
    lab.helper("tof-0").start().end(75)
    directory.refresh(check_lock=True)
    assert directory.files.exit is not None
    (lab.config.runs / "tof-0/exit.json").unlink()
    again = lab.helper("tof-0").start()
    directory.refresh(check_lock=True)
    assert (directory.files.exit, directory.files.helper_gone) == (None, False)
    _forge(again)
    directory.refresh(check_lock=False)
    assert directory.files.exit is None
    again.end(0)
    directory.refresh(check_lock=False)
    assert directory.files.exit is not None
    assert directory.files.exit.exit_code == 0


def test_exit_record_counts_without_lock_support(directory, lab, monkeypatch):
    def no_locks(*_):
        raise OSError(38, "Function not implemented")

    one = lab.helper("executor-0").start()
    monkeypatch.setattr("poiesis_trec.helperlock.fcntl.flock", no_locks)
    _forge(one, 4)
    directory.refresh(check_lock=True)
    assert directory.files.exit is not None
    assert not directory.files.helper_gone


def test_only_regular_files_are_read(tmp_path):
    (tmp_path / "secret").write_text("x")
    (tmp_path / "symlink").symlink_to(tmp_path / "secret")
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "fifo")
    for name in ("symlink", "directory", "fifo", "nothing"):
        assert signature(tmp_path / name) is None
        assert open_regular(tmp_path / name) is None
        assert read_regular(tmp_path / name, 10) is None


def test_log_is_read_up_to_a_limit(tmp_path):
    file = tmp_path / "stdout"
    with file.open("wb") as huge:
        huge.truncate(2**40)
    found = read_regular(file, 1000)
    assert found is not None
    assert found[0] == bytes(1000)


def test_size_of_a_log_is_limited(directory, lab):
    one = lab.helper("executor-0").start()
    one.write("stdout", b"y" * 10_000)  # more than any helper leaves
    directory.refresh(check_lock=False)
    data, seen = directory.log("stdout")
    assert data == b"y" * (200 + LOG_MARK_BYTES)
    assert seen == directory.logs["stdout"]


async def test_late_directories_are_watched(lab):
    changed = asyncio.Event()
    runs = RunDirectories(lab.config.runs, PLAN, 100, changed)
    task = asyncio.create_task(runs.follow())

    async def until(condition):
        async with asyncio.timeout(5):
            while True:
                await changed.wait()
                changed.clear()
                runs.refresh(everything=False)
                if condition():
                    return

    one = lab.helper("executor-0")
    one.directory.mkdir()
    one.start()
    await until(lambda: runs.files["executor-0"].started)
    one.write("stdout", b"x")
    await until(lambda: runs["executor-0"].logs["stdout"].size == 1)
    tof = lab.helper("tof-0").start()
    tof.progress(event="output", url="s3://b/a", path="/a", size_bytes=1)
    await until(lambda: runs["tof-0"].outputs)
    one.end()
    await until(lambda: runs.files["executor-0"].exit)
    task.cancel()
    await asyncio.wait({task})


async def test_recorder_works_without_inotify(lab, monkeypatch):
    def none_left(**_):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("poiesis_trec.rundir.Inotify", none_left)
    runs = RunDirectories(lab.config.runs, PLAN, 100, asyncio.Event())
    await runs.follow()
    lab.helper("executor-0").start()
    runs.refresh(everything=True)
    assert runs.files["executor-0"].started is not None


def test_progress_is_read_from_the_last_offset(tmp_path: Path):
    file = tmp_path / "progress.jsonl"
    progress = ProgressFile(file)
    progress.refresh()
    assert progress.caught_up
    file.write_bytes(b'{"event":"progress","files":1,"bytes":2}\n{"event":"warning","mess')
    progress.refresh()
    assert (progress.files, progress.bytes, progress.warnings) == (1, 2, [])
    with file.open("ab") as more:
        more.write(b'age":"w"}\nnot json\n{"event":"error","message":"e"}\n')
    progress.refresh()
    assert (progress.warnings, progress.error, progress.caught_up) == (["w"], "e", True)


def test_unreported_outputs_limit_the_reading(tmp_path: Path):
    file = tmp_path / "progress.jsonl"
    line = '{{"event":"output","url":"s3://b/{0}","path":"/{0}","size_bytes":{0}}}\n'
    file.write_text("".join(line.format(number) for number in range(20000)))
    progress = ProgressFile(file)
    stored: list[SentOutput] = []
    rounds = 0
    while not progress.caught_up or progress.pending or not rounds:
        progress.refresh()
        assert len(progress.pending) < 6000
        some = list(progress.pending.values())[:1000]
        stored += some
        progress.forget(some)
        rounds += 1
    assert [one.size_bytes for one in stored] == list(range(20000))


def test_outputs_of_an_input_filer_are_ignored(tmp_path: Path):
    file = tmp_path / "progress.jsonl"
    file.write_text('{"event":"output","url":"s3://b/a","path":"/a","size_bytes":1}\n' * 10000)
    progress = ProgressFile(file, outputs=False)
    progress.refresh()
    assert (progress.pending, progress.caught_up) == ({}, True)


def test_input_types_are_read_once_and_bounded(tmp_path: Path):
    file = tmp_path / "progress.jsonl"
    long = "/" + "p" * 10_000
    paths = ["/a", "/a", *(f"{long}{number:03}" for number in range(200)), "/b"]
    file.write_text("".join(f'{{"event":"input","path":"{path}","type":"DIRECTORY"}}\n' for path in paths))
    progress = ProgressFile(file, outputs=False)
    progress.refresh()
    assert progress.caught_up
    assert len(progress.inputs) == 106
    assert progress.inputs["/a"] == FoundInput(path="/a", type="DIRECTORY")
    assert "/b" in progress.inputs  # a short path still fits


def test_a_filer_of_outputs_reports_no_inputs(tmp_path: Path):
    file = tmp_path / "progress.jsonl"
    file.write_text('{"event":"input","path":"/a","type":"FILE"}\n')
    progress = ProgressFile(file)
    progress.refresh()
    assert progress.inputs == {}


def test_replaced_progress_file_is_read_from_its_start(tmp_path: Path):
    file = tmp_path / "progress.jsonl"
    progress = ProgressFile(file)
    file.write_text('{"event":"error","message":"first"}\n')
    progress.refresh()
    file.write_text("")
    progress.refresh()
    assert progress.error is None


def test_line_without_end_is_ignored(tmp_path: Path, caplog):
    file = tmp_path / "progress.jsonl"
    file.write_bytes(b"x" * 600_000 + b"\n" + b'{"event":"progress","files":1,"bytes":2}\n')
    progress = ProgressFile(file)
    progress.refresh()
    assert (progress.files, progress.caught_up) == (1, True)
    assert len(caplog.records) == 1


STREAM = PodPlan(executors=("executor-0",), ignore_error=(False,), streams=("stream-0",))


def test_streamed_inputs_are_known_until_reported(lab):
    path = lab.config.runs / "stream-0"
    path.mkdir(parents=True)
    directory = RunDirectory(path, plan=STREAM, log_bytes=100)

    def refreshed(*lines: str) -> RunFiles:
        with (path / "progress.jsonl").open("a") as progress:
            progress.writelines(f"{line}\n" for line in lines)
        directory.refresh(check_lock=False)
        return directory.files

    assert refreshed('{"event":"progress","files":0,"bytes":0}') == RunFiles()
    before_ns = time.time_ns()
    began = refreshed('{"event":"stream","path":"/in/a","state":"begun"}')
    assert began == RunFiles(streaming=("/in/a",), streaming_since_ns=began.streaming_since_ns)
    assert before_ns <= (began.streaming_since_ns or 0) <= time.time_ns()
    also = refreshed('{"event":"stream","path":"/in/b","state":"begun"}')
    assert also == replace(began, streaming=("/in/a", "/in/b"))
    ended = refreshed('{"event":"stream","path":"/in/a","state":"whole"}')
    assert ended == replace(began, streaming=("/in/b",))
    failed = refreshed(
        '{"event":"error","message":"gone"}', '{"event":"stream","path":"/in/b","state":"failed"}'
    )
    assert failed == replace(began, streaming=(), error="gone")


def test_streams_are_read_after_executors(lab):
    """The reason for an end of file is on disk before it, so it is read with the executor's end."""
    runs = RunDirectories(lab.config.runs, STREAM, 100, asyncio.Event())
    (lab.config.runs / "stream-0").mkdir(parents=True)
    runs.refresh(everything=True)
    executor = lab.helper("executor-0").start()
    runs.refresh(everything=True)
    (lab.config.runs / "stream-0/progress.jsonl").write_text('{"event":"error","message":"gone"}\n')
    executor.end(0)
    runs._dirty = {"executor-0"}  # the events of inotify so far
    runs.refresh(everything=False)
    assert runs.files["executor-0"].exit is not None
    assert runs.files["stream-0"].error == "gone"
