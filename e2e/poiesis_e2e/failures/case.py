"""What a row of the failure table is: how to bring it about, and what a client must then see.

Whatever a case says is both printed in the document and asserted by the story, from the same value.
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
from poiesis_lab.images import Images

Reporter = Literal["recorder", "controller", "api"]
_PLACEHOLDER = re.compile(r"<[a-z ]+>")


@dataclass(frozen=True, kw_only=True)
class World:
    """What a case may use: one release, what stands beside it, and a bucket of its own."""

    client: TesClient
    kube: Kube
    node: Node
    images: Images
    bucket: Bucket
    storage: Endpoint
    web_url: str
    api_url: str

    @property
    def marker(self) -> str:
        """A word in the command lines of this case's executors, and of nobody else's."""
        return f"marked-{self.bucket.name}"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A task that has ended, as its client saw it. `asked_at`: when it had been disturbed (Unix time)."""

    world: World
    task: Task
    history: History
    asked_at: float | None = None


@dataclass(frozen=True, kw_only=True)
class Sight:
    """Something else that the client sees: in words, and how to find out."""

    words: str
    check: Callable[[Outcome], Awaitable[None]]


@dataclass(frozen=True, kw_only=True)
class Disturbance:
    """What happens to the task meanwhile: in words, and how it is done. It returns when it has been done."""

    words: str
    act: Callable[[World, str], Awaitable[None]]


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What holds before the task is created, and until it has ended: in words, and how it is brought about.

    `begin` returns when it holds; `end` may be called again.
    """

    words: str
    begin: Callable[[World], Awaitable[None]]
    end: Callable[[World], Awaitable[None]]


class Late(AssertionError):
    """Everything was as the row says, but for the time that it took."""


@dataclass(frozen=True, kw_only=True)
class Within:
    """Seconds until the end, of which the chart's values rule a part: `documented` holds for their defaults.

    `tested` holds in the stories' releases, which lose patience sooner so that no story waits for a default.
    """

    documented: float
    tested: float


class After(Enum):
    """The moment from which the client counts."""

    EXECUTOR = "after the last executor had ended"
    POD = "after the first state that is not QUEUED"
    CREATED = "after the creation"
    ASKED = "after that"

    def moment(self, outcome: Outcome) -> float:
        """Unix time. The client and the node have one clock: a kind node is a container."""
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
    """One row. Its place in the document is its section.

    `document`: what is submitted; it may put objects into the world's bucket before. `message`: the end's
    words, where `<…>` stands for what differs each time. `reasons`: one of them; none for a task that
    completes. `exit_codes`: those of the executors' logs, in order. `states`: all that a client can see; a
    slow one misses some, but sees none besides. `attempts`: task logs, of which the last one is told of here.
    `alone`: what it does concerns all of the second release. `together`: cases of one name are brought about
    at the same time.
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
    wait_seconds: float = field(default=300)  # for the end, from the creation on

    @property
    def documented(self) -> float:
        """Seconds that the document promises."""
        return self.within.documented if isinstance(self.within, Within) else self.within

    @property
    def bound(self) -> float:
        """Seconds that the story grants."""
        return self.within.tested if isinstance(self.within, Within) else self.within

    def tells(self, message: str | None) -> bool:
        """Whether these are the end's words."""
        if self.message is None or message is None:
            return self.message is message
        return re.fullmatch(pattern(self.message), message, re.DOTALL) is not None


def pattern(template: str) -> str:
    """A regular expression for a text in which `<…>` stands for what differs."""
    literals = (re.escape(part) for part in _PLACEHOLDER.split(template))
    return ".+".join(literals)
