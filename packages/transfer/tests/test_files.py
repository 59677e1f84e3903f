# ruff: noqa: PT012  # a failure inside a context is what is tested
import os
import stat
from pathlib import Path

import pytest

from poiesis_transfer.errors import Passing, Permanent, Unsendable
from poiesis_transfer.files import Landing, SourceFile, make_directories
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


async def test_a_file_appears_whole_and_is_usable_by_any_user(
    tmp_path: Path, progress: Progress, strict_umask: None
):
    target = tmp_path / "a" / "b" / "file"
    async with Landing(target, "/b/file", progress) as landing:
        await landing.write(b"world", 6)
        await landing.write(b"hello ", 0)
        assert not target.exists()
        await landing.keep(11)
    assert target.read_bytes() == b"hello world"
    assert [mode(path) for path in (target, target.parent, target.parent.parent)] == [0o666, 0o777, 0o777]
    assert names(target.parent) == ["file"]


async def test_a_file_of_another_size_does_not_appear(tmp_path: Path, progress: Progress):
    target = tmp_path / "d" / "file"
    with pytest.raises(Passing, match="3 bytes, but 4"):
        async with Landing(target, "/file", progress) as landing:
            await landing.write(b"abc", 0)
            await landing.keep(4)
    assert names(target.parent) == []


async def test_what_a_killed_filer_left_is_replaced(tmp_path: Path, progress: Progress):
    target = tmp_path / "d" / ("n" * 255)
    first = Landing(target, "/f", progress)
    await first.__aenter__()
    await first.write(b"half of somet", 0)
    left = names(target.parent)
    async with Landing(target, "/f", progress) as landing:
        assert names(target.parent) == left
        await landing.write(b"whole", 0)
        await landing.keep(5)
    assert target.read_bytes() == b"whole"
    assert names(target.parent) == [target.name]
    await first.__aexit__(None, None, None)
    assert names(target.parent) == [target.name]


async def test_two_inputs_for_one_path_do_not_mix(tmp_path: Path, progress: Progress):
    target = tmp_path / "f"
    async with (
        Landing(target, "/f", progress, owner=1) as one,
        Landing(target, "/f", progress, owner=2) as two,
    ):
        await one.write(b"1", 0)
        await two.write(b"2", 0)
        await one.keep(1)
        await two.keep(1)
    assert target.read_bytes() == b"2"


async def test_a_file_in_the_place_of_a_directory_is_an_error(tmp_path: Path, progress: Progress):
    (tmp_path / "a").write_text("")
    with pytest.raises(Permanent, match="/a/b: the inputs name it both as a file and as a directory"):
        async with Landing(tmp_path / "a" / "b", "/a/b", progress):
            pass


async def test_a_directory_in_the_place_of_a_file_is_an_error(tmp_path: Path, progress: Progress):
    (tmp_path / "a").mkdir()
    with pytest.raises(Permanent, match="/a: the inputs name it both"):
        async with Landing(tmp_path / "a", "/a", progress) as landing:
            await landing.keep(0)


async def test_a_full_volume_is_a_permanent_failure(
    progress: Progress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with pytest.raises(Permanent, match=r"volume is full.*resources\.disk_gb"):
        async with Landing(tmp_path / "f", "/f", progress) as landing:
            full = os.open("/dev/full", os.O_WRONLY)
            os.dup2(full, landing._fd)
            os.close(full)
            await landing.write(b"x", 0)


def test_directories_are_made_once(tmp_path: Path, strict_umask: None):
    (tmp_path / "a").mkdir(mode=0o755)
    before = mode(tmp_path / "a")
    make_directories(tmp_path / "a" / "b")
    make_directories(tmp_path / "a" / "b")
    assert (mode(tmp_path / "a"), mode(tmp_path / "a" / "b")) == (before, 0o777)


async def test_a_file_that_shrinks_is_noticed(tmp_path: Path):
    path = tmp_path / "f"
    path.write_bytes(b"12345")
    async with SourceFile(str(path), "/f") as source:
        path.write_bytes(b"123")
        with pytest.raises(Passing, match="changed its size"):
            await source.read(0, 5)


async def test_a_file_that_grows_is_noticed(tmp_path: Path):
    path = tmp_path / "f"
    path.write_bytes(b"12345")
    async with SourceFile(str(path), "/f") as source:
        path.write_bytes(b"1234567")
        assert await source.read(0, 5) == b"12345"
        with pytest.raises(Passing, match="changed its size"):
            await source.check_size()


async def test_only_regular_files_are_read(tmp_path: Path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("/etc/passwd")
    for name in ("fifo", "link", "absent"):
        with pytest.raises(Unsendable):
            async with SourceFile(str(tmp_path / name), f"/{name}"):
                pass
