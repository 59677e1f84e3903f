"""Find what is not stored in Postgres yet. No I/O: times are arguments, a callable returns texts.

A report is a snapshot of what changed since the last stored one, so nothing accumulates while Postgres is
unavailable, and a restarted recorder reports everything again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from poiesis_models.report import ExecutorReport, InputReport, OutputReport, Report, SystemLogReport
from poiesis_models.runfiles import STDERR, STDOUT, FoundInput, SentOutput
from poiesis_models.states import TaskOutcome, TesState
from poiesis_trec import filers
from poiesis_trec.config import PodRef
from poiesis_trec.facts import PlannedContainer
from poiesis_trec.filers import StartedFiler, StoredFilerReport
from poiesis_trec.regular import Signature

OUTPUTS_PER_REPORT = 1000
_INPUTS_SECONDS = 10.0  # between two reports for the types of inputs alone; any other report includes them
# Every report rewrites whole texts. People who watch a task start get one per second; later the interval is a
# sixth of the time that the task has been writing, so that thousands of verbose tasks can share a database.
_FREQUENT_SECONDS = 60.0
_INTERVALS_SO_FAR = 6
_LONGEST_SECONDS = 30.0

Stream = tuple[str, str]  # container, stdout or stderr
ReadLog = Callable[[str, str], tuple[str, Signature] | None]


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
    streams: Mapping[Stream, Signature] = field(default_factory=dict)
    executors: Mapping[str, ExecutorReport] = field(default_factory=dict)
    outputs: Mapping[str, Sequence[SentOutput]] = field(default_factory=dict)
    filers: Mapping[str, StoredFilerReport] = field(default_factory=dict)


class Outbox:
    """Remembers what is stored, and builds reports of what is not."""

    def __init__(self, pod: PodRef, interval: float) -> None:
        self._pod = pod
        self._interval = interval  # seconds between two reports of what changes often
        self._state: TesState | None = None
        self._executors: dict[str, ExecutorReport] = {}  # without texts
        self._keys: set[str] = set()
        self._streams: dict[Stream, tuple[Signature, float]] = {}
        self._began_at: float | None = None  # when a text was reported for the first time
        self._outputs_at = float("-inf")
        self._inputs: set[str] = set()  # paths
        self._inputs_at = float("-inf")
        self._filers: dict[str, StoredFilerReport] = {}

    def next_report(
        self, snapshot: Snapshot, now: float, read_log: ReadLog, *, force: bool = False
    ) -> PendingReport | None:
        """Return the report that is due, or None. `force`: return one in any case, to get a response."""
        texts = self._texts(snapshot, now, read_log)
        known = {one.name: row for one in snapshot.containers if (row := _row(one)) is not None}
        changed = {name: row for name, row in known.items() if row != self._executors.get(name)}
        executors = tuple(
            _executor(row, name, texts)
            for name, row in known.items()
            if name in changed or any(container == name for container, _ in texts)
        )
        outputs, complete = self._outputs(snapshot, now)
        system_logs = tuple(line for line in snapshot.system_logs if line.key not in self._keys)
        due_filers = self._due_filers(snapshot)
        inputs = self._new_inputs(snapshot)
        due = inputs and (snapshot.final or now >= self._inputs_at + _INPUTS_SECONDS)
        outcome = snapshot.outcome if complete else None
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
            streams={stream: seen for stream, (_, seen) in texts.items()},
            executors=changed,
            outputs=outputs,
            filers=due_filers,
        )

    def mark_stored(self, pending: PendingReport, now: float) -> None:
        """Note that this report is stored in Postgres."""
        self._state = pending.report.state
        self._executors.update(pending.executors)
        self._keys.update(line.key for line in pending.report.system_logs)
        self._streams.update({stream: (seen, now) for stream, seen in pending.streams.items()})
        if pending.streams and self._began_at is None:
            self._began_at = now
        self._filers.update(pending.filers)
        if pending.outputs:
            self._outputs_at = now
        if pending.report.inputs:
            self._inputs.update(one.path for one in pending.report.inputs)
            self._inputs_at = now

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
    ) -> dict[Stream, tuple[str, Signature]]:
        texts = {}
        for stream in self._changed_streams(snapshot):
            if self._due_at(stream, snapshot, now) > now:
                continue
            found = read_log(*stream)
            if found is None:  # not readable: nothing to report until it changes
                self._streams[stream] = (snapshot.logs[stream], now)
            else:
                texts[stream] = found
        return texts

    def _changed_streams(self, snapshot: Snapshot) -> list[Stream]:
        """Return the changed logs. An empty one waits for its executor's end: first output is not delayed."""
        over = {one.name: one.over for one in snapshot.containers if one.start_ns is not None}
        return [
            stream
            for stream, seen in snapshot.logs.items()
            if stream[0] in over
            and (seen.size > 0 or over[stream[0]])
            and (stream not in self._streams or self._streams[stream][0] != seen)
        ]

    def _due_at(self, stream: Stream, snapshot: Snapshot, now: float) -> float:
        over = any(one.name == stream[0] and one.over for one in snapshot.containers)
        if stream not in self._streams or over or snapshot.final:
            return float("-inf")
        return self._streams[stream][1] + self.interval(now)

    def _outputs(self, snapshot: Snapshot, now: float) -> tuple[dict[str, Sequence[SentOutput]], bool]:
        """Return the outputs to report, and whether these are all. Each (path, url) occurs once."""
        many = any(len(sent) >= OUTPUTS_PER_REPORT for sent in snapshot.outputs.values())
        if not (snapshot.outcome or snapshot.final or many or now >= self._outputs_at + self._interval):
            return {}, not any(snapshot.outputs.values())
        for name, sent in snapshot.outputs.items():
            if sent:
                rest = any(other for one, other in snapshot.outputs.items() if one != name)
                return {name: sent[:OUTPUTS_PER_REPORT]}, len(sent) <= OUTPUTS_PER_REPORT and not rest
        return {}, True


def _row(one: PlannedContainer) -> ExecutorReport | None:
    """Return the known fields of an executor that has started, without its texts."""
    if one.executor is None or one.start_ns is None:
        return None
    row = ExecutorReport(index=one.executor, start_ns=one.start_ns)
    if one.end is None or one.end.exit_code is None:
        return row
    return replace(row, end_ns=one.end.end_ns, exit_code=one.end.exit_code, oom=one.end.oom)


def _executor(
    row: ExecutorReport, name: str, texts: Mapping[Stream, tuple[str, Signature]]
) -> ExecutorReport:
    stdout, stderr = texts.get((name, STDOUT)), texts.get((name, STDERR))
    return replace(row, stdout=stdout[0] if stdout else None, stderr=stderr[0] if stderr else None)
