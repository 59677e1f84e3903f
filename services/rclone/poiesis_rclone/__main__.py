"""rclone filer: stage inputs and send outputs by whatever store rclone knows, then exit.

Reads POIESIS_WORK_LIST and the remotes in POIESIS_SECRET/rclone.conf, writes progress.jsonl into POIESIS_RUN.
Exit 0: all is moved. Exit 65: it cannot be. Exit 75: it may be later; the filer can be started again and
begins anew.
"""

import os
import sys
from functools import partial

from poiesis_rclone.move import move
from poiesis_transfer import filer


def main() -> int:
    """The exit code."""
    os.umask(0)  # rclone makes what executors of any uid use
    return filer.main("poiesis_rclone", __doc__ or "", partial(move, os.environ))


if __name__ == "__main__":
    sys.exit(main())
