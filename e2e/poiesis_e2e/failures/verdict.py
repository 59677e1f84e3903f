"""A pytest plugin for mutants: run only some rows, and note in the report how each of them failed.

`pytest -p poiesis_e2e.failures.verdict --rows a,b`.
"""

import traceback
from collections.abc import Generator, Iterator, Mapping, Sequence

import pytest

from poiesis_e2e.failures.case import Case, Late
from poiesis_e2e.failures.mutation import Verdict
from poiesis_e2e.tes_client import StillWaiting, TesError
from poiesis_e2e.waiting import NotInTime

_OF_A_ROW = (AssertionError, StillWaiting, NotInTime, TesError)
_BROUGHT_ABOUT = frozenset(
    {
        *("disturbances.py", "node_disturbances.py", "gateway_disturbances.py", "gateway_control.py"),
        *("surroundings.py", "webhook.py", "builders.py"),
    }
)
_SEEN = ("in_system_logs.", "live.")  # functions in disturbances.py that wait for an effect the client sees


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--rows`."""
    parser.addoption("--rows", required=True, help="ids of rows, separated by commas")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Select the tests of the requested rows."""
    rows = set(config.getoption("rows").split(","))
    left_out = [item for item in items if not rows & set(rows_of(item.name))]
    items[:] = [item for item in items if rows & set(rows_of(item.name))]
    config.hook.pytest_deselected(items=left_out)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note `<row>`: verdict and explanation. The report of the teardown contains all notes."""
    if call.excinfo is not None:
        found = judge(call.excinfo.value, rows_of(item.name), in_test=call.when == "call")
        item.user_properties.extend((row, f"{verdict} {words}") for row, (verdict, words) in found.items())
    return (yield)


def rows_of(test: str) -> list[str]:
    """Return the rows that a test's name has in brackets."""
    return test.partition("[")[2].removesuffix("]").split("+")


def judge(error: BaseException, rows: Sequence[str], *, in_test: bool) -> Mapping[str, tuple[Verdict, str]]:
    """Return verdict and explanation of each row of a test that failed. Other rows of it passed."""
    found = {row: list(_leaves(one)) for one, row in _by_row(error)}
    if None in found:
        everything = [cause for causes in found.values() for cause in causes]
        found = dict.fromkeys(rows, everything)
    return {str(row): _verdict(causes, in_test=in_test) for row, causes in found.items()}


def _by_row(error: BaseException) -> Iterator[tuple[BaseException, str | None]]:
    """Yield each error with the row that was being checked; None: outside of any row."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        case = frame.f_locals.get("case")
        if isinstance(case, Case):
            yield error, case.id
            return
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _by_row(one)
    else:
        yield error, None


def _verdict(causes: Sequence[BaseException], *, in_test: bool) -> tuple[Verdict, str]:
    verdict = Verdict.BROKEN
    if in_test and all(_is_the_rows_own(cause) for cause in causes):
        verdict = Verdict.LATE if all(isinstance(cause, Late) for cause in causes) else Verdict.KILLED
    return verdict, "; ".join(map(_words, causes))


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _leaves(one)
    else:
        yield error


def _is_the_rows_own(error: BaseException) -> bool:
    """Return whether the row's assertions failed: a task did not end, or the client did not see what it must.

    False if the failure could not be caused in the first place.
    """
    if isinstance(error, StillWaiting | TesError):
        return True
    where = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
    doing = [code.co_qualname for code in where if code.co_filename.rpartition("/")[2] in _BROUGHT_ABOUT]
    not_seen = bool(doing) and doing[-1].startswith(_SEEN) and isinstance(error, NotInTime)
    return not_seen or (not doing and isinstance(error, _OF_A_ROW))


def _words(error: BaseException) -> str:
    line = traceback.extract_tb(error.__traceback__)[-1].line or ""
    message = str(error).strip().splitlines() or [""]
    return f"{line}: {type(error).__name__}: {message[0]}"
