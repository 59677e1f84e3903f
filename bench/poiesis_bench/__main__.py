"""Run all measurements, and write their results and plots to build/bench/.

Each result is a file NAME.json: `data` as the measurement prints it with --json, and the facts without which
it means little: date, version, commit, machine, load, arguments. Floors are measured in the same run.
Exit 1: a measurement failed, or a ratio of `storage` is above its limit; the others ran nevertheless.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from poiesis_bench import plots
from poiesis_lab import versions

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "build/bench"


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A module of this package and its arguments."""

    module: str
    arguments: Sequence[str] = ()

    @property
    def name(self) -> str:
        """Return the name of its result."""
        return self.module.rpartition(".")[2]


def measurements(options: argparse.Namespace) -> list[Measurement]:
    """Return what to run, in this order."""
    found = [
        Measurement(module="requests"),
        Measurement(module="scale.rows", arguments=["--rows", str(options.rows)]),
        Measurement(module="scale.queue", arguments=["--queued", str(options.queued)]),
        Measurement(module="retention"),
        Measurement(module="latency", arguments=["--runs", str(options.runs)]),
        Measurement(module="submission"),
        Measurement(module="cpu_limits", arguments=["--runs", str(options.runs)]),
        Measurement(module="footprint"),
        Measurement(module="scale.pods", arguments=["--pods", str(options.pods)]),
    ]
    if options.rclone:
        found.append(Measurement(module="storage", arguments=["--rclone", options.rclone]))
    return [one for one in found if not options.only or one.name in options.only]


def facts() -> dict[str, Any]:
    """Return what the figures of a run depend on."""
    memory = Path("/proc/meminfo").read_text(encoding="ascii").partition("kB")[0].split()[1]
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": (ROOT / "VERSION").read_text(encoding="utf-8").strip(),
        "commit": _output("git", "rev-parse", "--short", "HEAD"),
        "python": platform.python_version(),
        "postgres": versions.POSTGRES,
        "kubernetes": versions.KUBERNETES,
        "kernel": platform.release(),
        "processors": os.cpu_count(),
        "memory_gib": round(int(memory) / 1024**2),
        "load_per_minute": os.getloadavg()[0],
    }


def run(one: Measurement) -> bool:
    """Run a measurement and write its result. Return whether it exited with 0."""
    start = time.monotonic()
    print(f"── {one.name} {' '.join(one.arguments)}", file=sys.stderr)
    before = facts()
    command = [sys.executable, "-m", f"poiesis_bench.{one.module}", "--json", *one.arguments]
    process = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if process.stdout.strip():
        result = {"facts": before, "arguments": one.arguments, "data": json.loads(process.stdout)}
        (RESULTS / f"{one.name}.json").write_text(json.dumps(result, indent=2), encoding="utf-8")
    outcome = f"exit {process.returncode}" if process.returncode else "done"
    print(f"── {one.name}: {outcome} after {time.monotonic() - start:.0f} s", file=sys.stderr)
    return process.returncode == 0


def _output(*command: str) -> str:
    return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def main() -> int:
    """Run all, or those of --only."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--rows", type=int, default=100_000, help="ended tasks (default: 100000)")
    options.add_argument("--queued", type=int, default=100_000, help="queued tasks (default: 100000)")
    options.add_argument("--pods", type=int, default=1000, help="simulated Pods (default: 1000)")
    options.add_argument("--runs", type=int, default=5, help="of each shape of task (default: 5)")
    options.add_argument("--rclone", help="the program to compare the filers with (default: without storage)")
    options.add_argument(
        "--only", nargs="+", metavar="NAME", help="some measurements, for example rows queue"
    )
    arguments = options.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    done = [run(one) for one in measurements(arguments)]
    for path in plots.draw(RESULTS):
        print(path.relative_to(ROOT), file=sys.stderr)
    return 0 if all(done) else 1


if __name__ == "__main__":
    sys.exit(main())
