# ruff: noqa: PT012  # a failure inside a context is what is tested
import os
import stat
from pathlib import Path

import pytest

from poiesis_transfer.errors import Permanent, Retryable, Unsendable
from poiesis_transfer.files import Destination, SourceFile, make_directories
from poiesis_transfer.progress import Progress


@pytest.fixture
def strict_umask():
    before = os.umask(0o077)
    yield
    os.umask(before)


def names(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_appears_complete_for_all_users(tmp_path: Path, progress: Progress, strict_umask: None):
    target = tmp_path / "a" / "b" / "file"
    with Destination(target, "/b/file", progress) as destination:
        destination.write(b"world", 6)
        destination.write(b"hello ", 0)
        assert not target.exists()
        destination.keep(11)
    assert target.read_bytes() == b"hello world"
    assert [mode(path) for path in (target, target.parent, target.parent.parent)] == [0o777, 0o777, 0o777]
    assert names(target.parent) == ["file"]


def test_a_file_of_another_size_does_not_appear(tmp_path: Path, progress: Progress):
    target = tmp_path / "d" / "file"
    with (
        pytest.raises(Retryable, match="received 3 of 4 bytes"),
        Destination(target, "/file", progress) as destination,
    ):
        destination.write(b"abc", 0)
        destination.keep(4)
    assert names(target.parent) == []


def test_what_a_killed_filer_left_is_replaced(tmp_path: Path, progress: Progress):
    target = tmp_path / "d" / ("n" * 255)
    first = Destination(target, "/f", progress)
    first.__enter__()
    first.write(b"half of somet", 0)
    left = names(target.parent)
    with Destination(target, "/f", progress) as destination:
        assert names(target.parent) == left
        destination.write(b"whole", 0)
        destination.keep(5)
    assert target.read_bytes() == b"whole"
    assert names(target.parent) == [target.name]
    first.__exit__(None, None, None)
    assert names(target.parent) == [target.name]


def test_files_of_an_earlier_start_free_their_space(tmp_path: Path, progress: Progress):
    (tmp_path / "f").write_bytes(b"earlier")
    with Destination(tmp_path / "f", "/f", progress) as destination:
        assert not (tmp_path / "f").exists()
        destination.write(b"new", 0)
        destination.keep(3)
    assert (tmp_path / "f").read_bytes() == b"new"


def test_two_inputs_for_one_path_do_not_mix(tmp_path: Path, progress: Progress):
    target = tmp_path / "f"
    with (
        Destination(target, "/f", progress, owner=1) as one,
        Destination(target, "/f", progress, owner=2) as two,
    ):
        one.write(b"1", 0)
        two.write(b"2", 0)
        one.keep(1)
        two.keep(1)
    assert target.read_bytes() == b"2"


def test_a_file_instead_of_a_directory_fails(tmp_path: Path, progress: Progress):
    (tmp_path / "a").write_text("")
    words = "/a/b: the inputs name it both as a file and as a directory"
    with pytest.raises(Permanent, match=words), Destination(tmp_path / "a" / "b", "/a/b", progress):
        pass


def test_a_directory_instead_of_a_file_fails(tmp_path: Path, progress: Progress):
    (tmp_path / "a").mkdir()
    words = "/a: the inputs name it both"
    with pytest.raises(Permanent, match=words), Destination(tmp_path / "a", "/a", progress) as destination:
        destination.keep(0)


def test_a_full_volume_is_a_permanent_failure(
    progress: Progress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    words = r"volume is full.*resources\.disk_gb"
    with pytest.raises(Permanent, match=words), Destination(tmp_path / "f", "/f", progress) as destination:
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, destination._fd)
        os.close(full)
        destination.write(b"x", 0)


def test_directories_are_made_once(tmp_path: Path, strict_umask: None):
    (tmp_path / "a").mkdir(mode=0o755)
    before = mode(tmp_path / "a")
    make_directories(tmp_path / "a" / "b")
    make_directories(tmp_path / "a" / "b")
    assert (mode(tmp_path / "a"), mode(tmp_path / "a" / "b")) == (before, 0o777)


def test_a_file_that_shrinks_is_noticed(tmp_path: Path):
    path = tmp_path / "f"
    path.write_bytes(b"12345")
    with SourceFile(str(path), "/f") as source:
        path.write_bytes(b"123")
        with pytest.raises(Retryable, match="changed size"):
            list(source.blocks(0, 5))


def test_a_file_that_grows_is_noticed(tmp_path: Path):
    path = tmp_path / "f"
    path.write_bytes(b"12345")
    with SourceFile(str(path), "/f") as source:
        path.write_bytes(b"1234567")
        assert b"".join(source.blocks(0, 5)) == b"12345"
        with pytest.raises(Retryable, match="changed size"):
            source.check_size()


def test_only_regular_files_are_read(tmp_path: Path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("/etc/passwd")
    for name in ("fifo", "link", "absent"):
        with pytest.raises(Unsendable), SourceFile(str(tmp_path / name), f"/{name}"):
            pass
