"""`make test` lists failures, repeats failed stories, and never passes without a test."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from poiesis_tools import testing

REPORT = """<testsuites><testsuite tests="4" failures="1" errors="1" skipped="1">
  <testcase name="test_a"/>
  <testcase name="test_b"><failure message="AssertionError: assert 1 == 2&#10;  more">at line 7
</failure></testcase>
  <testcase name="test_c">
    <properties><property name="release logs" value="one leads"/></properties>
    <error message="no cluster"></error>
  </testcase>
  <testcase name="test_d"><skipped/></testcase>
</testsuite></testsuites>"""


def test_junit_report_yields_counts_and_failures(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(REPORT)
    found = testing.result_of(report)
    assert (found.passed, found.failed, found.skipped, found.ok) == (1, 2, 1, False)
    assert found.failures == (
        "test_b: AssertionError: assert 1 == 2 more\nat line 7",
        "test_c: no cluster\none leads",
    )


def test_missing_pytest_report_is_a_failure(tmp_path: Path) -> None:
    found = testing.result_of(tmp_path / "none.xml")
    assert (found.passed, found.failed, found.ok) == (0, 1, False)


GOOD, BAD = testing.Result(passed=3, ok=True), testing.Result(passed=2, failed=1, failures=("b: x",))


@pytest.fixture
def story(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Run the level `core` with these results of pytest, one per call; return the result and the calls."""

    def run(*results: testing.Result, failed: Sequence[str] = (), extra: Sequence[str] = ()):
        calls: list[Sequence[str]] = []

        def pytest_(_name: str, arguments: Sequence[str], _environment: object, _log: str) -> testing.Result:
            calls.append(arguments)
            return results[len(calls) - 1]

        level = testing.Level(prepare=dict, marks="e2e", folders=("e2e/stories",), again=True)
        monkeypatch.setitem(testing.LEVELS, "core", level)
        monkeypatch.setattr(testing, "_pytest", pytest_)
        monkeypatch.setattr(testing, "folder_of", lambda _level: tmp_path)
        testing.Record(failed=list(failed)).write(tmp_path / "record.json")
        return testing.run_level("core", extra=extra), calls

    return run


def test_story_that_passes_on_retry_is_unstable(story) -> None:
    result, calls = story(BAD, GOOD, failed=["s.py::b"])
    assert (result.ok, result.failed, result.passed) == (True, 0, 3)
    assert [one.partition(" ")[0] for one in result.unstable] == ["s.py::b"]
    assert calls[1] == ["s.py::b"]


def test_a_story_that_fails_twice_has_failed(story) -> None:
    result, _ = story(BAD, BAD, failed=["s.py::b"])
    assert (result.ok, result.failures, result.unstable) == (False, ("b: x",), ())


def test_many_failures_are_not_retried(story) -> None:
    result, calls = story(testing.Result(failed=6), failed=list("abcdef"))
    assert not result.ok
    assert len(calls) == 1


def test_empty_level_fails_unless_folder_was_chosen(story) -> None:
    assert not story(testing.Result())[0].ok
    assert story(testing.Result(), extra=["-k", "none"])[0].ok


@pytest.mark.parametrize(
    ("arguments", "levels", "strict"),
    [
        ([], ["unit", "integration", "browser", "core"], False),
        (["test-all"], ["unit", "integration", "browser", "stories", "seconds"], True),
        (["unit", "core"], ["unit", "core"], False),
    ],
)
def test_a_tier_is_a_list_of_levels(arguments, levels, strict) -> None:
    assert testing._parsed(arguments) == (levels, None, [], strict)


def test_an_unknown_level_is_named() -> None:
    with pytest.raises(testing.LabError, match="no such tier or level: sotries"):
        testing._parsed(["sotries"])
