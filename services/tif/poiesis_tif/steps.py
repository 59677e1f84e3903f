"""What one input requires: the base of all steps, and the step for literal contents.

Each URL scheme has its own module with a subclass of `Step` (`http_input`, `s3_input`); `plan` lists them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from poiesis_models.worklist import FileType
from poiesis_tif.clients import Clients
from poiesis_transfer.contents import stage_content
from poiesis_transfer.errors import Permanent
from poiesis_transfer.files import Destination
from poiesis_transfer.free_space import FreeSpace
from poiesis_transfer.progress import Progress

if TYPE_CHECKING:
    from poiesis_transfer import fetch


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where an input belongs: `local` in the task volume, `path` for executors; `number` in the work list."""

    local: Path
    path: str
    number: int


@dataclass(frozen=True, kw_only=True)
class Staging:
    """What the steps of one filer share. `contents` is the directory of the work list."""

    clients: Clients
    contents: Path
    progress: Progress
    free_space: FreeSpace

    def destination(self, target: Target) -> Destination:
        """Return the file to write for an input, or for one file of a directory."""
        return Destination(
            target.local, target.path, self.progress, free_space=self.free_space, owner=target.number
        )


@dataclass(frozen=True)
class Step(ABC):
    """How one input is read. A new URL scheme is a subclass."""

    target: Target

    @abstractmethod
    def read(self, clients: Clients, sink: fetch.Sink, progress: Progress) -> None:
        """Write the one file of this input to `sink`; `progress` receives warnings. Raise TransferError."""

    def stage(self, staging: Staging) -> FileType:
        """Write the input to the task volume and return what it is. Raise TransferError."""
        with staging.destination(self.target) as destination:
            self.read(staging.clients, destination, staging.progress)
        return "FILE"


@dataclass(frozen=True)
class LiteralInput(Step):
    """Content from the task document: the file `name` beside the work list."""

    name: str

    def read(self, clients: Clients, sink: fetch.Sink, progress: Progress) -> None:
        """Raise Permanent: only files at URLs are streamed."""
        del clients, sink, progress
        raise Permanent(f"input {self.target.path} has no URL to stream from")

    def stage(self, staging: Staging) -> FileType:
        """Copy the content."""
        stage_content(staging.contents / self.name, staging.destination(self.target))
        return "FILE"
