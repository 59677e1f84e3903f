"""File filer: copy inputs from shared volumes, and outputs to them, then exit.

Reads POIESIS_WORK_LIST and POIESIS_SHARED, writes progress.jsonl into POIESIS_RUN. URLs are file:///path or a
bare absolute path. Exit 0: all is copied. Exit 65: permanent failure. Exit 75: retryable failure; a restarted
filer starts from scratch.
"""

import os
import sys
from functools import partial

from poiesis_file.move import move
from poiesis_transfer import filer


def main() -> int:
    """Copy all files and return the exit code."""
    return filer.main("poiesis_file", __doc__ or "", partial(move, os.environ))


if __name__ == "__main__":
    sys.exit(main())
