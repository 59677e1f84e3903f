"""Stream the inputs of the work list: pour each into the FIFO that an executor reads in its place.

Reads POIESIS_WORK_LIST, whose inputs are files by S3 or HTTP with a FIFO at each `local`, and tells
progress.jsonl in POIESIS_RUN how far each is. A reader sees an end of file whatever the reason for it; so
that an input may be cut short is on disk before its FIFO is closed, and before its first byte for the case
that this process is killed.

Ends when told to, by SIGTERM. Exit 0: no reader was given less than it wanted. Exit 65: one may have been,
and an error says why. Exit 143: it was told to end while one read.
"""

import os
import select
import signal
import stat
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from poiesis_models import paths, runfiles, worklist
from poiesis_models.runfiles import MalformedFile
from poiesis_models.worklist import InputItem
from poiesis_tif.keys import at_either_key
from poiesis_tif.plan import Page, Stored, plan
from poiesis_tif.stage import Sources, sources_of
from poiesis_transfer import pool
from poiesis_transfer.config import Config
from poiesis_transfer.errors import Permanent, TransferError
from poiesis_transfer.filer import log_defect, read_work_list
from poiesis_transfer.files import Buffer
from poiesis_transfer.progress import Progress

_ENDED_WELL = {runfiles.STREAM_WHOLE, runfiles.STREAM_CLOSED}


class ReaderGone(Exception):
    """Nobody reads any more."""


