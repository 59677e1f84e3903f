"""Detect whether the helper of a container is alive: it holds an flock on its run directory until it exits.

The lock is on the directory because that is a mount in the executor's container: an executor can change the
files in it, but can neither replace the directory nor release the lock of another process.
"""

import fcntl
import logging
import os
from pathlib import Path

logger = logging.getLogger(__name__)


def is_held(directory: Path) -> bool | None:
    """Return whether a helper runs: False before it starts and after it exits; None without lock support."""
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except PermissionError:
        return True  # the executor closed the directory, so its files are not trusted
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError as error:
        logger.debug("cannot lock %s: %s", directory, error)
        return None
    finally:
        os.close(fd)  # also releases the lock
    return False
