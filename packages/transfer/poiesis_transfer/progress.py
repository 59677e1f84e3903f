"""progress.jsonl: what a filer has done, one event per line (filer contract v1). Standard library only."""

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
_MESSAGE_CHARACTERS = 2000  # readers accept lines of 16 KiB, and JSON may escape one character as 6 bytes
_MAX_WARNINGS = 100


class Progress:
    """The writer of progress.jsonl. Any thread may call it.

    Every event is one write of a whole line, so a reader sees half a line only for a moment. A restarted
    filer appends to the same file: totals start at 0, and outputs are listed again.
    """

    def __init__(self, run: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._fd = os.open(
            run / runfiles.PROGRESS, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644
        )
        self._drop_half_line()
        self._files = self._bytes = self._warnings = 0
        self._written: tuple[int, int] | None = None
        self._written_at = clock()
        self._later: threading.Timer | None = None
        self._lock = threading.RLock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            try:
                self._write_totals()
            finally:
                os.close(self._fd)
                self._fd = -1
            if self._later is not None:
                self._later.cancel()

    def moved(self, count: int) -> None:
        """Add `count` bytes. It is negative if an attempt failed and its bytes will be transferred again."""
        with self._lock:
            self._bytes += count
            self._write_totals_at_intervals()

    def file_done(self) -> None:
        """Count one complete file."""
        with self._lock:
            self._files += 1
            self._write_totals_at_intervals()

    def sent(self, *, url: str, path: str, size_bytes: int) -> None:
        """Record a stored output file; `path` is the path in the container."""
        with self._lock:
            self._append(event="output", url=printable(url), path=printable(path), size_bytes=size_bytes)
            self.file_done()

    def found(self, item: InputItem, kind: FileType) -> None:
        """Report what an input is if its task does not state the type."""
        if item.type is None:
            with self._lock:
                self._append(event="input", path=printable(item.path), type=kind)

    def stream(self, path: str, state: str) -> None:
        """Record the state of a streamed input; `path` is the path in the container."""
        with self._lock:
            self._append(event="stream", path=printable(path), state=state)

    def warning(self, message: str) -> None:
        """Record a warning for the task's owner. After 100, one line states that others are omitted."""
        with self._lock:
            self._warnings += 1
            if self._warnings > _MAX_WARNINGS + 1:
                return
            if self._warnings == _MAX_WARNINGS + 1:
                message = f"more than {_MAX_WARNINGS} warnings; further warnings omitted"
            self._write_message("warning", message)

    def error(self, message: str) -> None:
        """Record why the filer fails."""
        self._write_message("error", message)

    def _write_message(self, event: str, message: str) -> None:
        text = printable(message)
        if len(text) > _MESSAGE_CHARACTERS:
            text = text[:_MESSAGE_CHARACTERS] + "…"
        with self._lock:
            self._append(event=event, message=text)
        logger.log(logging.WARNING if event == "warning" else logging.ERROR, text)

    def _write_totals_at_intervals(self) -> None:
        left = self._written_at + _INTERVAL_SECONDS - self._clock()
        if left <= 0:
            self._write_totals()
        elif self._later is None:  # records the last bytes before a stall
            self._later = threading.Timer(left, self._write_totals_later)
            self._later.daemon = True
            self._later.start()

    def _write_totals_later(self) -> None:
        with self._lock:
            self._later = None
            if self._fd >= 0:
                self._write_totals()

    def _write_totals(self) -> None:
        now = (self._files, self._bytes)
        if now != self._written:
            self._append(event="progress", files=self._files, bytes=self._bytes)
            self._written = now
        self._written_at = self._clock()

    def _append(self, **event: Any) -> None:
        line = json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        while line:
            line = line[os.write(self._fd, line) :]

    def _drop_half_line(self) -> None:
        """Remove half a line that a killed filer left: it would corrupt the next one."""
        size = os.fstat(self._fd).st_size
        tail = os.pread(self._fd, runfiles.PROGRESS_LINE_BYTES, max(0, size - runfiles.PROGRESS_LINE_BYTES))
        if tail and not tail.endswith(b"\n"):
            os.ftruncate(self._fd, size - len(tail) + tail.rfind(b"\n") + 1)
