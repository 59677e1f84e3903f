"""Task Input Filer: stage the inputs of the work list into the task volume, then exit.

Reads POIESIS_WORK_LIST, writes progress.jsonl into POIESIS_RUN; the storage is configured by AWS_* and
POIESIS_S3_ADDRESSING_STYLE. Exit 0: all inputs are staged. Exit 65: permanent failure. Exit 75: retryable
failure; a restarted filer starts from scratch.
"""

import sys

from poiesis_tif.stage import stage
from poiesis_transfer import filer


def main() -> int:
    """Stage the inputs and return the exit code."""
    return filer.main("poiesis_tif", __doc__ or "", stage)


if __name__ == "__main__":
    sys.exit(main())
