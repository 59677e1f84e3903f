"""The controller's list of all Pods, and the list after a watch from a version that is too old."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager

from poiesis_kube.client import Object
from poiesis_tctl import decide
from poiesis_tctl.informer import Informer
from poiesis_tctl.kube import Kube

TOO_OLD = "1"  # a resourceVersion: the API server answers 410 Gone


class _Expiring:
    """A WatchApi whose first watch starts at a version that is too old. `ended`: when each list ended."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self.ended: asyncio.Queue[float] = asyncio.Queue()
        self.refused_at = 0.0

    async def list_page(self, collection: str, params: Mapping[str, str]) -> Object:
        page = await self._kube.list_page(collection, params)
        if not page["metadata"].get("continue"):
            self.ended.put_nowait(time.perf_counter())
        return page

    def watch(
        self, collection: str, params: Mapping[str, str], *, silence: float
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        if not self.refused_at:
            self.refused_at = time.perf_counter()
            params = {**params, "resourceVersion": TOO_OLD}
        return self._kube.watch(collection, params, silence=silence)


async def measure_lists(kube: Kube) -> tuple[float, float]:
    """Return the seconds of a first list, and from a 410 to the end of the next list, with its back-off."""
    api = _Expiring(kube)
    informer = Informer(api, kube.path("Pod"), changed=lambda _: None, slim=decide.slim_pod)
    start = time.perf_counter()
    run = asyncio.create_task(informer.run())
    try:
        first = await api.ended.get() - start
        return first, await api.ended.get() - api.refused_at
    finally:
        run.cancel()
