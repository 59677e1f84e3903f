"""Plan which tasks are submitted and which parts are killed, and when, from a seed alone. Pure."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import TypeVar

from poiesis_e2e.chaos.shapes import MAKERS, Shape, SiteName
from poiesis_e2e.transport import Transport

SITES: tuple[SiteName, ...] = ("claims", "disks")
_SUBMITTING = 0.8  # share of the run: faults precede even the last submission
_CANCEL_SECONDS = 14.0  # upper bound after the creation, so that cancels reach every phase of a task

T = TypeVar("T")


class Kind(StrEnum):
    """Kinds of faults, by their target."""

    RECORDER = "trec killed"
    API_KILLED = "api killed"
    API_DELETED = "api Pod deleted"
    CONTROLLER_KILLED = "tctl killed"
    CONTROLLER_DELETED = "tctl Pod deleted"
    KUBELET = "kubelet restarted"
    POSTGRES = "Postgres connections cut"
    GATEWAY_KILLED = "gateway killed"
    GATEWAY_UNREACHABLE = "gateway unreachable"


OF_THE_GATEWAY = frozenset({Kind.GATEWAY_KILLED, Kind.GATEWAY_UNREACHABLE})


def kinds(transport: Transport) -> frozenset[Kind]:
    """Return the kinds of faults that a release with this transport of reports can have."""
    return frozenset(Kind) - (OF_THE_GATEWAY if transport == "postgres" else frozenset())


@dataclass(frozen=True, kw_only=True)
class Rhythm:
    """Minimum and average seconds between two faults of a kind."""

    least: float
    mean: float


RHYTHMS: Mapping[Kind, Rhythm] = {
    Kind.RECORDER: Rhythm(least=2, mean=7),
    Kind.API_KILLED: Rhythm(least=20, mean=60),
    Kind.API_DELETED: Rhythm(least=20, mean=60),
    Kind.CONTROLLER_KILLED: Rhythm(least=20, mean=60),
    Kind.CONTROLLER_DELETED: Rhythm(least=20, mean=60),
    Kind.KUBELET: Rhythm(least=40, mean=75),
    Kind.POSTGRES: Rhythm(least=4, mean=15),
    Kind.GATEWAY_KILLED: Rhythm(least=10, mean=30),
    Kind.GATEWAY_UNREACHABLE: Rhythm(least=40, mean=75),
}


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault, `at` seconds after the start.

    It hits `share` of the candidates, at least one; `pick` (0 to 1) selects the first of them.
    """

    kind: Kind
    at: float
    site: SiteName
    pick: float
    share: float

    def victims(self, candidates: Collection[T]) -> list[T]:
        """Return the candidates that are hit."""
        ordered = list(candidates)
        count = max(1, round(self.share * len(ordered)))
        first = int(self.pick * len(ordered))
        return [*ordered[first:], *ordered[:first]][:count]


@dataclass(frozen=True, kw_only=True)
class Submission:
    """A task, submitted `at` seconds after the start and canceled `cancel_after` seconds later."""

    number: int
    at: float
    site: SiteName
    shape: Shape
    cancel_after: float | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All events of a run, ordered by time."""

    seed: int
    seconds: float
    submissions: tuple[Submission, ...]
    faults: tuple[Fault, ...]


def plan(seed: int, *, seconds: float, tasks: int, kinds: Collection[Kind] = tuple(Kind)) -> Plan:
    """Return the plan for these arguments. More kinds or tasks do not change the other faults or tasks."""
    faults = [fault for kind in Kind if kind in kinds for fault in _faults(kind, seed, seconds)]
    return Plan(
        seed=seed,
        seconds=seconds,
        submissions=tuple(_submissions(Random(f"{seed} tasks"), seconds, tasks)),  # noqa: S311
        faults=tuple(sorted(faults, key=lambda fault: fault.at)),
    )


def _submissions(rng: Random, seconds: float, tasks: int) -> Iterator[Submission]:
    times = sorted(rng.uniform(0, _SUBMITTING * seconds) for _ in range(tasks))
    makers = [MAKERS[number % len(MAKERS)] for number in range(tasks)]
    rng.shuffle(makers)
    for number, (at, make) in enumerate(zip(times, makers, strict=True)):
        shape, site = make(rng), rng.choice(SITES)
        cancel_after = rng.uniform(0, _CANCEL_SECONDS) if shape.canceled else None
        yield Submission(number=number, at=at, site=site, shape=shape, cancel_after=cancel_after)


def _faults(kind: Kind, seed: int, seconds: float) -> Iterator[Fault]:
    """Yield faults; the first is in the first half, so that every run has one."""
    rng, rhythm = Random(f"{seed} {kind}"), RHYTHMS[kind]  # noqa: S311
    at = rng.uniform(0, min(rhythm.mean, seconds / 2))
    while at < seconds:
        share = rng.choice((0.0, 0.0, 0.5, 1.0))
        yield Fault(kind=kind, at=at, site=rng.choice(SITES), pick=rng.random(), share=share)
        at += rhythm.least + rng.expovariate(1 / (rhythm.mean - rhythm.least))
