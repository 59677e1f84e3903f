"""`python -m poiesis_e2e.demo`: parse the command line, run the demo, and say what to do if it fails."""

import argparse
import asyncio
import sys

from poiesis_e2e.demo import show
from poiesis_lab.errors import LabError

_DESCRIPTION = """\
From a fresh checkout to a finished task on a real cluster: a kind cluster comes up (or is used again), the
chart is installed, and the reads of phage lambda that come with bowtie2 are aligned to its genome. The genome
comes by HTTP, the reads from S3 (MinIO), the results go back to S3. Everything is left running to be played
with: `make down` removes it.
"""
_WHAT_TO_DO = """\
`make status` says what runs and where the kubeconfig is; `kubectl get pods --namespace poiesis` then shows
the services and the task's Pod. To start over: make down && make demo"""


def main() -> int:
    """Exit 0 if the task gave what was promised, 1 if not, 130 if interrupted."""
    argparse.ArgumentParser(
        prog="make demo", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    from poiesis_e2e.demo.run import DemoFailed, run  # late: --help needs none of what it imports
    from poiesis_e2e.install import NotInstalled

    try:
        asyncio.run(run())
    except (DemoFailed, LabError, NotInstalled) as error:
        show.failure(str(error), _WHAT_TO_DO)
        return 1
    except KeyboardInterrupt:
        show.say(
            "\nInterrupted; what is up stays up. `make demo` goes on from there, `make down` removes it."
        )
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
