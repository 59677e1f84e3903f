"""Stream the inputs of the work list: write each to the FIFO that an executor reads in its place.

Reads POIESIS_WORK_LIST, whose inputs are files at S3 or HTTP URLs with a FIFO at each `local`, and records
the state of each stream in progress.jsonl in POIESIS_RUN. A reader sees an end of file for any reason. So a
state that means "maybe incomplete" is on disk before the FIFO is closed, and also before the first byte, in
case this process is killed.

Runs until SIGTERM. Exit 0: no reader received less than it asked for. Exit 65: one may have, and an error
states why. Exit 143: SIGTERM arrived while a stream was read.
"""

import os
import select
import signal
import stat
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from poiesis_models import paths, runfiles, worklist
from poiesis_models.runfiles import MalformedFile
from poiesis_models.worklist import InputItem
from poiesis_tif.clients import Clients
from poiesis_tif.plan import plan
from poiesis_transfer import pool
from poiesis_transfer.config import Config
from poiesis_transfer.errors import Permanent, TransferError
from poiesis_transfer.filer import log_defect, read_work_list
from poiesis_transfer.files import Buffer
from poiesis_transfer.progress import Progress

_ENDED_WELL = {runfiles.STREAM_WHOLE, runfiles.STREAM_CLOSED}


class ReaderGone(Exception):
    """The FIFO has no reader any more."""


