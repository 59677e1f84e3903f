"""The Secrets of one namespace, as the API server stores them, and what happens in between requests."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio.client import Configuration

from poiesis_kube.client import Client
from poiesis_kube.namespace import Namespace


class SecretServer:
    """`before_write` runs once, before the next write: another run of the program."""

    def __init__(self) -> None:
        self.secrets: dict[str, dict[str, Any]] = {}
        self.writes: list[str] = []
        self.before_write: Callable[[], None] | None = None
        self._version = 0

    def put(self, manifest: dict[str, Any]) -> None:
        self._version += 1
        stored = {**manifest, "metadata": {**manifest["metadata"], "resourceVersion": str(self._version)}}
        self.secrets[manifest["metadata"]["name"]] = stored

    def versions(self) -> dict[str, str]:
        return {name: one["metadata"]["resourceVersion"] for name, one in self.secrets.items()}

    async def handle(self, request: web.Request) -> web.StreamResponse:
        name = request.path.rpartition("/")[2]
        if request.method == "GET":
            found = self.secrets.get(name)
            return _status(404, "NotFound") if found is None else web.json_response(found)
        if self.before_write is not None:
            interruption, self.before_write = self.before_write, None
            interruption()
        body = await request.json()
        name = body["metadata"]["name"]
        if request.method == "POST":
            if name in self.secrets:
                return _status(409, "AlreadyExists")
        elif body["metadata"]["resourceVersion"] != self.versions().get(name):
            return _status(409, "Conflict")
        self.writes.append(name)
        self.put(body)
        return web.json_response(self.secrets[name])

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[Namespace]:
        app = web.Application()
        app.router.add_route("*", "/api/v1/namespaces/tes/secrets{rest:.*}", self.handle)
        server = TestServer(app)
        await server.start_server()
        configuration = Configuration()
        configuration.host = str(server.make_url("")).rstrip("/")
        try:
            async with aiohttp.ClientSession() as session:
                yield Namespace(Client(session, configuration), "tes")
        finally:
            await server.close()


def _status(code: int, reason: str) -> web.Response:
    return web.json_response({"kind": "Status", "code": code, "reason": reason}, status=code)
