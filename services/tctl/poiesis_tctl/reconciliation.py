"""What comparing everything with the cluster has brought up that nobody had told of. Pure bookkeeping.

A task is `found` by a comparison and `told` of by a watch or a timer. What is done about one that was only
found mends what was missed; in the ordinary run there is nothing of that kind.
"""

import asyncio
from collections.abc import Iterable


class Reconciliation:
    """One round after the other; a round ends when each of its tasks has been looked at."""

    def __init__(self) -> None:
        self._found: set[str] = set()
        self._unlooked: set[str] = set()
        self._looked = asyncio.Event()
        self._mended = 0

    def found(self, task_id: str) -> None:
        """By comparison."""
        self._found.add(task_id)

    def told(self, task_id: str) -> None:
        """As it should be: then a comparison would not have been needed."""
        self._found.discard(task_id)

    def take(self, task_id: str) -> bool:
        """Whether the task that is now looked at was only found."""
        found = task_id in self._found
        self._found.discard(task_id)
        return found

    def looked(self, task_id: str, *, mended: bool = False) -> None:
        """It has been looked at."""
        self._mended += mended
        self._unlooked.discard(task_id)
        if not self._unlooked:
            self._looked.set()

    async def round(self, task_ids: Iterable[str]) -> int:
        """Wait until all have been looked at; the number of tasks mended since the last round."""
        self._unlooked = set(task_ids)
        self._looked.clear()
        if self._unlooked:
            await self._looked.wait()
        mended, self._mended = self._mended, 0
        return mended
