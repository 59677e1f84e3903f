"""Read the run directories of this Pod's containers when inotify reports a change.

inotify sees the changes of other containers, because all mount the same file system. A slow scan makes up
for lost events and finds killed helpers: the release of a lock causes no event.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from asyncinotify import Inotify, Mask

from poiesis_models import runfiles
from poiesis_models.plan import PodPlan
from poiesis_models.runfiles import LOG_MARK_BYTES, RECORD_BYTES, ExitRecord, MalformedFile, Started
from poiesis_trec.facts import RunFiles
from poiesis_trec.helperlock import is_held
from poiesis_trec.progress import ProgressFile
from poiesis_trec.regular import Signature, read_regular, signature

logger = logging.getLogger(__name__)

STREAMS = (runfiles.STDOUT, runfiles.STDERR)

_ROOT_MASK = Mask.CREATE | Mask.MOVED_TO | Mask.ONLYDIR
_RUN_MASK = Mask.CREATE | Mask.MOVED_TO | Mask.MODIFY | Mask.ONLYDIR | Mask.DONT_FOLLOW
_EVENTS_AT_ONCE = 1024  # then a pause: an executor that creates files in a loop must not cost a core
_PAUSE_SECONDS = 0.05


class RunDirectory:
    """The directory of one container. `logs` has signatures: texts are read when they are reported.

    An exit record is used only after the helper has exited: before that, the executor may have written it.
    `unconfirmed`: there is an unused record, so the helper is about to exit or the executor forged it.
    """

    def __init__(self, path: Path, *, plan: PodPlan, log_bytes: int) -> None:
        self._path = path
        self._log_bytes = log_bytes
        self._progress = (
            ProgressFile(path / runfiles.PROGRESS, outputs=path.name in (*plan.outputs, *plan.rescues))
            if path.name not in plan.executors
            else None
        )
        self._started: Started | None = None
        self._started_seen: Signature | None = None
        self._exit: ExitRecord | None = None
        self._exit_seen: Signature | None = None
        self.files = RunFiles()
        self.unconfirmed = False
        self.logs: dict[str, Signature] = {}

    @property
    def outputs(self) -> tuple[runfiles.SentOutput, ...]:
        """Sent files that have been read and are not in Postgres yet."""
        return tuple(self._progress.pending.values()) if self._progress else ()

    def forget_outputs(self, stored: Sequence[runfiles.SentOutput]) -> None:
        """Drop outputs that are stored in Postgres."""
        if self._progress:
            self._progress.forget(stored)

    def refresh(self, *, check_lock: bool) -> None:
        """Read what has changed. `check_lock`: also check whether the helper still runs."""
        self._read_started()
        self._read_exit()
        record, gone = self._exit_record(check_lock=check_lock)
        progress = self._progress
        if progress is not None:
            progress.refresh()
        else:
            found = {name: signature(self._path / name) for name in STREAMS}
            self.logs = {name: seen for name, seen in found.items() if seen is not None}
        self.files = RunFiles(
            started=self._started,
            exit=record,
            failed=signature(self._path / runfiles.FAILED) is not None,
            skipped=signature(self._path / runfiles.SKIPPED) is not None,
            helper_gone=gone,
            moved_files=progress.files if progress else 0,
            moved_bytes=progress.bytes if progress else 0,
            warnings=tuple(progress.warnings) if progress else (),
            error=progress.error if progress else None,
            inputs=tuple(progress.inputs.values()) if progress else (),
            streaming=tuple(progress.streaming) if progress else (),
            streaming_since_ns=progress.streaming_since_ns if progress else None,
            caught_up=progress.caught_up if progress else True,
        )

    def log(self, stream: str) -> tuple[bytes, Signature] | None:
        """Return the content and the signature of the log file of a stream."""
        found = read_regular(self._path / stream, 2 * self._log_bytes + LOG_MARK_BYTES)
        if found is not None:
            self.logs[stream] = found[1]
        return found

    def _read_started(self) -> None:
        path = self._path / runfiles.STARTED
        seen = signature(path)
        if seen is None or seen == self._started_seen:
            return  # a container has started even if the file is removed later
        found = read_regular(path, RECORD_BYTES + 1)
        if found is None:
            return
        data, self._started_seen = found
        try:
            self._started = Started.parse(data)
        except MalformedFile as error:
            logger.warning("%s: ignoring malformed file: %s", path, error)
            self._started = self._started or Started(start_ns=max(seen.mtime_ns, 1))

    def _read_exit(self) -> None:
        path = self._path / runfiles.EXIT
        seen = signature(path)
        if seen is None:
            self._exit = self._exit_seen = None  # a filer that runs again
            return
        if seen == self._exit_seen:
            return
        found = read_regular(path, RECORD_BYTES + 1)
        if found is None:
            return
        data, self._exit_seen = found
        try:
            self._exit = ExitRecord.parse(data)
        except MalformedFile as error:
            logger.warning("%s: ignoring malformed file: %s", path, error)
            self._exit = None

    def _exit_record(self, *, check_lock: bool) -> tuple[ExitRecord | None, bool]:
        """Return the valid record, and whether the helper has exited without one."""
        if self._exit is None and not check_lock:
            self.unconfirmed = False
            return None, self.files.helper_gone
        held = is_held(self._path)
        if held is False:
            self._read_exit()  # the helper may have written it between the first look and the lock
        self.unconfirmed = held is True and self._exit is not None
        gone = held is False and self._started is not None and self._exit is None
        return None if held is True else self._exit, gone


class RunDirectories:
    """The directories of all containers. `changed` is set when one may have changed."""

    def __init__(self, root: Path, plan: PodPlan, log_bytes: int, changed: asyncio.Event) -> None:
        self._root = root
        self._changed = changed
        self._directories = {
            name: RunDirectory(root / name, plan=plan, log_bytes=log_bytes)
            for name in (*plan, *plan.streams, *plan.rescues)
        }
        self._streams = frozenset(plan.streams)
        self._dirty = set(self._directories)
        self._watched: set[str] = set()

    def __getitem__(self, name: str) -> RunDirectory:
        return self._directories[name]

    @property
    def files(self) -> Mapping[str, RunFiles]:
        """The content of the directories by container."""
        return {name: directory.files for name, directory in self._directories.items()}

    @property
    def unconfirmed(self) -> bool:
        """Return whether to check again soon: the release of a lock causes no event."""
        return any(directory.unconfirmed for directory in self._directories.values())

    def refresh(self, *, everything: bool) -> None:
        """Read changed and unconfirmed directories; `everything`: read all, and check the helpers' locks."""
        unconfirmed = {name for name, directory in self._directories.items() if directory.unconfirmed}
        names = set(self._directories) if everything else self._dirty | unconfirmed
        self._dirty = set()
        # Last and always: an executor that got an end of file ended after the stream reported why.
        for name in (*(names - self._streams), *self._streams):
            self._directories[name].refresh(check_lock=everything)

    def outputs_stored(self, name: str, stored: Sequence[runfiles.SentOutput]) -> None:
        """Drop outputs that are stored in Postgres, so that the next ones are read."""
        self._directories[name].forget_outputs(stored)
        self._dirty.add(name)
        self._changed.set()

    async def follow(self) -> None:
        """Set `changed` on every event. Without inotify, only the scan finds changes."""
        try:
            inotify = Inotify(cache_size=64)
        except OSError as error:  # each user has a limit of instances, shared with the node's other programs
            logger.warning("no inotify (%s): changes are found by scanning only", error)
            return
        with inotify:
            await self._follow(inotify)

    async def _follow(self, inotify: Inotify) -> None:
        try:
            inotify.add_watch(self._root, _ROOT_MASK)  # before the first read, so that no change is missed
        except OSError as error:
            logger.warning("cannot watch %s (%s): changes are found by scanning only", self._root, error)
        self._watch_directories(inotify)
        count = 0
        async for event in inotify:
            watch = event.watch
            if watch is not None and watch.path.parent == self._root and Mask.Q_OVERFLOW not in event.mask:
                self._dirty.add(watch.path.name)
            else:
                self._watch_directories(inotify)
            self._changed.set()
            count += 1
            if count % _EVENTS_AT_ONCE == 0:
                await asyncio.sleep(_PAUSE_SECONDS)

    def _watch_directories(self, inotify: Inotify) -> None:
        for name in self._directories.keys() - self._watched:
            try:
                inotify.add_watch(self._root / name, _RUN_MASK)
            except FileNotFoundError:
                continue  # the gate has not created it yet; the watch on the root reports it
            except OSError as error:
                logger.warning("cannot watch %s: %s", self._root / name, error)
            self._watched.add(name)
        self._dirty |= self._directories.keys()
        self._changed.set()
