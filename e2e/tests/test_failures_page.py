"""The page matches the list of cases, and every case is consistent."""

from collections import Counter

import pytest

from poiesis_e2e.failures.case import Case, pattern
from poiesis_e2e.failures.cases import CASES, SECTIONS
from poiesis_e2e.failures.page import PAGE, page
from poiesis_e2e.transport import Transport


def test_page_matches_the_list_of_cases() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m poiesis_e2e.failures.page"


def test_cases_have_unique_ids_and_known_sections() -> None:
    assert [name for name, count in Counter(case.id for case in CASES).items() if count > 1] == []
    assert {case.section for case in CASES} == set(SECTIONS)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_cases_are_consistent(case: Case) -> None:
    ends_well = case.state == "COMPLETE"
    assert ends_well == (not case.reasons) == (case.message is None)
    assert (case.after.name == "ASKED") <= (case.meanwhile is not None)
    assert (case.after.name == "EXECUTOR") <= bool(case.exit_codes)
    assert (case.state == "EXECUTOR_ERROR") <= bool(case.exit_codes)
    assert (case.state == "CANCELED") == ("CANCELING" in case.states)


def test_reporter_depends_on_files_only() -> None:
    cases = {case.id: case for case in CASES}
    for name, expected in (("workdir", "controller"), ("exit-code", "recorder")):
        assert cases[name].expected_reporter(files_only=True) == expected
        assert cases[name].expected_reporter(files_only=False) == "recorder"


@pytest.mark.parametrize(
    ("name", "transport", "files_only", "expected"),
    [
        ("recorder-without-role", "gateway", False, True),
        ("recorder-without-role", "gateway", True, False),
        ("gateway-killed", "gateway", True, True),
        ("gateway-killed", "postgres", False, False),
        ("exit-code", "postgres", True, True),
    ],
)
def test_some_rows_concern_one_kind_of_recorder(
    name: str, transport: Transport, files_only: bool, expected: bool
) -> None:
    (case,) = (case for case in CASES if case.id == name)
    assert case.concerns(transport, files_only=files_only) is expected


def test_placeholder_matches_any_nonempty_text() -> None:
    (case,) = (case for case in CASES if case.id == "input-404")
    assert case.matches("cannot fetch http://x/y: not found (HTTP 404)")
    assert not case.matches("cannot fetch : not found (HTTP 404)")
    assert not case.matches("cannot fetch http://x/y: not found (HTTP 404) and more")
    assert not case.matches(None)


def test_text_outside_placeholders_is_literal() -> None:
    assert pattern("a.b (<what it is>) c") == r"a\.b\ \(.+\)\ c"