class Ledger:
    """The state of each stream. It is on disk before it is visible here. Any thread may call."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self._states: dict[str, str] = {}
        self._failed = False
        self._lock = threading.Lock()

    def note(self, path: str, state: str) -> None:
        """Record a state, one of `runfiles.STREAM_*`."""
        with self._lock:
            self.progress.stream(path, state)
            self._states[path] = state

    def fail(self, items: Sequence[InputItem], message: str) -> None:
        """Record that readers of `items` may receive less than the whole."""
        with self._lock:
            self._failed = True
            self.progress.error(message)
        for item in items:
            self.note(item.path, runfiles.STREAM_FAILED)

    @property
    def exit_code(self) -> int:
        """Return the exit code for a process that ends now."""
        with self._lock:
            if self._failed:
                return worklist.EXIT_PERMANENT
            streaming = runfiles.STREAM_BEGUN in self._states.values()
            return runfiles.SIGTERM_EXIT if streaming else worklist.EXIT_DONE


class Pipe:
    """The write end of a FIFO, as a `fetch.Sink`."""

    in_order = True

    def __init__(self, fd: int, path: str, progress: Progress) -> None:
        self._fd = fd
        self._progress = progress
        self._size: int | None = None
        self._written = 0
        self.kept = False
        self.path = path

    @property
    def is_full(self) -> bool:
        """Whether all announced bytes have been written."""
        return self._written == self._size

    def empty(self) -> None:
        """Do nothing: `fetch` does not start again once bytes have been written in order."""

    def announce(self, size: int) -> None:
        """Set the number of bytes that the reader will receive."""
        self._size = size

    def write(self, data: Buffer, offset: int) -> None:
        """Block until the reader has taken most of `data`. Raise ReaderGone."""
        if offset != self._written:
            raise AssertionError(offset, self._written)
        view = memoryview(data)
        while view:
            try:
                count = os.write(self._fd, view)
            except BrokenPipeError as error:
                raise ReaderGone from error
            view = view[count:]
            self._written += count
            self._progress.moved(count)

    def blocks(self) -> Iterator[bytes]:
        """Raise AssertionError: a pipe cannot be read again."""
        raise AssertionError(self.path)

    def keep(self, size: int | None = None, *, modified: float | None = None) -> None:
        """Accept what was written as complete and correct."""
        del size, modified
        self.kept = True
        self._progress.file_done()


def serve(item: InputItem, ledger: Ledger, env: Mapping[str, str]) -> None:
    """Wait for a reader, then stream the input once. The FIFO is removed, so no second reader can open it."""
    fd = _opened(item, ledger)
    if fd is None:
        return
    try:
        ledger.note(item.path, runfiles.STREAM_BEGUN)
        _remove_fifo(item, ledger)
        _stream(fd, item, ledger, env)
    except Exception as failure:  # noqa: BLE001  # our own bug; its text may contain a signed URL
        log_defect(failure)
        ledger.fail([item], f"input {item.path}: internal error in the filer: {type(failure).__name__}")
    finally:
        os.close(fd)


def release(item: InputItem, ledger: Ledger) -> None:
    """Give a reader of the FIFO an end of file, so that it does not block indefinitely."""
    fd = _opened(item, ledger)
    if fd is not None:
        _remove_fifo(item, ledger)
        os.close(fd)


def _opened(item: InputItem, ledger: Ledger) -> int | None:
    """Wait for a reader and return the write end. None if the executor has removed the FIFO."""
    try:
        fd = os.open(item.local, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    except OSError as error:
        ledger.fail([item], f"cannot stream input {item.path}: {error.strerror}")
        return None
    if stat.S_ISFIFO(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    ledger.fail([item], f"cannot stream input {item.path}: its FIFO was replaced by another file")
    return None


def _remove_fifo(item: InputItem, ledger: Ledger) -> None:
    """A second reader would receive what the first has left."""
    try:
        Path(item.local).unlink(missing_ok=True)
    except OSError as error:
        ledger.progress.warning(
            f"cannot remove the FIFO {item.path} ({error.strerror}): it must not be opened again"
        )


def _stream(fd: int, item: InputItem, ledger: Ledger, env: Mapping[str, str]) -> None:
    """Write the input to the FIFO and record the outcome; the caller closes the FIFO after that."""
    stream = _Stream(fd, item, ledger.progress, env)
    gone = stream.run()
    if stream.failure is not None and (stream.pipe.is_full or not gone):
        ledger.fail([item], str(stream.failure))
    elif stream.pipe.kept:
        ledger.note(item.path, runfiles.STREAM_WHOLE)
    else:
        ledger.note(item.path, runfiles.STREAM_CLOSED)


class _Stream:
    """One input on its way to its FIFO.

    A second thread watches the reader: without it, the loss of a reader would be noticed only with the next
    byte from the store.
    """

    def __init__(self, fd: int, item: InputItem, progress: Progress, env: Mapping[str, str]) -> None:
        self._fd = fd
        self._item = item
        self._env = env
        self._progress = progress
        self._over = os.eventfd(0, os.EFD_CLOEXEC)
        self._interrupt = pool.nothing
        self.pipe = Pipe(fd, item.path, progress)
        self.failure: TransferError | None = None

    def run(self) -> bool:
        """Return whether the reader went away before the end."""
        try:
            workers = (self._download, self._watch)
            pool.for_each(workers, lambda work: work(), concurrency=len(workers), interrupt=self._end_waits)
        except ReaderGone:
            return True
        finally:
            os.close(self._over)
        return False

    def _download(self) -> None:
        try:
            self._read()
        except TransferError as failure:
            self.failure = failure
        finally:
            os.eventfd_write(self._over, 1)

    def _read(self) -> None:
        config = Config.from_env(self._env)
        step = plan([self._item])[0]
        with Clients(config) as clients:
            self._interrupt = clients.interrupt
            step.read(clients, self.pipe, self._progress)

    def _watch(self) -> None:
        poller = select.poll()
        poller.register(self._fd, 0)  # POLLERR: no reader is left
        poller.register(self._over, select.POLLIN)
        if any(fd == self._fd for fd, _ in poller.poll()):
            raise ReaderGone

    def _end_waits(self) -> None:
        self._interrupt()


def main() -> int:
    """Stream until SIGTERM and return the exit code."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # for `sigwait`; the threads inherit it
    run = Path(os.environ.get("POIESIS_RUN") or paths.RUN)
    earlier = ended_before(run)
    with Progress(run) as progress:
        ledger = Ledger(progress)
        try:
            work = read_work_list(Path(os.environ.get("POIESIS_WORK_LIST") or paths.WORK_LIST))
        except Permanent as failure:
            ledger.fail([], str(failure))
            return worklist.EXIT_PERMANENT
        begin(work.inputs, ledger, os.environ, earlier)
        signal.sigwait({signal.SIGTERM})
        return ledger.exit_code


def begin(
    items: Sequence[InputItem], ledger: Ledger, env: Mapping[str, str], earlier: frozenset[str] | None
) -> None:
    """Start one thread per input.

    `earlier`: the paths that an earlier start of this container completed, None at the first start. A reader
    of any other path may have received a part, so the others fail.
    """
    if earlier is None:
        for item in items:
            _thread(serve, item, ledger, env)
        return
    left = [item for item in items if item.path not in earlier]
    if left:
        names = ", ".join(item.path for item in left)
        ledger.fail(left, f"the container that streams {names} was restarted; these inputs are incomplete")
    for item in left:
        _thread(release, item, ledger)


def _thread(work: Callable[..., None], *arguments: object) -> None:
    threading.Thread(target=work, args=arguments, daemon=True).start()


def ended_before(run: Path) -> frozenset[str] | None:
    """Return the paths whose streams are complete; None if no stream was started in this run directory."""
    try:
        data = (run / runfiles.PROGRESS).read_bytes()
    except FileNotFoundError:
        return None
    try:
        recorded = runfiles.parse_progress(data)
    except MalformedFile:
        return frozenset()
    return frozenset(stream.path for stream in recorded.streams if stream.state in _ENDED_WELL)


if __name__ == "__main__":
    sys.exit(main())
