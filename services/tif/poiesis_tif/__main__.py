"""Task Input Filer: stage the inputs of the work list into the task volume, then exit.

Reads POIESIS_WORK_LIST, writes progress.jsonl into POIESIS_RUN; the storage is configured by AWS_* and
POIESIS_S3_ADDRESSING_STYLE. Exit 0: all is staged. Exit 65: it cannot be. Exit 75: it may be later; the
filer can be started again and begins anew.
"""

import sys

from poiesis_tif.stage import stage
from poiesis_transfer import filer


def main() -> int:
    """The exit code."""
    return filer.main("poiesis_tif", __doc__ or "", stage)


if __name__ == "__main__":
    sys.exit(main())
