"""Reports of the progress and rate of filers while they run. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from poiesis_models.report import FilerReport
from poiesis_trec.facts import NO_RUN_FILES, Observation, PlannedContainer

_SECOND_NS = 10**9
_MOST = 2**63 - 1
_INTERVAL_NS = (10 * _SECOND_NS, 60 * _SECOND_NS)  # between two reports: shortest and longest
_INTERVALS_SO_FAR = 6  # a sixth of the time so far, within these bounds


@dataclass(frozen=True, kw_only=True)
class StartedFiler:
    """A filer that has started. `end_ns` is None while it runs."""

    container: str
    start_ns: int
    end_ns: int | None
    files: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class StoredFilerReport:
    """The last report about a filer, and its time."""

    report: FilerReport
    at_ns: int


def filers(
    observation: Observation, known: Sequence[PlannedContainer], now_ns: int
) -> Iterator[StartedFiler]:
    """Yield the filers that have started. A filer that streams inputs starts and ends with its streams."""
    movers = {*observation.plan.inputs, *observation.plan.outputs}
    for one in known:
        if one.name in movers and one.start_ns is not None:
            yield StartedFiler(
                container=one.name,
                start_ns=one.start_ns,
                end_ns=(one.end.end_ns or now_ns) if one.end else None,
                files=one.files.moved_files,
                bytes=one.files.moved_bytes,
            )
    for name in observation.plan.rescues:
        files = observation.files.get(name, NO_RUN_FILES)
        if files.started is not None:
            yield StartedFiler(
                container=name,
                start_ns=files.started.start_ns,
                end_ns=files.exit.end_ns if files.exit else None,
                files=files.moved_files,
                bytes=files.moved_bytes,
            )
    for name in observation.plan.streams:
        files = observation.files.get(name, NO_RUN_FILES)
        if files.streaming_since_ns is not None:
            yield StartedFiler(
                container=name,
                start_ns=files.streaming_since_ns,
                end_ns=None if files.streaming else now_ns,
                files=files.moved_files,
                bytes=files.moved_bytes,
            )


def due_ns(filer: StartedFiler, last: StoredFilerReport | None) -> int | None:
    """Return when the next report is due (Unix time in ns, 0 for now); None if nothing is left to report.

    A running filer is always reported, so missing reports mean that the recorder is gone.
    """
    last = _same_start(filer, last)
    if filer.end_ns is not None:
        return None if last is not None and _is_final(filer, last.report) else 0
    at_ns = last.at_ns if last is not None else filer.start_ns
    shortest, longest = _INTERVAL_NS
    return at_ns + min(max((at_ns - filer.start_ns) // _INTERVALS_SO_FAR, shortest), longest)


def report(filer: StartedFiler, last: StoredFilerReport | None, now_ns: int) -> FilerReport:
    """Return a report with the rate since the last one, or of the whole run once it has ended."""
    last = _same_start(filer, last)
    if last is None or filer.end_ns is not None:
        count, since_ns = filer.bytes, filer.start_ns
    else:
        count, since_ns = filer.bytes - last.report.bytes, last.at_ns
    return FilerReport(
        container=filer.container,
        start_ns=filer.start_ns,
        end_ns=filer.end_ns,
        files=filer.files,
        bytes=filer.bytes,
        bytes_per_second=bytes_per_second(count, (filer.end_ns or now_ns) - since_ns),
    )


def bytes_per_second(count: int, duration_ns: int) -> int:
    """Return a rate between 0 and the maximum of a bigint; 0 for a duration of 0.

    A count can shrink when a transfer starts again, and a filer may report any number.
    """
    return min(max(count, 0) * _SECOND_NS // duration_ns, _MOST) if duration_ns > 0 else 0


def _same_start(filer: StartedFiler, last: StoredFilerReport | None) -> StoredFilerReport | None:
    """Return the last report unless it is about an earlier start of the filer."""
    return last if last is not None and last.report.start_ns == filer.start_ns else None


def _is_final(filer: StartedFiler, report: FilerReport) -> bool:
    return report.end_ns is not None and (report.files, report.bytes) == (filer.files, filer.bytes)
