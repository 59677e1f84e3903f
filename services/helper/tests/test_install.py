"""helper install: a copy of the program, and directories for every uid."""

import os
import subprocess

import pytest


def _install(helper, *words, **popen):
    return subprocess.run(
        [helper, "install", *map(str, words)], capture_output=True, timeout=60, check=False, **popen
    )


def test_install_copies_the_program_and_makes_directories_for_every_uid(helper, tmp_path):
    made = [tmp_path / "runs/executor-0", tmp_path / "runs/executor-1", tmp_path / "data/a/b"]
    ended = _install(helper, "--bin", tmp_path / "bin", *(f"--dir={path}" for path in made), umask=0o077)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")
    assert (tmp_path / "bin/helper").read_bytes() == helper.read_bytes()
    assert (tmp_path / "bin/helper").stat().st_mode & 0o7777 == 0o755
    assert [path.name for path in (tmp_path / "bin").iterdir()] == ["helper"]
    everything = [*made, tmp_path / "runs", tmp_path / "data", tmp_path / "data/a", tmp_path / "bin"]
    assert {path: path.stat().st_mode & 0o7777 for path in everything} == dict.fromkeys(everything, 0o777)


def test_install_makes_fifos_that_every_uid_can_open_and_may_be_called_again(helper, tmp_path):
    fifo = tmp_path / "data/in/reads.bam"
    for _ in range(2):
        ended = _install(helper, "--bin", tmp_path / "bin", "--fifo", fifo, umask=0o077)
        assert (ended.returncode, ended.stderr) == (0, b"")
        assert fifo.is_fifo()
        assert fifo.stat().st_mode & 0o7777 == 0o666
    assert fifo.parent.stat().st_mode & 0o7777 == 0o777


def test_install_leaves_what_an_executor_has_put_in_the_place_of_a_fifo(helper, tmp_path):
    (tmp_path / "reads.bam").write_text("reads")
    assert _install(helper, "--bin", tmp_path / "bin", "--fifo", tmp_path / "reads.bam").returncode == 0
    assert (tmp_path / "reads.bam").read_text() == "reads"


def test_install_says_which_fifo_cannot_be_made(helper, tmp_path):
    (tmp_path / "in").write_text("a file")
    ended = _install(helper, "--bin", tmp_path / "bin", "--fifo", tmp_path / "in/reads.bam")
    assert ended.returncode == 1
    assert b"cannot make the FIFO" in ended.stderr


def test_install_leaves_a_program_that_is_executing(helper, tmp_path):
    words = ["--bin", tmp_path, "--dir", tmp_path / "run"]
    assert _install(helper, *words).returncode == 0
    installed = tmp_path / "helper"
    before = installed.stat()
    waiting = subprocess.Popen([installed, "wait", "--ack", tmp_path / "ack"])
    try:
        assert _install(helper, *words).returncode == 0
        assert _install(installed, *words).returncode == 0
        assert waiting.poll() is None
    finally:
        waiting.kill()
        waiting.wait()
    after = installed.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_install_replaces_another_program(helper, tmp_path):
    (tmp_path / "helper").write_text("#!/bin/sh\n")
    assert _install(helper, "--bin", tmp_path).returncode == 0
    assert (tmp_path / "helper").read_bytes() == helper.read_bytes()


def test_install_opens_an_existing_directory_and_keeps_its_special_bits(helper, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data").chmod(0o2750)
    assert _install(helper, "--bin", tmp_path, "--dir", tmp_path / "data").returncode == 0
    assert (tmp_path / "data").stat().st_mode & 0o7777 == 0o2777


@pytest.mark.skipif(os.getuid() != 0, reason="becoming another uid takes root")
@pytest.mark.parametrize(("mode", "code"), [(0o777, 0), (0o773, 0), (0o755, 1)])
def test_install_accepts_a_directory_of_somebody_else_if_it_is_world_writable(
    helper, tmp_path, open_to_everyone, mode, code
):
    open_to_everyone(tmp_path)
    theirs, bin_ = tmp_path / "theirs", tmp_path / "bin"
    theirs.mkdir()
    bin_.mkdir()
    theirs.chmod(mode)
    bin_.chmod(0o777)
    ended = _install(helper, "--bin", bin_, "--dir", theirs, user=4321, group=4321, extra_groups=[], cwd="/")
    assert ended.returncode == code
    assert ended.stderr == (
        b"poiesis: cannot make the directory %b: Operation not permitted\n" % os.fsencode(theirs)
        if code
        else b""
    )


@pytest.mark.parametrize(
    ("option", "path", "message"),
    [
        (
            "--dir",
            "/proc/nowhere/x",
            b"poiesis: cannot make the directory /proc/nowhere/x: No such file or directory\n",
        ),
        ("--dir", "/dev/null", b"poiesis: cannot make the directory /dev/null: Not a directory\n"),
        ("--dir", "/dev/null/x", b"poiesis: cannot make the directory /dev/null/x: Not a directory\n"),
        (
            "--bin",
            "/proc/nowhere",
            b"poiesis: cannot install /proc/nowhere/helper: No such file or directory\n",
        ),
    ],
)
def test_install_that_fails_names_the_path_and_the_reason(helper, tmp_path, option, path, message):
    words = [option, path] if option == "--bin" else ["--bin", tmp_path, option, path]
    ended = _install(helper, *words)
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, b"", message)
