"""The lines of system_logs about the containers of a task. Pure.

Each line has a key that is unique in its attempt, so a line may be reported again. No line contains a secret.
"""

from collections.abc import Iterator, Sequence

from poiesis_models.outcome import ContainerOutcome
from poiesis_models.podlines import shortened, status_lines
from poiesis_models.report import SystemLogReport
from poiesis_trec.config import PodRef
from poiesis_trec.facts import NO_RUN_FILES, Observation, PlannedContainer, PodView, RunFiles, killed
from poiesis_trec.filers import bytes_per_second

_RATE_NS = 10**9


def scheduled(pod: PodRef, at_ns: int) -> SystemLogReport:
    """Return the first line of an attempt."""
    return _line("scheduled", at_ns, f"Pod {pod.name} started on node {pod.node}")


def lines(known: Sequence[PlannedContainer], pod: PodView | None, now_ns: int) -> Iterator[SystemLogReport]:
    """Yield all current lines, by container."""
    for one in known:
        yield from _container_lines(one, now_ns)
    if pod is not None:
        for line in status_lines(pod.waits.values(), pod.ends.values()):
            yield _line(line.key, now_ns, line.message)


def stream_lines(observation: Observation, now_ns: int) -> Iterator[SystemLogReport]:
    """Yield the lines about sidecars that stream inputs."""
    for name in observation.plan.streams:
        files = observation.files.get(name, NO_RUN_FILES)
        if files.started is not None:
            yield _line(f"{name}/started", files.started.start_ns, f"{name} started")
        for number, warning in enumerate(files.warnings):
            yield _line(f"{name}/warning-{number}", now_ns, f"{name}: {warning}")
        if files.error is not None:
            yield _line(f"{name}/failed", now_ns, f"{name}: {files.error}")


def rescue_lines(
    observation: Observation, known: Sequence[PlannedContainer], now_ns: int
) -> Iterator[SystemLogReport]:
    """Yield the lines about sidecars that send outputs after an executor was killed."""
    one = killed(known)
    if one is None:
        return
    for name in observation.plan.rescues:
        files = observation.files.get(name, NO_RUN_FILES)
        if files.started is not None:
            why = f"{_who(one)} was killed before outputs could be sent"
            yield _line(f"{name}/started", files.started.start_ns, f"{name} started: {why}")
        for number, warning in enumerate(files.warnings):
            yield _line(f"{name}/warning-{number}", now_ns, f"{name}: {warning}")
        if (result := _rescued(files, shutting_down=observation.shutting_down)) is not None:
            at_ns = files.exit.end_ns if files.exit is not None else now_ns
            yield _line(f"{name}/ended", at_ns, f"{name} {result}")


def _rescued(files: RunFiles, *, shutting_down: bool) -> str | None:
    """Return what became of the outputs; None while a sidecar may still send some."""
    if not files.caught_up or (files.exit is None and not shutting_down):
        return None
    sent = f"sent {_count(files.moved_files, 'file')}, {_count(files.moved_bytes, 'byte')}"
    if files.exit is None:
        return f"{sent} and was killed" if files.started is not None else "did not run: no output was sent"
    if files.exit.exit_code == 0:
        return sent
    if files.exit.oom:
        return f"{sent} and ran out of memory"
    if files.exit.term:
        return f"{sent} and reached its time limit"
    return (
        f"{sent}; not all outputs were sent: {files.error or f'it exited with code {files.exit.exit_code}'}"
    )


def _container_lines(one: PlannedContainer, now_ns: int) -> Iterator[SystemLogReport]:
    if one.files.skipped:
        yield _line(f"{one.name}/skipped", now_ns, f"{_who(one)} did not run: an earlier container failed")
    elif one.start_ns is not None:
        yield _line(f"{one.name}/started", one.start_ns, f"{_who(one)} started")
    for number, warning in enumerate(one.files.warnings):
        yield _line(f"{one.name}/warning-{number}", now_ns, f"{one.name}: {warning}")
    if one.end is not None:
        yield _line(f"{one.name}/ended", one.end.end_ns or now_ns, _ended(one, one.end))


def _who(one: PlannedContainer) -> str:
    return one.name if one.executor is None else f"executor {one.executor}"


def _ended(one: PlannedContainer, end: ContainerOutcome) -> str:
    error = f": {one.files.error}" if one.files.error else ""
    code = f"(exit code {end.exit_code})"
    verb = "staged" if one.name.startswith("tif") else "sent"
    is_prepare = one.name.startswith("prepare")
    if end.failure is not None:
        what = f"ended: {end.failure.reason}: {end.failure.message}"
    elif end.oom:
        what = f"ran out of memory {code}"
    elif end.by_platform:
        what = f"received SIGTERM and exited with code {end.exit_code}"
    elif end.signal:
        what = f"was killed by signal {end.signal} {code}"
    elif end.exit_code is None:
        what = "ended with an unknown exit code"
    elif is_prepare and end.exit_code == 0:
        what = "ended: copied the content of the image into directories of the task"
    elif one.executor is None and end.exit_code == 0:
        what = f"{verb} {_count(one.files.moved_files, 'file')}, {_count(one.files.moved_bytes, 'byte')}"
        what += _rate(one.files.moved_bytes, end.end_ns - (one.start_ns or end.end_ns))
    else:
        what = f"exited with code {end.exit_code}{error}"
    return f"{_who(one)} {what}"


def _rate(count: int, duration_ns: int) -> str:
    """Return the duration and rate of a transfer of at least a second, otherwise ""."""
    if duration_ns < _RATE_NS:
        return ""
    return f" in {duration_ns / 10**9:.1f} s ({bytes_per_second(count, duration_ns) / 10**6:.1f} MB/s)"


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _line(key: str, at_ns: int, message: str) -> SystemLogReport:
    return SystemLogReport(key=key, at_ns=at_ns, message=shortened(message))
