"""A cache of the Pods, Jobs, Workloads or events of all tasks, kept up to date by one list and one watch.

LIST in pages, then WATCH from the list's resourceVersion. A watch that ends normally or falls silent is
resumed from the last resourceVersion. After anything else (410 Gone, refusals, broken connections, an event
that cannot be parsed), and every few minutes in any case, the collection is listed again and compared with
the cache, so no change is missed permanently. Objects that vanished in between keep their last known state.
docs/adr/0028 explains why this is not a library.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from math import ceil
from types import MappingProxyType
from typing import Any, Protocol

from poiesis_kube.client import Object
from poiesis_kube.errors import KubernetesError, Refused, Unreachable
from poiesis_models.backoff import Backoff
from poiesis_models.labels import TASK_LABEL
from poiesis_tctl.cache import Cache

logger = logging.getLogger(__name__)

_MALFORMED = (ValueError, KeyError, TypeError, AttributeError)  # what an object of another shape raises
_BACKOFF = Backoff(first=1.0, longest=30.0)
OF_TASKS: Mapping[str, str] = MappingProxyType({"labelSelector": TASK_LABEL})


class WatchApi(Protocol):
    """The part of `kube.Kube` that an informer needs."""

    async def list_page(self, collection: str, params: Mapping[str, str]) -> Object: ...
    def watch(
        self, collection: str, params: Mapping[str, str], *, silence: float
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]: ...


@dataclass(frozen=True, kw_only=True)
class WatchTimes:
    """Times of an informer, in seconds. `silence` exceeds the API server's minute between bookmarks."""

    watch: float = 290.0
    relist: float = 300.0
    silence: float = 100.0
    backoff: Backoff = _BACKOFF
    shortest: float = 1.0  # a watch that ends earlier without an event has failed, with any status
    page: int = 500  # objects


@dataclass(frozen=True, kw_only=True)
class WatchState:
    """How current a cache is.

    `collection`: pods, jobs, events or workloads. `age_seconds`: since the last list, event or bookmark;
    None: nothing was listed yet.
    """

    namespace: str
    collection: str
    age_seconds: float | None
    lists: int
    failures: int


class RelistRequired(Exception):
    """The watch cannot continue from its resourceVersion."""


