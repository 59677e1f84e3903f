"""A fake API server with paged lists, watches with a history that can expire, and injected faults."""

import asyncio
import copy
import json
import re
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any, Self

from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio.client import Configuration

from poiesis_kube.client import Client
from poiesis_tctl.kube import Kube

TASK_LABEL = "poiesis.io/task"
KINDS = ("pods", "jobs", "leases", "roles", "rolebindings", "events", "workloads")


def status(code: int, reason: str) -> dict[str, Any]:
    return {"kind": "Status", "code": code, "reason": reason, "message": f"{reason} (ordered by the test)"}


class FakeApi:
    """`watch_faults` and `list_faults` apply to one request each, of the kinds in `faulty`."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, dict[str, Any]]] = {kind: {} for kind in KINDS}
        self.version = 100
        self.oldest = 0  # a watch from before this gets a 410
        self.history: list[tuple[int, str, str, dict[str, Any]]] = []
        self.watch_faults: deque[str] = deque()
        self.list_faults: deque[str] = deque()
        self.faulty: frozenset[str] = frozenset({"pods", "jobs"})
        self.refuse: Callable[[web.Request], int | None] = lambda _: None
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.watches = 0  # that are open
        self.kueue: str | None = "v1beta1"  # the version of its API; None: there is no Kueue
        self.namespace = "tes"
        self.others: dict[str, FakeApi] = {}  # by namespace, each with objects and faults of its own
        self._changed = asyncio.Condition()
        self._snapshots: dict[str, tuple[int, list[dict[str, Any]]]] = {}
        self._closing = asyncio.Event()
        self.url = ""

    def add_namespace(self, name: str) -> "FakeApi":
        """Add a namespace, served at the same address."""
        other = FakeApi()
        other.namespace = name
        self.others[name] = other
        return other

    async def _close(self) -> None:
        self._closing.set()
        async with self._changed:
            self._changed.notify_all()
        for other in self.others.values():
            await other._close()

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[Self]:
        app = web.Application()
        app.router.add_route("*", "/{rest:.*}", self._handle)
        server = TestServer(app, shutdown_timeout=0.1)
        await server.start_server()
        self.url = str(server.make_url("")).rstrip("/")
        try:
            yield self
        finally:
            await self._close()
            await server.close()

    # What a test does to the cluster

    async def put(self, kind: str, item: dict[str, Any], *, silently: bool = False) -> dict[str, Any]:
        """Add or replace an object. `silently`: without a watch event."""
        name = item["metadata"]["name"]
        event = "MODIFIED" if name in self.objects[kind] else "ADDED"
        self.version += 1
        stored = copy.deepcopy(item)
        stored["metadata"]["resourceVersion"] = str(self.version)
        self.objects[kind][name] = stored
        if not silently:
            await self._send_event(kind, event, stored)
        return stored

    async def delete(self, kind: str, name: str, *, silently: bool = False) -> None:
        item = self.objects[kind].pop(name)
        self.version += 1
        item["metadata"]["resourceVersion"] = str(self.version)
        if not silently:
            await self._send_event(kind, "DELETED", item)

    async def bookmark(self, kind: str) -> None:
        self.version += 1
        await self._send_event(kind, "BOOKMARK", {"metadata": {"resourceVersion": str(self.version)}})

    def forget(self) -> None:
        """Let watches from earlier versions fail with 410 Gone."""
        self.oldest = self.version
        self.history.clear()

    async def until(self, true: Callable[[], bool], seconds: float = 10.0) -> None:
        """Wait until the condition is true. It is evaluated after each request and every 20 ms."""
        async with asyncio.timeout(seconds), self._changed:
            while not true():
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.02):
                        await self._changed.wait()

    def asked(self, method: str, kind: str) -> list[dict[str, str]]:
        """Return the queries of the requests so far. The method of a watch is `WATCH`."""
        return [query for verb, what, query in self.requests if (verb, what) == (method, kind)]

    async def _send_event(self, kind: str, event: str, item: dict[str, Any]) -> None:
        self.history.append((self.version, kind, event, copy.deepcopy(item)))
        async with self._changed:
            self._changed.notify_all()

    # What the client sees

    async def _handle(self, request: web.Request) -> web.StreamResponse:  # noqa: PLR0911, C901 - a routing table
        parts = request.path.strip("/").split("/")
        if "namespaces" not in parts:
            return self._group(parts)
        place = parts.index("namespaces")
        if parts[place + 1] in self.others:
            return await self.others[parts[place + 1]]._handle(request)
        assert parts[place + 1] == self.namespace
        kind, name = parts[place + 2], parts[place + 3] if len(parts) > place + 3 else None
        method = "WATCH" if request.query.get("watch") else request.method
        self.requests.append((method, kind, dict(request.query)))
        async with self._changed:
            self._changed.notify_all()
        code = self.refuse(request)
        if code is None and kind == "workloads" and parts[2] != self.kueue:
            code = 404
        if code is not None:
            return web.json_response(status(code, "Refused"), status=code)
        match method, name:
            case "WATCH", None:
                return await self._watch(request, kind)
            case "GET", None:
                return await self._list(request, kind)
            case "POST", None:
                return await self._create(kind, await request.json())
            case "GET", _:
                return self._answer(self.objects[kind].get(str(name)))
            case "PUT", _:
                return await self._replace(kind, await request.json())
            case "PATCH", _:
                return await self._patch(request, kind, str(name))
            case "DELETE", _:
                return await self._delete(request, kind, str(name))
        raise AssertionError(request)

    def _group(self, parts: list[str]) -> web.Response:
        assert parts == ["apis", "kueue.x-k8s.io"]
        return self._answer({"preferredVersion": {"version": self.kueue}} if self.kueue else None)

    def _answer(self, item: dict[str, Any] | None) -> web.Response:
        return web.json_response(item) if item else web.json_response(status(404, "NotFound"), status=404)

    def _selected(self, request: web.Request, items: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        label = request.query.get("labelSelector", "")
        fields = [one for one in request.query.get("fieldSelector", "").split(",") if one]
        key, _, value = label.partition("=")
        return [
            item
            for item in items
            if (not label or (item["metadata"].get("labels") or {}).get(key, "") == value or (not value))
            and all(_has_field(item, field) for field in fields)
        ]

    def _fault(self, faults: deque[str], kind: str) -> str | None:
        return faults.popleft() if faults and kind in self.faulty else None

    async def _list(self, request: web.Request, kind: str) -> web.Response:
        fault = self._fault(self.list_faults, kind)
        if fault == "garbage":
            return web.json_response({"metadata": {}, "items": [{"metadata": {}}]})
        if fault is not None:
            return web.json_response(status(int(fault), "Refused"), status=int(fault))
        token = request.query.get("continue")
        if token:
            version, items = self._snapshots.pop(token)
        else:
            version, items = self.version, self._selected(request, self.objects[kind].values())
        limit = int(request.query.get("limit", "1000000"))
        metadata = {"resourceVersion": str(version)}
        if len(items) > limit:
            metadata["continue"] = f"{kind}-{version}-{len(items)}"
            self._snapshots[metadata["continue"]] = (version, items[limit:])
        return web.json_response({"kind": "List", "metadata": metadata, "items": items[:limit]})

    async def _create(self, kind: str, item: dict[str, Any]) -> web.Response:
        name = item["metadata"]["name"]
        if name in self.objects[kind]:
            return web.json_response(status(409, "AlreadyExists"), status=409)
        return web.json_response(await self.put(kind, item), status=201)

    async def _replace(self, kind: str, item: dict[str, Any]) -> web.Response:
        name = item["metadata"]["name"]
        known = self.objects[kind].get(name)
        if known is None:
            return self._answer(None)
        if known["metadata"]["resourceVersion"] != item["metadata"].get("resourceVersion"):
            return web.json_response(status(409, "Conflict"), status=409)
        return web.json_response(await self.put(kind, item))

    async def _patch(self, request: web.Request, kind: str, name: str) -> web.Response:
        assert request.content_type == "application/merge-patch+json"
        known, patch = self.objects[kind].get(name), await request.json()
        if known is None:
            return self._answer(None)
        if patch["metadata"]["uid"] != known["metadata"]["uid"]:
            return web.json_response(status(409, "Conflict"), status=409)
        return web.json_response(await self.put(kind, {**known, "spec": {**known["spec"], **patch["spec"]}}))

    async def _delete(self, request: web.Request, kind: str, name: str) -> web.Response:
        known, options = self.objects[kind].get(name), await request.json()
        if known is None:
            return self._answer(None)
        if options["preconditions"]["uid"] != known["metadata"]["uid"]:
            return web.json_response(status(409, "Conflict"), status=409)
        assert options["propagationPolicy"] == "Background"
        if kind == "pods":  # stays until its node has ended it and the Job controller has counted it
            return web.json_response(await self._terminate(known))
        await self.delete(kind, name)
        return web.json_response(known)

    async def _terminate(self, pod: dict[str, Any]) -> dict[str, Any]:
        if pod["metadata"].get("deletionTimestamp"):
            return pod
        grace = pod["spec"]["terminationGracePeriodSeconds"] if pod["spec"].get("nodeName") else 0
        deleted = {"deletionTimestamp": "2025-11-23T06:01:00Z", "deletionGracePeriodSeconds": grace}
        return await self.put("pods", {**pod, "metadata": {**pod["metadata"], **deleted}})

    async def _watch(self, request: web.Request, kind: str) -> web.StreamResponse:
        fault = self._fault(self.watch_faults, kind)
        if fault in {"403", "500", "410"}:
            return web.json_response(status(int(fault), "Refused"), status=int(fault))
        version = int(request.query["resourceVersion"])
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        self.watches += 1
        try:
            if fault == "410 in the stream" or version < self.oldest:
                await self._send(response, "ERROR", status(410, "Expired"))
            elif fault == "500 in the stream":
                await self._send(response, "ERROR", status(500, "InternalError"))
            elif fault == "garbage":
                await response.write(b'{"type": "ADDED", "object": null}\n')
            elif fault == "no JSON":
                await response.write(b"<html>\n")
            elif fault == "half a line":
                await response.write(b'{"type": "ADDED", "object": {"metad')
            elif fault == "hang up":
                await response.write(b'{"type": "ADDED"')
                assert request.transport is not None
                request.transport.abort()
            elif fault == "silence":
                await self._closing.wait()
            elif fault != "end":
                await self._stream(request, response, kind, version)
        finally:
            self.watches -= 1
        return response

    async def _stream(
        self, request: web.Request, response: web.StreamResponse, kind: str, version: int
    ) -> None:
        seconds = float(request.query["timeoutSeconds"])
        try:
            async with asyncio.timeout(seconds):
                while not self._closing.is_set():
                    news = [one for one in self.history if one[0] > version and one[1] == kind]
                    for version, _, event, item in news:  # noqa: B007, PLR1704
                        if event == "BOOKMARK" or self._selected(request, [item]):
                            await self._send(response, event, item)
                    await self._until_news(kind, version)
        except TimeoutError:
            return

    async def _until_news(self, kind: str, version: int) -> None:
        def has_news() -> bool:
            return self._closing.is_set() or any(
                number > version and of == kind for number, of, _, _ in self.history
            )

        async with self._changed:  # an event may have come while this waited for the lock
            await self._changed.wait_for(has_news)

    async def _send(self, response: web.StreamResponse, event: str, item: dict[str, Any]) -> None:
        # In two pieces: lines do not come in whole chunks.
        line = json.dumps({"type": event, "object": item}).encode() + b"\n"
        await response.write(line[:7])
        await response.write(line[7:])


def _has_field(item: dict[str, Any], selector: str) -> bool:
    path, operator, value = re.split("(!?=)", selector, maxsplit=1)
    found: Any = item
    for name in path.split("."):
        found = found[name]
    return (found == value) is (operator == "=")


@asynccontextmanager
async def client(api: FakeApi, namespace: str = "tes") -> AsyncIterator[Kube]:
    import aiohttp

    async with aiohttp.ClientSession() as session:
        yield Kube(Client(session, Configuration(host=api.url)), namespace)
