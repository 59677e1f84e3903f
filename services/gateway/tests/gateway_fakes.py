"""A client of the gateway, and a database in memory."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import aiohttp

from poiesis_gateway.config import Config
from poiesis_gateway.reports_db import Result
from poiesis_gateway.tls import Certificate
from poiesis_models.report import Report, ReportResponse
from poiesis_models.states import TesState

TOKEN = "the-recorder's-token"
TASK = uuid4()


def report_of(pod_uid: str = "pod-1", **fields: Any) -> str:
    return Report(pod_uid=pod_uid, pod_name="poiesis-x", node="node-1", **fields).to_json()


RUNNING = Result(
    response=ReportResponse(state=TesState.RUNNING, cancel_requested=False, ended=False), closed=False
)
CLOSED = Result(
    response=ReportResponse(state=TesState.COMPLETE, cancel_requested=False, ended=True), closed=True
)


@dataclass
class FakeDatabase:
    """Accepts TOKEN for any task. `gate`: reports wait for it. `result`, `error`: of each report."""

    result: Result | None = RUNNING
    access_result: Result = RUNNING
    error: Exception | None = None
    gate: asyncio.Event | None = None
    bodies: list[bytes] = field(default_factory=list)
    checks: int = 0
    concurrent: int = 0

    async def access(self, task_id: UUID, token: str) -> Result | None:
        assert isinstance(task_id, UUID)
        self.checks += 1
        return self.access_result if token == TOKEN else None

    async def report(self, task_id: UUID, token: str, body: bytearray) -> Result | None:
        assert isinstance(task_id, UUID)
        assert token == TOKEN
        self.bodies.append(bytes(body))
        self.concurrent += 1
        try:
            if self.gate is not None:
                await self.gate.wait()
        finally:
            self.concurrent -= 1
        if self.error is not None:
            raise self.error
        return self.result


@dataclass
class Response:
    status: int
    json: Any
    headers: Any


class Gateway:
    """A running gateway, and a client that trusts its certificate."""

    def __init__(self, config: Config, certificate: Certificate, trust: ssl.SSLContext) -> None:
        self.config, self.certificate, self.trust = config, certificate, trust
        self.stop = asyncio.Event()
        self._session: aiohttp.ClientSession | None = None

    @property
    def url(self) -> str:
        return f"https://localhost:{self.config.port}"

    @asynccontextmanager
    async def session(self) -> AsyncIterator[None]:
        connector = aiohttp.TCPConnector(ssl=self.trust, limit=0)
        async with aiohttp.ClientSession(connector=connector) as self._session:
            yield

    async def until_ready(self) -> None:
        async with asyncio.timeout(20):
            while True:
                try:
                    _, writer = await self.raw()
                except OSError:
                    await asyncio.sleep(0.01)
                else:
                    writer.close()
                    await writer.wait_closed()
                    return

    async def post(
        self, body: Any = None, *, task: object = TASK, token: str | None = TOKEN, **headers: str
    ) -> Response:
        assert self._session is not None
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            given["Authorization"] = f"Bearer {token}"
        content = report_of() if body is None else body
        async with self._session.post(
            f"{self.url}/v1/tasks/{task}/report",
            data=content.encode() if isinstance(content, str) else content,
            headers={"Content-Type": "application/json", **given},
        ) as response:
            return Response(response.status, json.loads(await response.text()), response.headers)

    async def health(self, path: str) -> tuple[int, str]:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://localhost:{self.config.health_port}{path}") as response,
        ):
            return response.status, await response.text()

    async def metric(self, name: str) -> float:
        _, text = await self.health("/metrics")
        return next(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))

    async def raw(self, *, tls: bool = True) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection by hand."""
        options = {"ssl": self.trust, "server_hostname": "localhost"} if tls else {}
        return await asyncio.open_connection("localhost", self.config.port, **options)


async def until(condition: Any) -> None:
    """Wait until a condition (a function, perhaps a coroutine function) holds."""
    async with asyncio.timeout(20):
        while True:
            held = condition()
            if await held if asyncio.iscoroutine(held) else held:
                return
            await asyncio.sleep(0.01)