class Informer:
    """Keeps a Cache like the collection, and calls `changed` with the id of a task whose objects changed.

    `found` is called instead for a change that only a list shows; the default is `changed`.
    `slim` reduces an object to what is worth its memory. It must keep the name, the resourceVersion and the
    task's label, which it may also add.
    """

    def __init__(
        self,
        api: WatchApi,
        collection: str,
        *,
        changed: Callable[[str], None],
        found: Callable[[str], None] | None = None,
        slim: Callable[[Object], Object] = lambda item: item,
        selector: Mapping[str, str] = OF_TASKS,
        times: WatchTimes | None = None,
    ) -> None:
        self._api = api
        self._collection = collection
        self._changed = changed
        self._found = found or changed
        self._slim = slim
        self._selector = selector
        self._times = times or WatchTimes()
        self._failures = 0  # since the last event or complete watch
        self._last_error = ""
        self._lists = self._all_failures = 0
        self._heard_at: float | None = None  # by the clock of the event loop
        self.cache = Cache()
        self.synced = asyncio.Event()

    async def run(self) -> None:
        """List and watch until cancelled."""
        while True:
            try:
                await self._follow(await self._list())
            except (KubernetesError, TimeoutError, RelistRequired) as error:
                self._failed(str(error))
                await asyncio.sleep(self._times.backoff.delay(self._failures))

    def state(self, namespace: str) -> WatchState:
        """Return how current the cache is. Call it in the event loop."""
        heard_at = self._heard_at
        return WatchState(
            namespace=namespace,
            collection=self._collection.rpartition("/")[2],
            age_seconds=None if heard_at is None else asyncio.get_running_loop().time() - heard_at,
            lists=self._lists,
            failures=self._all_failures,
        )

    def _heard(self) -> None:
        self._heard_at = asyncio.get_running_loop().time()

    def _failed(self, error: str) -> None:
        """Count a failure. One that persists, such as a missing right, is a warning only once."""
        repeated = self._failures > 0 and error == self._last_error
        self._failures, self._last_error = self._failures + 1, error
        self._all_failures += 1
        level = logging.DEBUG if repeated else logging.WARNING
        logger.log(
            level, "watch failed, listing again", extra={"collection": self._collection, "error": error}
        )

    async def _list(self) -> str:
        """Read the collection and compare it with the cache. Return the resourceVersion to watch from."""
        items: dict[str, Object] = {}
        params = {**self._selector, "limit": str(self._times.page)}
        while True:
            page = await self._api.list_page(self._collection, params)
            metadata = _list_metadata(page)
            items.update((item["metadata"]["name"], item) for item in page.get("items") or ())
            if not metadata.get("continue"):
                break
            params = {**params, "continue": metadata["continue"]}
        for name in self.cache.names() - items.keys():
            _notify(self._found, self.cache.remove(name))
        for item in items.values():
            self._keep(item)
        self.synced.set()
        self._lists += 1
        self._heard()
        logger.info("listed collection", extra={"collection": self._collection, "objects": len(items)})
        return str(metadata["resourceVersion"])

    def _keep(self, item: Object) -> None:
        """Cache an object of a list. A malformed one is logged and skipped, so that the others are known."""
        try:
            slim = self._slim(item)
        except _MALFORMED as error:
            about = {"collection": self._collection, "object": item["metadata"]["name"]}
            logger.error("skipped malformed object", extra={**about, "error": repr(error)})  # noqa: TRY400
            return
        _notify(self._found, self.cache.put(slim))

    async def _follow(self, version: str) -> None:
        """Watch from `version` on, in one watch after another, until the next list is due.

        Raise RelistRequired, KubernetesError or TimeoutError.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + self._times.relist
        while (began := loop.time()) < until:
            before = version
            params = {
                **self._selector,
                "resourceVersion": version,
                "allowWatchBookmarks": "true",
                "timeoutSeconds": str(ceil(min(self._times.watch, until - began))),
            }
            async with self._api.watch(self._collection, params, silence=self._times.silence) as lines:
                try:
                    async for line in lines:
                        version = self._take_event(line)
                        self._failures = 0
                        self._heard()
                except TimeoutError:
                    logger.warning("watch fell silent, resuming", extra={"collection": self._collection})
            if version == before and loop.time() - began < self._times.shortest:
                raise RelistRequired("the watch ended immediately")
            self._failures = 0

    def _take_event(self, line: bytes) -> str:
        """Apply one event and return its resourceVersion. Raise RelistRequired or Refused."""
        try:
            event = json.loads(line)
            kind, item = event["type"], event["object"]
            if kind != "ERROR":
                return self._apply(kind, item)
            error = Refused(item.get("code") or 0, item.get("reason") or "", item.get("message") or "")
        except _MALFORMED as reason:
            raise RelistRequired(f"malformed event ({reason!r}): {line[:200]!r}") from reason
        raise error

    def _apply(self, kind: str, item: Object) -> str:
        version = str(item["metadata"]["resourceVersion"])
        match kind:
            case "ADDED" | "MODIFIED":
                _notify(self._changed, self.cache.put(self._slim(item)))
            case "DELETED":
                _notify(self._changed, self.cache.remove(item["metadata"]["name"], self._slim(item)))
            case "BOOKMARK":
                pass
            case _:
                raise ValueError(f"event of type {kind!r}")
        return version


def _notify(callback: Callable[[str], None], task_id: str | None) -> None:
    if task_id is not None:
        callback(task_id)


def _list_metadata(page: Object) -> Mapping[str, Any]:
    """Return the metadata of a list. Raise Unreachable if the response is not a list of objects."""
    metadata, items = page.get("metadata"), page.get("items") or []
    if not isinstance(metadata, dict) or "resourceVersion" not in metadata or not isinstance(items, list):
        raise Unreachable(f"the response is not a list: {json.dumps(page)[:200]}")
    if not all(isinstance(item, dict) and "name" in (item.get("metadata") or ()) for item in items):
        raise Unreachable("the response is not a list: an item has no name")
    return metadata
