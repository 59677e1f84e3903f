"""A server in its own thread that sends the replies of a test and records the requests."""

import asyncio
import json
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web

from poiesis_cli.timing import Timing

BASE = "/ga4gh/tes/v1"
FAST = Timing(
    connect=2.0,
    request=20.0,
    first_delay=0.01,
    longest_delay=0.05,
    retry_for=1.0,
    retry_for_while_waiting=5.0,
    poll=0.01,
    longest_poll=0.02,
    device_interval=0.01,
    slow_down=0.2,
)


@dataclass(frozen=True)
class Reply:
    """A response; `body` is bytes or a JSON value. `hang`: respond only when the server stops."""

    body: Any = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    hang: bool = False
    cut: bool = False


@dataclass(frozen=True)
class Request:
    """One received request."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.body.decode()))


@dataclass
class FakeServer:
    """Replies by "METHOD path": each is used once, the last one of a path repeatedly."""

    url: str = ""
    requests: list[Request] = field(default_factory=list)
    on_request: Callable[[Request], None] = lambda _: None
    _replies: dict[str, deque[Reply]] = field(default_factory=lambda: defaultdict(deque))
    stopped: asyncio.Event = field(default_factory=asyncio.Event)

    def reply(self, route: str, *replies: Any) -> None:
        """Add replies to "GET /tasks/x": a path below the TES base, or from the root if it has `//`."""
        method, _, path = route.partition(" ")
        whole = path[1:] if path.startswith("//") else BASE + path
        self._replies[f"{method} {whole}"].extend(
            one if isinstance(one, Reply) else Reply(one) for one in replies
        )

    def requests_to(self, route: str) -> list[Request]:
        method, _, path = route.partition(" ")
        whole = path[1:] if path.startswith("//") else BASE + path
        return [one for one in self.requests if (one.method, one.path) == (method, whole)]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        query = {key: request.query.getall(key) for key in request.query}
        received = Request(
            request.method,
            request.raw_path.partition("?")[0],
            query,
            dict(request.headers),
            await request.read(),
        )
        self.requests.append(received)
        self.on_request(received)
        replies = self._replies.get(f"{received.method} {received.path}")
        if not replies:
            return web.json_response({"error": "no such page"}, status=404)
        reply = replies.popleft() if len(replies) > 1 else replies[0]
        if reply.hang:
            await self.stopped.wait()
        if reply.cut and request.transport is not None:
            request.transport.abort()
        body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        return web.Response(body=body, status=reply.status, headers=reply.headers)


@contextmanager
def serving() -> Iterator[FakeServer]:
    """Run a server on a free loopback port."""
    server = FakeServer()
    ready, loop = threading.Event(), asyncio.new_event_loop()

    async def main() -> None:
        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{path:.*}", server.handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        ready.set()
        await server.stopped.wait()
        await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=[main()])
    thread.start()
    ready.wait(10)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(server.stopped.set)
        thread.join(10)
        loop.close()


def task(state: str = "COMPLETE", *, task_id: str = "t1", **fields: Any) -> dict[str, Any]:
    """Return a task document."""
    return {"id": task_id, "state": state, "executors": [{"image": "busybox", "command": ["true"]}], **fields}


def attempt(*exit_codes: int | None, stdout: str = "", stderr: str = "", **fields: Any) -> dict[str, Any]:
    """Return a task log with one executor log for each exit code."""
    logs = [{"exit_code": code, "stdout": stdout, "stderr": stderr} for code in exit_codes]
    return {"logs": logs, "outputs": [], **fields}
