"""A small TES 1.1 client for stories, demo and benchmarks: typed JSON documents, and waiting.

It uses HTTP and the specification's field names, and does not depend on the services.
"""

import asyncio
import io
import json
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Literal, NotRequired, TypedDict

import aiohttp

State = Literal[
    "UNKNOWN",
    "QUEUED",
    "INITIALIZING",
    "RUNNING",
    "PAUSED",
    "COMPLETE",
    "EXECUTOR_ERROR",
    "SYSTEM_ERROR",
    "CANCELED",
    "PREEMPTED",
    "CANCELING",
]
View = Literal["MINIMAL", "BASIC", "FULL"]
FileType = Literal["FILE", "DIRECTORY"]

TERMINAL: frozenset[State] = frozenset(
    {"COMPLETE", "EXECUTOR_ERROR", "SYSTEM_ERROR", "CANCELED", "PREEMPTED"}
)
PATH = "/ga4gh/tes/v1"
POLL_SECONDS = 0.2


class Executor(TypedDict):
    """TES `tesExecutor`."""

    image: str
    command: list[str]
    workdir: NotRequired[str]
    stdin: NotRequired[str]
    stdout: NotRequired[str]
    stderr: NotRequired[str]
    env: NotRequired[dict[str, str]]
    ignore_error: NotRequired[bool]


class Input(TypedDict):
    """TES `tesInput`: `url` or `content`."""

    path: str
    url: NotRequired[str]
    content: NotRequired[str]
    type: NotRequired[FileType]
    streamable: NotRequired[bool]


class Output(TypedDict):
    """TES `tesOutput`: `path` may be a pattern; then `url` corresponds to `path_prefix`."""

    url: str
    path: str
    path_prefix: NotRequired[str]
    type: NotRequired[FileType]


class Resources(TypedDict, total=False):
    """TES `tesResources`; sizes in GB = 10**9 bytes."""

    cpu_cores: int
    ram_gb: float
    disk_gb: float
    preemptible: bool


class Document(TypedDict):
    """The body of a create."""

    executors: list[Executor]
    name: NotRequired[str]
    description: NotRequired[str]
    inputs: NotRequired[list[Input]]
    outputs: NotRequired[list[Output]]
    volumes: NotRequired[list[str]]
    resources: NotRequired[Resources]
    tags: NotRequired[dict[str, str]]


class ExecutorLog(TypedDict):
    """TES `tesExecutorLog` of an executor that has ended."""

    exit_code: int
    start_time: NotRequired[str]
    end_time: NotRequired[str]
    stdout: NotRequired[str]
    stderr: NotRequired[str]


class OutputFileLog(TypedDict):
    """TES `tesOutputFileLog`; the size is a string."""

    url: str
    path: str
    size_bytes: str


class TaskLog(TypedDict):
    """TES `tesTaskLog`: one attempt."""

    logs: list[ExecutorLog]
    outputs: list[OutputFileLog]
    metadata: NotRequired[dict[str, str]]
    start_time: NotRequired[str]
    end_time: NotRequired[str]
    system_logs: NotRequired[list[str]]


class Task(TypedDict):
    """TES `tesTask` as returned; smaller views omit fields."""

    id: str
    state: State
    name: NotRequired[str]
    executors: NotRequired[list[Executor]]
    inputs: NotRequired[list[Input]]
    outputs: NotRequired[list[Output]]
    tags: NotRequired[dict[str, str]]
    logs: NotRequired[list[TaskLog]]
    creation_time: NotRequired[str]


class TaskPage(TypedDict):
    """TES `tesListTasksResponse`."""

    tasks: list[Task]
    next_page_token: NotRequired[str]


class TesError(Exception):
    """The server returned a status other than 200."""

    def __init__(self, method: str, url: str, status: int, body: str) -> None:
        super().__init__(f"{method} {url}: {status} {body[:2000]}")
        self.status = status
        self.body = body


