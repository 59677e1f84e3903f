import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from s3_for_tests import environment

from poiesis_models.runfiles import parse_progress
from poiesis_models.worklist import WorkList
from poiesis_transfer import filer
from poiesis_transfer.config import Config
from poiesis_transfer.errors import Permanent, Retryable
from poiesis_transfer.progress import Progress


@pytest.fixture(autouse=True)
def root_logger():
    """A filer configures the logging of its process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("POIESIS_RUN", str(tmp_path))
    monkeypatch.setenv("POIESIS_WORK_LIST", str(tmp_path / "work.json"))
    (tmp_path / "work.json").write_text(WorkList(task="t").to_json())

    def run(work: filer.Work) -> tuple[int, str | None]:
        code = filer.main("test", "about", work, arguments=[])
        return code, parse_progress((tmp_path / "progress.jsonl").read_bytes()).error

    return run


def raising(failure: BaseException) -> filer.Work:
    def work(config: Config, work: WorkList, progress: Progress) -> None:
        raise failure

    return work


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (Permanent("no such object"), (65, "no such object")),
        (Retryable("come back"), (75, "come back")),
        (
            KeyError("http://h/?X-Amz-Signature=abc"),
            (65, "internal error in the filer: KeyError; see the container's log"),
        ),
    ],
)
def test_failures_become_exit_codes_and_an_error_event(run, failure: Exception, expected, capfd):
    assert run(raising(failure)) == expected
    lines = capfd.readouterr().err
    assert "Signature" not in lines
    assert all(json.loads(line)["level"] == "ERROR" for line in lines.splitlines())


def test_done_is_exit_0(run):
    def work(config: Config, work: WorkList, progress: Progress) -> None:
        assert work == WorkList(task="t")

    assert run(work) == (0, None)


@pytest.mark.parametrize(("text", "words"), [("{}", "not a work list"), (None, "cannot read the work list")])
def test_a_malformed_work_list_is_a_permanent_failure(run, tmp_path: Path, text: str | None, words: str):
    (tmp_path / "work.json").unlink()
    if text is not None:
        (tmp_path / "work.json").write_text(text)
    code, error = run(raising(AssertionError()))
    assert code == 65
    assert words in (error or "")


def test_a_failed_start_is_explained(monkeypatch: pytest.MonkeyPatch, capfd):
    monkeypatch.setenv("POIESIS_S3_ADDRESSING_STYLE", "x")
    assert filer.main("test", "about", raising(AssertionError()), arguments=[]) == 65
    line = json.loads(capfd.readouterr().err)
    assert (line["level"], line["message"], line["filer"]) == ("ERROR", "cannot start", "test")
    assert line["error"].startswith("POIESIS_S3_ADDRESSING_STYLE")
    monkeypatch.setenv("POIESIS_S3_ADDRESSING_STYLE", "")
    monkeypatch.setenv("POIESIS_RUN", "/no/such/directory")
    assert filer.main("test", "about", raising(AssertionError()), arguments=[]) == 65
    assert "cannot start" in capfd.readouterr().err


def test_sigterm_stops_the_work_after_clean_up(run, tmp_path: Path):
    code = (
        "import sys, time\n"
        "from poiesis_transfer import filer\n"
        "def work(config, work, progress):\n"
        "    try:\n"
        "        print('started', flush=True)\n"
        "        while True:\n"
        "            time.sleep(0.1)  # a signal right before a sleep does not wake it\n"
        "    finally:\n"
        "        progress.warning('cleaned up')\n"
        "sys.exit(filer.main('test', 'about', work))\n"
    )
    places = {name: os.environ[name] for name in ("POIESIS_RUN", "POIESIS_WORK_LIST")}
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment() | places,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"started\n"
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 143
    assert parse_progress((tmp_path / "progress.jsonl").read_bytes()).warnings == ("cleaned up",)


def test_arguments_are_help_only(capsys):
    with pytest.raises(SystemExit) as end:
        filer.main("test", "What it does.", raising(AssertionError()), arguments=["--help"])
    assert end.value.code == 0
    assert "What it does." in capsys.readouterr().out
    with pytest.raises(SystemExit) as end:
        filer.main("test", "about", raising(AssertionError()), arguments=["x"])
    assert end.value.code == 2
