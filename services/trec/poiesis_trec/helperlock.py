"""Whether the helper of a container lives: it holds an flock on its run directory until it has gone.

On the directory, because that is a mount in the executor's container: whatever an executor does to the files
in it, it cannot put another directory in its place, and cannot take away a lock that somebody else holds.
"""

import fcntl
import logging
import os
from pathlib import Path

logger = logging.getLogger(__name__)


def is_held(directory: Path) -> bool | None:
    """False if no helper has begun or it has gone. None if nobody can tell: the file system has no locks."""
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except PermissionError:
        return True  # an executor that owns it has shut us out: what it says there does not count
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError as error:
        logger.debug("cannot lock %s: %s", directory, error)
        return None
    finally:
        os.close(fd)  # gives the lock back, too
    return False
