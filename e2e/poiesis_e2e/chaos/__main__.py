"""`python -m poiesis_e2e.chaos`: parse the command line, run, report."""

import argparse
import asyncio
import sys
import time
from pathlib import Path

from poiesis_lab.errors import LabError
from poiesis_lab.shell import report

_TTL_SECONDS = 60


def main() -> int:
    """Exit 0 if no rule was violated, 1 if one was or the run could not start."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="default: the time of day")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--tasks", type=int, default=60)
    parser.add_argument("--out", type=Path, default=None, help="folder of the report and the evidence")
    chosen = parser.parse_args()
    seed = int(time.time()) if chosen.seed is None else chosen.seed
    try:
        return _run(seed, chosen.seconds, chosen.tasks, chosen.out)
    except LabError as error:
        report(f"chaos: {error}")
        return 1


def _run(seed: int, seconds: float, tasks: int, out: Path | None) -> int:
    from poiesis_e2e.chaos.judge import violations  # imported late: --help does not need them
    from poiesis_e2e.chaos.plan import kinds, plan
    from poiesis_e2e.chaos.report import summary
    from poiesis_e2e.chaos.run import carry_out
    from poiesis_e2e.chaos.stage import stage
    from poiesis_e2e.install import endpoint_of
    from poiesis_e2e.transport import transport
    from poiesis_lab import backends, cache, cluster, images, services

    folder = (out or cache.directory() / "chaos" / str(seed)).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    running = cluster.up()
    minio = backends.start_minio()
    endpoint = endpoint_of(minio)
    built = services.build_and_load()
    with stage(running, built, endpoint, images.images(), ttl=_TTL_SECONDS) as there:
        planned = plan(seed, seconds=seconds, tasks=tasks, kinds=kinds(transport()))
        record = asyncio.run(carry_out(planned, there, folder))
    found = violations(record)
    text = summary(record, found)
    (folder / "report.txt").write_text(text)
    print(text, end="")
    report(f"chaos: report and evidence of violations: {folder}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
