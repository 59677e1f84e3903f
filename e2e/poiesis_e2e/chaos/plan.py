"""What is submitted and what is killed, and when: made from a seed alone. Pure."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import TypeVar

from poiesis_e2e.chaos.shapes import MAKERS, Shape, SiteName

SITES: tuple[SiteName, ...] = ("claims", "disks")
_SUBMITTING = 0.8  # of the time: what is submitted last has faults before it, too
_CANCEL_SECONDS = 14.0  # after the creation at the latest: in every phase of a task

T = TypeVar("T")


class Kind(StrEnum):
    """What can be done to the system, by what it hits."""

    RECORDER = "trec killed"
    API_KILLED = "api killed"
    API_DELETED = "api Pod deleted"
    CONTROLLER_KILLED = "tctl killed"
    CONTROLLER_DELETED = "tctl Pod deleted"
    KUBELET = "kubelet restarted"
    POSTGRES = "Postgres connections cut"


@dataclass(frozen=True, kw_only=True)
class Rhythm:
    """Seconds between two faults of a kind: at least, and on average."""

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
}


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that is done, `at` seconds after the start.

    `share` of those that can be hit are, at least one; `pick` (0 to 1) says which is the first of them.
    """

    kind: Kind
    at: float
    site: SiteName
    pick: float
    share: float

    def victims(self, candidates: Collection[T]) -> list[T]:
        """Those that are hit."""
        ordered = list(candidates)
        count = max(1, round(self.share * len(ordered)))
        first = int(self.pick * len(ordered))
        return [*ordered[first:], *ordered[:first]][:count]


@dataclass(frozen=True, kw_only=True)
class Submission:
    """One task, `at` seconds after the start; `cancel_after` its creation."""

    number: int
    at: float
    site: SiteName
    shape: Shape
    cancel_after: float | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All of a run, in order of time."""

    seed: int
    seconds: float
    submissions: tuple[Submission, ...]
    faults: tuple[Fault, ...]


def plan(seed: int, *, seconds: float, tasks: int, kinds: Collection[Kind] = tuple(Kind)) -> Plan:
    """The same for the same arguments. Another kind or task changes nothing about the others of its sort."""
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
    """The first comes in the first half of any run, so that none is without."""
    rng, rhythm = Random(f"{seed} {kind}"), RHYTHMS[kind]  # noqa: S311
    at = rng.uniform(0, min(rhythm.mean, seconds / 2))
    while at < seconds:
        share = rng.choice((0.0, 0.0, 0.5, 1.0))
        yield Fault(kind=kind, at=at, site=rng.choice(SITES), pick=rng.random(), share=share)
        at += rhythm.least + rng.expovariate(1 / (rhythm.mean - rhythm.least))
