"""A TES client that retries, as real clients do, and counts its retries by cause."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import TypeVar

import aiohttp

from poiesis_e2e.tes_client import Document, State, Task, TaskPage, TesClient, TesError, View

_PASSES = (aiohttp.ClientError, TimeoutError, TesError)
_AGAIN_SECONDS = 0.5
_PATIENCE_SECONDS = 180.0
_PAGE = 256
_UNAVAILABLE = 503

T = TypeVar("T")


class RetryingClient:
    """`retries`: count by cause. `wrong_answers`: error responses that a client cannot retry."""

    def __init__(self, client: TesClient, retries: Counter[str], wrong_answers: list[str]) -> None:
        self._client = client
        self._retries = retries
        self._wrong_answers = wrong_answers

    async def create(self, document: Callable[[], Document]) -> str:
        """Create a task and return its id. `document` is called for each attempt: an attempt without a
        response may have created a task too."""
        return await self._call("POST", lambda: self._client.create(document()))

    async def cancel(self, task_id: str) -> None:
        """Cancel a task; retry until the server responds."""
        await self._call("cancel", lambda: self._client.cancel(task_id))

    async def get(self, task_id: str, view: View = "FULL") -> Task:
        """Return a task; retry until the server responds."""
        return await self._call("GET", lambda: self._client.get(task_id, view))

    async def states(self, prefix: str) -> dict[str, State]:
        """Return the state of each task whose name starts with `prefix`, by id."""
        return {task["id"]: task["state"] async for task in self._list(prefix)}

    async def _list(self, prefix: str) -> AsyncIterator[Task]:
        token = ""
        while True:
            page = await self._call("list", partial(self._page, prefix, token))
            for task in page["tasks"]:
                yield task
            token = page.get("next_page_token", "")
            if not token:
                return

    async def _page(self, prefix: str, token: str) -> TaskPage:
        return await self._client.list_tasks(name_prefix=prefix, page_size=_PAGE, page_token=token)

    async def _call(self, what: str, ask: Callable[[], Awaitable[T]]) -> T:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                return await ask()
            except _PASSES as error:
                self._note(what, error)
                if time.monotonic() > deadline:
                    raise
            await asyncio.sleep(_AGAIN_SECONDS)

    def _note(self, what: str, error: Exception) -> None:
        if isinstance(error, TesError):
            self._retries[f"{what}: {error.status}"] += 1
            if error.status != _UNAVAILABLE:
                self._wrong_answers.append(str(error))
        else:
            self._retries[f"{what}: {type(error).__name__}"] += 1
