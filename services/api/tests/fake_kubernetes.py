"""A small Kubernetes API server: stores objects, returns 409, collects garbage, and fails on request."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import uuid4

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio.client import Configuration

from poiesis_api.kube import Cluster, Kubernetes
from poiesis_kube.client import Answer, Client

KINDS = {
    "jobs": "Job",
    "serviceaccounts": "ServiceAccount",
    "secrets": "Secret",
    "persistentvolumeclaims": "PersistentVolumeClaim",
}
Manifest = dict[str, Any]


@dataclass(kw_only=True)
class Trouble:
    """What happens instead of the answer to `call`, so often. `status` None: the connection is dropped.

    `retry_after`: seconds, as the header of the response.
    """

    call: str
    status: int | None = None
    reason: str = "Unknown"
    message: str = ""
    times: int = 1
    retry_after: int | None = None
    after: bool = False  # the request is carried out all the same


@dataclass(kw_only=True)
class FakeKubernetes:
    """`calls`: method and kind of each request; `namespaces`: where.

    An object exists only in its namespace, but names are unique in the whole server. `happens` is called with
    each, before or after it is done.
    """

    client: Cluster = field(init=False)
    url: str = ""
    objects: dict[tuple[str, str], Manifest] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    namespaces: list[str] = field(default_factory=list)
    bodies: list[Any] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)
    before: Callable[[str], Any] | None = None
    after: Callable[[str], Any] | None = None
    store: Callable[[Manifest], Manifest] = lambda manifest: manifest
    observers: list[Callable[[Answer], None]] = field(default_factory=list)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    def fail(self, call: str, **trouble: Any) -> None:
        """`call`: such as "POST Job"."""
        self.troubles.append(Trouble(call=call, **trouble))

    def observe(self, answer: Answer) -> None:
        """Pass an answer on, as the client received it."""
        for observer in self.observers:
            observer(answer)

    def kubeconfig(self) -> Manifest:
        """For a process of its own."""
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "fake",
            "clusters": [{"name": "fake", "cluster": {"server": self.url}}],
            "users": [{"name": "fake", "user": {"token": "x"}}],
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
        }

    def of_kind(self, kind: str) -> list[Manifest]:
        """All stored objects of a kind."""
        return [manifest for (stored, _), manifest in self.objects.items() if stored == kind]

    async def until(self, call: str) -> None:
        """A request of this kind has been answered."""
        async with asyncio.timeout(60), self.changed:
            await self.changed.wait_for(lambda: call in self.calls)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Any request."""
        kind = KINDS[request.match_info["plural"]]
        call = f"{request.method} {kind}"
        text = await request.text() or "null"
        body = json.loads(text)
        if self.before is not None:
            await self.before(call)
        trouble = self._next_trouble(call)
        if trouble is not None and not trouble.after:
            return self._fail(request, call, trouble)
        namespace = request.match_info["namespace"]
        response = self._answer(request.method, kind, namespace, request.match_info.get("name"), body)
        if self.after is not None:
            await self.after(call)
        async with self.changed:
            self.calls.append(call)
            self.namespaces.append(namespace)
            self.bodies.append(json.loads(text))
            self.changed.notify_all()
        return self._fail(request, None, trouble) if trouble is not None else response

    def _next_trouble(self, call: str) -> Trouble | None:
        for trouble in self.troubles:
            if trouble.call == call and trouble.times > 0:
                trouble.times -= 1
                return trouble
        return None

    def _fail(self, request: web.Request, call: str | None, trouble: Trouble) -> web.StreamResponse:
        if call is not None:
            self.calls.append(call)
        if trouble.status is None:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        response = _status(trouble.status, trouble.reason, trouble.message)
        if trouble.retry_after is not None:
            response.headers["Retry-After"] = str(trouble.retry_after)
        return response

    def _answer(self, method: str, kind: str, namespace: str, name: str | None, body: Any) -> web.Response:
        if method == "POST":
            return self._create(kind, namespace, body)
        key = (kind, name or "")
        if key not in self.objects or self.objects[key]["metadata"]["namespace"] != namespace:
            return _status(404, "NotFound", f"{kind} {name!r} not found")
        if method == "PATCH":
            self.objects[key]["spec"] |= body["spec"]
        if method == "DELETE":
            return web.json_response(self._delete(key, body))
        return web.json_response(self.objects[key])

    def _create(self, kind: str, namespace: str, body: Manifest) -> web.Response:
        key = (kind, body["metadata"]["name"])
        if key in self.objects:
            return _status(409, "AlreadyExists", f"{kind} {key[1]!r} already exists")
        metadata = {**body["metadata"], "namespace": namespace, "uid": str(uuid4())}
        stored = self.store({**body, "metadata": metadata})
        self.objects[key] = stored
        return web.json_response(stored, status=201)

    def _delete(self, key: tuple[str, str], options: Manifest) -> Manifest:
        assert options["propagationPolicy"] == "Background"
        gone = self.objects.pop(key)
        uid = gone["metadata"]["uid"]
        for other, manifest in list(self.objects.items()):
            owners = manifest["metadata"].get("ownerReferences", [])
            if any(owner["uid"] == uid for owner in owners):
                del self.objects[other]
        return gone


def _status(status: int, reason: str, message: str) -> web.Response:
    return web.json_response(
        {"kind": "Status", "status": "Failure", "reason": reason, "message": message, "code": status},
        status=status,
    )


@asynccontextmanager
async def serve() -> AsyncIterator[FakeKubernetes]:
    """On a port of its own."""
    fake = FakeKubernetes()
    app = web.Application(client_max_size=16 * 1024 * 1024)
    for prefix in ("/api/v1", "/apis/batch/v1"):
        app.router.add_route("*", prefix + "/namespaces/{namespace}/{plural}", fake.handle)
        app.router.add_route("*", prefix + "/namespaces/{namespace}/{plural}/{name}", fake.handle)
    async with TestServer(app) as server:
        fake.url = str(server.make_url("")).rstrip("/")
        async with aiohttp.ClientSession() as session:
            api = Client(session, Configuration(host=fake.url), observe=fake.observe)
            fake.client = Cluster(partial(Kubernetes, api), "tasks")
            yield fake
