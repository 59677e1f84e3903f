"""`make test` says what failed where it says how many."""

from pathlib import Path

from poiesis_tools import testing as run_tests

REPORT = """<testsuites><testsuite tests="4" failures="1" errors="1" skipped="1">
  <testcase name="test_a"/>
  <testcase name="test_b"><failure message="AssertionError: assert 1 == 2&#10;  more">at line 7
</failure></testcase>
  <testcase name="test_c">
    <properties><property name="last words" value="one leads"/></properties>
    <error message="no cluster"></error>
  </testcase>
  <testcase name="test_d"><skipped/></testcase>
</testsuite></testsuites>"""


def test_a_report_is_counted_and_each_failure_is_told(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(REPORT)
    found = run_tests.result_of(report)
    assert (found.passed, found.failed, found.skipped, found.ok) == (1, 2, 1, False)
    assert found.failures == (
        "test_b: AssertionError: assert 1 == 2 more\nat line 7",
        "test_c: no cluster\none leads",
    )


def test_a_pytest_that_left_no_report_has_failed(tmp_path: Path) -> None:
    found = run_tests.result_of(tmp_path / "none.xml")
    assert (found.passed, found.failed, found.ok) == (0, 1, False)
