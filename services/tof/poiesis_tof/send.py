"""Carry the plan out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from poiesis_models.worklist import WorkList
from poiesis_tof.plan import Finding, Found, Note, Refusal, check, findings
from poiesis_transfer import pool
from poiesis_transfer.config import Config
from poiesis_transfer.errors import Unsendable
from poiesis_transfer.files import SourceFile
from poiesis_transfer.progress import Progress

if TYPE_CHECKING:
    from poiesis_transfer.stores import S3Stores


def send(config: Config, work: WorkList, progress: Progress) -> None:
    """Send every file of every output; raise TransferError.

    A store that fails ends the work. A file that cannot be sent ends it after the others have been.
    """
    check(work.outputs)
    if not work.outputs:
        return
    from poiesis_transfer.stores import S3Stores

    refused: list[Unsendable] = []

    with S3Stores.open(config.s3, config.credentials) as store:

        def one(finding: Finding) -> None:
            match finding:
                case Note(message):
                    progress.warning(message)
                case Refusal(error):
                    refused.append(error)
                case Found():
                    try:
                        upload(store, finding, progress)
                    except Unsendable as error:
                        refused.append(error)

        pool.for_each(findings(work.outputs), one, interrupt=store.interrupt)
    if refused:
        others = len(refused) - 1
        raise Unsendable(f"{refused[0]}; and {others} more" if others else str(refused[0]))


def upload(store: S3Stores, found: Found, progress: Progress) -> None:
    """One file."""
    with SourceFile(found.local, found.path) as source:
        store.upload(source, found.url, progress)
        source.check_size()
    progress.sent(url=str(found.url), path=found.path, size_bytes=source.size)
