"""Record starts and ends that executors report: the only evidence that an executor ran twice.

An HTTP server in the process of the test; Pods reach it by this machine's address in docker's network.
"""

import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal

from aiohttp import web

from poiesis_e2e.serving import port_of, serving

Word = Literal["started", "ended"]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A report of one start of an executor, and when (Unix time) it was first received."""

    task_name: str
    executor: int
    word: Word
    start: str
    at: float


class Ledger:
    """`GET /<task's name>/<executor>/<started or ended>/<start>`; a repeated request adds nothing."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, int, Word, str], Entry] = {}

    @asynccontextmanager
    async def at(self, address: str) -> AsyncIterator[str]:
        """Serve at `address` and yield the URL, without a trailing slash."""
        application = web.Application()
        application.router.add_get(r"/{name}/{executor:\d+}/{word:started|ended}/{start}", self._enter)
        async with serving(application, address) as runner:
            yield f"http://{address}:{port_of(runner)}"

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    async def _enter(self, request: web.Request) -> web.Response:
        found = request.match_info
        word: Word = "started" if found["word"] == "started" else "ended"
        entry = Entry(
            task_name=found["name"],
            executor=int(found["executor"]),
            word=word,
            start=found["start"],
            at=time.time(),
        )
        self._entries.setdefault((entry.task_name, entry.executor, entry.word, entry.start), entry)
        return web.Response(text="heard\n")


def of_task(entries: Iterable[Entry], name: str) -> tuple[Entry, ...]:
    """Return the entries of one task, ordered by time."""
    return tuple(sorted((one for one in entries if one.task_name == name), key=lambda one: one.at))
