"""What is executed, what is recorded, and how the helper exits."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

PRINT_ARGV = "import os, sys; sys.stdout.buffer.write(b'\\0'.join(map(os.fsencode, sys.argv[1:])))"


@pytest.mark.parametrize(
    "argument",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"a b", id="space"),
        pytest.param(b"two\nlines", id="newline"),
        pytest.param(b"'single' \"double\" `back`", id="quotes"),
        pytest.param(b"$HOME $(id) %s \\ * ; | &", id="shell"),
        pytest.param(b"--help", id="option"),
        pytest.param(b"--", id="dashes"),
        pytest.param(b"\xff\xfe", id="not UTF-8"),
        pytest.param(b"x" * 100_000, id="long"),
    ],
)
def test_argv_reaches_the_process_as_it_is(container, argument):
    ended = container.run(sys.executable, "-c", PRINT_ARGV, b"first", argument, b"last")
    assert (ended.code, ended.out) == (0, b"first\0" + argument + b"\0last")


def test_environment_and_working_directory_are_untouched(container, tmp_path):
    environment = {"PATH": os.environ["PATH"], "A": "1 2\n3", "EMPTY": "", "POIESIS_RUN": "x"}
    ended = container.run("env", "-0", env=environment)
    assert dict(line.split(b"=", 1) for line in ended.out.rstrip(b"\0").split(b"\0")) == {
        os.fsencode(key): os.fsencode(value) for key, value in environment.items()
    }


def test_process_keeps_the_working_directory(container, tmp_path):
    assert container.run("pwd", cwd=tmp_path).out == os.fsencode(tmp_path) + b"\n"


def test_process_inherits_signals_and_files(container):
    script = "grep -E '^Sig(Blk|Ign)' /proc/self/status; ls /proc/self/fd"
    without = subprocess.run(["sh", "-c", script], capture_output=True, stdin=subprocess.DEVNULL, check=True)
    assert container.sh(script).out == without.stdout


def test_process_leads_its_own_session(container):
    out = container.run(
        sys.executable, "-c", "import os; print(os.getpid() == os.getsid(0) == os.getpgid(0))"
    ).out
    assert out == b"True\n"


def _not_executable(tmp_path):
    (tmp_path / "script").write_text("#!/bin/sh\n")
    return tmp_path / "script"


def _without_interpreter(tmp_path):
    (tmp_path / "script").write_text("#!/no/such/interpreter\n")
    (tmp_path / "script").chmod(0o755)
    return tmp_path / "script"


def _not_a_program(tmp_path):
    (tmp_path / "data").write_text("no shebang here\n")
    (tmp_path / "data").chmod(0o755)
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("program", "code", "words"),
    [
        (lambda _: "no-such-program", 127, b"poiesis: no-such-program: not found\n"),
        (lambda _: "/no/such/program", 127, b"poiesis: /no/such/program: not found\n"),
        (lambda _: "", 127, b"poiesis: : not found\n"),
        (_without_interpreter, 127, b"interpreter not found\n"),
        (_not_executable, 126, b"Permission denied\n"),
        (lambda path: path, 126, b"Permission denied\n"),
        (_not_a_program, 126, b"Exec format error\n"),
    ],
    ids=["not in PATH", "no file", "empty", "no interpreter", "mode", "directory", "no program"],
)
def test_unexecutable_commands_exit_as_in_a_shell(container, tmp_path, program, code, words):
    ended = container.run(program(tmp_path), options=["--stderr", tmp_path / "err"])
    assert ended.code == container.exit["exit_code"] == code
    assert ended.err == container.read("stderr") == (tmp_path / "err").read_bytes()
    assert ended.err.endswith(words)


def test_stdin_is_empty_unless_a_file_is_named(container):
    assert container.run("cat", stdin=subprocess.PIPE).out == b""


def test_stdin_comes_from_the_named_file(container, tmp_path):
    (tmp_path / "in").write_bytes(b"a\0b\n")
    assert container.run("cat", options=["--stdin", tmp_path / "in"]).out == b"a\0b\n"


def test_a_missing_stdin_file_fails_the_executor(container):
    ended = container.run("cat", options=["--stdin", "/no/such/file"])
    assert ended.code == container.exit["exit_code"] == 66
    assert (
        container.read("stderr")
        == ended.err
        == b"poiesis: cannot open stdin /no/such/file: No such file or directory\n"
    )


def test_exit_json_is_complete(container):
    before = time.time_ns()
    code = "import sys, time; sum(range(3_000_000)); x = b'x' * 50_000_000; time.sleep(0.1); sys.exit(7)"
    ended = container.run(sys.executable, "-c", code)
    record = container.exit
    assert ended.code == 7
    assert list(record) == [
        "exit_code", "signal", "oom", "term", "start_ns", "end_ns", "max_rss_kb", "user_us", "sys_us",
    ]  # fmt: skip
    assert {key: record[key] for key in ("exit_code", "signal", "oom", "term")} == {
        "exit_code": 7, "signal": 0, "oom": False, "term": False,
    }  # fmt: skip
    assert before <= record["start_ns"] <= record["end_ns"] - 100_000_000 <= time.time_ns()
    assert 50_000 < record["max_rss_kb"] < 1_000_000
    assert 0 < record["user_us"] < 10_000_000
    assert 0 <= record["sys_us"] < 10_000_000
    assert len(container.read("exit.json")) < 512
    assert container.message.read_bytes() == container.read("exit.json")
    assert container.files == {"started", "exit.json", "stdout", "stderr"}


def test_files_are_readable_by_all_users(container, tmp_path):
    container.sh(
        "echo x", options=["--stdout", tmp_path / "a/b/out", "--on-failure", "continue"], umask=0o077
    )
    modes = {path.name: path.stat().st_mode & 0o777 for path in container.dir.iterdir()}
    assert modes == dict.fromkeys(["started", "exit.json", "stdout", "stderr"], 0o644)
    assert (tmp_path / "a/b/out").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "a").stat().st_mode & 0o777 == (tmp_path / "a/b").stat().st_mode & 0o777 == 0o777


def test_a_missing_termination_log_is_not_created(container):
    container.message.unlink()
    assert container.sh("exit 3").code == container.exit["exit_code"] == 3
    assert not container.message.exists()


def test_an_unwritable_exit_json_leaves_a_message(container):
    ended = container.sh(f"rm -rf {container.dir}; echo out; exit 3")
    assert (ended.code, ended.out) == (3, b"out\n")
    assert b"exit.json: No such file or directory" in ended.err
    assert json.loads(container.message.read_bytes())["exit_code"] == 3


def test_a_missing_run_directory_is_refused(container):
    container.dir.rmdir()
    ended = container.sh("echo ran")
    assert (ended.code, ended.out) == (70, b"")
    assert ended.err == b"poiesis: cannot open %b: No such file or directory\n" % os.fsencode(container.dir)


def test_the_run_directory_stays_locked(container, eventually):
    process = container.start("sleep", "60")
    eventually(lambda: container.has("started"))
    assert 0 < json.loads(container.read("started"))["start_ns"] <= time.time_ns()
    assert container.locked
    container.dir.joinpath("started").unlink()
    assert container.locked
    process.terminate()
    process.wait(10)
    assert not container.locked


IGNORE = ["--ignore-error"]
CONTINUE = ["--on-failure", "continue"]
EXIT = ["--on-failure=exit"]


@pytest.mark.parametrize(
    ("script", "options", "code", "recorded"),
    [
        ("exit 0", [], 0, (0, 0, False)),
        ("exit 0", CONTINUE, 0, (0, 0, False)),
        ("exit 7", [], 7, (7, 0, False)),
        ("exit 7", EXIT, 7, (7, 0, False)),
        ("exit 7", CONTINUE, 0, (7, 0, True)),
        ("exit 7", IGNORE, 0, (7, 0, False)),
        ("exit 7", IGNORE + CONTINUE, 0, (7, 0, False)),
        ("exit 255", [], 255, (255, 0, False)),
        ("kill -SEGV $$", [], 139, (139, signal.SIGSEGV, False)),
        ("kill -KILL $$", [], 137, (137, signal.SIGKILL, False)),
        ("kill -TERM $$", CONTINUE, 0, (143, signal.SIGTERM, True)),
        ("kill -TERM $$", IGNORE, 0, (143, signal.SIGTERM, False)),
    ],
)
def test_options_change_only_the_exit_code(container, script, options, code, recorded):
    assert container.sh(script, options=options).code == code
    record = container.exit
    assert (record["exit_code"], record["signal"], container.has("failed")) == recorded


def test_the_helper_has_the_last_word_on_failed(container):
    (container.dir / "failed").touch()
    (container.dir / "skipped").touch()
    assert container.sh(f"ls {container.dir}; touch {container.dir}/failed").out.split() == [
        b"started",
        b"stderr",
        b"stdout",
    ]
    assert container.files == {"started", "exit.json", "stdout", "stderr"}


def test_an_unwritable_failed_mark_stops_the_pod(container):
    assert container.sh(f"mkdir {container.dir}/failed; exit 7", options=CONTINUE).code == 7


@pytest.mark.parametrize(
    ("script", "options", "code"),
    [
        ("exit 0", [], 0),
        ("exit 7", [], 7),
        ("exit 7", IGNORE, 0),
        ("exit 7", CONTINUE, 0),
        ("kill -9 $$", [], 137),
    ],
)
def test_a_second_start_repeats_the_exit_code(container, tmp_path, script, options, code):
    script = f"echo ran >> {tmp_path}/count; {script}"
    assert container.sh(script, options=options).code == code
    first = {path: path.read_bytes() for path in container.dir.iterdir()}
    container.message.write_bytes(b"")
    assert container.sh(script, options=options).code == code
    assert {path: path.read_bytes() for path in container.dir.iterdir()} == first
    assert container.message.read_bytes() == container.read("exit.json")
    assert (tmp_path / "count").read_text() == "ran\n"


def test_a_start_after_a_kill_is_refused(container):
    (container.dir / "started").write_text('{"start_ns":1}\n')
    ended = container.sh("echo ran")
    assert (ended.code, ended.out) == (70, b"")
    assert ended.err.count(b"\n") == 1
    assert b"started exists without exit.json" in ended.err
    assert container.files == {"started"}


def test_a_malformed_exit_json_is_refused(container):
    (container.dir / "exit.json").write_text("{}")
    assert container.sh("echo ran").code == 70


@pytest.mark.parametrize(
    "left", [{"started"}, {"started", "exit.json", "failed", "skipped", "stdout", "stderr"}]
)
def test_rerun_removes_what_was_left_and_runs_again(container, left):
    for name in left:
        (container.dir / name).write_text("stale")
    assert container.sh("echo ran", options=["--rerun"]).code == 0
    assert container.read("stdout") == b"ran\n"
    assert container.exit["exit_code"] == 0
    assert container.files == {"started", "exit.json", "stdout", "stderr"}


def test_an_executor_is_skipped_after_one_that_failed(new_container):
    first, second, third = (new_container(f"executor-{i}") for i in range(3))
    assert first.sh("exit 7", options=CONTINUE).code == 0
    assert second.sh("echo ran", options=["--after", first.dir]).out == b""
    ended = third.sh("echo ran", options=["--after", second.dir])
    message = b"poiesis: not running: an earlier executor failed\n"
    assert (ended.code, ended.out, ended.err) == (0, b"", message)
    assert second.files == third.files == {"skipped"}
    assert third.message.read_bytes() == b""


def test_an_executor_runs_after_successful_ones(new_container):
    first, second = new_container("executor-0"), new_container("executor-1")
    first.sh(f"touch {first.dir}/failed {first.dir}/skipped; exit 7", options=IGNORE)
    assert second.sh("echo ran", options=["--after", first.dir]).out == b"ran\n"
    assert second.sh("echo ran", options=["--rerun", "--after", f"{first.dir}/never-there"]).out == b"ran\n"


RETRY = ["--retry-exit-code", "75", "--retry-attempts", "1"]


def test_a_passing_failure_is_retried(container, tmp_path):
    ended = container.sh(
        f"echo try; test -e {tmp_path}/again && exit 0; touch {tmp_path}/again; exit 75", options=RETRY
    )
    assert (ended.code, ended.out, container.read("stdout")) == (0, b"try\n" * 2, b"try\n" * 2)
    assert ended.err == container.read("stderr")
    assert ended.err.startswith(b"poiesis: exit code 75: restarting in ")
    assert ended.err.endswith(b" s (retry 1 of 1)\n")
    record = container.exit
    assert record["exit_code"] == 0
    assert record["end_ns"] - record["start_ns"] >= 0.5e9
    assert json.loads(container.read("started"))["start_ns"] == record["start_ns"]


def test_exhausted_retries_keep_the_exit_code(container):
    ended = container.sh("echo try; exit 75", options=RETRY)
    assert (ended.code, ended.out, container.exit["exit_code"]) == (75, b"try\n" * 2, 75)


@pytest.mark.parametrize(("script", "code"), [("exit 65", 65), ("kill -9 $$", 137), ("exit 0", 0)])
def test_other_codes_are_not_retried(container, script, code):
    ended = container.sh(f"echo try; {script}", options=RETRY)
    assert (ended.code, ended.out) == (code, b"try\n")


def test_a_killed_process_is_retried_if_requested(container, tmp_path):
    script = f"echo try; test -e {tmp_path}/again && exit 0; touch {tmp_path}/again; kill -9 $$"
    ended = container.sh(script, options=[*RETRY, "--retry-killed"])
    assert (ended.code, ended.out, container.exit["signal"]) == (0, b"try\n" * 2, 0)
    assert ended.err.startswith(b"poiesis: exit code 137: restarting in ")


def test_a_stop_signal_ends_the_back_off(container, eventually):
    process = container.start(
        "sh", "-c", "exit 75", options=["--retry-exit-code=75", "--retry-attempts=1000"]
    )
    eventually(lambda: b"retry 2 of 1000" in container.read("stderr") if container.has("stderr") else False)
    process.terminate()
    assert process.wait(1) == 75
    assert container.exit["term"] is True
