"""A pytest plugin that reports progress, an estimate, and the duration of each test.

The runner (`poiesis_tools.testing`) loads it with `-p` and names a file by POIESIS_TEST_RECORD. The file
holds the record of the last run: wall time, seconds per test, and failed tests. The plugin replaces it.
"""

import json
import os
import sys
import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

import pytest

RECORD = "POIESIS_TEST_RECORD"
_EVERY_S = 20  # interval of the lines


@dataclass(frozen=True, kw_only=True)
class Record:
    """The record of one run. `tests`: seconds per node id, with set-up and tear-down. `wall`: wall time."""

    wall: float = 0
    tests: Mapping[str, float] = field(default_factory=dict)
    failed: Collection[str] = ()

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the record; return an empty one if the file does not exist."""
        return cls(**json.loads(path.read_text())) if path.exists() else cls()

    def write(self, path: Path) -> None:
        """Replace the record's file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(f".{os.getpid()}")
        new.write_text(json.dumps(asdict(self), indent=0))
        new.replace(path)

    def estimate(self, chosen: Collection[str]) -> float | None:
        """Return the wall time that `chosen` will take, in seconds; None if no run is known."""
        total = sum(self.tests.values())
        if not total:
            return None
        known = [self.tests[name] for name in chosen if name in self.tests]
        average = total / len(self.tests)
        return self.wall * (sum(known) + average * (len(chosen) - len(known))) / total


def duration(seconds: float) -> str:
    """Format minutes and seconds: 1:05."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


class Progress:
    """The progress of a run, in the process that started it; workers report to it."""

    def __init__(self, path: Path, last: Record) -> None:
        self._path, self._last = path, last
        self._start = self._printed = time.monotonic()
        self._chosen: Collection[str] = ()
        self._tests: dict[str, float] = {}
        self._failed: dict[str, None] = {}
        self._finished = 0

    def _line(self, text: str) -> None:
        self._printed = time.monotonic()
        print(f"  {duration(self._printed - self._start):>6}  {text}", file=sys.__stderr__, flush=True)

    def _begin(self, chosen: Collection[str]) -> None:
        if self._chosen:
            return  # every worker collects the same
        self._chosen = chosen
        estimate = self._last.estimate(chosen)
        expected = (
            f"about {duration(estimate)} as in the last run" if estimate else "no earlier run to compare with"
        )
        self._line(f"{len(chosen)} tests, {expected}")

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        if session.items:
            self._begin([item.nodeid for item in session.items])

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: Collection[str]) -> None:
        self._begin(ids)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._tests[report.nodeid] = self._tests.get(report.nodeid, 0) + report.duration
        if report.failed and report.nodeid not in self._failed:
            self._failed[report.nodeid] = None
            self._line(f"FAILED {report.nodeid}")
        if report.when == "teardown":
            self._finished += 1
            if time.monotonic() - self._printed > _EVERY_S:
                self._line(f"{self._finished} of {len(self._chosen)}{self._left()}")

    def _left(self) -> str:
        estimate = self._last.estimate(self._chosen)
        finished = self._last.estimate(self._tests)
        if not estimate or not finished:
            return ""
        return f", about {duration(max(0, estimate - finished))} left"

    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        """Suppress pytest's dots: the lines above replace them."""
        return ("passed", "", "PASSED") if report.passed and report.when == "call" else None

    def pytest_sessionfinish(self) -> None:
        wall = time.monotonic() - self._start
        # A run of a few tests replaces only their records.
        complete = len(self._tests) >= len(self._last.tests) / 2
        tests = self._tests if complete else {**self._last.tests, **self._tests}
        record = Record(wall=wall if complete else self._last.wall, tests=tests, failed=list(self._failed))
        record.write(self._path)


def pytest_configure(config: pytest.Config) -> None:
    """Register the plugin in the process that started the run."""
    path = os.environ.get(RECORD)
    if path and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Progress(Path(path), Record.read(Path(path))), "poiesis-progress")


def slowest(tests: Mapping[str, float], number: int = 20) -> list[tuple[str, float]]:
    """Return the tests that took longest."""
    return sorted(tests.items(), key=lambda item: -item[1])[:number]
