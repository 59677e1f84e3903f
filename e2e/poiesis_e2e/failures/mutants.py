"""`python -m poiesis_e2e.failures.mutants [--list | --dry-run] [name…]`: check that rows prove something.

For each mutation (`mutations.py`) the tree is copied, the handling of a failure is removed from the copy, and
the rows that depend on it run there: on the lab's cluster, in releases of their own. Each of them must fail,
by one of its own assertions. Mutations that do not affect each other's rows share a copy. One more row, which
none of them affects, must pass there.
Exit 0: every row failed as it must. `--dry-run` needs no cluster: it prints each mutation as a diff.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from difflib import unified_diff
from pathlib import Path
from shutil import copytree, ignore_patterns
from xml.etree import ElementTree as ET

from poiesis_e2e.failures.cases import CASES
from poiesis_e2e.failures.mutation import Edit, Mutation, Verdict, edited, edits_by_file, grouped, judged
from poiesis_e2e.failures.mutations import MUTATIONS
from poiesis_e2e.failures.verdict import rows_of
from poiesis_lab import binaries, cache
from poiesis_lab import cluster as lab_cluster
from poiesis_tools.workspace import members

ROOT = Path(__file__).resolve().parents[3]
STORY = "e2e/stories/test_failures.py"
SOONER = Edit(  # a hanging row must fail soon
    where=f"{STORY}:_followed",
    code='case = type(case)(**{**vars(case), "wait_seconds": case.bound + 150})',
)
LATE_GRACE_SECONDS = 60  # longer than the bound of a row that a mutation must delay until SIGKILL
_LEFT_OUT = ignore_patterns(".venv", ".git", "__pycache__", ".*_cache", ".hypothesis", "build", "*.pyc")


def control(group: Sequence[Mutation]) -> str | None:
    """Return a plain row that no mutation of the group touches. It must pass: nothing else may be broken."""
    touched = {row for mutation in group for row in (*mutation.rows, *mutation.spoils)}
    plain = (case.id for case in CASES if case.release == "first" and not (case.around or case.meanwhile))
    return next((row for row in plain if row not in touched), None)


def changed(root: Path, group: Sequence[Mutation]) -> Mapping[str, tuple[str, str]]:
    """Return the content of each file that the mutations edit, before and after. Raise NotOnce."""
    found = {}
    for name, edits in edits_by_file(group).items():
        path = root / name
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        found[name] = text, edited(text, edits)
    return found


def diff(mutation: Mutation) -> str:
    """Return a unified diff of what the mutation changes."""
    return "".join(
        line
        for name, (before, after) in changed(ROOT, [mutation]).items()
        for line in unified_diff(before.splitlines(True), after.splitlines(True), name, name)
    )


def run(group: Sequence[Mutation], more: str | None, workers: int) -> Mapping[str, tuple[Verdict, str]]:
    """Return verdict and explanation of each row of a group, and of one more, as far as pytest ran it."""
    with tempfile.TemporaryDirectory(prefix="poiesis-mutant-") as folder:
        root = Path(folder) / "tree"
        copytree(ROOT, root, symlinks=True, ignore=_LEFT_OUT)
        (root / ".venv").symlink_to((ROOT / ".venv").resolve())
        for name, (_, text) in changed(root, group).items():
            (root / name).write_text(text, encoding="utf-8")
        story = root / STORY
        story.write_text(edited(story.read_text(encoding="utf-8"), [SOONER]), encoding="utf-8")
        report = Path(folder) / "report.xml"
        rows = ",".join([*(row for mutation in group for row in mutation.rows), more or ""])
        command = [
            *(sys.executable, "-m", "pytest", "-q", "--no-header", "--tb=short", "-m", "e2e"),
            *("-p", "poiesis_e2e.failures.verdict", f"--rows={rows}", f"--junitxml={report}"),
            *("-n", str(workers), STORY),
        ]
        environment = os.environ | {"PYTHONPATH": _import_path(root), "POIESIS_HELM": str(binaries.helm())}
        if any(mutation.late for mutation in group):
            environment["POIESIS_E2E_GRACE_SECONDS"] = str(LATE_GRACE_SECONDS)
        log = cache.directory() / "log" / f"mutants-{group[0].name}.log"
        log.parent.mkdir(exist_ok=True)
        print(f"pytest writes to {log}", flush=True)
        with log.open("w") as output:
            subprocess.run(command, cwd=root, env=environment, stdout=output, stderr=output, check=False)
        return results(report.read_text(encoding="utf-8") if report.exists() else "<testsuites/>")


def _import_path(root: Path) -> str:
    """Return the import path of the copy's members; it precedes the editable installs."""
    return os.pathsep.join(str(root / one.directory.relative_to(ROOT)) for one in members())


