"""A plugin of pytest for mutants: run only some rows, and note in the report by what each failed.

`pytest -p failures.verdict --rows a,b`.
"""

import traceback
from collections.abc import Generator, Iterator

import pytest

from failures.mutation import Verdict
from tes_client import StillWaiting, TesRefused
from waiting import NotInTime

_OF_A_ROW = (AssertionError, StillWaiting, NotInTime, TesRefused)
_BROUGHT_ABOUT = frozenset({"disturbances.py", "surroundings.py", "builders.py"})
_IN_TIME = "case.within"


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--rows`."""
    parser.addoption("--rows", required=True, help="ids of rows, by commas")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the rows that are asked for."""
    rows = set(config.getoption("rows").split(","))
    left_out = [item for item in items if row_of(item.name) not in rows]
    items[:] = [item for item in items if row_of(item.name) in rows]
    config.hook.pytest_deselected(items=left_out)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """The report of the teardown has what was noted before."""
    if call.excinfo is not None:
        found, words = judge(call.excinfo.value, in_test=call.when == "call")
        item.user_properties.extend([("verdict", found.value), ("words", words)])
    return (yield)


def row_of(test: str) -> str:
    """The row that a test's name has in brackets."""
    return test.partition("[")[2].removesuffix("]")


def judge(error: BaseException, *, in_test: bool) -> tuple[Verdict, str]:
    """By what a row has failed, and in which words."""
    causes = list(_leaves(error))
    verdict = Verdict.BROKEN
    if in_test and all(_is_the_rows_own(cause) for cause in causes):
        verdict = Verdict.LATE if all(_is_late(cause) for cause in causes) else Verdict.KILLED
    return verdict, "; ".join(map(_words, causes))


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _leaves(one)
    else:
        yield error


def _is_the_rows_own(error: BaseException) -> bool:
    """A task that did not end, a look that saw something else. Not: what should happen to it did not."""
    if isinstance(error, StillWaiting | TesRefused):
        return True
    files = {frame.filename.rpartition("/")[2] for frame in traceback.extract_tb(error.__traceback__)}
    return isinstance(error, _OF_A_ROW) and not files & _BROUGHT_ABOUT


def _is_late(error: BaseException) -> bool:
    line = traceback.extract_tb(error.__traceback__)[-1].line or ""
    return isinstance(error, AssertionError) and _IN_TIME in line


def _words(error: BaseException) -> str:
    line = traceback.extract_tb(error.__traceback__)[-1].line or ""
    said = str(error).strip().splitlines() or [""]
    return f"{line}: {type(error).__name__}: {said[0]}"
