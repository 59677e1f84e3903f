"""A cache of the Pods, Jobs or events of all tasks, by one list and one watch, and the queue it feeds.

LIST in pages, then WATCH from the list's resourceVersion. A watch that ends as it should, or falls silent, is
resumed from the last resourceVersion; after everything else (410 Gone, refusals, broken connections, an event
that nobody can read), and every few minutes in any case, the collection is listed again and compared with the
cache, so that a change is never missed for good: what vanished meanwhile is kept as it was last known.
"""

import asyncio
import json
import logging
import random
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from math import ceil
from types import MappingProxyType
from typing import Any, Generic, Protocol, TypeVar

from poiesis_models.labels import TASK_LABEL
from poiesis_tctl.kube import KubeError, Object

logger = logging.getLogger(__name__)

_Key = TypeVar("_Key")
_UNREADABLE = (ValueError, KeyError, TypeError, AttributeError)  # what an object of another shape raises
OF_TASKS: Mapping[str, str] = MappingProxyType({"labelSelector": TASK_LABEL})


class WatchApi(Protocol):
    """The part of `kube.Kube` that an informer needs."""

    async def list_page(self, collection: str, params: Mapping[str, str]) -> Object: ...
    def watch(
        self, collection: str, params: Mapping[str, str], *, silence: float
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]: ...


@dataclass(frozen=True, kw_only=True)
class WatchTimes:
    """Seconds. `silence` is longer than the API server's minute between bookmarks."""

    watch: float = 290.0
    relist: float = 300.0
    silence: float = 100.0
    backoff: float = 1.0
    max_backoff: float = 30.0
    shortest: float = 1.0  # a watch that ends earlier without an event has failed, whatever its status
    page: int = 500  # objects


class ListAgain(Exception):
    """The watch cannot go on from where it was."""


class Cache:
    """Objects of one kind by task, and the last one of each task that is gone."""

    def __init__(self) -> None:
        self._tasks: dict[str, dict[str, Object]] = {}
        self._names: dict[str, str] = {}  # object name -> task id, in case a label is changed
        self._gone: dict[str, Object] = {}

    def current(self, task_id: str) -> Object | None:
        """The newest object of the task: after a requeue there may be an old one on its way out."""
        return newest(self._tasks.get(task_id, {}).values())

    def of(self, task_id: str) -> Sequence[Object]:
        """All objects of the task, in no order."""
        return tuple(self._tasks.get(task_id, {}).values())

    def gone(self, task_id: str) -> Object | None:
        """The object of the task that vanished last, as it was last known."""
        return self._gone.get(task_id)

    def forget_gone(self, task_id: str) -> None:
        self._gone.pop(task_id, None)

    def tasks(self) -> Iterator[str]:
        yield from list(self._tasks)

    def names(self) -> frozenset[str]:
        return frozenset(self._names)

    def put(self, item: Object) -> str | None:
        """Add or replace; the task id, None if the object carries none or is unchanged."""
        name, task_id = item["metadata"]["name"], _task_id(item)
        if self._names.get(name, task_id) != task_id:
            self._take(name)
        if task_id is None:
            return None
        known = self._tasks.get(task_id, {}).get(name)
        if known is not None and _uid(known) != _uid(item):
            self._gone[task_id] = known  # deleted and made anew, and nobody told us of the deletion
        if known is not None and _version(known) == _version(item):
            return None
        self._tasks.setdefault(task_id, {})[name] = item
        self._names[name] = task_id
        return task_id

    def remove(self, name: str, last: Object | None = None) -> str | None:
        """The task id; None if the object was not known. `last`: as it was when it was deleted."""
        known = self._take(name)
        item = last if last is not None else known
        if item is None or (task_id := _task_id(item)) is None:
            return None
        self._gone[task_id] = item
        return task_id

    def _take(self, name: str) -> Object | None:
        task_id = self._names.pop(name, None)
        if task_id is None:
            return None
        items = self._tasks[task_id]
        item = items.pop(name)
        if not items:
            del self._tasks[task_id]
        return item


