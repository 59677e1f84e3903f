"""Summarize a run as text. Pure."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from poiesis_e2e.chaos.judge import Violation, lost_recorder, lost_start
from poiesis_e2e.chaos.plan import Kind
from poiesis_e2e.chaos.record import Observed, Record
from poiesis_e2e.documents import seconds


def summary(record: Record, found: Sequence[Violation]) -> str:
    """Return a summary of faults, tasks, times and violations."""
    plan, made = record.plan, len(record.observed)
    unanswered = made - len(record.answered)
    lines = [
        f"seed {plan.seed}, {plan.seconds:.0f} s",
        f"{len(plan.submissions)} tasks submitted, {made} created, {unanswered} by a POST without a response",
        *_faults(record),
        *_tasks(record),
        f"client retries: {_counted(record.retries)}",
        f"violations: {len(found)}",
        *(f"  {one.rule}: task {one.task_id}: {one.words}" for one in found),
    ]
    return "\n".join(lines) + "\n"


def _faults(record: Record) -> Iterator[str]:
    yield f"faults: {sum(bool(one.victims) for one in record.injected)}"
    for kind in Kind:
        done = [one for one in record.injected if one.fault.kind is kind]
        victims = sum(len(one.victims) for one in done)
        missed = sum(not one.victims for one in done)
        yield f"  {kind}: {len(done) - missed} times, {victims} hit" + (
            f"; {missed} times without a candidate" if missed else ""
        )


def _tasks(record: Record) -> Iterator[str]:
    shapes = sorted({one.submission.shape.name for one in record.observed})
    yield f"tasks: {_counted(Counter(one.last['state'] for one in record.observed))}"
    if lost := [found for one in record.observed if (found := lost_start(one, one.last)) is not None]:
        yield f"  ended because the kubelet was restarted while it started a container: {len(lost)}"
    if count := sum(lost_recorder(one, one.last) for one in record.observed):
        yield f"  of these, while its recorder was down: {count}"
    for shape in shapes:
        of_shape = [one for one in record.observed if one.submission.shape.name == shape]
        took = sorted(filter(None, map(_took, of_shape)))
        states = _counted(Counter(one.last["state"] for one in of_shape))
        times = f"; median {median(took):.1f} s, longest {took[-1]:.1f} s" if took else ""
        yield f"  {shape}: {states}{times}"


def _took(one: Observed) -> float | None:
    """Return the seconds from creation to end."""
    ends = [log["end_time"] for log in one.last["logs"] if "end_time" in log]
    created = one.last.get("creation_time")
    return seconds(ends[-1]) - seconds(created) if ends and created else None


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "never"
