"""Store the documents of ended tasks, so that reads and lists copy them (ADR 0036).

The rows of a task stay the truth: a change of them removes the documents in its own transaction (migration
0012), and the next round stores them again. Replicas take different tasks.
"""

import asyncio
import logging

from poiesis_api.errors import StorageUnavailable
from poiesis_api.postgres import Pool, transaction
from poiesis_documents.documents import ASSEMBLED, TOO_LARGE, View

logger = logging.getLogger(__name__)

BATCH = 50  # tasks whose rows are locked at a time
MOST_BYTES = 64 * 1024  # of a stored document; assembling a larger one is a small part of sending it
_POLL_SECONDS = 1.0
_PAUSE_SECONDS = 0.2  # between full batches: after an upgrade there are many, and requests come first
_RETRY_SECONDS = 10.0

# Writers of logs lock the row at least FOR KEY SHARE, so none of them is in the middle of a change.
_LOCK = """
SELECT id FROM task WHERE ended_at IS NOT NULL AND document IS NULL
 ORDER BY ended_at DESC LIMIT $1 FOR UPDATE SKIP LOCKED
"""
# A statement of its own, which reads what was committed before the rows were locked.
_STORE = f"""
UPDATE task SET request = NULL,
       document = CASE WHEN octet_length(basic) <= {MOST_BYTES} THEN basic ELSE '{TOO_LARGE}' END,
       full_document = CASE WHEN octet_length("full") <= {MOST_BYTES} THEN "full" END
  FROM (
    SELECT t.id AS made, {ASSEMBLED[View.BASIC]} AS basic, {ASSEMBLED[View.FULL]} AS "full"
      FROM task t WHERE t.id = ANY ($1) OFFSET 0
) assembled WHERE id = made
"""  # noqa: S608


async def store_documents(pool: Pool, most: int = BATCH) -> int:
    """Store the documents of the tasks that ended last; return their number. Raise StorageUnavailable."""
    async with transaction(pool) as db:
        ids = [row["id"] for row in await db.fetch(_LOCK, most)]
        if ids:
            await db.execute(_STORE, ids)
    return len(ids)


async def keep_stored(pool: Pool, stop: asyncio.Event) -> None:
    """Store documents until `stop`. Reads do not depend on it, so no failure ends it."""
    while not stop.is_set():
        pause = await _round(pool)
        try:
            async with asyncio.timeout(pause):
                await stop.wait()
        except TimeoutError:
            continue


async def _round(pool: Pool) -> float:
    """Store one batch, and return the seconds until the next."""
    try:
        stored = await store_documents(pool)
    except StorageUnavailable as error:
        logger.warning("postgres unavailable, retrying", extra={"outage": error.outage.name})
    except Exception:
        logger.exception("cannot store documents, retrying")
    else:
        return _PAUSE_SECONDS if stored == BATCH else _POLL_SECONDS
    return _RETRY_SECONDS
