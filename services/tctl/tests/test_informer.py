"""The informer with an API server that injects faults."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest
from tctl_builders import TASK, pod
from tctl_fakes import FakeApi, client

from poiesis_kube.client import Object
from poiesis_models.backoff import Backoff
from poiesis_tctl.informer import Informer, WatchTimes

QUICK = Backoff(first=0.01, longest=0.05)
TIMES = WatchTimes(watch=5, silence=3.0, backoff=QUICK, shortest=0.05, page=500)
KEY = str(TASK)


class Watched:
    def __init__(self, api: FakeApi, informer: Informer, changed: list[str]) -> None:
        self.api = api
        self.informer = informer
        self.cache = informer.cache
        self.changed = changed

    async def until(self, true: Callable[[], bool]) -> None:
        await self.api.until(true)

    def phase(self, key: str = KEY) -> str | None:
        current = self.cache.current(key)
        return None if current is None else current["status"]["phase"]


@asynccontextmanager
async def watched(
    api: FakeApi, times: WatchTimes = TIMES, slim: Callable[[Object], Object] = lambda item: item
) -> AsyncIterator[Watched]:
    changed: list[str] = []
    async with client(api) as kube:
        informer = Informer(kube, kube.path("Pod"), changed=changed.append, times=times, slim=slim)
        task = asyncio.create_task(informer.run())
        try:
            yield Watched(api, informer, changed)
            assert not task.done()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_list_then_watch(fake_api):
    await fake_api.put("pods", pod())
    stranger = pod(name="x", uid="x")
    stranger["metadata"]["labels"] = {}
    await fake_api.put("pods", stranger)
    async with watched(fake_api) as w:
        await w.until(w.informer.synced.is_set)
        assert (w.changed, w.cache.names()) == ([KEY], {pod()["metadata"]["name"]})
        await fake_api.put("pods", pod(phase="Running"))
        await w.until(lambda: w.phase() == "Running")
        await fake_api.delete("pods", pod()["metadata"]["name"])
        await w.until(lambda: w.phase() is None)
        assert w.cache.gone(KEY)["status"]["phase"] == "Running"
        assert w.changed == [KEY] * 3
        assert len(fake_api.asked("GET", "pods")) == 1
        (watch,) = fake_api.asked("WATCH", "pods")
        assert watch["labelSelector"] == "poiesis.io/task"
        assert watch["allowWatchBookmarks"] == "true"
        assert watch["timeoutSeconds"] == "5"


async def test_watch_resumes_where_it_ended(fake_api):
    async with watched(fake_api, WatchTimes(watch=1, silence=3.0, shortest=0.05, backoff=QUICK)) as w:
        await w.until(lambda: fake_api.watches == 1)
        await fake_api.put("pods", pod())
        await fake_api.bookmark("pods")
        await w.until(lambda: len(fake_api.asked("WATCH", "pods")) >= 2)
        assert fake_api.asked("WATCH", "pods")[1]["resourceVersion"] == str(fake_api.version)
        assert len(fake_api.asked("GET", "pods")) == 1
        assert w.changed == [KEY]


@pytest.mark.parametrize(
    "fault",
    [
        "403", "500", "410", "410 in the stream", "500 in the stream", "garbage", "no JSON", "half a line",
        "hang up", "end",
    ],
)  # fmt: skip
async def test_list_after_a_fault_shows_missed_changes(fake_api, fault):
    await fake_api.put("pods", pod())
    other = uuid4()
    await fake_api.put("pods", pod(name="other", uid="other", task=other))
    fake_api.watch_faults.extend([fault] * 3)
    async with watched(fake_api) as w:
        await w.until(w.informer.synced.is_set)
        await fake_api.delete("pods", "other", silently=True)
        await fake_api.put("pods", pod(phase="Failed"), silently=True)
        await w.until(lambda: w.phase() == "Failed" and w.phase(str(other)) is None)
        assert w.cache.gone(str(other))["metadata"]["uid"] == "other"
        assert w.changed.count(str(other)) == 2
        await w.until(lambda: fake_api.watches == 1)
        await fake_api.put("pods", pod(phase="Running"))
        await w.until(lambda: w.phase() == "Running")


@pytest.mark.parametrize("faults", [["500"] * 3, ["403"] * 3, ["garbage"] * 3])
async def test_list_is_retried_until_it_succeeds(fake_api, faults):
    await fake_api.put("pods", pod())
    fake_api.list_faults.extend(faults)
    async with watched(fake_api) as w:
        await w.until(w.informer.synced.is_set)
        assert w.changed == [KEY]
        assert len(fake_api.asked("GET", "pods")) == 4


async def test_unreachable_api_server_is_retried(fake_api):
    async with client(fake_api) as kube:
        kube._client._base, base = "http://127.0.0.1:1", kube._client._base
        informer = Informer(kube, kube.path("Pod"), changed=lambda _: None, times=TIMES)
        task = asyncio.create_task(informer.run())
        await fake_api.until(lambda: informer._failures > 2)
        kube._client._base = base
        await fake_api.until(informer.synced.is_set)
        task.cancel()


async def test_silent_watch_is_resumed(fake_api):
    fake_api.watch_faults.append("silence")
    async with watched(fake_api, WatchTimes(watch=60, silence=0.2, backoff=QUICK, shortest=0.05)) as w:
        await w.until(lambda: fake_api.watches == 1)
        await fake_api.put("pods", pod())
        await w.until(lambda: w.changed == [KEY])
        assert len(fake_api.asked("GET", "pods")) == 1


async def test_expired_version_is_listed_again(fake_api):
    async with watched(fake_api, WatchTimes(watch=1, silence=3.0, backoff=QUICK, shortest=0.05)) as w:
        await w.until(lambda: fake_api.watches == 1)
        await fake_api.put("pods", pod(), silently=True)
        fake_api.forget()
        await w.until(lambda: w.changed == [KEY])


async def test_periodic_list_shows_missed_changes(fake_api):
    await fake_api.put("pods", pod())
    changed: list[str] = []
    found: list[str] = []
    times = WatchTimes(watch=5, relist=1.0, silence=3.0, shortest=0.05, backoff=QUICK)
    async with client(fake_api) as kube:
        informer = Informer(kube, kube.path("Pod"), changed=changed.append, found=found.append, times=times)
        task = asyncio.create_task(informer.run())
        await fake_api.until(lambda: fake_api.watches == 1)
        assert (found, changed) == ([KEY], [])
        await fake_api.put("pods", pod(phase="Running"))
        await fake_api.until(lambda: changed == [KEY])
        await fake_api.delete("pods", pod()["metadata"]["name"], silently=True)
        await fake_api.until(lambda: found == [KEY, KEY])
        await fake_api.until(lambda: len(fake_api.asked("GET", "pods")) >= 3)
        assert (informer.cache.current(KEY), changed) == (None, [KEY])
        assert {query["timeoutSeconds"] for query in fake_api.asked("WATCH", "pods")} == {"1"}
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_immediately_ending_watch_does_not_spin(fake_api):
    fake_api.watch_faults.extend(["end"] * 1000)
    times = WatchTimes(watch=5, silence=3.0, backoff=Backoff(first=0.2, longest=0.2), shortest=0.05)
    async with watched(fake_api, times) as w:
        await w.until(w.informer.synced.is_set)
        began = asyncio.get_running_loop().time()
        await w.until(lambda: len(fake_api.asked("WATCH", "pods")) >= 6)
        assert asyncio.get_running_loop().time() - began >= 0.4


async def test_large_collections_are_listed_in_pages(fake_api):
    tasks = [uuid4() for _ in range(1000)]
    for number, task in enumerate(tasks):
        await fake_api.put("pods", pod(name=f"p-{number}", uid=f"u-{number}", task=task), silently=True)
    async with watched(fake_api, WatchTimes(watch=5, silence=3.0, page=300)) as w:
        await w.until(w.informer.synced.is_set)
        assert sorted(w.cache.tasks()) == sorted(map(str, tasks))
        lists = fake_api.asked("GET", "pods")
        assert [one["limit"] for one in lists] == ["300"] * 4
        assert ["continue" in one for one in lists] == [False, True, True, True]


async def test_malformed_object_does_not_hide_the_others(fake_api):
    def phased(item: Object) -> Object:
        return {**item, "phase": item["status"]["phase"]}

    unreadable = pod(name="unreadable", uid="unreadable", task=uuid4())
    unreadable["status"] = None
    await fake_api.put("pods", unreadable)
    await fake_api.put("pods", pod())
    async with watched(fake_api, slim=phased) as w:
        await w.until(w.informer.synced.is_set)
        assert w.changed == [KEY]
        await fake_api.put("pods", {**unreadable, "spec": {}})
        await fake_api.put("pods", pod(phase="Running"))
        await w.until(lambda: w.phase() == "Running")


async def test_expired_page_restarts_the_list(fake_api):
    for number in range(4):
        await fake_api.put("pods", pod(name=f"p-{number}", uid=f"u-{number}", task=uuid4()))

    expired = iter([410])
    fake_api.refuse = lambda request: next(expired, None) if "continue" in request.query else None
    async with watched(fake_api, WatchTimes(watch=5, silence=3.0, page=2, backoff=QUICK)) as w:
        await w.until(w.informer.synced.is_set)
        assert len(w.cache.names()) == 4
        assert len(fake_api.asked("GET", "pods")) == 4


# The cache