class Informer:
    """Keeps a Cache like the collection, and calls `changed` with the id of a task whose objects changed.

    `found` is called instead if a list shows what no watch had told; by default it is the same.
    `slim` makes of an object what is worth its memory; it must keep the metadata, or at least its name,
    resourceVersion and (if it does not add that itself) the label of the task.
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
        self._failures = 0  # since the last sign of life
        self._said = ""  # of the last of them
        self.cache = Cache()
        self.synced = asyncio.Event()

    async def run(self) -> None:
        """For ever."""
        while True:
            try:
                await self._follow(await self._list())
            except (KubeError, TimeoutError, ListAgain) as error:
                self._failed(str(error))
                await asyncio.sleep(self._backoff())

    def _failed(self, error: str) -> None:
        """What lasts, as a right that is missing does, is said aloud once."""
        again = self._failures > 0 and error == self._said
        self._failures, self._said = self._failures + 1, error
        level = logging.DEBUG if again else logging.WARNING
        logger.log(level, "listing again", extra={"collection": self._collection, "error": error})

    async def _list(self) -> str:
        """Read everything and compare it with the cache; the resourceVersion to watch from."""
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
            _tell(self._found, self.cache.remove(name))
        for item in items.values():
            self._keep(item)
        self.synced.set()
        logger.info("listed", extra={"collection": self._collection, "objects": len(items)})
        return str(metadata["resourceVersion"])

    def _keep(self, item: Object) -> None:
        """One that nobody can read must not keep the others from being known."""
        try:
            slim = self._slim(item)
        except _UNREADABLE as reason:
            about = {"collection": self._collection, "object": item["metadata"]["name"]}
            logger.error("unreadable object", extra={**about, "error": repr(reason)})  # noqa: TRY400
            return
        _tell(self._found, self.cache.put(slim))

    async def _follow(self, version: str) -> None:
        """Watch from `version` on, again and again, until it is time for a list.

        Raise ListAgain, KubeError or TimeoutError.
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
                except TimeoutError:
                    logger.warning("silent watch", extra={"collection": self._collection})
            if version == before and loop.time() - began < self._times.shortest:
                raise ListAgain("a watch ended as soon as it began")
            self._failures = 0

    def _take_event(self, line: bytes) -> str:
        """Apply one event; its resourceVersion. Raise ListAgain, KubeError."""
        try:
            event = json.loads(line)
            kind, item = event["type"], event["object"]
            if kind != "ERROR":
                return self._apply(kind, item)
            error = KubeError(item.get("code") or 0, item.get("reason") or "", item.get("message") or "")
        except _UNREADABLE as reason:
            raise ListAgain(f"unreadable event ({reason!r}): {line[:200]!r}") from reason
        raise error

    def _apply(self, kind: str, item: Object) -> str:
        version = str(item["metadata"]["resourceVersion"])
        match kind:
            case "ADDED" | "MODIFIED":
                _tell(self._changed, self.cache.put(self._slim(item)))
            case "DELETED":
                _tell(self._changed, self.cache.remove(item["metadata"]["name"], self._slim(item)))
            case "BOOKMARK":
                pass
            case _:
                raise ValueError(f"event of type {kind!r}")
        return version

    def _backoff(self) -> float:
        return _jittered(self._failures, self._times.backoff, self._times.max_backoff)


class WorkQueue(Generic[_Key]):
    """Keys that wait for work. A key is there once, and with one worker at a time: one that is added while
    it is worked on comes again afterwards."""

    def __init__(self, *, backoff: float = 1.0, max_backoff: float = 300.0) -> None:
        self._backoff = backoff
        self._max_backoff = max_backoff
        self._ready: deque[_Key] = deque()
        self._waiting: set[_Key] = set()  # in _ready, or to be put there when its worker is done
        self._active: set[_Key] = set()
        self._timers: dict[_Key, asyncio.TimerHandle] = {}
        self._failures: dict[_Key, int] = {}
        self._some = asyncio.Semaphore(0)

    def __len__(self) -> int:
        return len(self._ready)

    def __contains__(self, key: _Key) -> bool:
        return key in self._waiting

    def add(self, key: _Key) -> None:
        if key in self._waiting:
            return
        self._waiting.add(key)
        if key not in self._active:
            self._push(key)

    def add_after(self, key: _Key, seconds: float) -> None:
        """The earlier of two times counts."""
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= loop.time() + seconds:
                return
            timer.cancel()
        self._timers[key] = loop.call_later(seconds, self._due, key)

    async def get(self) -> _Key:
        """Wait for a key; say `done` or `failed` afterwards."""
        await self._some.acquire()
        key = self._ready.popleft()
        self._waiting.discard(key)
        self._active.add(key)
        return key

    def done(self, key: _Key) -> None:
        self._failures.pop(key, None)
        self._release(key)

    def failed(self, key: _Key) -> float:
        """Try again later; the seconds until then."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        seconds = _jittered(failures, self._backoff, self._max_backoff)
        self.add_after(key, seconds)
        self._release(key)
        return seconds

    def close(self) -> None:
        """Stop the timers."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _due(self, key: _Key) -> None:
        del self._timers[key]
        self.add(key)

    def _release(self, key: _Key) -> None:
        self._active.discard(key)
        if key in self._waiting:
            self._push(key)

    def _push(self, key: _Key) -> None:
        self._ready.append(key)
        self._some.release()


def _tell(whom: Callable[[str], None], task_id: str | None) -> None:
    if task_id is not None:
        whom(task_id)


def newest(items: Iterable[Object]) -> Object | None:
    """The object that was made last, or None."""
    return max(items, key=_age, default=None)


def _age(item: Object) -> tuple[str, str]:
    return item["metadata"].get("creationTimestamp") or "", _uid(item)


def _jittered(failures: int, first: float, longest: float) -> float:
    """Seconds to wait after so many failures in a row: doubling, and never in step with others."""
    doubled = first * 2.0 ** min(max(failures - 1, 0), 16)
    return float(min(longest, doubled) * random.uniform(0.5, 1.0))  # noqa: S311 - not a secret


def _list_metadata(page: Object) -> Mapping[str, Any]:
    """Raise KubeError for what is no list of objects."""
    metadata, items = page.get("metadata"), page.get("items") or []
    if not isinstance(metadata, dict) or "resourceVersion" not in metadata or not isinstance(items, list):
        raise KubeError(0, "NotAList", json.dumps(page)[:200])
    if not all(isinstance(item, dict) and "name" in (item.get("metadata") or ()) for item in items):
        raise KubeError(0, "NotAList", "an item has no name")
    return metadata


def _task_id(item: Object) -> str | None:
    labels: Mapping[str, str] = item["metadata"].get("labels") or {}
    return labels.get(TASK_LABEL)


def _uid(item: Object) -> str:
    return str(item["metadata"].get("uid"))


def _version(item: Object) -> str:
    return str(item["metadata"].get("resourceVersion"))
