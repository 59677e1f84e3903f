"""`make test` and `make test-all`: run kinds of tests one after the other, and summarize what ran.

    python -m poiesis_tools.testing [--only=FOLDER] [TIER or LEVEL ...] [-- pytest arguments]

Integration tests get a Postgres, a MinIO and a Keycloak of the lab, browser tests also Chromium, stories a
kind cluster. A test fails when what it needs cannot be started; none is skipped for it. Timed stories run
last and alone.

A story that fails is repeated alone. If it then passes it is listed as unstable, and both outputs are kept;
`test` then passes, `test-all` fails.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree as ET

from poiesis_lab.errors import LabError
from poiesis_lab.shell import report
from poiesis_tools.progress import RECORD, Record, slowest
from poiesis_tools.workspace import ROOT

RELEASE_LOGS = "release logs"  # property of a failed story: the end of the logs of its services
_LINE = 300  # characters of a failed test's message, in the summary
_END = 1500  # characters of its traceback
_RELEASE_LOGS_END = 4000  # characters of its release's logs
_FOLDERS = (
    *("packages", "services", "migrations", "cli", "deployment", "tools", "bench"),
    *("e2e/tests", "e2e/poiesis_e2e", "tests"),
)


def _helm() -> dict[str, str]:
    from poiesis_lab import binaries

    return {"POIESIS_HELM": str(binaries.helm())}


def _backends() -> dict[str, str]:
    from poiesis_lab import backends, daemon

    daemon.ensure()
    postgres, minio = backends.start_postgres("poiesis-postgres-integration"), backends.start_minio()
    return {
        "POIESIS_TEST_DSN": postgres.dsn,
        "POIESIS_TEST_S3": minio.url,
        "POIESIS_TEST_S3_ACCESS_KEY": minio.access_key,
        "POIESIS_TEST_S3_SECRET_KEY": minio.secret_key,
    }


def _integration() -> dict[str, str]:
    from poiesis_lab import backends

    found = _backends()
    keycloak = backends.start_keycloak()
    return found | {
        "POIESIS_TEST_KEYCLOAK": keycloak.url,
        "POIESIS_TEST_KEYCLOAK_ADMINISTRATOR": keycloak.administrator,
        "POIESIS_TEST_KEYCLOAK_PASSWORD": keycloak.password,
    }


def _browser() -> dict[str, str]:
    from poiesis_lab import host

    return _backends() | {"POIESIS_TEST_BROWSER": host.browser()}


def _cluster() -> dict[str, str]:
    from poiesis_lab import cluster, services

    cluster.up()
    services.build_and_load()
    return _helm()


@dataclass(frozen=True, kw_only=True)
class Level:
    """One kind of test: its preparation, its tests, and its number of workers.

    `again`: whether a failed test is repeated.
    """

    prepare: Callable[[], Mapping[str, str]]
    marks: str
    folders: Sequence[str] = _FOLDERS
    workers: str | None = None
    again: bool = False


_STORIES = ("e2e/stories",)
_CORE, _ALL = "e2e and core and not seconds", "e2e and not seconds"
LEVELS = {
    "unit": Level(prepare=_helm, marks="not integration and not browser and not e2e", workers="auto"),
    "integration": Level(prepare=_integration, marks="integration", workers="2"),
    "browser": Level(prepare=_browser, marks="browser", folders=("services/api",)),
    "core": Level(prepare=_cluster, marks=_CORE, folders=_STORIES, workers="3", again=True),
    "stories": Level(prepare=_cluster, marks=_ALL, folders=_STORIES, workers="3", again=True),
    "seconds": Level(prepare=_cluster, marks="e2e and seconds", folders=_STORIES, again=True),
}
TIERS = {
    "test": ("unit", "integration", "browser", "core"),
    "test-all": ("unit", "integration", "browser", "stories", "seconds"),
}


@dataclass(frozen=True, kw_only=True)
class Result:
    """The result of one level. `failures`, `unstable`: a text per test."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0
    ok: bool = False
    failures: tuple[str, ...] = ()
    unstable: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        """Return whether no test ran."""
        return not (self.passed or self.failed or self.skipped)


def _cannot_start(reason: str) -> Result:
    return Result(failed=1, failures=(reason,))


def folder_of(level: str) -> Path:
    """Return the folder of the last report, output and durations of a level; each checkout has its own."""
    return ROOT / "build" / "tests" / level


def run_level(name: str, *, extra: Sequence[str] = (), only: str | None = None) -> Result:
    """Prepare and run one level."""
    level, start = LEVELS[name], time.monotonic()
    environment = {**os.environ, **level.prepare()}
    workers = ("-n", level.workers) if level.workers else ()
    arguments = ["-m", level.marks, *workers, *((only,) if only else level.folders), *extra]
    result = _pytest(name, arguments, environment, "output.log")
    if (only or extra) and result.empty:
        result = replace(result, ok=True)  # a folder without such tests
    if level.again and not result.ok:
        result = _run_failed_again(name, result, environment)
    return replace(result, seconds=time.monotonic() - start)


