"""`make check`: every check that needs no container, then the unit tests. One line per check.

    python -m poiesis_tools.check [MEMBER]

MEMBER, for example services/trec, limits formatting, style, types and tests to one folder.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from poiesis_tools import testing
from poiesis_tools.workspace import ROOT, Member, members, reachable

BIN = Path(sys.executable).parent
CHART = "deployment/helm/poiesis"
_OUTPUT = 8000  # characters of a failed check's output
_SPELLING_SKIPS = "*.lock,*.gz,*.svg,go.sum,*/swagger_ui/*,./.git,./.venv,./.*_cache,*/build,LICENSE"

Command = Sequence[str | Path]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The outcome of one check, with its output."""

    name: str
    ok: bool
    seconds: float
    output: str


def static_checks(only: Member | None, importlinter: Path) -> Mapping[str, Command]:
    """Return the command of each check, the longest first.

    `importlinter`: the configuration that `import_contracts` wrote.
    """
    chosen = [only] if only else members()
    packages = [path for member in chosen for path in member.package_directories]
    paths = [only.directory] if only else [ROOT]
    of_code: dict[str, Command] = {
        "types": [BIN / "mypy", *packages],
        "style": [BIN / "ruff", "check", "--quiet", *paths],
        "format": [BIN / "ruff", "format", "--check", "--quiet", *paths],
        "import contracts": [BIN / "lint-imports", "--config", importlinter],
    }
    return of_code if only else of_code | _of_the_repository()


def _of_the_repository() -> dict[str, Command]:
    return {
        "documentation": [sys.executable, "-m", "poiesis_tools.docs"],
        "dead code": [BIN / "vulture"],
        "spelling": [BIN / "codespell", "--skip", _SPELLING_SKIPS, "--ignore-words", ".codespellignore", "."],
        "shell scripts": [
            BIN / "shellcheck",
            "--severity=warning",
            *_tracked(
                "*.sh",
                "tools/poiesis_lab/recipes/node/*-images",
                "tools/poiesis_lab/recipes/node/*-entrypoint",
            ),
        ],
        "dockerfiles": [BIN / "hadolint", *_tracked("*Dockerfile*")],
        "C format": [BIN / "clang-format", "--dry-run", "--Werror", *_tracked("services/helper/**/*.[ch]")],
    }


def _compiled_checks() -> Mapping[str, Command]:
    """Return the checks whose programs are compiled if they are not on the PATH."""
    from poiesis_lab import binaries

    helm = binaries.helm()
    return {
        "workflows": [binaries.actionlint(), "-shellcheck", BIN / "shellcheck"],
        "chart": [helm, "lint", "--strict", "--quiet", CHART],
        "chart renders": [helm, "template", "poiesis", CHART, "--kube-version", "1.29.0"],
    }


def _tracked(*patterns: str) -> list[str]:
    """Return files of the repository, including new ones that git does not ignore."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    found = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    return [path for path in found if path and (ROOT / path).exists()]


def import_contracts() -> dict[str, Any]:
    """Return import-linter's configuration: the root's, and one contract per member.

    A member imports the members that it declares as dependencies, and no other.
    """
    config: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    packages = {one.name: one.packages for one in members()}
    for member in members():
        foreign = sorted(packages.keys() - reachable(member) - {member.name})
        config["contracts"].append(
            {
                "name": f"{member.name} imports only its declared dependencies",
                "type": "forbidden",
                "source_modules": list(member.packages),
                "forbidden_modules": [package for name in foreign for package in packages[name]],
            }
        )
    config["root_packages"] = [package for one in members() for package in one.packages]
    return config


def _write_importlinter(config: Mapping[str, Any], target: Path) -> None:
    """Write the configuration as the INI file that import-linter reads."""
    head = {key: value for key, value in config.items() if key != "contracts"}
    lines = ["[importlinter]", *_ini(head)]
    for number, contract in enumerate(config["contracts"]):
        lines += [f"[importlinter:contract:{number}]", *_ini(contract)]
    target.write_text("\n".join(lines) + "\n")


def _ini(section: Mapping[str, Any]) -> Iterator[str]:
    for key, value in section.items():
        if isinstance(value, list):
            yield f"{key} ="
            yield from (f"    {item}" for item in value)
        else:
            yield f"{key} = {value}"


def run_check(name: str, command: Command) -> Outcome:
    """Run one check to its end."""
    start = time.monotonic()
    done = subprocess.run(
        list(map(str, command)), cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False
    )
    return Outcome(
        name=name,
        ok=done.returncode == 0,
        seconds=time.monotonic() - start,
        output=(done.stdout + done.stderr)[-_OUTPUT:],
    )


def run_checks(checks: Mapping[str, Command], report: Callable[[Outcome], None]) -> list[Outcome]:
    """Run all of them, as many at once as there are processors, and report each."""

    def one(item: tuple[str, Command]) -> Outcome:
        outcome = run_check(*item)
        report(outcome)
        return outcome

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(one, checks.items()))


def _report(outcome: Outcome) -> None:
    word = "ok" if outcome.ok else "FAILED"
    text = f"  {outcome.name:20} {word:7} {outcome.seconds:5.1f} s"
    print(text if outcome.ok else f"{text}\n{outcome.output}", flush=True)


def run_static(only: Member | None = None) -> bool:
    """Run the static checks; False if one failed."""
    with tempfile.TemporaryDirectory() as folder:
        importlinter = Path(folder) / "importlinter.ini"
        _write_importlinter(import_contracts(), importlinter)
        checks = dict(static_checks(only, importlinter))
        if only is None:
            checks |= _compiled_checks()
        outcomes = run_checks(checks, _report)
    return all(outcome.ok for outcome in outcomes)


def _member(text: str) -> Member | Path:
    """Return a member of the workspace, or another folder with tests."""
    folder = (ROOT / text).resolve()
    found = next((one for one in members() if one.directory == folder), None)
    if found is None and not (folder / "tests").is_dir():
        known = ", ".join(str(one.directory.relative_to(ROOT)) for one in members())
        raise argparse.ArgumentTypeError(f"no such member: {text} (members: {known})")
    return found or folder


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="make check", description="Run the checks and the unit tests.")
    parser.add_argument("member", nargs="?", type=_member, help="one folder, for example services/trec")
    parser.add_argument("--static", action="store_true", help="without the unit tests")
    options = parser.parse_args(arguments)
    ok = isinstance(options.member, Path) or run_static(options.member)
    if options.static:
        return 0 if ok else 1
    folder = options.member.directory if isinstance(options.member, Member) else options.member
    tests = testing.main(["unit", *([f"--only={folder.relative_to(ROOT)}"] if folder else [])])
    return 0 if ok and tests == 0 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
