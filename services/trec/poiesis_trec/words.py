"""What system_logs says about the containers of a task. Pure.

Each line has a key that is unique in its attempt, so lines may be told again. No line holds a secret.
"""

from collections.abc import Iterator, Sequence

from poiesis_models.labels import TREC_CONTAINER
from poiesis_models.report import SystemLogReport
from poiesis_models.runfiles import storable
from poiesis_trec.config import PodRef
from poiesis_trec.facts import NO_FILES, Container, End, Files, PodView, Situation, killed
from poiesis_trec.filers import bytes_per_second

_MESSAGE_CHARACTERS = 2048
_PACE_NS = 10**9
_PULL = frozenset({"ErrImagePull", "ImagePullBackOff"})  # in turns; the second repeats the words of the first
_QUIET = frozenset({"", "Completed", "Error"})  # reasons that an "ended" line tells better


def scheduled(pod: PodRef, at_ns: int) -> SystemLogReport:
    """The first line of an attempt."""
    return _line("scheduled", at_ns, f"Pod {pod.name} started on node {pod.node}")


def lines(known: Sequence[Container], pod: PodView | None, now_ns: int) -> Iterator[SystemLogReport]:
    """All there is to say now, in order of containers."""
    for one in known:
        yield from _container_lines(one, now_ns)
    if pod is not None:
        yield from _pod_lines(pod, now_ns)


def stream_lines(situation: Situation, now_ns: int) -> Iterator[SystemLogReport]:
    """Of the sidecars that stream inputs."""
    for name in situation.plan.streams:
        files = situation.files.get(name, NO_FILES)
        if files.started is not None:
            yield _line(f"{name}/started", files.started.start_ns, f"{name} started")
        for number, warning in enumerate(files.warnings):
            yield _line(f"{name}/warning-{number}", now_ns, f"{name}: {warning}")
        if files.error is not None:
            yield _line(f"{name}/failed", now_ns, f"{name}: {files.error}")


def rescue_lines(situation: Situation, known: Sequence[Container], now_ns: int) -> Iterator[SystemLogReport]:
    """Of the sidecars that send outputs after an executor was killed."""
    one = killed(known)
    if one is None:
        return
    for name in situation.plan.rescues:
        files = situation.files.get(name, NO_FILES)
        if files.started is not None:
            why = f"{_who(one)} was killed before outputs could be sent"
            yield _line(f"{name}/started", files.started.start_ns, f"{name} started: {why}")
        for number, warning in enumerate(files.warnings):
            yield _line(f"{name}/warning-{number}", now_ns, f"{name}: {warning}")
        if (said := _rescued(files, shutting_down=situation.shutting_down)) is not None:
            at_ns = files.exit.end_ns if files.exit is not None else now_ns
            yield _line(f"{name}/ended", at_ns, f"{name} {said}")


def _rescued(files: Files, *, shutting_down: bool) -> str | None:
    """What became of the outputs; None while that is open."""
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
        return f"{sent} and was stopped: its time was over"
    return f"{sent}; not all: {files.error or f'it exited with code {files.exit.exit_code}'}"


def _container_lines(one: Container, now_ns: int) -> Iterator[SystemLogReport]:
    if one.files.skipped:
        yield _line(f"{one.name}/skipped", now_ns, f"{_who(one)} did not run: an earlier one has failed")
    elif one.start_ns is not None:
        yield _line(f"{one.name}/started", one.start_ns, f"{_who(one)} started")
    for number, warning in enumerate(one.files.warnings):
        yield _line(f"{one.name}/warning-{number}", now_ns, f"{one.name}: {warning}")
    if one.end is not None:
        yield _line(f"{one.name}/ended", one.end.end_ns or now_ns, _ended(one, one.end))


def _who(one: Container) -> str:
    return one.name if one.executor is None else f"executor {one.executor}"


def _ended(one: Container, end: End) -> str:
    said = f": {one.files.error}" if one.files.error else ""
    code = f"(exit code {end.exit_code})"
    did = "staged" if one.name.startswith("tif") else "sent"
    is_prepare = one.name.startswith("prepare")
    if end.trouble is not None:
        what = f"ended: {end.trouble.reason}: {end.trouble.message}"
    elif end.oom:
        what = f"ran out of memory {code}"
    elif end.by_platform:
        what = f"was told to end and exited with code {end.exit_code}"
    elif end.signal:
        what = f"was ended by signal {end.signal} {code}"
    elif end.exit_code is None:
        what = "ended, its exit code is not known"
    elif is_prepare and end.exit_code == 0:
        what = "ended: directories of the task have what the image has there"
    elif one.executor is None and end.exit_code == 0:
        what = f"{did} {_count(one.files.moved_files, 'file')}, {_count(one.files.moved_bytes, 'byte')}"
        what += _pace(one.files.moved_bytes, end.end_ns - (one.start_ns or end.end_ns))
    else:
        what = f"exited with code {end.exit_code}{said}"
    return f"{_who(one)} {what}"


def _pace(count: int, duration_ns: int) -> str:
    """Only of what took long enough to have one."""
    if duration_ns < _PACE_NS:
        return ""
    return f" in {duration_ns / 10**9:.1f} s ({bytes_per_second(count, duration_ns) / 10**6:.1f} MB/s)"


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _pod_lines(pod: PodView, now_ns: int) -> Iterator[SystemLogReport]:
    for wait in pod.waits.values():
        if wait.name != TREC_CONTAINER:
            what = "pull" if wait.reason in _PULL else wait.reason
            yield _line(f"{wait.name}/{what}", now_ns, _told(wait.name, wait.reason, wait.message))
    for end in pod.ends.values():
        if end.name != TREC_CONTAINER and end.reason not in _QUIET:
            message = "" if end.record is not None else end.message
            yield _line(f"{end.name}/{end.reason}", now_ns, _told(end.name, end.reason, message))


def _told(name: str, reason: str, message: str) -> str:
    return f"{name}: {reason}: {message}" if message.strip() else f"{name}: {reason}"


def _line(key: str, at_ns: int, message: str) -> SystemLogReport:
    text = storable(message).strip()
    return SystemLogReport(key=key, at_ns=at_ns, message=text[:_MESSAGE_CHARACTERS])
