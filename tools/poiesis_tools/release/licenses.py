"""`make licenses`: the licenses of all dependencies of images and command, checked against a list.

    python -m poiesis_tools.release.licenses

The report is build/licenses.json. The exit status is 1 if a license is not on the list.
"""

import json
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import Distribution, distributions
from pathlib import Path

from poiesis_lab.shell import report as progress
from poiesis_lab.versions import PYTHON
from poiesis_tools.release import wheels
from poiesis_tools.workspace import ROOT

REPORT = ROOT / "build/licenses.json"
# Licenses that permit distribution beside Apache-2.0 code, as packages name them.
ALLOWED = frozenset(
    {
        *("Apache-2.0", "Apache 2", "Apache 2.0", "Apache License 2.0", "Apache Software License"),
        *("MIT", "MIT License", "MIT-0", "0BSD", "ISC", "ISC License (ISCL)", "Unlicense", "Zlib"),
        *("BSD", "BSD License", "BSD-2-Clause", "BSD-3-Clause"),
        *("PSF-2.0", "Python Software Foundation License"),
        *("MPL-2.0", "Mozilla Public License 2.0 (MPL 2.0)"),  # of files, which are unchanged
    }
)
_CLASSIFIER = re.compile(r"License :: (?:OSI Approved :: )?(?P<name>.+)")


def product_locks() -> list[Path]:
    """Return the locks of what a release distributes; that of the helper has only its compiler."""
    found = [*ROOT.glob("services/*/requirements.lock"), *ROOT.glob("*/requirements.lock")]
    return sorted(path for path in found if path.parent.name != "helper")


def is_allowed(expression: str) -> bool:
    """Return whether each license of a text is allowed; of alternatives (OR) one suffices.

    The text is an SPDX expression, or names separated by semicolons.
    """
    parts = re.split(r"\s+AND\s+|;", expression)
    return all(any(_bare(choice) in ALLOWED for choice in re.split(r"\s+OR\s+", part)) for part in parts)


def _bare(name: str) -> str:
    """Return a name without the parentheses of an expression; some names contain a pair of their own."""
    bare = name.strip().removeprefix("(")
    return bare.removesuffix(")") if bare.count(")") > bare.count("(") else bare


def license_of(package: Distribution) -> str:
    """Return the SPDX expression of a package (PEP 639), else its classifiers, else its own words."""

    def values(key: str) -> list[str]:
        return package.metadata.get_all(key) or []

    classified = (_CLASSIFIER.fullmatch(line) for line in values("Classifier"))
    names = sorted({found["name"] for found in classified if found} - {"OSI Approved"})
    return "; ".join(values("License-Expression") or names or values("License")) or "unknown"


def packages(locks: Iterable[Path]) -> Iterator[dict[str, str]]:
    """Yield name, version and license of every package in `locks`, from its wheel."""
    for lock in locks:
        with tempfile.TemporaryDirectory() as folder:
            wheels.unpack_lock(Path(folder), PYTHON, lock)
            for package in distributions(path=[folder]):
                yield {"name": package.name, "version": package.version, "license": license_of(package)}


def problems(found: Iterable[Mapping[str, str]]) -> list[str]:
    """Return a text for each package whose license is not allowed."""
    return [
        f"{one['name']} {one['version']}: license not on the list: {one['license']}"
        for one in found
        if not is_allowed(one["license"])
    ]


def collect() -> list[dict[str, str]]:
    """Return each package of the product once, sorted."""
    distinct = {json.dumps(one, sort_keys=True) for one in packages(product_locks())}
    return sorted(
        (json.loads(text) for text in distinct), key=lambda one: (one["name"].lower(), one["version"])
    )


def encoded(found: Sequence[Mapping[str, str]]) -> str:
    """Return the report."""
    return json.dumps(found, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def main() -> int:
    """Write the report; exit 1 if a license is not allowed."""
    found = collect()
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(encoded(found))
    messages = problems(found)
    for message in messages:
        print(message, file=sys.stderr)
    progress(f"licenses of {len(found)} packages: {REPORT.relative_to(ROOT)}")
    return 1 if messages else 0


if __name__ == "__main__":
    sys.exit(main())
