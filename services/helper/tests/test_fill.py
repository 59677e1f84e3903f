"""helper fill: what an image has in directories that will be mounted over, copied into the task's volume."""

import json
import os
import subprocess
from pathlib import Path

import pytest


@pytest.fixture
def fill(helper, tmp_path):
    """Call `helper fill`; a directory of the test stands for the image's."""
    (tmp_path / "volume").mkdir()
    (tmp_path / "record").mkdir()

    def call(*entries: str, **popen):
        (tmp_path / "paths").write_bytes(b"".join(os.fsencode(entry) + b"\0" for entry in entries))
        words = ["--paths", tmp_path / "paths", "--to", tmp_path / "volume", "--record", tmp_path / "record"]
        words += ["--progress", tmp_path / "progress.jsonl"]
        return subprocess.run([helper, "fill", *words], capture_output=True, timeout=60, check=False, **popen)

    return call


@pytest.fixture
def image(tmp_path):
    app = tmp_path / "app"
    (app / "lib/deep").mkdir(parents=True)
    (app / "run.sh").write_text("#!/bin/sh\n")
    (app / "run.sh").chmod(0o755)
    os.utime(app / "run.sh", (1_000_000_000, 1_000_000_000))
    (app / "lib/deep/data").write_text("data")
    (app / "link").symlink_to("run.sh")
    os.mkfifo(app / "fifo")
    return app


def _at(tmp_path, path):
    return tmp_path / "volume" / str(path).lstrip("/")


def _names(root) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


def test_a_directory_keeps_what_the_image_has_there(fill, image, tmp_path):
    ended = fill(f"f{image}", f"f{tmp_path}/nothing", umask=0o077)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")
    filled = _at(tmp_path, image)
    assert _names(filled) == {"run.sh", "lib", "lib/deep", "lib/deep/data", "link"}
    assert (filled / "run.sh").stat().st_mode & 0o7777 == 0o755
    assert (filled / "run.sh").stat().st_mtime == 1_000_000_000
    assert (filled / "link").readlink() == Path("run.sh")
    assert not _at(tmp_path, tmp_path / "nothing").exists()


def test_what_the_task_has_put_there_stays(fill, image, tmp_path):
    filled = _at(tmp_path, image)
    (filled / "lib").mkdir(parents=True)
    (filled / "run.sh").write_text("staged")
    (filled / "lib/deep").write_text("a file")
    assert fill(f"f{image}").returncode == 0
    assert ((filled / "run.sh").read_text(), (filled / "lib/deep").read_text()) == ("staged", "a file")


def test_directories_that_the_task_names_are_not_filled(fill, image, tmp_path):
    assert fill(f"f{image}", f"x{image}/lib", f"x{image}/li").returncode == 0
    assert _names(_at(tmp_path, image)) == {"run.sh", "link"}


def test_image_content_joins_files_of_executors(fill, image, tmp_path):
    filled = _at(tmp_path, image)
    assert fill(f"f{image}").returncode == 0
    (filled / "output").write_text("an executor's")
    (filled / "lib/deep/data").write_text("changed")
    subprocess.run(["rm", "-r", image], check=True)
    image.mkdir()
    (image / "other.sh").write_text("other")
    assert fill(f"f{image}").returncode == 0
    assert _names(filled) == {"output", "lib", "lib/deep", "lib/deep/data", "other.sh"}
    assert (filled / "lib/deep/data").read_text() == "changed"


def test_fill_may_be_called_again(fill, image, tmp_path):
    assert fill(f"f{image}").returncode == 0
    before = _names(_at(tmp_path, image))
    assert fill(f"f{image}").returncode == 0
    assert _names(_at(tmp_path, image)) == before


@pytest.mark.skipif(os.getuid() != 0, reason="becoming another uid takes root")
def test_a_user_gets_what_it_can_read(fill, image, tmp_path, open_to_everyone):
    open_to_everyone(tmp_path)
    for path in (tmp_path / "volume", tmp_path / "record"):
        path.chmod(0o777)
    (image / "secret").write_text("x")
    (image / "secret").chmod(0o600)
    (image / "private").mkdir(mode=0o700)
    ended = fill(f"f{image}", user=4321, group=4321, extra_groups=[], cwd="/")
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert _names(_at(tmp_path, image)) == {"run.sh", "lib", "lib/deep", "lib/deep/data", "link"}


@pytest.mark.skipif(os.getuid() != 0, reason="giving files away takes root")
def test_root_keeps_the_owners(fill, image, tmp_path):
    os.chown(image / "run.sh", 1234, 5678)
    assert fill(f"f{image}").returncode == 0
    made = (_at(tmp_path, image) / "run.sh").stat()
    assert (made.st_uid, made.st_gid) == (1234, 5678)


def test_fill_that_fails_names_the_directory(fill, image, tmp_path):
    filled = _at(tmp_path, image.parent)
    filled.parent.mkdir(parents=True)
    filled.write_text("a file where a directory has to be")
    ended = fill(f"f{image}")
    assert ended.returncode == 74
    assert b"cannot copy what the image has in %b into the task's volume" % os.fsencode(image) in ended.stderr
    (line,) = (tmp_path / "progress.jsonl").read_text().splitlines()
    assert json.loads(line)["event"] == "error"
    assert str(image) in json.loads(line)["message"]