def _pytest(name: str, arguments: Sequence[str], environment: Mapping[str, str], log: str) -> Result:
    folder = folder_of(name)
    folder.mkdir(parents=True, exist_ok=True)
    report = (folder / log).with_suffix(".xml")
    report.unlink(missing_ok=True)
    command = [
        *(sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", "-p", "poiesis_tools.progress"),
        *arguments,
    ]
    environment = {**environment, RECORD: str(folder / "record.json")}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout, (folder / log).open("w") as file:
        for line in process.stdout:
            sys.stdout.write(line)
            file.write(line)
    code = process.wait()
    return replace(result_of(report), ok=code == 0)


_AGAIN = 5  # maximum number of repeated tests: more failures indicate a defect


def _run_failed_again(name: str, first: Result, environment: Mapping[str, str]) -> Result:
    record = folder_of(name) / "record.json"
    failed = list(Record.read(record).failed)
    if not 0 < len(failed) <= _AGAIN or first.failed > _AGAIN:
        return first
    unstable = []
    for number, test in enumerate(failed):
        report(f"  repeating alone: {test}")
        if not _pytest(name, [test], environment, f"again-{number}.log").ok:
            return first
        unstable.append(f"{test} (both outputs: {folder_of(name)})")
    return replace(
        first, ok=True, failed=0, passed=first.passed + first.failed, failures=(), unstable=tuple(unstable)
    )


def result_of(report: Path) -> Result:
    """Read a JUnit report; a missing one counts as a failure."""
    if not report.exists():
        return _cannot_start("pytest left no report")
    root = ET.parse(report).getroot()  # noqa: S314  # our own file
    total = failed = skipped = 0
    for suite in root.iter("testsuite"):
        total += int(suite.get("tests", 0))
        failed += int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        skipped += int(suite.get("skipped", 0))
    failures = tuple(
        f"{test.get('name')}: {_line(problem.get('message', ''))}{_end(problem)}{_release_logs(test)}"
        for test in root.iter("testcase")
        for problem in (*test.iter("failure"), *test.iter("error"))
    )
    return Result(
        passed=total - failed - skipped, failed=failed, skipped=skipped, ok=not failed, failures=failures
    )


def _release_logs(test: ET.Element) -> str:
    found = [one.get("value", "") for one in test.iter("property") if one.get("name") == RELEASE_LOGS]
    return "".join(f"\n{words[-_RELEASE_LOGS_END:]}" for words in found)


def _end(problem: ET.Element) -> str:
    """Return the end of the traceback, which lists the members of an ExceptionGroup."""
    text = (problem.text or "").rstrip()
    return f"\n{text[-_END:]}" if text else ""


def _line(message: str) -> str:
    return " ".join(message.split())[:_LINE]


def run_levels(names: Sequence[str], *, extra: Sequence[str], only: str | None) -> dict[str, Result]:
    """Run levels one after the other, also after a failure."""
    results: dict[str, Result] = {}
    for number, name in enumerate(names, start=1):
        report(f"── {name} tests ({number} of {len(names)})")
        try:
            results[name] = run_level(name, extra=extra, only=only)
        except LabError as error:
            report(f"{name}: cannot start: {error}")
            results[name] = _cannot_start(f"cannot start: {error}")
    return results


def summary(results: Mapping[str, Result], durations: Mapping[str, float]) -> Iterator[str]:
    """Return the lines of a run's end: the slowest tests, the levels with their failures, and the sums."""
    yield "── slowest tests"
    yield from (f"{seconds:8.1f} s  {name}" for name, seconds in slowest(durations))
    yield "── summary"
    for name, result in results.items():
        word = "ok" if result.ok else "FAILED"
        yield (
            f"{name:12} {word:7} {result.passed:5} passed {result.failed:3} failed"
            f" {result.skipped:3} skipped  {result.seconds:6.0f} s"
        )
        yield from (f"{'':12} {failure}" for failure in result.failures)
        yield from (f"{'':12} unstable: {test}" for test in result.unstable)
    passed, failed, skipped = (
        sum(getattr(result, field) for result in results.values())
        for field in ("passed", "failed", "skipped")
    )
    yield f"{passed} passed, {failed} failed, {skipped} skipped"


def _parsed(arguments: Sequence[str]) -> tuple[list[str], str | None, list[str], bool]:
    """Return levels, the folder, pytest's arguments, and whether an unstable test is a failure."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    own, extra = list(arguments[:end]), list(arguments[end + 1 :])
    only = next((one.removeprefix("--only=") for one in own if one.startswith("--only=")), None)
    names = [one for one in own if not one.startswith("--only=")] or ["test"]
    known = [*TIERS, *LEVELS]
    if unknown := sorted(set(names) - set(known)):
        raise LabError(f"no such tier or level: {', '.join(unknown)} (known: {', '.join(known)})")
    levels = [level for name in names for level in TIERS.get(name, (name,))]
    return list(dict.fromkeys(levels)), only, extra, "test-all" in names


def main(arguments: Sequence[str]) -> int:
    """Return 0 only if every level ran and passed."""
    try:
        levels, only, extra, strict = _parsed(arguments)
    except LabError as error:
        report(str(error))
        return 2
    results = run_levels(levels, extra=extra, only=only)
    durations: dict[str, float] = {}
    for name in levels:
        durations |= Record.read(folder_of(name) / "record.json").tests
    for line in summary(results, durations):
        print(line, flush=True)
    unstable = any(result.unstable for result in results.values())
    return 0 if all(result.ok for result in results.values()) and not (strict and unstable) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
