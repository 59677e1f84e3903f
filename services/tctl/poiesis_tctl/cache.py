"""A cache of Kubernetes objects by task, and the last state of those that vanished."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from poiesis_kube.client import Object
from poiesis_models.labels import TASK_LABEL


class Cache:
    """Objects of one kind by task, and per task the last one that vanished."""

    def __init__(self) -> None:
        self._tasks: dict[str, dict[str, Object]] = {}
        self._names: dict[str, str] = {}  # object name -> task id, in case a label is changed
        self._gone: dict[str, Object] = {}

    def current(self, task_id: str) -> Object | None:
        """Return the newest object of the task: after a requeue an old one may still be terminating."""
        return newest(self._tasks.get(task_id, {}).values())

    def of(self, task_id: str) -> Sequence[Object]:
        """Return all objects of the task, unordered."""
        return tuple(self._tasks.get(task_id, {}).values())

    def gone(self, task_id: str) -> Object | None:
        """Return the last known state of the task's object that vanished last."""
        return self._gone.get(task_id)

    def forget_gone(self, task_id: str) -> None:
        """Free the memory of the object that vanished."""
        self._gone.pop(task_id, None)

    def tasks(self) -> Iterator[str]:
        """Yield the ids of all tasks that have an object."""
        yield from list(self._tasks)

    def names(self) -> frozenset[str]:
        """Return the names of all objects."""
        return frozenset(self._names)

    def put(self, item: Object) -> str | None:
        """Add or replace an object. Return the task id, None if it has none or the object is unchanged."""
        name, task_id = item["metadata"]["name"], _task_id(item)
        if self._names.get(name, task_id) != task_id:
            self._take(name)
        if task_id is None:
            return None
        known = self._tasks.get(task_id, {}).get(name)
        if known is not None and _uid(known) != _uid(item):
            self._gone[task_id] = known  # deleted and created again under its name, without a DELETED event
        if known is not None and _version(known) == _version(item):
            return None
        self._tasks.setdefault(task_id, {})[name] = item
        self._names[name] = task_id
        return task_id

    def remove(self, name: str, last: Object | None = None) -> str | None:
        """Remove an object. Return the task id, None if the object was unknown. `last`: its final state."""
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


def newest(items: Iterable[Object]) -> Object | None:
    """Return the object that was created last, None without objects."""
    return max(items, key=_age, default=None)


def _age(item: Object) -> tuple[str, str]:
    return item["metadata"].get("creationTimestamp") or "", _uid(item)


def _task_id(item: Object) -> str | None:
    labels: Mapping[str, str] = item["metadata"].get("labels") or {}
    return labels.get(TASK_LABEL)


def _uid(item: Object) -> str:
    return str(item["metadata"].get("uid"))


def _version(item: Object) -> str:
    return str(item["metadata"].get("resourceVersion"))
