"""Run one process at a time, from one request to Postgres or Kubernetes to the next, as the test chooses.

Real code runs on a real event loop whose clock only the test moves. Every request waits at a gate. When the
gate opens, the request is executed alone; it may also fail, lose its response, or kill its process.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeVar

_Result = TypeVar("_Result")
_PROCESS: ContextVar["Process | None"] = ContextVar("process", default=None)


class Crash(BaseException):
    """The process is dead; its code must not catch this."""


class Fate(Enum):
    """The outcome of one request."""

    DONE = "done"
    FAILS = "fails"  # not executed
    LOST = "lost"  # executed, but its response is lost
    CRASH_BEFORE = "crash before"
    CRASH_AFTER = "crash after"


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time changes only with `now`."""

    def __init__(self) -> None:
        self.now = 1000.0
        super().__init__()
        self.set_task_factory(_remember)

    def time(self) -> float:
        return self.now

    @property
    def is_quiet(self) -> bool:
        """Return whether only an outside event or a timer can make progress."""
        return not self._ready  # type: ignore[attr-defined]


def _remember(loop: asyncio.AbstractEventLoop, coro: Any, **context: Any) -> "asyncio.Task[Any]":
    task: asyncio.Task[Any] = asyncio.Task(coro, loop=loop, **context)
    process = _PROCESS.get()
    if process is not None:
        process.tasks.append(task)
    return task


@dataclass(eq=False, kw_only=True)
class Gate:
    """A request that waits for its turn."""

    process: "Process"
    what: str
    opened: "asyncio.Future[Fate]"


@dataclass(eq=False, kw_only=True)
class Process:
    """A unit of failure: an api replica, a controller, a recorder."""

    name: str
    scheduler: "Scheduler"
    dead: bool = False
    tasks: "list[asyncio.Task[Any]]" = field(default_factory=list)

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> "asyncio.Task[Any]":
        """Run a coroutine, and all tasks that it starts, as part of this process."""
        context = copy_context()
        context.run(_PROCESS.set, self)
        task = context.run(self.scheduler.loop.create_task, work)
        task.set_name(name)
        return task

    def kill(self) -> None:
        """Kill the process: its memory is lost, and it sends no more requests."""
        self.dead = True
        for task in self.tasks:
            task.cancel()


class Scheduler:
    """The gates of all processes."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self._busy = 0
        self._idle = asyncio.Event()
        self.waiting: list[Gate] = []
        self.trace: list[str] = []

    async def request(
        self,
        process: Process,
        what: str,
        carry_out: Callable[[], Awaitable[_Result]],
        lost: Callable[[str], Exception],
    ) -> _Result:
        """Wait for the gate, then execute the request according to its fate."""
        fate = await self.gate(process, what, lost)
        self.begin()
        try:
            result = await carry_out()
        finally:
            self.end()
        self.after(process, fate, what, lost)
        return result

    async def gate(self, process: Process, what: str, lost: Callable[[str], Exception]) -> Fate:
        if process.dead:
            raise Crash
        gate = Gate(process=process, what=what, opened=self.loop.create_future())
        self.waiting.append(gate)
        try:
            fate = await gate.opened
        finally:
            if gate in self.waiting:
                self.waiting.remove(gate)
        if fate is Fate.CRASH_BEFORE:
            process.kill()
            raise Crash
        if fate is Fate.FAILS:
            raise lost(what)
        return fate

    def after(self, process: Process, fate: Fate, what: str, lost: Callable[[str], Exception]) -> None:
        if fate is Fate.CRASH_AFTER:
            process.kill()
            raise Crash
        if fate is Fate.LOST:
            raise lost(what)

    def begin(self) -> None:
        self._busy += 1
        self._idle.clear()

    def end(self) -> None:
        self._busy -= 1
        if not self._busy:
            self._idle.set()

    async def open(self, gate: Gate, fate: Fate) -> None:
        """Open a gate, and wait until all consequences have happened."""
        mark = "" if fate is Fate.DONE else f" [{fate.value}]"
        self.trace.append(f"{gate.process.name}: {gate.what}{mark}")
        self.waiting.remove(gate)
        gate.opened.set_result(fate)
        await self.settle()

    async def settle(self) -> None:
        """Wait until every process waits for a gate, an event, or a time."""
        for _ in range(3):
            await asyncio.sleep(0)
        while self._busy or not self.loop.is_quiet:
            if self._busy:
                await self._idle.wait()
            await asyncio.sleep(0)

    async def bury(self, process: Process) -> None:
        """Wait until all tasks of a dead process have ended."""
        for _ in range(50):
            left = [task for task in process.tasks if not task.done()]
            if not left:
                break
            for task in left:
                task.cancel()
            await self.settle()
        else:
            raise AssertionError(f"{process.name} does not die: {left}")
        for task in process.tasks:
            if not task.cancelled():
                task.exception()  # seen
        process.tasks.clear()
