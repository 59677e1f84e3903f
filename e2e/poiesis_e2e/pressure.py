"""Helpers of stories about load: restarts of the api's Pods, and clients that read meanwhile."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from poiesis_e2e.kube import Kube
from poiesis_e2e.tes_client import TesClient


@dataclass(kw_only=True)
class Reads:
    """Durations (seconds) of reads with status 200, and the errors of the others."""

    seconds: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


async def restarts(kube: Kube, component: str = "api") -> dict[str, int]:
    """Return the restart count of each Pod of a component."""
    return {
        pod["metadata"]["name"]: sum(one["restartCount"] for one in pod["status"]["containerStatuses"])
        for pod in await kube.of_component("pods", component)
    }


@asynccontextmanager
async def reading(client: TesClient, *, every: float = 0.3) -> AsyncIterator[Reads]:
    """Read one page of tasks repeatedly in the meantime."""
    reads = Reads()

    async def read() -> None:
        while True:
            begun = time.monotonic()
            try:
                await client.list_tasks(page_size=1)
            except Exception as error:  # noqa: BLE001 (every kind of failure counts)
                reads.errors.append(repr(error))
            else:
                reads.seconds.append(time.monotonic() - begun)
            await asyncio.sleep(every)

    reader = asyncio.create_task(read())
    try:
        yield reads
    finally:
        reader.cancel()
        await asyncio.wait({reader})
