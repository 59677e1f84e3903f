"""`make audit`: search the locks of the product for versions with published vulnerabilities.

    python -m poiesis_tools.release.audit [--required]

The database is OSV (https://osv.dev). Where it does not answer, the check is skipped with a warning, or fails
with --required.
"""

import json
import subprocess
import sys
import urllib.request
from collections.abc import Sequence

from poiesis_tools.release.licenses import product_locks
from poiesis_tools.workspace import ROOT

_DATABASE = "https://api.osv.dev/v1/query"
_QUESTION = {"package": {"name": "jinja2", "ecosystem": "PyPI"}, "version": "2.4.1"}  # OSV's own example
_ANSWER_S = 10


def why_not() -> str | None:
    """Return why the database cannot be used; None if it answers."""
    try:
        with urllib.request.urlopen(_DATABASE, json.dumps(_QUESTION).encode(), timeout=_ANSWER_S):
            return None
    except OSError as error:  # also that of an HTTP status
        return f"{_DATABASE}: {error}"


def main(arguments: Sequence[str]) -> int:
    """Exit 1 if a package has a known vulnerability."""
    if (reason := why_not()) is not None:
        print(f"WARNING: AUDIT SKIPPED, no vulnerability was looked for: {reason}", file=sys.stderr)
        return 1 if "--required" in arguments else 0
    command = [
        *(sys.executable, "-m", "pip_audit", "--vulnerability-service=osv", "--progress-spinner=off"),
        *("--require-hashes", "--disable-pip", "--no-deps"),
    ]
    for lock in product_locks():
        command += ["--requirement", str(lock)]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
