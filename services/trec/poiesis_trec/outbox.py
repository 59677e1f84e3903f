"""Find what is not stored in Postgres yet. No I/O: times are arguments, a callable reads log files.

A report is a snapshot of what changed since the last stored one, so nothing accumulates while reports cannot
be sent, and a restarted recorder reports everything again.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from poiesis_models.report import (
    ExecutorReport,
    InputReport,
    MoreText,
    OutputReport,
    Report,
    SystemLogReport,
)
from poiesis_models.runfiles import STDERR, STDOUT, FoundInput, SentOutput
from poiesis_models.states import TaskOutcome, TesState
from poiesis_trec import filers
from poiesis_trec.config import PodRef
from poiesis_trec.facts import PlannedContainer
from poiesis_trec.filers import StartedFiler, StoredFilerReport
from poiesis_trec.regular import Signature
from poiesis_trec.texts import SentText, json_bytes, next_text

OUTPUTS_PER_REPORT = 1000
# Of each kind in one report, as JSON; the rest is in the next. The gateway accepts 4 MiB.
_BYTES_PER_REPORT = 512 * 1024
_INPUTS_SECONDS = 10.0  # between two reports for the types of inputs alone; any other report includes them
# People who watch a task start get a report per second; later the interval is a sixth of the time that the
# task has been writing, so that thousands of verbose tasks can share a database.
_FREQUENT_SECONDS = 60.0
_INTERVALS_SO_FAR = 6
_LONGEST_SECONDS = 5.0

_Item = TypeVar("_Item")
Stream = tuple[str, str]  # container, stdout or stderr
ReadLog = Callable[[str, str], tuple[bytes, Signature] | None]


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """Everything that could be reported at one moment. `final`: do not delay what changes often."""

    at_ns: int
    state: TesState
    containers: Sequence[PlannedContainer]
    logs: Mapping[Stream, Signature]
    outputs: Mapping[str, Sequence[SentOutput]]
    inputs: Sequence[FoundInput] = ()
    filers: Sequence[StartedFiler] = ()
    system_logs: Sequence[SystemLogReport]
    outcome: TaskOutcome | None = None
    cancel_seen: bool = False
    final: bool = False


@dataclass(frozen=True, kw_only=True)
class PendingReport:
    """A report, and what to remember once it is stored."""

    report: Report
    streams: Mapping[Stream, tuple[SentText, Signature]] = field(default_factory=dict)
    executors: Mapping[str, ExecutorReport] = field(default_factory=dict)
    outputs: Mapping[str, Sequence[SentOutput]] = field(default_factory=dict)
    filers: Mapping[str, StoredFilerReport] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class _StoredStream:
    """A reported log file. `text` None: it is not known what is stored, or the file could not be read."""

    seen: Signature
    at: float
    text: SentText | None = None
    final: bool = False


class Outbox:
    """Remembers what is stored, and builds reports of what is not."""

    def __init__(self, pod: PodRef, interval: float, log_bytes: int) -> None:
        self._pod = pod
        self._log_bytes = log_bytes  # stored per stream
        self._interval = interval  # seconds between two reports of what changes often
        self._state: TesState | None = None
        self._executors: dict[str, ExecutorReport] = {}  # without texts
        self._keys: set[str] = set()
        self._streams: dict[Stream, _StoredStream] = {}
        self._began_at: float | None = None  # when a text was reported for the first time
        self._outputs_at = float("-inf")
        self._inputs: set[str] = set()  # paths
        self._inputs_at = float("-inf")
        self._filers: dict[str, StoredFilerReport] = {}

    def next_report(
        self, snapshot: Snapshot, now: float, read_log: ReadLog, *, force: bool = False
    ) -> PendingReport | None:
        """Return the report that is due, or None. `force`: return one in any case, to get a response."""
        texts, all_texts = self._texts(snapshot, now, read_log)
        known = {one.name: row for one in snapshot.containers if (row := _row(one)) is not None}
        changed = {name: row for name, row in known.items() if row != self._executors.get(name)}
        executors = tuple(
            _executor(row, name, texts)
            for name, row in known.items()
            if name in changed or any(container == name for container, _ in texts)
        )
        outputs, all_outputs = self._outputs(snapshot, now)
        lines = [line for line in snapshot.system_logs if line.key not in self._keys]
        system_logs = _first((line, json_bytes(line.key, line.message)) for line in lines)
        due_filers = self._due_filers(snapshot)
        new_inputs = self._new_inputs(snapshot)
        inputs = _first((one, json_bytes(one.path)) for one in new_inputs)
        due = inputs and (snapshot.final or now >= self._inputs_at + _INPUTS_SECONDS)
        all_lines = len(lines) == len(system_logs) and len(inputs) == len(new_inputs)
        outcome = snapshot.outcome if all_texts and all_outputs and all_lines else None
        news = executors or outputs or due or due_filers or system_logs or outcome
        if not (news or force or snapshot.state != self._state):
            return None
        report = Report(
            pod_uid=self._pod.uid,
            pod_name=self._pod.name,
            node=self._pod.node,
            state=snapshot.state,
            executors=executors,
            outputs=tuple(
                OutputReport(url=one.url, path=one.path, size_bytes=one.size_bytes)
                for sent in outputs.values()
                for one in sent
            ),
            inputs=tuple(InputReport(path=one.path, type=one.type) for one in inputs),
            filers=tuple(one.report for one in due_filers.values()),
            system_logs=system_logs,
            ending=outcome,
            cancel_seen=snapshot.cancel_seen,
        )
        return PendingReport(
            report=report,
            streams=texts,
            executors=changed,
            outputs=outputs,
            filers=due_filers,
        )

    def mark_stored(self, pending: PendingReport, now: float) -> None:
        """Note that this report is stored in Postgres."""
        self._state = pending.report.state
        self._executors.update(pending.executors)
        self._keys.update(line.key for line in pending.report.system_logs)
        for stream, (text, seen) in pending.streams.items():
            self._streams[stream] = _StoredStream(seen=seen, at=now, text=text, final=text.final)
        if pending.streams and self._began_at is None:
            self._began_at = now
        self._filers.update(pending.filers)
        if pending.outputs:
            self._outputs_at = now
        if pending.report.inputs:
            self._inputs.update(one.path for one in pending.report.inputs)
            self._inputs_at = now

    def mark_failed(self, pending: PendingReport) -> None:
        """Note that this report may be stored or not: its texts are reported as a whole next."""
        for stream in pending.streams.keys() & self._streams.keys():
            self._streams[stream] = replace(self._streams[stream], text=None, final=False)

    def interval(self, now: float) -> float:
        """Return the seconds between two reports of what changes often; they grow while the task writes."""
        age = now - (self._began_at if self._began_at is not None else now)
        return min(max(self._interval, (age - _FREQUENT_SECONDS) / _INTERVALS_SO_FAR), _LONGEST_SECONDS)

    def due_at(self, snapshot: Snapshot, now: float) -> float | None:
        """Return when the next delayed change may be reported, None if nothing is delayed."""
        times = [self._due_at(stream, snapshot, now) for stream in self._changed_streams(snapshot)]
        if any(snapshot.outputs.values()):
            times.append(self._outputs_at + self._interval)
        if self._new_inputs(snapshot):
            times.append(self._inputs_at + _INPUTS_SECONDS)
        for one in snapshot.filers:
            due_ns = filers.due_ns(one, self._filers.get(one.container))
            if due_ns is not None:
                times.append(now + (due_ns - snapshot.at_ns) / 10**9)
        return min(times, default=None)

    def _new_inputs(self, snapshot: Snapshot) -> list[FoundInput]:
        return [one for one in snapshot.inputs if one.path not in self._inputs]

    def _due_filers(self, snapshot: Snapshot) -> dict[str, StoredFilerReport]:
        due = {}
        for one in snapshot.filers:
            last = self._filers.get(one.container)
            due_ns = filers.due_ns(one, last)
            if due_ns is not None and due_ns <= snapshot.at_ns:
                report = filers.report(one, last, snapshot.at_ns)
                due[one.container] = StoredFilerReport(report=report, at_ns=snapshot.at_ns)
        return due

    def _texts(
        self, snapshot: Snapshot, now: float, read_log: ReadLog
    ) -> tuple[dict[Stream, tuple[SentText, Signature]], bool]:
        """Return the texts to report, and whether these are all that are due."""
        texts: dict[Stream, tuple[SentText, Signature]] = {}
        size = 0
        for stream in self._changed_streams(snapshot):
            if self._due_at(stream, snapshot, now) > now:
                continue
            if size > _BYTES_PER_REPORT:
                return texts, False
            found = read_log(*stream)
            if found is None:  # not readable: nothing to report until it changes
                self._streams[stream] = _StoredStream(seen=snapshot.logs[stream], at=now, final=True)
                continue
            data, seen = found
            stored = self._streams.get(stream)
            ended = snapshot.final or _is_over(stream[0], snapshot)
            text = next_text(data, stored.text if stored else None, self._log_bytes, ended=ended)
            texts[stream] = text, seen
            size += json_bytes(text.text)
        return texts, True

    def _changed_streams(self, snapshot: Snapshot) -> list[Stream]:
        """Return the changed logs. An empty one waits for its executor's end: first output is not delayed."""
        over = {one.name: one.over for one in snapshot.containers if one.start_ns is not None}
        return [
            stream
            for stream, seen in snapshot.logs.items()
            if stream[0] in over
            and (seen.size > 0 or over[stream[0]])
            and not self._is_stored(stream, seen, over=over[stream[0]])
        ]

    def _is_stored(self, stream: Stream, seen: Signature, *, over: bool) -> bool:
        stored = self._streams.get(stream)
        return stored is not None and stored.seen == seen and (stored.final or not over)

    def _due_at(self, stream: Stream, snapshot: Snapshot, now: float) -> float:
        if stream not in self._streams or _is_over(stream[0], snapshot) or snapshot.final:
            return float("-inf")
        return self._streams[stream].at + self.interval(now)

    def _outputs(self, snapshot: Snapshot, now: float) -> tuple[dict[str, Sequence[SentOutput]], bool]:
        """Return the outputs to report, and whether these are all. Each (path, url) occurs once."""
        many = any(len(sent) >= OUTPUTS_PER_REPORT for sent in snapshot.outputs.values())
        if not (snapshot.outcome or snapshot.final or many or now >= self._outputs_at + self._interval):
            return {}, not any(snapshot.outputs.values())
        for name, sent in snapshot.outputs.items():
            if sent:
                rest = any(other for one, other in snapshot.outputs.items() if one != name)
                first = _first((one, json_bytes(one.path, one.url)) for one in sent[:OUTPUTS_PER_REPORT])
                return {name: first}, len(first) == len(sent) and not rest
        return {}, True


