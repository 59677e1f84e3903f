"""Read a filer's progress.jsonl as it grows: from an offset, with limits, without malformed lines."""

import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path

from poiesis_models.runfiles import FoundInput, MalformedFile, SentOutput, parse_progress
from poiesis_trec.regular import open_regular

logger = logging.getLogger(__name__)

FILE_BYTES = 64 * 1024 * 1024  # the rest is not read
_CHUNK_BYTES = 256 * 1024
_PENDING_OUTPUTS = 1000  # the next ones are read when these have been reported
_WARNINGS = 100
_INPUT_BYTES = 1024 * 1024  # of the paths in `inputs`: a work list is smaller than half of it


class ProgressFile:
    """The progress of a filer. `pending`: outputs that are not in Postgres yet, each once.

    `streaming`: paths of inputs that are being streamed; `streaming_since_ns`: when the first one began.
    """

    def __init__(self, path: Path, *, outputs: bool = True) -> None:
        self._path = path
        self._outputs = outputs  # a filer that stages inputs has none
        self._begin(None)

    def _begin(self, inode: int | None) -> None:
        self._inode = inode
        self._offset = 0
        self._malformed = 0
        self.files = 0
        self.bytes = 0
        self.warnings: list[str] = []
        self.error: str | None = None
        self.pending: dict[tuple[str, str], SentOutput] = {}
        self.inputs: dict[str, FoundInput] = {}
        self._input_bytes = 0
        self.streaming: dict[str, None] = {}
        self.streaming_since_ns: int | None = None
        self.caught_up = True

    def refresh(self) -> None:
        """Read from the last offset; from the start if the file has been replaced."""
        fd = open_regular(self._path)
        if fd is None:
            self.caught_up = True
            return
        try:
            found = os.fstat(fd)
            if found.st_ino != self._inode or found.st_size < self._offset:
                self._begin(found.st_ino)
            self.caught_up = False
            while len(self.pending) < _PENDING_OUTPUTS and not self.caught_up:
                self.caught_up = not self._read(fd)
        finally:
            os.close(fd)

    def forget(self, stored: Sequence[SentOutput]) -> None:
        """Drop outputs that are stored in Postgres."""
        for output in stored:
            if self.pending.get((output.path, output.url)) == output:
                del self.pending[output.path, output.url]

    def _read(self, fd: int) -> bool:
        """Read one chunk. Return False if there is nothing to read at the moment."""
        if self._offset >= FILE_BYTES:
            return False
        chunk = os.pread(fd, _CHUNK_BYTES, self._offset)
        complete = chunk.rfind(b"\n") + 1
        if complete == 0:
            if len(chunk) < _CHUNK_BYTES:
                return False
            complete = len(chunk)  # no valid line is that long
        self._offset += complete
        for line in chunk[:complete].splitlines(keepends=True):
            self._take(line)
        if self._offset >= FILE_BYTES:
            logger.warning("%s: only the first %d bytes are read", self._path, FILE_BYTES)
        return True

    def _take(self, line: bytes) -> None:
        try:
            read = parse_progress(line if line.endswith(b"\n") else line + b"\n")
        except MalformedFile as error:
            self._malformed += 1
            if self._malformed == 1:
                logger.warning("%s: ignoring malformed line: %s", self._path, error)
            return
        self.files = max(self.files, read.files)
        self.bytes = max(self.bytes, read.bytes)
        self.warnings.extend(read.warnings[: _WARNINGS - len(self.warnings)])
        self.error = read.error or self.error
        for found in read.inputs if not self._outputs else ():
            self._find(found)
        for stream in read.streams:
            if stream.begun:
                self.streaming[stream.path] = None
                self.streaming_since_ns = self.streaming_since_ns or time.time_ns()
            else:
                self.streaming.pop(stream.path, None)
        for output in read.outputs if self._outputs else ():
            self.pending[output.path, output.url] = output

    def _find(self, found: FoundInput) -> None:
        """Keep the type of an input; only the first line about it is used."""
        size = len(found.path.encode())
        if found.path not in self.inputs and self._input_bytes + size <= _INPUT_BYTES:
            self.inputs[found.path] = found
            self._input_bytes += size
