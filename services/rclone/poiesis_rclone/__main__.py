"""rclone filer: stage inputs from and send outputs to any store that rclone supports, then exit.

Reads POIESIS_WORK_LIST and the remotes in POIESIS_SECRET/rclone.conf, writes progress.jsonl into POIESIS_RUN.
Exit 0: all is transferred. Exit 65: permanent failure. Exit 75: retryable failure; a restarted filer starts
from scratch.
"""

import os
import sys
from functools import partial

from poiesis_rclone.move import move
from poiesis_transfer import filer


def main() -> int:
    """Transfer all files and return the exit code."""
    os.umask(0)  # executors of any uid use the files that rclone creates
    return filer.main("poiesis_rclone", __doc__ or "", partial(move, os.environ))


if __name__ == "__main__":
    sys.exit(main())
