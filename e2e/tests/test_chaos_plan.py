"""A plan depends on its seed alone, covers every kind, and respects its rates."""

from collections import Counter, defaultdict
from itertools import pairwise

import pytest

from poiesis_e2e.chaos.plan import OF_THE_GATEWAY, RHYTHMS, SITES, Fault, Kind, kinds, plan
from poiesis_e2e.chaos.shapes import MAKERS

SHAPES = {make.__name__.strip("_").replace("_", " ") for make in MAKERS}


def test_plan_depends_on_the_seed_alone() -> None:
    assert plan(1, seconds=600, tasks=60) == plan(1, seconds=600, tasks=60)
    assert plan(1, seconds=600, tasks=60) != plan(2, seconds=600, tasks=60)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("seconds", "tasks"), [(60, 12), (600, 60)])
def test_plan_has_every_shape_and_fault(seed: int, seconds: float, tasks: int) -> None:
    made = plan(seed, seconds=seconds, tasks=tasks)

    shapes = Counter(one.shape.name for one in made.submissions)
    assert shapes.keys() == SHAPES
    assert shapes.total() == tasks
    assert max(shapes.values()) - min(shapes.values()) <= 1
    assert {fault.kind for fault in made.faults} == set(Kind)
    assert [one.number for one in made.submissions] == list(range(tasks))


@pytest.mark.parametrize("seed", range(20))
def test_faults_keep_their_distance_within_the_run(seed: int) -> None:
    made = plan(seed, seconds=600, tasks=60)

    times = defaultdict(list)
    for fault in made.faults:
        times[fault.kind].append(fault.at)
    for kind, at in times.items():
        assert all(later - before >= RHYTHMS[kind].least for before, later in pairwise(at))
        assert len(at) <= 600 / RHYTHMS[kind].least + 1
    for events in (made.submissions, made.faults):
        assert [one.at for one in events] == sorted(one.at for one in events)
        assert all(0 <= one.at < 600 for one in events)


def test_faults_occur_at_their_average_rate() -> None:
    counts = Counter(fault.kind for seed in range(50) for fault in plan(seed, seconds=600, tasks=1).faults)

    for kind, rhythm in RHYTHMS.items():
        assert counts[kind] / 50 == pytest.approx(600 / rhythm.mean, rel=0.15)


def test_omitting_a_kind_leaves_the_others_unchanged() -> None:
    whole = plan(1, seconds=600, tasks=60)
    part = plan(1, seconds=600, tasks=60, kinds=set(Kind) - {Kind.KUBELET})

    assert part.submissions == whole.submissions
    assert part.faults == tuple(fault for fault in whole.faults if fault.kind is not Kind.KUBELET)


def test_only_releases_with_a_gateway_lose_it() -> None:
    with_it = plan(1, seconds=600, tasks=60, kinds=kinds("gateway"))
    without = plan(1, seconds=600, tasks=60, kinds=kinds("postgres"))

    assert {fault.kind for fault in with_it.faults} == set(Kind)
    assert without.faults == tuple(fault for fault in with_it.faults if fault.kind not in OF_THE_GATEWAY)


def test_both_sites_get_tasks_with_matching_cancels() -> None:
    made = plan(1, seconds=600, tasks=60)

    assert {one.site for one in made.submissions} == set(SITES)
    assert all((one.cancel_after is not None) == one.shape.canceled for one in made.submissions)


@pytest.mark.parametrize(
    ("pick", "share", "hit"),
    [
        (0.0, 0.0, ["a"]),
        (0.3, 0.0, ["b"]),
        (0.99, 0.0, ["d"]),
        (0.5, 0.5, ["c", "d"]),
        (0.99, 0.5, ["d", "a"]),
        (0.5, 1.0, ["c", "d", "a", "b"]),
    ],
)
def test_fault_hits_a_share_of_the_candidates(pick: float, share: float, hit: list[str]) -> None:
    fault = Fault(kind=Kind.RECORDER, at=0, site="claims", pick=pick, share=share)
    assert fault.victims(["a", "b", "c", "d"]) == hit


def test_fault_without_candidates_hits_none() -> None:
    fault = Fault(kind=Kind.RECORDER, at=0, site="claims", pick=0.5, share=1.0)
    assert fault.victims([]) == []
