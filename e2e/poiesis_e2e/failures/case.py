"""A row of the failure table: how to cause the failure, and what a client must then see.

Each value of a case is both printed on the page and asserted by the story.
"""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

from poiesis_e2e.documents import executor_logs, seconds
from poiesis_e2e.kube import Kube, Node
from poiesis_e2e.storage import Bucket, Endpoint
from poiesis_e2e.tes_client import Document, History, State, Task, TesClient
from poiesis_e2e.transport import Transport
from poiesis_lab.images import Images

Reporter = Literal["recorder", "controller", "api"]
_PLACEHOLDER = re.compile(r"<[^<>]+>")


@dataclass(frozen=True, kw_only=True)
class World:
    """The resources of a case: a release, the services next to it, and its own bucket.

    `kube`: for the tasks' namespace; `services`: for the release's.
    """

    client: TesClient
    kube: Kube
    services: Kube
    node: Node
    images: Images
    bucket: Bucket
    storage: Endpoint
    web_url: str
    api_url: str

    @property
    def marker(self) -> str:
        """Return a word that only the command lines of this case's executors contain."""
        return f"marked-{self.bucket.name}"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A finished task, as its client saw it. `asked_at`: when the disturbance was complete (Unix time)."""

    world: World
    task: Task
    history: History
    asked_at: float | None = None


@dataclass(frozen=True, kw_only=True)
class Sight:
    """Another visible effect: its description and its check."""

    words: str
    check: Callable[[Outcome], Awaitable[None]]


@dataclass(frozen=True, kw_only=True)
class Disturbance:
    """An event while the task runs: its description, and `act`, which returns when it has happened."""

    words: str
    act: Callable[[World, str], Awaitable[None]]


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """A condition from before the creation of the task until its end: its description, and how to cause it.

    `begin` returns when the condition holds; `end` may be called again.
    """

    words: str
    begin: Callable[[World], Awaitable[None]]
    end: Callable[[World], Awaitable[None]]


class Late(AssertionError):
    """Everything but the duration matched the row."""


@dataclass(frozen=True, kw_only=True)
class Within:
    """Seconds until the end; they depend on values of the chart. `documented`: for the defaults.

    `tested`: for the stories' releases, whose timeouts are shorter so that no story waits for a default.
    """

    documented: float
    tested: float


class After(Enum):
    """The moment at which the client starts counting."""

    EXECUTOR = "after the last executor had ended"
    POD = "after the first state that is not QUEUED"
    CREATED = "after the creation"
    ASKED = "after that"

    def moment(self, outcome: Outcome) -> float:
        """Return it as Unix time. Client and node share a clock: a kind node is a container."""
        if self is After.EXECUTOR:
            return max(seconds(log["end_time"]) for log in executor_logs(outcome.task))
        if self is After.POD:
            return next(seen.at for seen in outcome.history.seen if seen.state != "QUEUED")
        if self is After.CREATED:
            return outcome.history.seen[0].at
        assert outcome.asked_at is not None, "nothing was done to the task"
        return outcome.asked_at


@dataclass(frozen=True, kw_only=True)
class Case:
    """One row. `section`: its place on the page.

    `document`: builds the submitted task, and may first store objects in the world's bucket. `message`: the
    expected message; `<…>` matches any text. `reasons`: the accepted reasons; empty for a task that
    completes. `exit_codes`: of the executors' logs, in order. `states`: the only states that a client can
    see; a slow client misses some. `attempts`: number of task logs; the row describes the last one. `alone`:
    the case affects the whole second release. `together`: cases with the same value run at the same time.
    `transport`: the only transport of reports that the row concerns; None: any. `files_only_reporter`: the
    reporter if recorders work from files only (`config.recorder.filesOnly`); None: the same.
    `needs_access`: the row concerns only recorders with access to the Kubernetes API.
    """

    id: str
    section: str
    title: str
    document: Callable[[World], Awaitable[Document]]
    state: State
    reporter: Reporter
    within: float | Within
    after: After
    states: tuple[State, ...]
    reasons: tuple[str, ...] = ()
    message: str | None = None
    container: str | None = None
    exit_codes: tuple[int, ...] = ()
    attempts: int = 1
    around: Surroundings | None = None
    meanwhile: Disturbance | None = None
    sees: tuple[Sight, ...] = ()
    release: Literal["first", "second", "queued", "nodes"] = "first"
    alone: bool = False
    together: str = ""
    transport: Transport | None = None
    files_only_reporter: Reporter | None = None
    needs_access: bool = False
    wait_seconds: float = field(default=300)  # from the creation until the end

    def expected_reporter(self, *, files_only: bool) -> Reporter:
        """Return which component reports the outcome."""
        return self.files_only_reporter or self.reporter if files_only else self.reporter

    def concerns(self, transport: Transport, *, files_only: bool) -> bool:
        """Return whether recorders that work in this way can meet the case."""
        return self.transport in {None, transport} and not (self.needs_access and files_only)

    @property
    def documented(self) -> float:
        """Return the seconds that the page states."""
        return self.within.documented if isinstance(self.within, Within) else self.within

    @property
    def bound(self) -> float:
        """Return the seconds that the story allows."""
        return self.within.tested if isinstance(self.within, Within) else self.within

    def matches(self, message: str | None) -> bool:
        """Return whether a message matches the row's."""
        if self.message is None or message is None:
            return self.message is message
        return re.fullmatch(pattern(self.message), message, re.DOTALL) is not None


def pattern(template: str) -> str:
    """Return a regular expression for a text in which `<…>` matches any text."""
    literals = (re.escape(part) for part in _PLACEHOLDER.split(template))
    return ".+".join(literals)
