"""What was done and seen in a run: all that is judged and reported."""

from collections.abc import Mapping
from dataclasses import dataclass

from poiesis_e2e.chaos.ledger import Entry
from poiesis_e2e.chaos.plan import Fault, Plan, Submission
from poiesis_e2e.tes_client import Seen, Task


@dataclass(frozen=True, kw_only=True)
class Injected:
    """A fault, when (Unix time) it was done, and whom it hit; nobody if there was nobody at that moment."""

    fault: Fault
    at: float
    victims: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Observed:
    """One task, as its client and Kubernetes showed it.

    `name` is that of the one POST that made it. `states`: those that polls saw, each once in a row. `first`
    and `last`: the FULL view when an end had just been seen, and after everything; `first` is None if no end
    was seen. `cancel_at`: when (Unix time) its client asked for its cancel first. `stored`: its output in the
    bucket. `left`: kind and name of its objects that Kubernetes still has. `restarts`: when (Unix time) the
    kubelet was restarted in this run.
    """

    submission: Submission
    name: str
    task_id: str
    states: tuple[Seen, ...]
    last: Task
    first: Task | None = None
    entries: tuple[Entry, ...] = ()
    cancel_at: float | None = None
    stored: str | None = None
    left: tuple[str, ...] = ()
    restarts: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Record:
    """One run.

    `posted`: the submission of each POST by its name, also of those without an answer; `answered`: the ids
    that were given. `strays`: what the ledger heard of names that no task has. `retries`: how often clients
    tried again, by why. `wrong_answers`: what a client cannot be expected to try again.
    """

    plan: Plan
    observed: tuple[Observed, ...]
    injected: tuple[Injected, ...]
    posted: Mapping[str, Submission]
    answered: Mapping[str, str]
    strays: tuple[Entry, ...] = ()
    retries: Mapping[str, int]
    wrong_answers: tuple[str, ...] = ()