def results(report: str) -> Mapping[str, tuple[Verdict, str]]:
    """Return what the plugin noted about each row in a JUnit report; a row without a note has passed.

    A test that failed without any note is broken.
    """
    found: dict[str, tuple[Verdict, str]] = {}
    for test in ET.fromstring(report).iter("testcase"):  # noqa: S314  # our own file
        rows = rows_of(test.get("name", ""))
        for one in test.iter("property"):  # the first is the cause; the teardown may add others
            if (row := one.get("name", "")) in rows:
                verdict, _, words = one.get("value", "").partition(" ")
                found.setdefault(row, (Verdict(verdict), words))
        unexplained = any(test.find(what) is not None for what in ("failure", "error", "skipped"))
        otherwise = Verdict.BROKEN if unexplained and not found.keys() & set(rows) else Verdict.SURVIVED
        for row in rows:
            found.setdefault(row, (otherwise, ""))
    return found


def chosen(names: Sequence[str]) -> list[Mutation]:
    """Return the mutations with these names, or all. Raise SystemExit for an unknown name."""
    if unknown := sorted(set(names) - {mutation.name for mutation in MUTATIONS}):
        sys.exit(f"no such mutation: {', '.join(unknown)} (--list shows all)")
    return [mutation for mutation in MUTATIONS if not names or mutation.name in names]


def _judged(group: Sequence[Mutation], workers: int) -> Iterator[Verdict]:
    """Run a group, and print a line per row."""
    untouched = control(group)
    found = run(group, untouched, workers)
    verdicts = {row: verdict for row, (verdict, _) in found.items()}
    is_whole = untouched is None or verdicts.get(untouched) in {Verdict.SURVIVED, Verdict.LATE}
    if not is_whole:
        print(f"no row counts: {untouched}, which no mutation touches, has failed", flush=True)
    for mutation in group:
        for row, verdict in judged(mutation, verdicts if is_whole else {}).items():
            words = found[row][1] if row in found else "did not run"
            print(f"{verdict:8}  {mutation.name}: {row}  {words[:300]}", flush=True)
            yield verdict


def main(arguments: Sequence[str]) -> int:
    """Exit 0: every row was killed. 1: at least one was not."""
    parser = argparse.ArgumentParser(prog="python -m poiesis_e2e.failures.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help="of a mutation; default: all")
    parser.add_argument("--list", action="store_true", help="list the mutations by group, and run nothing")
    parser.add_argument("--dry-run", action="store_true", help="print a diff per mutation, and run nothing")
    parser.add_argument("-n", type=int, default=4, dest="workers", help="rows at the same time (default: 4)")
    given = parser.parse_args(arguments)
    groups = grouped(chosen(given.names))
    if given.list or given.dry_run:
        for number, group in enumerate(groups, 1):
            for mutation in group:
                print(f"{number}  {mutation.name}: {mutation.effect} [{', '.join(mutation.rows)}]")
                if given.dry_run:
                    print(diff(mutation))
        return 0
    lab_cluster.up()  # the copies are checkouts of their own: they borrow it
    counts: Counter[Verdict] = Counter()
    for number, group in enumerate(groups, 1):
        print(f"── {number} of {len(groups)}: {', '.join(mutation.name for mutation in group)}", flush=True)
        counts.update(_judged(group, given.workers))
    print(", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict), flush=True)
    return 0 if set(counts) == {Verdict.KILLED} else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
