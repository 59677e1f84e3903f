"""Where every byte of stdout and stderr goes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest


def mark(left_out: int) -> bytes:
    return b"[poiesis: %d bytes of earlier output left out]\n" % left_out


GARBAGE = os.urandom(300_000) + bytes(1000) + b"\xff\n\r\0"


def test_stdout_and_stderr_stay_separate(container, tmp_path):
    options = ["--stdout", tmp_path / "o", "--stderr", tmp_path / "e"]
    ended = container.sh("echo one; echo two >&2; echo three", options=options)
    assert ended.out == container.read("stdout") == (tmp_path / "o").read_bytes() == b"one\nthree\n"
    assert ended.err == container.read("stderr") == (tmp_path / "e").read_bytes() == b"two\n"


def test_binary_garbage_passes_unchanged(container, tmp_path):
    (tmp_path / "in").write_bytes(GARBAGE)
    ended = container.run(
        "cat", options=["--stdin", tmp_path / "in", "--stdout", tmp_path / "o", "--log-bytes=1000000"]
    )
    assert ended.out == container.read("stdout") == (tmp_path / "o").read_bytes() == GARBAGE


def test_an_existing_file_is_truncated(container, tmp_path):
    (tmp_path / "o").write_bytes(b"older and longer\n")
    container.sh("echo x", options=["--stdout", tmp_path / "o"])
    assert (tmp_path / "o").read_bytes() == b"x\n"


@pytest.mark.parametrize("other", ["both", "./both", "link"])
def test_stdout_and_stderr_may_share_a_file(container, tmp_path, other):
    (tmp_path / "link").symlink_to("both")
    options = ["--stdout", tmp_path / "both", "--stderr", f"{tmp_path}/{other}"]
    written = f'until grep -q "$1" {tmp_path}/both; do sleep 0.01; done'
    script = f"w() {{ {written}; }}; echo out; w out; echo err >&2; w err; echo out"
    container.sh(script, options=options)
    assert (tmp_path / "both").read_bytes() == b"out\nerr\nout\n"


@pytest.mark.parametrize(("script", "code"), [("exit 0", 74), ("exit 3", 3)])
@pytest.mark.parametrize("path", ["/dev/full", "/proc/nowhere/out", "/"])
def test_an_unwritable_file_is_reported_once(container, path, script, code):
    ended = container.sh(
        f"for i in 1 2 3; do echo $i; sleep 0.02; done; {script}", options=["--stdout", path]
    )
    assert ended.code == container.exit["exit_code"] == code
    assert ended.out == container.read("stdout") == b"1\n2\n3\n"
    assert ended.err == container.read("stderr")
    assert ended.err.count(b"\n") == ended.err.count(b"poiesis: cannot write %b: " % path.encode()) == 1


def test_an_unwritable_stderr_file_is_reported(container):
    ended = container.sh("echo x >&2", options=["--stderr", "/dev/full"])
    assert ended.code == 74
    assert sorted(ended.err.splitlines()) == [
        b"poiesis: cannot write /dev/full: No space left on device",
        b"x",
    ]


def test_a_departed_reader_is_ignored(container, tmp_path):
    read_end, write_end = os.pipe()
    os.close(read_end)
    ended = container.sh(
        "head -c 500000 /dev/zero; echo end", options=["--stdout", tmp_path / "o"], stdout=write_end
    )
    os.close(write_end)
    assert ended.code == 0
    assert (tmp_path / "o").stat().st_size == 500_004


def test_unwritable_logs_are_ignored(container):
    ended = container.sh(
        f"rm -rf {container.dir}; head -c 1000000 /dev/zero; echo err >&2", options=["--log-bytes=10"]
    )
    assert (ended.code, len(ended.out)) == (0, 1_000_000)
    assert ended.err.startswith(b"err\n")


LETTERS = bytes(range(65, 91)) * 40  # 1040 bytes


@pytest.mark.parametrize(
    ("cap", "size", "kept"),
    [
        (1040, 1040, LETTERS),
        (960, 1026, LETTERS[:1026]),
        (960, 1027, mark(67) + LETTERS[67:1027]),
        (100, 1040, mark(940) + LETTERS[-100:]),
        (1, 1040, mark(1039) + LETTERS[-1:]),
        (0, 1040, mark(1040)),
        (0, 0, b""),
    ],
)
def test_a_log_keeps_the_last_bytes(container, tmp_path, cap, size, kept):
    (tmp_path / "in").write_bytes(LETTERS[:size])
    ended = container.run(
        "dd", "bs=13", "status=none", options=["--stdin", tmp_path / "in", "--log-bytes", str(cap)]
    )
    assert ended.out == LETTERS[:size]
    assert container.read("stdout") == kept


def test_a_log_is_readable_while_the_process_runs(container, eventually):
    process = container.start(
        "sh", "-c", "echo first; head -c 5000 /dev/zero; echo last; sleep 60", options=["--log-bytes=100"]
    )
    eventually(lambda: container.has("stdout") and container.read("stdout").endswith(b"last\n"))
    shown = container.read("stdout")
    kept = shown.partition(b"\n")[2]
    assert shown == mark(5011 - len(kept)) + kept  # how much is kept depends on what was written together
    assert process.poll() is None
    process.terminate()
    process.wait(10)
    assert container.read("stdout") == mark(4911) + bytes(95) + b"last\n"


def test_closed_log_has_the_last_bytes_only(container, tmp_path, eventually):
    go = tmp_path / "go"
    script = f"head -c 5000 /dev/zero; until [ -e {go} ]; do sleep 0.05; done; echo last"
    process = container.start("sh", "-c", script, options=["--log-bytes=100"])
    eventually(lambda: container.has("stdout") and container.read("stdout") == mark(4900) + bytes(100))
    go.touch()
    process.wait(10)
    assert container.read("stdout") == mark(4905) + bytes(95) + b"last\n"


def test_output_is_passed_on_as_it_arrives(container):
    process = container.start("sh", "-c", "printf a; sleep 60")
    assert process.stdout.read(1) == b"a"
    process.terminate()


def test_a_log_never_exceeds_twice_its_cap(container, tmp_path):
    script = (
        f"for i in $(seq 3000); do echo 12345678; done; until test -e {tmp_path}/seen; do sleep 0.01; done"
    )
    process = container.start("sh", "-c", script, options=["--log-bytes=500"])
    sizes = set()
    while process.poll() is None:
        if container.has("stdout"):
            sizes.add((container.dir / "stdout").stat().st_size)
        if sizes - {0}:
            (tmp_path / "seen").touch()
    assert process.stdout.read() == b"12345678\n" * 3000
    assert max(sizes) <= 1000
    assert (
        container.read("stdout") == mark(2945 * 9) + b"12345678\n" * 55
    )  # whole lines of the last 500 bytes


def test_much_output_does_not_grow_memory(container, tmp_path, eventually):
    script = f"head -c 50000000 /dev/zero; echo error >&2; touch {tmp_path}/written; sleep 60"
    process = container.start(
        "sh", "-c", script, options=["--stdout", tmp_path / "o"], stdout=subprocess.DEVNULL
    )
    eventually((tmp_path / "written").exists, 20)
    status = dict(line.split(":", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines())
    assert int(status["VmHWM"].split()[0]) < 2_000
    assert process.stderr.read(6) == b"error\n"
    process.terminate()
    process.wait(10)
    assert (tmp_path / "o").stat().st_size == 50_000_000
    assert container.read("stdout") == mark(50_000_000 - 65536) + bytes(65536)


def test_a_stuck_reader_does_not_delay_the_exit(container, tmp_path, eventually):
    process = container.start(
        "sh", "-c", "head -c 1000000 /dev/zero", options=["--grace=4", "--stdout", tmp_path / "o"]
    )
    eventually(lambda: (tmp_path / "o").exists() and (tmp_path / "o").stat().st_size > 65536)
    time.sleep(0.1)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.wait(10)  # while its stdout is unread
    assert container.exit["term"] is True


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (b"first line\nsecond\nthird\n", b"second\nthird\n"),
        (b"a line that is much longer than what is kept\nend\n", b"r than what is kept\nend\n"[-20:]),
        (b"no line ends in all of this text", b"ds in all of this text"[-20:]),
    ],
    ids=["lines", "long line", "no line"],
)
def test_tail_of_a_log_begins_at_a_line(container, tmp_path, text, kept):
    (tmp_path / "in").write_bytes(bytes(100) + text)
    container.run("cat", options=["--stdin", tmp_path / "in", "--log-bytes=20"])
    assert container.read("stdout") == mark(100 + len(text) - len(kept)) + kept


BIG = "head -c 3000000 /dev/zero | tr '\\0' x"


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
@pytest.mark.parametrize("as_file", [True, False], ids=["stdout of the task", "opened by the program"])
def test_container_stdout_by_any_name_is_complete(container, name, as_file):
    process = container.start(
        "sh", "-c", BIG if as_file else f"{BIG} > {name}", options=["--stdout", name] if as_file else []
    )
    time.sleep(0.3)  # the reader is slow: the pipes are full
    out, err = process.communicate(timeout=30)
    assert (process.returncode, len(out), err) == (0, 3_000_000, b"")
    assert container.read("stdout").endswith(b"x" * 65536)


def test_stdout_may_be_the_container_stderr(container):
    ended = container.sh(f"{BIG}; echo y >&2", options=["--stdout", "/dev/stderr", "--stderr", "/dev/stderr"])
    assert (ended.code, len(ended.out)) == (0, 3_000_000)
    assert sorted(ended.err) == sorted(b"x" * 3_000_000 + b"y\n")


def test_stdout_may_be_a_slow_fifo(container, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    process = container.start(
        "sh", "-c", BIG, options=["--stdout", tmp_path / "fifo"], stdout=subprocess.DEVNULL
    )
    time.sleep(0.3)
    os.set_blocking(reader, True)
    with os.fdopen(reader, "rb") as fifo:
        assert len(fifo.read()) == 3_000_000
    assert process.wait(10) == 0


def test_an_unread_fifo_does_not_delay_the_exit(container, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    process = container.start(
        "sh", "-c", f"trap '' TERM; echo ready >&2; {BIG}; sleep 60",
        options=["--grace=4", "--stdout", tmp_path / "fifo"], stdout=subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stderr.readline() == b"ready\n"
    process.terminate()
    process.wait(10)
    os.close(reader)
    assert b"cannot write" in container.read("stderr")


@pytest.mark.skipif(os.getuid() != 0, reason="becoming another uid takes root")
def test_another_user_may_open_stdout(container):
    become = "import os, sys; os.setuid(1234); open('/dev/stdout', 'w').write('ok')"
    assert container.run(sys.executable, "-c", become).out == b"ok"
