"""helper rescue: idle beside other containers, until one of them was killed and its Pod ends."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

OOM = (
    b'{"exit_code":137,"signal":9,"oom":true,"term":false,"start_ns":1,"end_ns":2,'
    b'"max_rss_kb":1,"user_us":1,"sys_us":1}\n'
)


@pytest.fixture
def own(new_container):
    """Its own container."""
    return new_container("rescue-0")


@pytest.fixture
def rescue(start_helper, own, tmp_path):
    """Start one that writes `sent` when it becomes its command."""

    def start(*more):
        return start_helper(
            *("rescue", "--run", own.dir, "--runs", own.runs),
            *("--killed", "executor-", "--unless", "tof-", "--ask", tmp_path / "ask"),
            *(*more, "--", "/bin/sh", "-c", f"echo yes >{tmp_path}/sent; exit 3"),
        )

    return start


@pytest.fixture
def killed(new_container, eventually):
    """Start a container and kill its helper."""

    def kill(name):
        one = new_container(name)
        process = one.start("sleep", "60")
        eventually(lambda: one.has("started"))
        process.kill()
        process.wait()
        return one

    return kill


def stopped(process):
    process.send_signal(signal.SIGTERM)
    return process.wait(10)


def test_nothing_is_sent_while_an_executor_runs(rescue, new_container, eventually, tmp_path):
    executor = new_container("executor-0")
    executor.start("sleep", "60")
    eventually(lambda: executor.has("started"))

    assert stopped(rescue()) == 0
    assert not (tmp_path / "sent").exists()


@pytest.mark.parametrize("code", [0, 7])
def test_nothing_is_sent_after_an_executor_that_ended(rescue, new_container, tmp_path, code):
    new_container("executor-0").run("sh", "-c", f"exit {code}")

    assert stopped(rescue()) == 0
    assert not (tmp_path / "sent").exists()


def test_nothing_is_sent_before_an_executor_started(rescue, new_container, tmp_path):
    new_container("executor-0")

    assert stopped(rescue()) == 0
    assert not (tmp_path / "sent").exists()


def test_killed_helper_makes_it_become_its_command(rescue, killed, tmp_path):
    killed("executor-0")

    process = rescue()

    assert process.poll() is None  # its Pod has not begun to end
    assert stopped(process) == 3
    assert (tmp_path / "sent").read_text() == "yes\n"


def test_out_of_memory_record_starts_the_command(rescue, new_container, tmp_path):
    executor = new_container("executor-0")
    (executor.dir / "started").write_text('{"start_ns":1}\n')
    (executor.dir / "exit.json").write_bytes(OOM)

    assert stopped(rescue()) == 3
    assert (tmp_path / "sent").exists()


def test_only_the_last_executor_that_started_counts(rescue, killed, new_container, tmp_path):
    killed("executor-2")
    new_container("executor-10").run("true")

    assert stopped(rescue()) == 0
    assert not (tmp_path / "sent").exists()


def test_nothing_is_sent_twice_once_outputs_were_begun(rescue, killed, new_container, tmp_path):
    killed("executor-0")
    new_container("tof-0").run("true")

    assert stopped(rescue()) == 0
    assert not (tmp_path / "sent").exists()


def test_request_makes_it_become_its_command_at_once(rescue, tmp_path):
    process = rescue()
    begin = time.monotonic()
    (tmp_path / "new").write_text("1")
    (tmp_path / "new").rename(tmp_path / "ask")

    assert process.wait(10) == 3
    assert time.monotonic() - begin < 0.9  # woken by the file, not by a poll


def test_second_start_after_its_work_only_waits(rescue, killed, own, tmp_path):
    killed("executor-0")
    (tmp_path / "ask").write_text("1")
    own.run("true")

    process = rescue()
    time.sleep(0.2)

    assert process.poll() is None
    assert stopped(process) == 0
    assert not (tmp_path / "sent").exists()


def test_unwritable_record_does_not_count_as_kill(rescue, new_container, tmp_path):
    executor = new_container("executor-0")
    (executor.dir / "started").write_text('{"start_ns":1}\n')
    (executor.dir / "failed").touch()

    assert stopped(rescue()) == 0
    assert not (tmp_path / "sent").exists()


def test_planted_files_do_not_delay_it(rescue, killed, tmp_path):
    directory = killed("executor-0").dir
    os.mkfifo(directory / "exit.json")

    assert stopped(rescue()) == 3
    assert (tmp_path / "sent").exists()


def test_its_command_gets_signals_again(helper, own, tmp_path, eventually):
    (tmp_path / "ask").write_text("1")
    command = [
        *(helper, "rescue", "--run", own.dir, "--runs", own.runs, "--killed", "executor-"),
        *("--ask", tmp_path / "ask", "--", helper, "run", "--run", own.dir, "--termination-log", own.message),
        *("--", "sh", "-c", "trap 'exit 4' TERM; echo ready; while :; do sleep 0.05; done"),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        eventually(lambda: own.has("stdout") and own.read("stdout") == b"ready\n")
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 4
    assert own.exit["term"] is True


def test_idle_sidecar_needs_less_than_a_mebibyte(rescue):
    process = rescue()
    status = Path(f"/proc/{process.pid}/status").read_text()

    assert int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) < 1024


def test_time_limit_acts_like_a_stop_signal(container):
    begin = time.monotonic()
    ended = container.sh("trap 'exit 4' TERM; while :; do sleep 0.05; done", options=["--time-limit", "1"])

    assert ended.code == 4
    assert 0.9 < time.monotonic() - begin < 5
    assert container.exit["term"] is True


def test_time_limit_replaces_the_stop_signal(container, eventually):
    process = container.start("sh", "-c", "echo ready; sleep 1; exit 5", options=["--time-limit", "60"])
    eventually(lambda: container.has("stdout") and container.read("stdout") == b"ready\n")
    process.send_signal(signal.SIGTERM)

    assert process.wait(10) == 5
    assert container.exit["term"] is False


def test_time_limit_kills_what_ignores_it(container):
    ended = container.sh("trap '' TERM; sleep 60", options=["--time-limit", "1", "--grace", "4"])

    assert ended.code == 137
    assert container.exit["term"] is True


def test_time_limit_ends_the_pause_before_another_try(container):
    begin = time.monotonic()
    options = ["--time-limit", "1", "--retry-exit-code", "75", "--retry-attempts", "1000"]
    ended = container.sh("exit 75", options=options)

    assert ended.code == 75
    assert time.monotonic() - begin < 5


def test_exit_before_time_limit_is_not_changed(container):
    assert container.sh("exit 0", options=["--time-limit", "60"]).code == 0
    assert container.exit["term"] is False
