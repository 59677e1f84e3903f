"""The pure parts of the measurements of scale."""

from typing import Any

import pytest

from poiesis_bench.scale import growth, queue, recorders
from poiesis_models.states import TesState


@pytest.mark.parametrize(
    ("largest", "found"),
    [(500, [500]), (1000, [1000]), (25_000, [1000, 10_000, 25_000]), (10_000, [1000, 10_000])],
)
def test_sizes_grow_tenfold_to_the_largest(largest: int, found: list[int]) -> None:
    assert growth.sizes(largest) == found


def test_percentile_of_few_values_is_the_largest() -> None:
    assert growth.percentile([3.0, 1.0, 2.0], 0.99) == 3.0
    assert growth.percentile(range(1000), 0.99) == 990


@pytest.mark.parametrize(
    ("owners", "longest"),
    [
        ("abcabcabc", 3),
        ("aaaabbbb", 5),  # b waits for four leases of a
        ("abababaa", 3),  # b has no more until the end
        ("abanab", 4),  # n has one lease only, which does not count
    ],
)
def test_longest_wait_is_the_largest_gap_of_an_owner(owners: str, longest: int) -> None:
    assert queue.longest_wait(owners) == longest


def a_pod(executor: dict[str, Any] | None) -> dict[str, Any]:
    metadata = {"name": "p", "uid": "u", "labels": {}, "resourceVersion": "1", "creationTimestamp": "now"}
    volume = {"name": "recorder", "projected": {"sources": [{"secret": {"name": "the-secret"}}]}}
    statuses = [{"name": "executor-0", "state": executor}] if executor else []
    return {
        "metadata": metadata,
        "spec": {"nodeName": "n", "volumes": [{"name": "bin"}, volume]},
        "status": {"initContainerStatuses": statuses},
    }


@pytest.mark.parametrize(
    ("state", "executor"),
    [(None, "waiting"), ({"running": {}}, "running"), ({"terminated": {"exitCode": 0}}, "terminated")],
)
def test_stand_in_keeps_what_a_report_needs(state: dict[str, Any] | None, executor: str) -> None:
    kept = recorders.slim(a_pod(state))
    assert (kept["executor"], kept["secret"], kept["node"]) == (executor, "the-secret", "n")


def test_last_report_has_the_outcome_and_the_exit_code() -> None:
    pod = recorders.slim(a_pod({"terminated": {"exitCode": 0}}))
    running, done = (recorders.report(pod, state) for state in (TesState.RUNNING, TesState.COMPLETE))
    assert (running.ending, running.executors[0].exit_code) == (None, None)
    assert done.ending is not None
    assert (done.ending.state, done.executors[0].exit_code) == (TesState.COMPLETE, 0)
