"""Progress estimates durations from the last run, and records them."""

from pathlib import Path

import pytest

from poiesis_tools.progress import Record, duration, slowest

LAST = Record(wall=10, tests={"a": 1, "b": 4, "c": 15})


@pytest.mark.parametrize(
    ("last", "chosen", "seconds"),
    [
        (LAST, ["a", "b", "c"], 10),
        (LAST, ["c"], 7.5),
        (LAST, ["new"], pytest.approx(10 / 3)),
        (LAST, [], 0),
        (Record(), ["a"], None),
    ],
)
def test_estimate_is_proportional_to_chosen_tests(last, chosen, seconds) -> None:
    assert last.estimate(chosen) == seconds


def test_a_record_survives_its_file(tmp_path: Path) -> None:
    LAST.write(tmp_path / "level" / "record.json")
    assert Record.read(tmp_path / "level" / "record.json") == Record(wall=10, tests=LAST.tests, failed=[])
    assert Record.read(tmp_path / "none.json") == Record()


def test_the_slowest_come_first() -> None:
    assert slowest(LAST.tests, 2) == [("c", 15), ("b", 4)]


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (65.4, "1:05"), (3600, "60:00")])
def test_duration_is_minutes_and_seconds(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_plugin_records_durations_and_failures(
    pytester: pytest.Pytester, tmp_path: Path, monkeypatch
) -> None:
    pytester.makepyfile("def test_good(): pass\ndef test_bad(): assert False")
    record = tmp_path / "record.json"
    monkeypatch.setenv("POIESIS_TEST_RECORD", str(record))
    pytester.runpytest_subprocess("-p", "poiesis_tools.progress")
    found = Record.read(record)
    assert [name.rpartition("::")[2] for name in found.tests] == ["test_good", "test_bad"]
    assert [name.rpartition("::")[2] for name in found.failed] == ["test_bad"]
    assert found.wall > 0
