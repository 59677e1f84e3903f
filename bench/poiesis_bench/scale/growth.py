"""The sizes of a measurement that grows, and how much its cost grows with them."""

from collections.abc import Iterable, Sequence
from pathlib import Path

_FIRST, _STEP = 1_000, 10
_KIB = 1024


def sizes(largest: int) -> list[int]:
    """Return 1,000 and its tenfolds below `largest`, and `largest`."""
    found = []
    size = _FIRST
    while size < largest:
        found.append(size)
        size *= _STEP
    return [*found, largest]


def flatness(values: Sequence[float]) -> float:
    """Return the last value divided by the first: 1 is flat."""
    return values[-1] / values[0]


def percentile(values: Iterable[float], share: float) -> float:
    """Return the value that `share` of the values do not exceed, for example 0.99."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def rss_mib(pid: int) -> float:
    """Return the resident memory of a process in MiB. Raise ProcessLookupError if it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except FileNotFoundError as error:
        raise ProcessLookupError(pid) from error
    line = next((line for line in status.splitlines() if line.startswith("VmRSS")), None)
    if line is None:  # a zombie
        raise ProcessLookupError(pid)
    return int(line.split()[1]) / _KIB