def _row(one: PlannedContainer) -> ExecutorReport | None:
    """Return the known fields of an executor that has started, without its texts."""
    if one.executor is None or one.start_ns is None:
        return None
    row = ExecutorReport(index=one.executor, start_ns=one.start_ns)
    if one.end is None or one.end.exit_code is None:
        return row
    end = one.end
    return replace(row, end_ns=end.end_ns, exit_code=end.exit_code, oom=end.oom, usage=end.usage)


def _executor(
    row: ExecutorReport, name: str, texts: Mapping[Stream, tuple[SentText, Signature]]
) -> ExecutorReport:
    if (found := texts.get((name, STDOUT))) is not None:
        whole, more = _parts(found[0])
        row = replace(row, stdout=whole, stdout_more=more, stdout_bytes=found[0].end)
    if (found := texts.get((name, STDERR))) is not None:
        whole, more = _parts(found[0])
        row = replace(row, stderr=whole, stderr_more=more, stderr_bytes=found[0].end)
    return row


def _parts(sent: SentText) -> tuple[str | None, MoreText | None]:
    """Return (whole text, None) or (None, piece)."""
    return (sent.text, None) if sent.after is None else (None, MoreText(after=sent.after, text=sent.text))


def _is_over(container: str, snapshot: Snapshot) -> bool:
    return any(one.name == container and one.over for one in snapshot.containers)


def _first(sized: Iterable[tuple[_Item, int]]) -> tuple[_Item, ...]:
    """Return the first items, of _BYTES_PER_REPORT together; at least one, if there is one."""
    found: list[_Item] = []
    total = 0
    for item, size in sized:
        total += size
        if found and total > _BYTES_PER_REPORT:
            break
        found.append(item)
    return tuple(found)
