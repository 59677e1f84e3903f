"""Start and exit of a filer (filer contract v1): environment in, exit code out."""

import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from poiesis_models import runfiles, worklist
from poiesis_models.logs import configure_logging
from poiesis_models.worklist import MalformedWorkList, WorkList
from poiesis_transfer.config import Config
from poiesis_transfer.errors import Permanent, TransferError
from poiesis_transfer.progress import Progress

logger = logging.getLogger(__name__)

Work = Callable[[Config, WorkList, Progress], None]


class _Terminated(BaseException):
    """SIGTERM was received."""


def main(name: str, about: str, work: Work, *, arguments: Sequence[str] | None = None) -> int:
    """Do the work and return the exit code: 0, 65 (permanent failure) or 75 (retryable failure)."""
    if arguments := sys.argv[1:] if arguments is None else arguments:
        _only_help(name, about, arguments)
    configure_logging("WARNING", filer=name)  # libraries log each request at INFO
    try:
        config = Config.from_env(os.environ)
        progress = Progress(config.run)
    except (Permanent, OSError) as failure:
        logger.error("cannot start", extra={"error": str(failure)})  # noqa: TRY400 - no traceback: not a defect
        return worklist.EXIT_PERMANENT
    with progress:
        return _ended(config, work, progress)


def _ended(config: Config, work: Work, progress: Progress) -> int:
    try:
        signal.signal(signal.SIGTERM, _terminate)
        work(config, read_work_list(config.work_list), progress)
    except TransferError as failure:
        progress.error(str(failure))
        return failure.exit_code
    except _Terminated:
        return runfiles.SIGTERM_EXIT
    except Exception as failure:  # noqa: BLE001  # our own bug; its text may contain a signed URL
        log_defect(failure)
        progress.error(f"internal error in the filer: {type(failure).__name__}; see the container's log")
        return worklist.EXIT_PERMANENT
    return worklist.EXIT_DONE


def log_defect(failure: BaseException) -> None:
    """Log an unexpected exception without its text, which may contain a signed URL."""
    where = "".join(traceback.format_tb(failure.__traceback__))
    logger.error("unexpected error", extra={"error": type(failure).__name__, "traceback": where})


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    """Raise in the main thread, so that unfinished uploads are aborted: stores charge for their parts."""
    del frame
    signal.signal(number, signal.SIG_IGN)
    raise _Terminated


def read_work_list(path: Path) -> WorkList:
    """Read the work list. Raise Permanent."""
    try:
        return WorkList.from_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Permanent(f"cannot read the work list {path}: {error.strerror}") from error
    except MalformedWorkList as error:
        raise Permanent(str(error)) from error


def _only_help(name: str, about: str, arguments: Sequence[str]) -> None:
    import argparse

    argparse.ArgumentParser(
        prog=name, description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args(arguments)
