"""A TES client that tries again, as real ones do, and counts how often and why."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import TypeVar

import aiohttp

from poiesis_e2e.tes_client import Document, State, Task, TaskPage, TesClient, TesRefused, View

_PASSES = (aiohttp.ClientError, TimeoutError, TesRefused)
_AGAIN_SECONDS = 0.5
_PATIENCE_SECONDS = 180.0
_PAGE = 256
_UNAVAILABLE = 503

T = TypeVar("T")


class Patient:
    """`retries`: how often, by why. `wrong_answers`: the refusals that are no reason to try again."""

    def __init__(self, client: TesClient, retries: Counter[str], wrong_answers: list[str]) -> None:
        self._client = client
        self._retries = retries
        self._wrong_answers = wrong_answers

    async def create(self, document: Callable[[], Document]) -> str:
        """The id that one of the attempts was answered with. `document` is made anew for each of them:
        one that had no answer may have made a task all the same."""
        return await self._call("POST", lambda: self._client.create(document()))

    async def cancel(self, task_id: str) -> None:
        """Until it is answered."""
        await self._call("cancel", lambda: self._client.cancel(task_id))

    async def get(self, task_id: str, view: View = "FULL") -> Task:
        """Until it is answered."""
        return await self._call("GET", lambda: self._client.get(task_id, view))

    async def states(self, prefix: str) -> dict[str, State]:
        """Of all tasks whose name begins so, by id."""
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
        if isinstance(error, TesRefused):
            self._retries[f"{what}: {error.status}"] += 1
            if error.status != _UNAVAILABLE:
                self._wrong_answers.append(str(error))
        else:
            self._retries[f"{what}: {type(error).__name__}"] += 1
