from pathlib import Path

import pytest

from poiesis_transfer import free_space as module
from poiesis_transfer.errors import Permanent
from poiesis_transfer.files import Destination
from poiesis_transfer.free_space import FreeSpace
from poiesis_transfer.progress import Progress

FULL = r"the task's volume is full: no space left to write /in/b; request more with resources\.disk_gb"


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch):
    """Set the free space that the file system reports."""

    def free(count: float) -> None:
        monkeypatch.setattr(module, "_free", lambda _: count)

    return free


def test_a_file_beyond_disk_gb_is_not_started(tmp_path: Path, progress: Progress):
    free_space = FreeSpace(1000)
    with Destination(tmp_path / "a", "/in/a", progress, free_space=free_space) as destination:
        destination.announce(900)
        destination.write(bytes(900), 0)
        destination.keep(900)
    with (
        pytest.raises(Permanent, match=FULL),
        Destination(tmp_path / "b", "/in/b", progress, free_space=free_space) as destination,
    ):
        destination.announce(101)
    with Destination(tmp_path / "c", "/in/c", progress, free_space=free_space) as destination:
        destination.announce(100)


def write_without_end(destination: Destination) -> None:
    for offset in range(0, 10_000, 100):
        destination.write(bytes(100), offset)


def test_unknown_lengths_stop_at_disk_gb(tmp_path: Path, progress: Progress):
    with (
        pytest.raises(Permanent, match=FULL),
        Destination(tmp_path / "b", "/in/b", progress, free_space=FreeSpace(1000)) as destination,
    ):
        write_without_end(destination)
    assert list(tmp_path.glob("*b")) == []


def test_reserved_space_is_not_free(tmp_path: Path, free):
    free(1000)
    free_space = FreeSpace()
    free_space.take(600, tmp_path, "/in/a")
    with pytest.raises(Permanent, match=FULL):
        free_space.take(401, tmp_path, "/in/b")
    free_space.written(600)
    free(400)
    free_space.take(400, tmp_path, "/in/b")


def test_a_discarded_file_releases_its_space(tmp_path: Path, progress: Progress, free):
    free(1000)
    free_space = FreeSpace(1000)
    with Destination(tmp_path / "a", "/in/a", progress, free_space=free_space) as destination:
        destination.announce(1000)
        destination.write(bytes(10), 0)
    free_space.take(1000, tmp_path, "/in/b")
