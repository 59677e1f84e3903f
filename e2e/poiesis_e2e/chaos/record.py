"""The actions and observations of a run: the input of the judge and of the report."""

from collections.abc import Mapping
from dataclasses import dataclass

from poiesis_e2e.chaos.ledger import Entry
from poiesis_e2e.chaos.plan import Fault, Plan, Submission
from poiesis_e2e.tes_client import Seen, Task


@dataclass(frozen=True, kw_only=True)
class Injected:
    """A fault, its time (Unix time) and its victims; empty if there was no candidate at that moment."""

    fault: Fault
    at: float
    victims: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Observed:
    """One task, as its client and Kubernetes showed it.

    `name`: of the POST that created it. `states`: the states that polls returned, without repetitions.
    `first` and `last`: the FULL view directly after a terminal state, and at the end of the run; `first` is
    None without a terminal state. `cancel_at`: time (Unix time) of the first cancel request. `stored`: its
    output in the bucket. `left`: kind and name of its objects that still exist in Kubernetes. `restarts`:
    times (Unix time) of the kubelet's restarts in this run.
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

    `posted`: the submission of each POST by task name, also of those without a response; `answered`: the
    returned ids by task name. `strays`: ledger entries of names that no task has. `retries`: retries of
    clients by cause. `wrong_answers`: error responses that a client cannot be expected to retry.
    """

    plan: Plan
    observed: tuple[Observed, ...]
    injected: tuple[Injected, ...]
    posted: Mapping[str, Submission]
    answered: Mapping[str, str]
    strays: tuple[Entry, ...] = ()
    retries: Mapping[str, int]
    wrong_answers: tuple[str, ...] = ()
