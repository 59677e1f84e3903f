"""Renew every requirements lock from its requirements.in: hashes, no index, no host."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OPTIONS = [
    "--universal",
    "--python-version=3.11",
    "--generate-hashes",
    "--no-emit-index-url",
    "--no-emit-find-links",
    "--no-header",
    "--no-annotate",
    "--quiet",
]


def lock(source: Path) -> None:
    """Compile one requirements.in beside its lock; local wheel directories are left out of account."""
    target = source.with_name(source.name.replace(".in", ".lock"))
    environment = {
        name: value for name, value in os.environ.items() if name not in {"PIP_FIND_LINKS", "UV_FIND_LINKS"}
    }
    subprocess.run(
        [
            sys.executable,
            "-m",
            "uv",
            "pip",
            "compile",
            *OPTIONS,
            str(source.relative_to(ROOT)),
            "-o",
            str(target.relative_to(ROOT)),
        ],
        cwd=ROOT,
        env=environment,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    print(f"locked {target.relative_to(ROOT)}")


def main() -> int:
    """Lock every service, the command, what the lab makes of packages, and the development environment."""
    patterns = (
        *("services/*/requirements.in", "migrations/requirements.in", "cli/requirements.in"),
        "e2e/lab/recipes/*.in",
    )
    for source in sorted(found for pattern in patterns for found in ROOT.glob(pattern)):
        lock(source)
    lock(ROOT / "requirements-dev.in")
    return 0


if __name__ == "__main__":
    sys.exit(main())