class StillWaiting(TimeoutError):
    """A task did not reach one of the expected states in time."""

    def __init__(self, task_id: str, seconds: float, history: "History", task: Task) -> None:
        super().__init__(
            f"task {task_id}: {history} after {seconds:.0f} s; its logs: {task.get('logs')}",
        )


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A state and when (Unix time) a GET first showed it."""

    state: State
    at: float


@dataclass(kw_only=True)
class History:
    """The states that a client saw, without repetitions, each with its first time."""

    task_id: str
    seen: list[Seen] = field(default_factory=list)

    def note(self, state: State) -> bool:
        """Record `state` if it differs from the last one; return whether it does."""
        if self.seen and self.seen[-1].state == state:
            return False
        self.seen.append(Seen(state=state, at=time.time()))
        return True

    @property
    def state(self) -> State:
        """Return the last state."""
        return self.seen[-1].state

    @property
    def states(self) -> list[State]:
        """Return all states, in order."""
        return [seen.state for seen in self.seen]

    def at(self, state: State) -> float:
        """Return when `state` was first seen (Unix time). Raise KeyError if it was not."""
        for seen in self.seen:
            if seen.state == state:
                return seen.at
        raise KeyError(f"{state} was not seen: {self}")

    def __str__(self) -> str:
        start = self.seen[0].at if self.seen else 0.0
        return " > ".join(f"{seen.state} +{seen.at - start:.1f} s" for seen in self.seen)


class TesClient:
    """One TES server. `url` is its root (the specification's path is added); create it with `connect`."""

    def __init__(self, url: str, http: aiohttp.ClientSession) -> None:
        self.base = url.rstrip("/") + PATH
        self.created: list[str] = []
        self._http = http

    async def service_info(self) -> dict[str, Any]:
        """Send GET /service-info."""
        info: dict[str, Any] = await self._call("GET", "/service-info")
        return info

    async def create(self, document: Document) -> str:
        """Send POST /tasks; return the new task's id."""
        body = io.BytesIO(json.dumps(document).encode())  # a stream: contents may make it large
        headers = {"Content-Type": "application/json"}
        answer = await self._call("POST", "/tasks", data=body, headers=headers)
        task_id: str = answer["id"]
        self.created.append(task_id)
        return task_id

    async def get(self, task_id: str, view: View = "MINIMAL") -> Task:
        """Send GET /tasks/{id}."""
        task: Task = await self._call("GET", f"/tasks/{task_id}", params={"view": view})
        return task

    async def list_tasks(self, **filters: str | int | Collection[str]) -> TaskPage:
        """Send GET /tasks; return one page. `filters`: the specification's query parameters."""
        params = [
            (name, item)
            for name, value in filters.items()
            for item in ([value] if isinstance(value, str | int) else value)
        ]
        page: TaskPage = await self._call("GET", "/tasks", params=params)
        return page

    async def answers(self) -> bool:
        """Return whether eight concurrent requests succeed, so that every replica and its database works."""
        try:
            await asyncio.gather(*(self.list_tasks(page_size=1) for _ in range(8)))
        except (TesError, aiohttp.ClientError):
            return False
        return True

    async def cancel(self, task_id: str) -> dict[str, Any]:
        """Send POST /tasks/{id}:cancel."""
        answer: dict[str, Any] = await self._call("POST", f"/tasks/{task_id}:cancel")
        return answer

    async def wait(
        self,
        task_id: str,
        *,
        until: Collection[State] = TERMINAL,
        timeout: float = 300,  # noqa: ASYNC109 (it is part of the error's words)
        on_change: Callable[[Seen], None] | None = None,
        every: float = POLL_SECONDS,
    ) -> History:
        """Poll until the task is in one of `until`; raise StillWaiting after `timeout` seconds.

        An unexpected terminal state ends the wait too, because no state follows it.
        """
        history = History(task_id=task_id)
        deadline = time.monotonic() + timeout
        while True:
            state = await self._state(task_id)
            if state is not None and history.note(state) and on_change is not None:
                on_change(history.seen[-1])
            if state in until or state in TERMINAL:
                return history
            if time.monotonic() > deadline:
                raise StillWaiting(task_id, timeout, history, await self.get(task_id, "FULL"))
            await asyncio.sleep(every)

    async def _state(self, task_id: str) -> State | None:
        """Return the state; None if the server is unavailable (503): the caller polls again."""
        try:
            return (await self.get(task_id))["state"]
        except TesError as refused:
            if refused.status != HTTPStatus.SERVICE_UNAVAILABLE:
                raise
            return None

    async def run(self, document: Document, *, timeout: float = 300) -> Task:  # noqa: ASYNC109
        """Create a task, wait until it ends, and return it in the FULL view."""
        task_id = await self.create(document)
        await self.wait(task_id, timeout=timeout)
        return await self.get(task_id, "FULL")

    async def _call(self, method: str, path: str, **arguments: Any) -> Any:
        async with self._http.request(method, self.base + path, **arguments) as response:
            if response.status != 200:
                raise TesError(method, str(response.url), response.status, await response.text())
            return await response.json()


@asynccontextmanager
async def connect(
    url: str,
    *,
    token: str | None = None,
    user: tuple[str, str] | None = None,
    seconds: float = 30,
    keep_alive: bool = True,
) -> AsyncIterator[TesClient]:
    """Yield a client for the server at `url`. `user`: name and password. `seconds`: timeout per request.

    Without `keep_alive` each request opens a connection: an idle connection to a killed api would be reset.
    """
    credentials = aiohttp.encode_basic_auth(*user) if user else f"Bearer {token}" if token else None
    headers = {"Authorization": credentials} if credentials else {}
    timeout = aiohttp.ClientTimeout(total=seconds)
    connector = aiohttp.TCPConnector(force_close=not keep_alive)
    async with aiohttp.ClientSession(timeout=timeout, headers=headers, connector=connector) as http:
        yield TesClient(url, http)
