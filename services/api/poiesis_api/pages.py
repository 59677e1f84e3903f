"""Response bodies that are read in parts: a list of tasks, and one large task."""

import logging
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from uuid import UUID

from poiesis_api import tasks_db
from poiesis_api.errors import ServerBusy, StorageUnavailable, TaskNotFound
from poiesis_api.identity.caller import Caller
from poiesis_api.postgres import Pool
from poiesis_api.queries import ListQuery, page_token
from poiesis_api.sending import Outgoing, Part
from poiesis_api.tasks_db import TaskPart
from poiesis_documents.documents import View

logger = logging.getLogger(__name__)

PART_BYTES = 1024 * 1024  # minimum size of a part of a page, except the last


async def task_page(
    pool: Pool, outgoing: Outgoing, caller: Caller, query: ListQuery, page_bytes: int
) -> AsyncGenerator[Part, None]:
    """Yield a ListTasksResponse of at most `page_size` tasks or about `page_bytes`.

    If Postgres fails in the middle, the page ends early, and the client gets the error from the next page.
    Raise StorageUnavailable or ServerBusy before the first part.
    """
    page = _Page(query, page_bytes)
    while not page.ended:
        try:
            async with outgoing.turn(caller.name):
                found = await tasks_db.list_part(pool, caller, page.rest, min(page.bytes_left, PART_BYTES))
        except (StorageUnavailable, ServerBusy) as error:
            if not page.begun:
                raise
            logger.warning("page ended early", extra={"error": str(error)})
            yield page.end_early(caller.name)
        else:
            yield page.add(found, caller.name)


class _Page:
    """A page in progress."""

    def __init__(self, query: ListQuery, page_bytes: int) -> None:
        self.rest = query  # what remains of the query
        self.bytes_left = page_bytes
        self.begun = self.ended = False

    def add(self, found: TaskPart, owner: str) -> Part:
        pieces: list[bytes] = []
        for document in found.documents:
            pieces.append(b"," if self.begun else b'{"tasks":[')
            pieces += document
            self.begun = True
        tasks_left = self.rest.page_size - len(found.documents)
        before = self.rest.before if found.last is None else found.last
        self.bytes_left -= found.size
        self.rest = replace(self.rest, page_size=tasks_left, before=before)
        self.ended = not found.more or tasks_left <= 0 or self.bytes_left <= 0
        if self.ended:
            pieces += self._end(owner, more=found.more)
        return Part(pieces=pieces, last=self.ended)

    def end_early(self, owner: str) -> Part:
        self.ended = True
        return Part(pieces=self._end(owner, more=True), last=True)

    def _end(self, owner: str, *, more: bool) -> Sequence[bytes]:
        begin = b"" if self.begun else b'{"tasks":['
        if not more or self.rest.before is None:
            return (begin, b"]}")
        token = page_token(self.rest.before, self.rest.filter, owner)
        return (begin, f'],"next_page_token":"{token}"}}'.encode())


async def large_task(
    pool: Pool, outgoing: Outgoing, caller: Caller, task_id: UUID, view: View
) -> AsyncGenerator[Part, None]:
    """Yield one document. Raise TaskNotFound, StorageUnavailable or ServerBusy."""
    async with outgoing.turn(caller.name):
        pieces = await tasks_db.read_large_task(pool, caller, task_id, view)
    if not pieces:
        raise TaskNotFound(str(task_id))
    yield Part(pieces=pieces, last=True)
