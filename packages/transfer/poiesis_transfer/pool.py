"""Bounded concurrency with threads; one failure cancels the rest. Standard library only.

The work waits for sockets and disks, so threads suffice and an event loop is not needed. Long work calls
`check` between its blocks, which raises Cancelled, and waits with `wait`.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from poiesis_transfer.errors import Permanent, Retryable

CONCURRENCY = 16  # concurrent files, and requests that transfer data
_POLL_SECONDS = 0.25

_T = TypeVar("_T")
_END = object()


def slots() -> threading.BoundedSemaphore:
    """Return a semaphore for `CONCURRENCY` requests, to be shared by a whole filer."""
    return threading.BoundedSemaphore(CONCURRENCY)


class Cancelled(BaseException):
    """Work of the same group has failed, or the filer stops: this work is no longer needed."""


class _CancelScope:
    """The cancellation of one group and of the groups inside it."""

    def __init__(self, above: "_CancelScope | None" = None) -> None:
        self.cancelled = threading.Event()
        self._inside: list[_CancelScope] = []
        self._lock = threading.Lock()
        if above is not None:
            above.adopt(self)

    def adopt(self, inside: "_CancelScope") -> None:
        """Pass a cancellation on to `inside`, at once or later."""
        with self._lock:
            self._inside.append(inside)
            if self.cancelled.is_set():
                inside.cancel()

    def leave(self, inside: "_CancelScope") -> None:
        with self._lock:
            self._inside.remove(inside)

    def cancel(self) -> None:
        self.cancelled.set()
        with self._lock:
            for scope in self._inside:
                scope.cancel()


class _Current(threading.local):
    scope = _CancelScope()  # of threads outside every group; it is never cancelled


_CURRENT = _Current()


def check() -> None:
    """Raise Cancelled if the group of this thread was cancelled."""
    if _CURRENT.scope.cancelled.is_set():
        raise Cancelled


@contextmanager
def shielded() -> Iterator[None]:
    """Run the block even if the group was cancelled; for clean-up."""
    scope, _CURRENT.scope = _CURRENT.scope, _CancelScope()
    try:
        yield
    finally:
        _CURRENT.scope = scope


def wait(seconds: float) -> None:
    """Wait for a number of seconds. Raise Cancelled as soon as the group is cancelled."""
    if _CURRENT.scope.cancelled.wait(seconds):
        raise Cancelled


def nothing() -> None:
    """Do nothing: the interrupt of work that does not wait for the network."""


def for_each(
    source: Iterable[_T],
    work: Callable[[_T], None],
    *,
    concurrency: int = CONCURRENCY,
    interrupt: Callable[[], None] = nothing,
) -> None:
    """Call `work` for everything that `source` yields, with `concurrency` threads.

    The next item is taken only when a thread is free. The first failure cancels the rest, and `interrupt`
    must end their waits for the network. If there are several failures, a permanent one is raised rather than
    a retryable one.
    """
    above = _CURRENT.scope
    group = _Group(iter(source), work, _CancelScope(above), interrupt)
    try:
        group.start(concurrency)
        group.wait()
    except BaseException:  # raised by a signal handler
        group.stop()
        group.wait()
        raise
    finally:
        above.leave(group.scope)
    if group.failures:
        raise min(group.failures, key=_rank)
    check()


class _Group:
    def __init__(
        self,
        source: Iterator[_T],
        work: Callable[[_T], None],
        scope: _CancelScope,
        interrupt: Callable[[], None],
    ) -> None:
        self._source = source
        self._work = work
        self._interrupt = interrupt
        self._turn = threading.Lock()
        self._ended: list[threading.Event] = []
        self.scope = scope
        self.failures: list[BaseException] = []

    def start(self, concurrency: int) -> None:
        for _ in range(concurrency):
            ended = threading.Event()
            threading.Thread(target=self._worker, args=(ended,), daemon=True).start()
            self._ended.append(ended)

    def wait(self) -> None:
        """Wait until all workers have ended.

        Thread.join is not used: if a signal handler raises in it, CPython before 3.13 considers the thread
        ended (gh-90882). The wait has a timeout: a signal that arrives after the GIL is released and before
        the thread sleeps does not wake it, so its handler would run only after the work.
        """
        for ended in self._ended:
            while not ended.wait(_POLL_SECONDS):
                pass

    def _worker(self, ended: threading.Event) -> None:
        _CURRENT.scope = self.scope
        try:
            while not self.scope.cancelled.is_set():
                with self._turn:
                    item = next(self._source, _END)
                if item is _END:
                    return
                self._work(item)  # type: ignore[arg-type]  # _END is an object
        except Cancelled:
            return
        except BaseException as failure:  # noqa: BLE001  # raised by for_each
            self.failures.append(failure)
            self.stop()
        finally:
            ended.set()

    def stop(self) -> None:
        self.scope.cancel()
        self._interrupt()


def _rank(failure: BaseException) -> int:
    if isinstance(failure, Retryable):
        return 2
    return 1 if isinstance(failure, Permanent) else 0