class Ledger:
    """What has become of each input, on disk before it is known here. Any thread may call."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self._states: dict[str, str] = {}
        self._failed = False
        self._lock = threading.Lock()

    def note(self, path: str, state: str) -> None:
        """A state of `runfiles`."""
        with self._lock:
            self.progress.stream(path, state)
            self._states[path] = state

    def fail(self, items: Sequence[InputItem], message: str) -> None:
        """Who reads them may be given less than the whole."""
        with self._lock:
            self._failed = True
            self.progress.error(message)
        for item in items:
            self.note(item.path, runfiles.STREAM_FAILED)

    @property
    def exit_code(self) -> int:
        """If this process ends now."""
        with self._lock:
            if self._failed:
                return worklist.EXIT_PERMANENT
            pouring = runfiles.STREAM_BEGUN in self._states.values()
            return runfiles.SIGTERM_EXIT if pouring else worklist.EXIT_DONE


class Pipe:
    """The writing end of a FIFO, as `fetch` takes it."""

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
        """All bytes that were announced have been written."""
        return self._written == self._size

    def empty(self) -> None:
        """Nothing has been written: `fetch` does not begin anew after that."""

    def announce(self, size: int) -> None:
        """The reader will be given so many bytes."""
        self._size = size

    def write(self, data: Buffer, offset: int) -> None:
        """Block until the reader has taken most of it; raise ReaderGone."""
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
        """Of a pipe there are none left."""
        raise AssertionError(self.path)

    def keep(self, size: int | None = None, *, modified: float | None = None) -> None:
        """What was written is right."""
        del size, modified
        self.kept = True
        self._progress.file_done()


def serve(item: InputItem, ledger: Ledger, env: Mapping[str, str]) -> None:
    """Wait for a reader, then pour: once. Whoever opens the path a second time finds nothing there."""
    fd = _opened(item, ledger)
    if fd is None:
        return
    try:
        ledger.note(item.path, runfiles.STREAM_BEGUN)
        _take_away(item, ledger)
        _poured(fd, item, ledger, env)
    except Exception as failure:  # noqa: BLE001  # a defect of ours; its text might hold a signed URL
        log_defect(failure)
        ledger.fail([item], f"input {item.path}: a defect in the filer: {type(failure).__name__}")
    finally:
        os.close(fd)


def release(item: InputItem, ledger: Ledger) -> None:
    """Who opens the FIFO finds it empty, and does not wait for ever."""
    fd = _opened(item, ledger)
    if fd is not None:
        _take_away(item, ledger)
        os.close(fd)


def _opened(item: InputItem, ledger: Ledger) -> int | None:
    """The writing end, as soon as there is a reader. None if the executor has put the FIFO away."""
    try:
        fd = os.open(item.local, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    except OSError as error:
        ledger.fail([item], f"cannot stream the input {item.path}: {error.strerror}")
        return None
    if stat.S_ISFIFO(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    ledger.fail([item], f"cannot stream the input {item.path}: something else is in the place of its FIFO")
    return None


def _take_away(item: InputItem, ledger: Ledger) -> None:
    """A second reader would be given what the first has left."""
    try:
        Path(item.local).unlink(missing_ok=True)
    except OSError as error:
        ledger.progress.warning(
            f"the FIFO {item.path} cannot be removed ({error.strerror}): it must not be opened again"
        )


def _poured(fd: int, item: InputItem, ledger: Ledger, env: Mapping[str, str]) -> None:
    """Tell what became of it; the caller closes the FIFO after that."""
    pour = _Pour(fd, item, ledger.progress, env)
    gone = pour.run()
    if pour.failure is not None and (pour.pipe.is_full or not gone):
        ledger.fail([item], str(pour.failure))
    elif pour.pipe.kept:
        ledger.note(item.path, runfiles.STREAM_WHOLE)
    else:
        ledger.note(item.path, runfiles.STREAM_CLOSED)


class _Pour:
    """One input on its way into its FIFO, and an eye on whether anybody reads: a reader that goes while
    nothing comes would be noticed with the next byte only."""

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
        """Whether the reader went before the end."""
        try:
            hands = (self._download, self._watch)
            pool.for_each(hands, lambda work: work(), at_once=len(hands), interrupt=self._end_waits)
        except ReaderGone:
            return True
        finally:
            os.close(self._over)
        return False

    def _download(self) -> None:
        try:
            self._fetch()
        except TransferError as failure:
            self.failure = failure
        finally:
            os.eventfd_write(self._over, 1)

    def _fetch(self) -> None:
        config = Config.from_env(self._env)
        steps = plan([self._item])
        with ExitStack() as stack:
            sources = sources_of(config, steps, stack)
            self._interrupt = sources.interrupt
            match steps[0], sources:
                case Page() as step, Sources(web=web) if web is not None:
                    from poiesis_transfer.pages import fetch_page

                    fetch_page(web, step.url, self.pipe)
                case Stored() as step, Sources(s3=store) if store is not None:
                    at_either_key(step, lambda one: store.download(one.url, self.pipe), self._progress)
                case _:
                    raise Permanent(f"the input {self._item.path} has no URL to stream it from")

    def _watch(self) -> None:
        poller = select.poll()
        poller.register(self._fd, 0)  # POLLERR: no reader is left
        poller.register(self._over, select.POLLIN)
        if any(fd == self._fd for fd, _ in poller.poll()):
            raise ReaderGone

    def _end_waits(self) -> None:
        self._interrupt()


def main() -> int:
    """The exit code."""
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
    """One thread an input. `earlier`: paths that ended well in an earlier start, if this is not the first:
    of the others a reader may have been given a part, and nobody knows which."""
    if earlier is None:
        for item in items:
            _thread(serve, item, ledger, env)
        return
    left = [item for item in items if item.path not in earlier]
    if left:
        names = ", ".join(item.path for item in left)
        ledger.fail(
            left, f"the container that streams {names} was started again: what it had begun is cut short"
        )
    for item in left:
        _thread(release, item, ledger)


def _thread(work: Callable[..., None], *arguments: object) -> None:
    threading.Thread(target=work, args=arguments, daemon=True).start()


def ended_before(run: Path) -> frozenset[str] | None:
    """Paths that have ended well; None if nothing was ever begun in this run directory."""
    try:
        data = (run / runfiles.PROGRESS).read_bytes()
    except FileNotFoundError:
        return None
    try:
        told = runfiles.parse_progress(data)
    except MalformedFile:
        return frozenset()
    return frozenset(stream.path for stream in told.streams if stream.state in _ENDED_WELL)


if __name__ == "__main__":
    sys.exit(main())
