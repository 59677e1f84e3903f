"""A container that failed stays until the recorder has reported it: its Pod would end with it."""

import signal
import time

import pytest


@pytest.fixture
def ack(tmp_path):
    return tmp_path / "ack" / "done"


@pytest.fixture
def failing(container, ack, eventually):
    """Started, with its end recorded."""
    ack.parent.mkdir()

    def start(script="echo last words; exit 7", seconds=60):
        process = container.start("sh", "-c", script, options=["--ack", ack, "--ack-timeout", str(seconds)])
        eventually(lambda: container.has("exit.json"))
        return process

    return start


def test_a_failed_container_waits_for_the_recorder(container, failing, ack):
    process = failing()
    time.sleep(0.3)
    assert process.poll() is None

    begin = time.monotonic()
    ack.write_text("1")

    assert process.wait(10) == 7
    assert time.monotonic() - begin < 5  # of 60
    assert container.exit["exit_code"] == 7


def test_files_are_complete_during_the_wait(container, failing, eventually):
    failing()

    assert container.read("stdout") == b"last words\n"
    assert container.message.read_bytes() == container.read("exit.json")

    eventually(lambda: not container.locked)


def test_it_does_not_wait_for_ever(failing):
    begin = time.monotonic()
    assert failing(seconds=1).wait(10) == 7
    assert time.monotonic() - begin > 0.9


def test_it_does_not_wait_while_its_pod_goes(container, failing):
    process = failing()
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 7
    assert container.exit["term"] is False


@pytest.mark.parametrize(
    ("script", "more", "code"),
    [
        ("exit 0", [], 0),
        ("exit 7", ["--ignore-error"], 0),
        ("exit 7", ["--on-failure", "continue"], 0),
    ],
)
def test_no_wait_if_the_pod_continues(container, ack, script, more, code):
    begin = time.monotonic()
    ended = container.sh(script, options=["--ack", ack, *more])
    assert ended.code == code
    assert time.monotonic() - begin < 5


def test_no_wait_without_a_record(container, ack):
    """The recorder learns of it when the container has ended, and not before."""
    begin = time.monotonic()
    ended = container.sh(
        "mkdir -p $0/exit.json/in/the/way; exit 7".replace("$0", str(container.dir)), options=["--ack", ack]
    )
    assert ended.code == 7
    assert time.monotonic() - begin < 5


def test_a_second_start_waits_as_the_first_did(container, failing, ack):
    first = failing()
    first.kill()
    first.wait()
    again = container.start("sh", "-c", "exit 0", options=["--ack", ack])
    time.sleep(0.3)
    assert again.poll() is None
    ack.write_text("1")
    assert again.wait(10) == 7


def test_an_out_of_memory_kill_waits_too(container, ack, eventually):
    ack.parent.mkdir()
    (container.cgroup).mkdir()
    events = container.cgroup / "memory.events"
    events.write_text("oom_kill 0\n")
    script = f"echo 'oom_kill 1' >{events}; exit 0"
    process = container.start("sh", "-c", script, options=["--ack", ack])
    eventually(lambda: container.has("exit.json"))
    time.sleep(0.2)
    assert process.poll() is None
    ack.write_text("1")
    assert process.wait(10) == 137
