"""Transfer rates of filers, and their totals since a leader started, from reads of Postgres. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from poiesis_models.states import TesState

FILERS = ("tif", "tof", "stream", "rescue")
SILENCE = timedelta(
    minutes=2
)  # a running filer is reported at least once a minute; otherwise it counts as lost


class Place(NamedTuple):
    """Tasks in one namespace and state."""

    namespace: str
    state: TesState


class Run(NamedTuple):
    """One start of a filer. A restarted filer starts from 0, in the same row."""

    task_id: UUID
    attempt: int
    container: str
    start: datetime


class Moved(NamedTuple):
    """What one run has transferred so far, or all runs together."""

    files: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class FilerRow:
    """The last report about a filer. `moving`: neither the filer nor its attempt nor its task has ended."""

    run: Run
    moved: Moved
    bytes_per_second: int
    moving: bool

    @property
    def filer(self) -> str:
        """Return the container's name without its number."""
        return self.run.container.rpartition("-")[0]


@dataclass(frozen=True, kw_only=True)
class MetricsSnapshot:
    """One read of Postgres. `at` is its clock, `filers` are those that were reported within SILENCE."""

    at: datetime
    tasks: Mapping[Place, int]
    filers: Sequence[FilerRow]


@dataclass(frozen=True, kw_only=True)
class FilerFigures:
    """The metrics of one kind of filer. `moved` counts from the first read, the rest is current."""

    moving: int
    bytes_per_second: int
    moved: Moved


@dataclass(frozen=True, kw_only=True)
class Figures:
    """The metrics of a leader after one read. `filers` has a value for each of FILERS."""

    read_at: datetime
    tasks: Mapping[Place, int]
    filers: Mapping[str, FilerFigures]


class Transfers:
    """Counts transfers by the differences between reads. Only the runs of the last read are kept."""

    def __init__(self) -> None:
        self._read_at: datetime | None = None
        self._runs: dict[Run, Moved] = {}
        self._files = dict.fromkeys(FILERS, 0)
        self._bytes = dict.fromkeys(FILERS, 0)

    def count(self, read_metrics: MetricsSnapshot) -> Figures:
        """Return the metrics after this read, which must be later than the previous ones."""
        rows = [row for row in read_metrics.filers if row.filer in FILERS]  # a recorder may report any name
        runs = {}
        for row in rows:
            before = self._before(row)
            # Data that is discarded and fetched again counts once.
            runs[row.run] = now = Moved(*map(max, before, row.moved))
            self._files[row.filer] += now.files - before.files
            self._bytes[row.filer] += now.bytes - before.bytes
        self._runs, self._read_at = runs, read_metrics.at
        filers = {filer: self._figures(filer, rows) for filer in FILERS}
        return Figures(read_at=read_metrics.at, tasks=read_metrics.tasks, filers=filers)

    def _before(self, row: FilerRow) -> Moved:
        """Return what has already been counted of a run.

        Where that is unknown, all of it is treated as counted: in the first read, and for a run that is older
        than SILENCE and was not in the last read. It was not reported, or a restarted recorder reports it
        again.
        """
        if row.run in self._runs:
            return self._runs[row.run]
        if self._read_at is None or row.run.start < self._read_at - SILENCE:
            return row.moved
        return Moved(0, 0)

    def _figures(self, filer: str, rows: Sequence[FilerRow]) -> FilerFigures:
        moving = [row for row in rows if row.moving and row.filer == filer]
        return FilerFigures(
            moving=len(moving),
            bytes_per_second=sum(row.bytes_per_second for row in moving),
            moved=Moved(self._files[filer], self._bytes[filer]),
        )
