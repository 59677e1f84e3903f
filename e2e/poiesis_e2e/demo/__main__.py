"""`python -m poiesis_e2e.demo`: parse the command line, run the demo, and give advice if it fails."""

import argparse
import asyncio
import sys

from poiesis_e2e.demo import show
from poiesis_lab.errors import LabError

_DESCRIPTION = """\
From a fresh checkout to a finished task on a real cluster: start (or reuse) a kind cluster, install the
chart, and align the reads of phage lambda that come with bowtie2 to its genome. The genome is downloaded by
HTTP, the reads from S3 (MinIO), and the results are uploaded to S3. Everything keeps running for you to try
out: `make down` removes it.
"""
_WHAT_TO_DO = """\
`make status` shows the running parts and the path of the kubeconfig; `kubectl get pods --namespace poiesis`
then shows the services, and `--namespace poiesis-tasks` the task's Pod.
To start over: make down && make demo"""


def main() -> int:
    """Exit 0 if the results are as expected, 1 if not, 130 if interrupted."""
    argparse.ArgumentParser(
        prog="make demo", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    from poiesis_e2e.demo.run import DemoFailed, run  # imported late: --help does not need it
    from poiesis_e2e.install import NotInstalled

    try:
        asyncio.run(run())
    except (DemoFailed, LabError, NotInstalled) as error:
        show.failure(str(error), _WHAT_TO_DO)
        return 1
    except KeyboardInterrupt:
        show.line(
            "\nInterrupted; running parts keep running. `make demo` continues, `make down` removes them."
        )
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
