"""Count the tasks that reconciliation repairs. Pure.

A task is `found` by a comparison with the cluster, and `observed` by a watch. An action on a task that was
only found repairs what the watches missed. In normal operation there is none.
"""

import asyncio
from collections.abc import Iterable


class Reconciliation:
    """One round after the other. A round ends when each of its tasks has been processed."""

    def __init__(self) -> None:
        self._found: set[str] = set()
        self._unprocessed: set[str] = set()
        self._complete = asyncio.Event()
        self._repaired = 0

    def found(self, task_id: str) -> None:
        """Note that a comparison found the task."""
        self._found.add(task_id)

    def observed(self, task_id: str) -> None:
        """Note that a watch reported the task, so a comparison was not needed."""
        self._found.discard(task_id)

    def take(self, task_id: str) -> bool:
        """Return whether the task, which is now processed, was only found by a comparison."""
        found = task_id in self._found
        self._found.discard(task_id)
        return found

    def processed(self, task_id: str, *, repaired: bool = False) -> None:
        """Note that the task was processed."""
        self._repaired += repaired
        self._unprocessed.discard(task_id)
        if not self._unprocessed:
            self._complete.set()

    async def round(self, task_ids: Iterable[str]) -> int:
        """Wait until all have been processed. Return the number of tasks repaired since the last round."""
        self._unprocessed = set(task_ids)
        self._complete.clear()
        if self._unprocessed:
            await self._complete.wait()
        repaired, self._repaired = self._repaired, 0
        return repaired
