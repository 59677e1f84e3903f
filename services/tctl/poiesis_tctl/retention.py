"""Which ended tasks and logs are due for deletion, and how fast they are deleted. Pure."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import Literal, NamedTuple
from uuid import UUID

from poiesis_models.states import TERMINAL_STATES, TesState
from poiesis_tctl.config import Retention

MOST_TASKS = 100  # per batch
BATCH_SECONDS = 0.5  # a slower batch halves the next one
_PAUSE = 4  # times as long as the batch, so that deletion takes at most a fifth of the time
_SHORTEST_PAUSE_SECONDS = 0.1

Kind = Literal["tasks", "logs"]
KINDS: tuple[Kind, ...] = ("tasks", "logs")


class Place(NamedTuple):
    """Where a task is in the order of deletion."""

    ended_at: datetime
    id: UUID


FIRST = Place(datetime.fromtimestamp(0, UTC), UUID(int=0))


@dataclass(frozen=True, kw_only=True)
class EndedTask:
    """A task that is old enough."""

    id: UUID
    namespace: str
    ended_at: datetime

    @property
    def place(self) -> Place:
        """Return its place in the order of deletion."""
        return Place(self.ended_at, self.id)

    @property
    def day(self) -> str:
        """Return the day (UTC) on which it ended, as year/month/day."""
        return f"{self.ended_at.astimezone(UTC):%Y/%m/%d}"


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What is deleted at which age: tasks with a state, or logs of tasks with any."""

    kind: Kind
    age: timedelta
    state: TesState | None = None


@dataclass(kw_only=True)
class Deletions:
    """Counts since the leader started: tasks that were deleted or whose logs were, and failed rounds."""

    deleted: dict[str, int] = field(default_factory=lambda: dict[str, int].fromkeys(KINDS, 0))
    failures: int = 0


def sweeps(retention: Retention) -> Iterator[Sweep]:
    """Yield what is deleted. Tasks come first, so that logs of due tasks are not deleted twice."""
    for state in sorted(TERMINAL_STATES):
        if (age := retention.age(state)) is not None:
            yield Sweep(kind="tasks", state=state, age=age)
    if retention.log_age is not None:
        yield Sweep(kind="logs", age=retention.log_age)


def batch(tasks: Sequence[EndedTask], may_delete: Callable[[EndedTask], bool]) -> list[EndedTask]:
    """Return the tasks that may be deleted and ended on the day (UTC) of the first of these."""
    due = [task for task in tasks if may_delete(task)]
    return list(takewhile(lambda task: task.day == due[0].day, due))


def next_size(size: int, seconds: float) -> int:
    """Return the tasks of the next batch after one of `size` took `seconds`."""
    return max(1, size // 2) if seconds > BATCH_SECONDS else min(MOST_TASKS, size * 2)


def pause_seconds(seconds: float) -> float:
    """Return how long to wait after a batch that took `seconds`."""
    return max(_SHORTEST_PAUSE_SECONDS, _PAUSE * seconds)
