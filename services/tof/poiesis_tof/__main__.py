"""Task Output Filer: send the outputs of the work list from the task volume to their URLs, then exit.

Reads POIESIS_WORK_LIST, writes progress.jsonl into POIESIS_RUN; the storage is configured by AWS_* and
POIESIS_S3_ADDRESSING_STYLE. Exit 0: all that was produced is stored. Exit 65: it cannot be. Exit 75: it may
be later; the filer can be started again and begins anew.
"""

import sys

from poiesis_tof.send import send
from poiesis_transfer import filer


def main() -> int:
    """The exit code."""
    return filer.main("poiesis_tof", __doc__ or "", send)


if __name__ == "__main__":
    sys.exit(main())
