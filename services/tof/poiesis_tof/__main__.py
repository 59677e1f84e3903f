"""Task Output Filer: send the outputs of the work list from the task volume to their URLs, then exit.

Reads POIESIS_WORK_LIST, writes progress.jsonl into POIESIS_RUN; the storage is configured by AWS_* and
POIESIS_S3_ADDRESSING_STYLE. Exit 0: all produced outputs are stored. Exit 65: permanent failure. Exit 75:
retryable failure; a restarted filer starts from scratch.
"""

import sys

from poiesis_tof.send import send
from poiesis_transfer import filer


def main() -> int:
    """Send the outputs and return the exit code."""
    return filer.main("poiesis_tof", __doc__ or "", send)


if __name__ == "__main__":
    sys.exit(main())
