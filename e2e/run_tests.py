"""`make test`: unit, integration and end-to-end tests, and a summary of what ran.

    run_tests.py [unit] [integration] [browser] [e2e] [seconds] [-- pytest arguments]

Integration tests get a Postgres, a MinIO and a Keycloak of the lab, browser tests Chromium, too, end-to-end
tests its kind cluster; none skips when they cannot be had. Stories that promise something within seconds run
last, with nothing beside them.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree as ET

from lab.errors import LabError
from lab.shell import say

ROOT = Path(__file__).resolve().parent.parent
LAST_WORDS = "last words"  # the property of a failed story: the last words of its apis and controllers
_LINE = 300  # characters of what a failed test says, in the summary
_END = 1500  # of its traceback
_WORDS = 4000  # and of its release
CODE = [
    "packages",
    "services",
    "migrations",
    "cli",
    "deployment",
    "e2e/lab",
    "e2e/failures",
    "e2e/chaos",
    "e2e/filer_kit",
    "e2e/tests",
    "tests",
]


def _helm() -> dict[str, str]:
    from lab import binaries

    return {"POIESIS_HELM": str(binaries.helm())}


def _backends() -> dict[str, str]:
    from lab import backends, daemon

    daemon.ensure()
    postgres, minio = backends.start_postgres("poiesis-postgres-integration"), backends.start_minio()
    return {
        "POIESIS_TEST_DSN": postgres.dsn,
        "POIESIS_TEST_S3": minio.url,
        "POIESIS_TEST_S3_ACCESS_KEY": minio.access_key,
        "POIESIS_TEST_S3_SECRET_KEY": minio.secret_key,
    }


def _integration() -> dict[str, str]:
    from lab import backends

    found = _backends()
    keycloak = backends.start_keycloak()
    return found | {
        "POIESIS_TEST_KEYCLOAK": keycloak.url,
        "POIESIS_TEST_KEYCLOAK_ADMINISTRATOR": keycloak.administrator,
        "POIESIS_TEST_KEYCLOAK_PASSWORD": keycloak.password,
    }


def _browser() -> dict[str, str]:
    from lab import host

    return _backends() | {"POIESIS_TEST_BROWSER": host.browser()}


def _cluster() -> dict[str, str]:
    from lab import cluster, services

    cluster.up()
    services.build_and_load()
    return _helm()


@dataclass(frozen=True)
class Level:
    """One kind of test: what it needs first, and how pytest is called."""

    prepare: Callable[[], Mapping[str, str]]
    arguments: Sequence[str]


LEVELS = {
    "unit": Level(_helm, ["-m", "not integration and not browser and not e2e", "-n", "2", *CODE]),
    "integration": Level(_integration, ["-m", "integration", "-n", "2", *CODE]),
    "browser": Level(_browser, ["-m", "browser", "services/api"]),
    "e2e": Level(_cluster, ["-m", "e2e and not seconds", "-n", "3", "e2e/stories"]),
    "seconds": Level(_cluster, ["-m", "e2e and seconds", "e2e/stories"]),
}


@dataclass(frozen=True)
class Result:
    """What one level came to. `failures`: a line of each."""

    passed: int
    failed: int
    skipped: int
    seconds: float
    ok: bool
    failures: tuple[str, ...] = ()


def run_level(name: str, extra: Sequence[str]) -> Result:
    """Prepare and run one level; its failures do not keep the others from running."""
    start = time.monotonic()
    say(f"── {name} tests")
    environment = os.environ | LEVELS[name].prepare()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", f"--junitxml={report}", "-q", *LEVELS[name].arguments]
        code = subprocess.run([*command, *extra], cwd=ROOT, env=environment, check=False).returncode
        found = result_of(report)
    return replace(found, seconds=time.monotonic() - start, ok=code == 0)


def result_of(report: Path) -> Result:
    """From a JUnit report; nothing passed if pytest left none."""
    if not report.exists():
        return Result(0, 1, 0, 0, ok=False, failures=("pytest left no report",))
    root = ET.parse(report).getroot()  # noqa: S314  # our own file
    total = failed = skipped = 0
    for suite in root.iter("testsuite"):
        total += int(suite.get("tests", 0))
        failed += int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        skipped += int(suite.get("skipped", 0))
    failures = tuple(
        f"{test.get('name')}: {_line(problem.get('message', ''))}{_end(problem)}{_last_words(test)}"
        for test in root.iter("testcase")
        for problem in (*test.iter("failure"), *test.iter("error"))
    )
    return Result(total - failed - skipped, failed, skipped, 0, ok=not failed, failures=failures)


def _last_words(test: ET.Element) -> str:
    said = [one.get("value", "") for one in test.iter("property") if one.get("name") == LAST_WORDS]
    return "".join(f"\n{words[-_WORDS:]}" for words in said)


def _end(problem: ET.Element) -> str:
    """Of the traceback: it says what an ExceptionGroup is a group of."""
    text = (problem.text or "").rstrip()
    return f"\n{text[-_END:]}" if text else ""


def _line(message: str) -> str:
    return " ".join(message.split())[:_LINE]


def main(arguments: Sequence[str]) -> int:
    """Exit 0 only if every level ran and passed."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    chosen, extra = arguments[:end] or list(LEVELS), arguments[end + 1 :]
    if unknown := set(chosen) - set(LEVELS):
        say(f"no such level: {', '.join(sorted(unknown))}; there are {', '.join(LEVELS)}")
        return 2
    results: dict[str, Result] = {}
    for name in chosen:
        try:
            results[name] = run_level(name, extra)
        except LabError as error:
            say(f"{name}: cannot start: {error}")
            results[name] = Result(0, 1, 0, 0, ok=False, failures=(f"cannot start: {error}",))
    say("── summary")
    for name, result in results.items():
        word = "ok" if result.ok else "FAILED"
        say(
            f"{name:12} {word:7} {result.passed:5} passed {result.failed:3} failed"
            f" {result.skipped:3} skipped  {result.seconds:6.0f} s"
        )
        for failure in result.failures:
            say(f"{'':12} {failure}")
    total = [
        sum(getattr(result, field) for result in results.values())
        for field in ("passed", "failed", "skipped")
    ]
    print(f"{total[0]} passed, {total[1]} failed, {total[2]} skipped", flush=True)
    return 0 if all(result.ok for result in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
