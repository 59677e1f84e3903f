"""What filers move: how fast now, and how much since a leader began, from looks at their rows. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from poiesis_models.states import TesState

FILERS = ("tif", "tof", "stream", "rescue")
SILENCE = timedelta(minutes=2)  # a filer that runs is told of at least once a minute; one that is not is lost


class Run(NamedTuple):
    """One start of a filer: one that is started again begins anew, in the same row."""

    task_id: UUID
    attempt: int
    container: str
    start: datetime


class Moved(NamedTuple):
    """By one run so far, or by all."""

    files: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class FilerRow:
    """How far a filer was when it was told of last. `moving`: nothing of it, attempt and task has ended."""

    run: Run
    moved: Moved
    bytes_per_second: int
    moving: bool

    @property
    def filer(self) -> str:
        """The container's name without its number."""
        return self.run.container.rpartition("-")[0]


@dataclass(frozen=True, kw_only=True)
class Look:
    """Postgres at one moment, by its own clock. `filers`: those that were told of within SILENCE."""

    at: datetime
    tasks: Mapping[TesState, int]
    filers: Sequence[FilerRow]


@dataclass(frozen=True, kw_only=True)
class FilerFigures:
    """`moving` and `bytes_per_second` are of this moment, `moved` is since the first look."""

    moving: int
    bytes_per_second: int
    moved: Moved


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What a leader knows after a look. Every one of FILERS is there."""

    looked_at: datetime
    tasks: Mapping[TesState, int]
    filers: Mapping[str, FilerFigures]


class Transfers:
    """Counts by the difference between one look and the next, and remembers the runs of the last one only."""

    def __init__(self) -> None:
        self._looked_at: datetime | None = None
        self._runs: dict[Run, Moved] = {}
        self._files = dict.fromkeys(FILERS, 0)
        self._bytes = dict.fromkeys(FILERS, 0)

    def count(self, look: Look) -> Figures:
        """The figures with this look, which is later than those before."""
        rows = [row for row in look.filers if row.filer in FILERS]  # a recorder may say what it likes
        runs = {}
        for row in rows:
            before = self._before(row)
            # What is given up and fetched again counts once.
            runs[row.run] = now = Moved(*map(max, before, row.moved))
            self._files[row.filer] += now.files - before.files
            self._bytes[row.filer] += now.bytes - before.bytes
        self._runs, self._looked_at = runs, look.at
        filers = {filer: self._figures(filer, rows) for filer in FILERS}
        return Figures(looked_at=look.at, tasks=look.tasks, filers=filers)

    def _before(self, row: FilerRow) -> Moved:
        """What has been counted of it.

        All, where that is not known: in the first look, and of a run that was not in the last one though it
        is older than what that could see. It was silent, or a recorder that was restarted tells of it again.
        """
        if row.run in self._runs:
            return self._runs[row.run]
        if self._looked_at is None or row.run.start < self._looked_at - SILENCE:
            return row.moved
        return Moved(0, 0)

    def _figures(self, filer: str, rows: Sequence[FilerRow]) -> FilerFigures:
        moving = [row for row in rows if row.moving and row.filer == filer]
        return FilerFigures(
            moving=len(moving),
            bytes_per_second=sum(row.bytes_per_second for row in moving),
            moved=Moved(self._files[filer], self._bytes[filer]),
        )
