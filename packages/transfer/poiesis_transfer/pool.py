"""Many things at once, but not too many; one failure ends the rest. Standard library only.

Threads, because what they do is wait for sockets and disks, and neither needs an event loop. Work that lasts
asks `check` between its blocks whether it is still wanted, and waits by `wait`.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from poiesis_transfer.errors import Retryable, Permanent

CONCURRENCY = 16  # files, and requests that carry bytes
_LOOK_SECONDS = 0.25

_T = TypeVar("_T")
_END = object()


def slots() -> threading.BoundedSemaphore:
    """For `CONCURRENCY` requests; one of them for a whole filer."""
    return threading.BoundedSemaphore(CONCURRENCY)


class Cancelled(BaseException):
    """What the others of a group do has failed, or the filer has to end: this is not wanted any more."""


class _CancelScope:
    """Says to one group, and to those inside it, that nothing of it is wanted any more."""

    def __init__(self, above: "_CancelScope | None" = None) -> None:
        self.asked = threading.Event()
        self._inside: list[_CancelScope] = []
        self._lock = threading.Lock()
        if above is not None:
            above.adopt(self)

    def adopt(self, inside: "_CancelScope") -> None:
        """Asked already, or later: it is passed on."""
        with self._lock:
            self._inside.append(inside)
            if self.asked.is_set():
                inside.ask()

    def leave(self, inside: "_CancelScope") -> None:
        with self._lock:
            self._inside.remove(inside)

    def ask(self) -> None:
        self.asked.set()
        with self._lock:
            for halt in self._inside:
                halt.ask()


class _Here(threading.local):
    halt = _CancelScope()  # of whoever is in no group; nobody asks it


_HERE = _Here()


def check() -> None:
    """Raise Cancelled if the group that this thread works for has failed."""
    if _HERE.halt.asked.is_set():
        raise Cancelled


@contextmanager
def shielded() -> Iterator[None]:
    """For what has to be done although the group has failed: cleaning up."""
    halt, _HERE.halt = _HERE.halt, _CancelScope()
    try:
        yield
    finally:
        _HERE.halt = halt


def wait(seconds: float) -> None:
    """Wait so long; raise Cancelled as soon as the group fails."""
    if _HERE.halt.asked.wait(seconds):
        raise Cancelled


def nothing() -> None:
    """Where nobody waits for the network."""


def for_each(
    source: Iterable[_T],
    work: Callable[[_T], None],
    *,
    concurrency: int = CONCURRENCY,
    interrupt: Callable[[], None] = nothing,
) -> None:
    """Work on everything that `source` yields, which is asked for more only when a hand is free.

    The first failure stops the rest, and `interrupt` wakes those of them that wait for the network. Of
    several failures, one that cannot pass is raised before one that may.
    """
    above = _HERE.halt
    group = _Group(iter(source), work, _CancelScope(above), interrupt)
    try:
        group.start(concurrency)
        group.wait()
    except BaseException:  # a signal's
        group.stop()
        group.wait()
        raise
    finally:
        above.leave(group.halt)
    if group.failures:
        raise min(group.failures, key=_badness)
    check()


class _Group:
    def __init__(
        self,
        source: Iterator[_T],
        work: Callable[[_T], None],
        halt: _CancelScope,
        interrupt: Callable[[], None],
    ) -> None:
        self._source = source
        self._work = work
        self._interrupt = interrupt
        self._turn = threading.Lock()
        self._ended: list[threading.Event] = []
        self.halt = halt
        self.failures: list[BaseException] = []

    def start(self, concurrency: int) -> None:
        for _ in range(concurrency):
            ended = threading.Event()
            threading.Thread(target=self._worker, args=(ended,), daemon=True).start()
            self._ended.append(ended)

    def wait(self) -> None:
        """Until all hands have ended.

        Not by Thread.join: if a signal's handler raises there, CPython before 3.13 takes the thread for ended
        (gh-90882). Not without a timeout: a signal that comes after the GIL is given up and before the thread
        sleeps does not wake it, and its handler would run only when the work has ended by itself.
        """
        for ended in self._ended:
            while not ended.wait(_LOOK_SECONDS):
                pass

    def _worker(self, ended: threading.Event) -> None:
        _HERE.halt = self.halt
        try:
            while not self.halt.asked.is_set():
                with self._turn:
                    thing = next(self._source, _END)
                if thing is _END:
                    return
                self._work(thing)  # type: ignore[arg-type]  # _END is an object
        except Cancelled:
            return
        except BaseException as failure:  # noqa: BLE001  # raised by for_each
            self.failures.append(failure)
            self.stop()
        finally:
            ended.set()

    def stop(self) -> None:
        self.halt.ask()
        self._interrupt()


def _badness(failure: BaseException) -> int:
    if isinstance(failure, Retryable):
        return 2
    return 1 if isinstance(failure, Permanent) else 0
