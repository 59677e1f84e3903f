"""progress.jsonl: what a filer has done, told line by line (filer contract v1). Standard library only."""

import json
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from poiesis_models import runfiles
from poiesis_models.worklist import FileType, InputItem
from poiesis_transfer.urls import printable

logger = logging.getLogger(__name__)

_INTERVAL_SECONDS = 1.0
_MESSAGE_CHARACTERS = 2000  # the longest line a reader takes is 16 KiB; JSON escapes make up to 6 of one
_MAX_WARNINGS = 100


class Progress:
    """Every event is one write of a whole line, so a reader never sees half of one for long.

    Any thread may call. A filer that is started again goes on in the same file: totals start again, outputs
    are named again.
    """

    def __init__(self, run: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._fd = os.open(
            run / runfiles.PROGRESS, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644
        )
        self._drop_half_line()
        self._files = self._bytes = self._warnings = 0
        self._told: tuple[int, int] | None = None
        self._told_at = clock()
        self._later: threading.Timer | None = None
        self._lock = threading.RLock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            try:
                self._tell()
            finally:
                os.close(self._fd)
                self._fd = -1
            if self._later is not None:
                self._later.cancel()

    def moved(self, count: int) -> None:
        """`count` bytes more; fewer when an attempt is given up and its bytes will come again."""
        with self._lock:
            self._bytes += count
            self._tell_sometimes()

    def file_done(self) -> None:
        """One file is whole at its place."""
        with self._lock:
            self._files += 1
            self._tell_sometimes()

    def sent(self, *, url: str, path: str, size_bytes: int) -> None:
        """One output file has been stored; `path` is the container's."""
        with self._lock:
            self._append(event="output", url=printable(url), path=printable(path), size_bytes=size_bytes)
            self.file_done()

    def found(self, item: InputItem, kind: FileType) -> None:
        """Report what an input is if its task does not state the type."""
        if item.type is None:
            with self._lock:
                self._append(event="input", path=printable(item.path), type=kind)

    def stream(self, path: str, state: str) -> None:
        """How far an input is that is streamed; `path` is the container's."""
        with self._lock:
            self._append(event="stream", path=printable(path), state=state)

    def warning(self, message: str) -> None:
        """The task goes on, but its owner should know. After a hundred, one line says there are more."""
        with self._lock:
            self._warnings += 1
            if self._warnings > _MAX_WARNINGS + 1:
                return
            if self._warnings == _MAX_WARNINGS + 1:
                message = f"more than {_MAX_WARNINGS} warnings; further warnings omitted"
            self._say("warning", message)

    def error(self, message: str) -> None:
        """Why the filer ends without having done its work."""
        self._say("error", message)

    def _say(self, event: str, message: str) -> None:
        text = printable(message)
        if len(text) > _MESSAGE_CHARACTERS:
            text = text[:_MESSAGE_CHARACTERS] + "…"
        with self._lock:
            self._append(event=event, message=text)
        logger.log(logging.WARNING if event == "warning" else logging.ERROR, text)

    def _tell_sometimes(self) -> None:
        left = self._told_at + _INTERVAL_SECONDS - self._clock()
        if left <= 0:
            self._tell()
        elif self._later is None:  # for what comes right before a standstill
            self._later = threading.Timer(left, self._tell_later)
            self._later.daemon = True
            self._later.start()

    def _tell_later(self) -> None:
        with self._lock:
            self._later = None
            if self._fd >= 0:
                self._tell()

    def _tell(self) -> None:
        now = (self._files, self._bytes)
        if now != self._told:
            self._append(event="progress", files=self._files, bytes=self._bytes)
            self._told = now
        self._told_at = self._clock()

    def _append(self, **event: Any) -> None:
        line = json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        while line:
            line = line[os.write(self._fd, line) :]

    def _drop_half_line(self) -> None:
        """A filer killed while it wrote leaves half a line, which would spoil the next."""
        size = os.fstat(self._fd).st_size
        tail = os.pread(self._fd, runfiles.PROGRESS_LINE_BYTES, max(0, size - runfiles.PROGRESS_LINE_BYTES))
        if tail and not tail.endswith(b"\n"):
            os.ftruncate(self._fd, size - len(tail) + tail.rfind(b"\n") + 1)
