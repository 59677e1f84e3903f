"""helper install: a copy of the program, and directories for every uid."""

import os
import subprocess
from pathlib import Path

import pytest


@pytest.fixture
def install(helper, tmp_path):
    """Call `helper install` for entries of the paths list (kind and path), in one or more parts."""
    parts, bin_ = tmp_path / "parts", tmp_path / "bin"
    parts.mkdir()
    bin_.mkdir()

    def call(*entries: str, program: Path = helper, cut: int | None = None, **popen):
        text = b"".join(os.fsencode(entry) + b"\0" for entry in entries)
        for old in parts.iterdir():
            old.unlink()
        for number, start in enumerate(range(0, len(text) or 1, cut or len(text) or 1)):
            (parts / f"{number:03}").write_bytes(text[start : start + (cut or len(text))])
        words = [program, "install", "--bin", bin_, "--paths", parts]
        return subprocess.run(words, capture_output=True, timeout=60, check=False, **popen)

    return call


@pytest.mark.parametrize("cut", [None, 5])
def test_install_prepares_program_and_directories(helper, install, tmp_path, cut):
    made = [tmp_path / "runs/executor-0", tmp_path / "runs/executor-1", tmp_path / "data/a\nb/c"]
    ended = install(*(f"m{path}" for path in made), "s/data", "z/unknown", cut=cut, umask=0o077)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")
    assert (tmp_path / "bin/helper").read_bytes() == helper.read_bytes()
    assert (tmp_path / "bin/helper").stat().st_mode & 0o7777 == 0o755
    assert sorted(path.name for path in (tmp_path / "bin").iterdir()) == ["helper", "paths"]
    everything = [*made, tmp_path / "runs", tmp_path / "data", tmp_path / "data/a\nb"]
    assert {path: path.stat().st_mode & 0o7777 for path in everything} == dict.fromkeys(everything, 0o777)


def test_paths_are_readable_for_all_users(install, tmp_path):
    entries = [f"m{tmp_path}/data", *(f"s/data/{number}" for number in range(20_000))]
    assert install(*entries, cut=10_000, umask=0o077).returncode == 0
    assert (tmp_path / "bin/paths").read_text() == "".join(f"{entry}\0" for entry in entries)
    assert (tmp_path / "bin/paths").stat().st_mode & 0o777 == 0o644


def test_install_creates_fifos_for_all_users(install, tmp_path):
    fifo = tmp_path / "data/in/reads.bam"
    for _ in range(2):
        ended = install(f"q{fifo}", umask=0o077)
        assert (ended.returncode, ended.stderr) == (0, b"")
        assert fifo.is_fifo()
        assert fifo.stat().st_mode & 0o7777 == 0o666
    assert fifo.parent.stat().st_mode & 0o7777 == 0o777


def test_install_keeps_a_replaced_fifo(install, tmp_path):
    (tmp_path / "reads.bam").write_text("reads")
    assert install(f"q{tmp_path}/reads.bam").returncode == 0
    assert (tmp_path / "reads.bam").read_text() == "reads"


def test_install_leaves_a_program_that_is_executing(install, tmp_path):
    assert install(f"m{tmp_path}/run").returncode == 0
    installed = tmp_path / "bin/helper"
    before = installed.stat()
    waiting = subprocess.Popen([installed, "wait", "--ack", tmp_path / "ack"])
    try:
        assert install(f"m{tmp_path}/run").returncode == 0
        assert install(f"m{tmp_path}/run", program=installed).returncode == 0
        assert waiting.poll() is None
    finally:
        waiting.kill()
        waiting.wait()
    after = installed.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_install_replaces_another_program(helper, install, tmp_path):
    (tmp_path / "bin/helper").write_text("#!/bin/sh\n")
    assert install().returncode == 0
    assert (tmp_path / "bin/helper").read_bytes() == helper.read_bytes()


def test_install_keeps_special_bits_of_directories(install, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data").chmod(0o2750)
    assert install(f"m{tmp_path}/data").returncode == 0
    assert (tmp_path / "data").stat().st_mode & 0o7777 == 0o2777


@pytest.mark.parametrize("kind", ["m", "q"])
def test_a_second_install_follows_no_link(install, tmp_path, kind):
    """The recorder may be started again while an executor runs that can write to the whole data root."""
    target = tmp_path / "elsewhere"
    target.mkdir(mode=0o700)
    assert install(f"m{tmp_path}/root/a").returncode == 0
    (tmp_path / "root/a").rmdir()
    (tmp_path / "root/a").symlink_to(target)
    ended = install(f"{kind}{tmp_path}/root/a/b")
    assert (ended.returncode, b"cannot create the" in ended.stderr) == (0, True)
    assert list(target.iterdir()) == []
    assert install(f"m{tmp_path}/root/a").returncode == 0
    assert target.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.getuid() != 0, reason="becoming another uid takes root")
@pytest.mark.parametrize(("mode", "code"), [(0o777, 0), (0o773, 1), (0o755, 1)])
def test_install_accepts_world_writable_directories(install, tmp_path, open_to_everyone, mode, code):
    open_to_everyone(tmp_path)
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    theirs.chmod(mode)
    (tmp_path / "bin").chmod(0o777)
    (tmp_path / "parts").chmod(0o755)
    ended = install(f"m{theirs}", user=4321, group=4321, extra_groups=[], cwd="/")
    assert ended.returncode == code
    assert ended.stderr.startswith(b"poiesis: cannot create the directory %b: " % os.fsencode(theirs) * code)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("m/proc/nowhere/x", b"cannot create the directory /proc/nowhere/x: No such file or directory"),
        ("m/dev/null", b"cannot create the directory /dev/null: Not a directory"),
        ("m/dev/null/x", b"cannot create the directory /dev/null/x: Not a directory"),
        ("q/dev/null/x", b"cannot create the FIFO /dev/null/x: Not a directory"),
    ],
)
def test_a_failed_install_names_path_and_reason(install, entry, message):
    ended = install(entry)
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, b"", b"poiesis: %b\n" % message)


@pytest.mark.parametrize("option", ["--bin", "--paths"])
def test_install_needs_its_directories(helper, tmp_path, option):
    words = {"--bin": tmp_path, "--paths": tmp_path} | {option: "/proc/nowhere"}
    command = [helper, "install", *(word for pair in words.items() for word in pair)]
    ended = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (
        1,
        b"poiesis: cannot open /proc/nowhere: No such file or directory\n",
    )
