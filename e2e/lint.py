"""`make lint`: formatting, style, types, import directions, dead code, the chart. One line a check."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from lab import binaries

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
PACKAGES = [
    "packages/models/poiesis_models",
    "packages/transfer/poiesis_transfer",
    "packages/staging/poiesis_staging",
    "services/api/poiesis_api",
    "services/tif/poiesis_tif",
    "services/tof/poiesis_tof",
    "services/rclone/poiesis_rclone",
    "services/file/poiesis_file",
    "services/trec/poiesis_trec",
    "services/tctl/poiesis_tctl",
    "migrations/poiesis_migrations",
    "cli/poiesis_cli",
    "e2e/lab",
    "e2e/demo",
    "e2e/failures",
    "e2e/chaos",
    "e2e/filer_kit",
]
IMPORTS = [str(ROOT / package.rpartition("/")[0]) for package in PACKAGES]
CHART = "deployment/helm/poiesis"


def checks(helm: str) -> Mapping[str, Sequence[str]]:
    """Name of each check and its command."""
    return {
        "style": [str(BIN / "ruff"), "check", "."],
        "format": [str(BIN / "ruff"), "format", "--check", "."],
        "types": [str(BIN / "mypy"), *PACKAGES],
        "import directions": [str(BIN / "lint-imports")],
        "dead code": [str(BIN / "vulture")],
        "chart": [helm, "lint", "--strict", CHART],
        "chart renders": [helm, "template", "poiesis", CHART, "--kube-version", "1.29.0"],
    }


def main() -> int:
    """Run all checks, even after one has failed; exit 1 if any has."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(IMPORTS)}
    failed = []
    for name, command in checks(str(binaries.helm())).items():
        start = time.monotonic()
        result = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        word = "ok" if result.returncode == 0 else "FAILED"
        print(f"{name:20} {word:7} {time.monotonic() - start:5.1f} s", flush=True)
        if result.returncode != 0:
            failed.append(name)
            print(result.stdout[-8000:] + result.stderr[-8000:], flush=True)
    if failed:
        print(f"lint: failed: {', '.join(failed)}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
