from pathlib import Path

import pytest

from poiesis_transfer import room as room_module
from poiesis_transfer.errors import Permanent
from poiesis_transfer.files import Landing
from poiesis_transfer.progress import Progress
from poiesis_transfer.room import Room

FULL = r"the task's volume is full: no space left to write /in/b; ask for more with resources\.disk_gb"


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch):
    """How much the file system says it has."""

    def free(count: float) -> None:
        monkeypatch.setattr(room_module, "_free", lambda _: count)

    return free


def test_no_file_is_begun_that_goes_beyond_disk_gb(tmp_path: Path, progress: Progress):
    room = Room(1000)
    with Landing(tmp_path / "a", "/in/a", progress, room=room) as landing:
        landing.announce(900)
        landing.write(bytes(900), 0)
        landing.keep(900)
    with (
        pytest.raises(Permanent, match=FULL),
        Landing(tmp_path / "b", "/in/b", progress, room=room) as landing,
    ):
        landing.announce(101)
    with Landing(tmp_path / "c", "/in/c", progress, room=room) as landing:
        landing.announce(100)


def write_for_ever(landing: Landing) -> None:
    for offset in range(0, 10_000, 100):
        landing.write(bytes(100), offset)


def test_a_file_of_unknown_length_is_stopped_at_disk_gb(tmp_path: Path, progress: Progress):
    with (
        pytest.raises(Permanent, match=FULL),
        Landing(tmp_path / "b", "/in/b", progress, room=Room(1000)) as landing,
    ):
        write_for_ever(landing)
    assert list(tmp_path.glob("*b")) == []


def test_what_others_have_still_to_write_is_not_free(tmp_path: Path, free):
    free(1000)
    room = Room()
    room.take(600, tmp_path, "/in/a")
    with pytest.raises(Permanent, match=FULL):
        room.take(401, tmp_path, "/in/b")
    room.written(600)
    free(400)
    room.take(400, tmp_path, "/in/b")


def test_a_file_that_is_given_up_gives_its_room_back(tmp_path: Path, progress: Progress, free):
    free(1000)
    room = Room(1000)
    with Landing(tmp_path / "a", "/in/a", progress, room=room) as landing:
        landing.announce(1000)
        landing.write(bytes(10), 0)
    room.take(1000, tmp_path, "/in/b")
