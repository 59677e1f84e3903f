"""As a user whose task failed I get the cause, in time and in the fields of docs/reference/failures.md.

Every row of that page is a case of this story; see failures/cases.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial

import pytest

from poiesis_e2e.documents import assert_ended, last_log
from poiesis_e2e.failures.case import Case, Late, Outcome, World
from poiesis_e2e.failures.cases import CASES
from poiesis_e2e.install import Release, service_kube_of
from poiesis_e2e.kube import Kube, Node
from poiesis_e2e.machine import Machine
from poiesis_e2e.storage import Endpoint, make_bucket
from poiesis_e2e.tes_client import State, TesClient
from poiesis_e2e.transport import files_only, transport
from poiesis_lab.cluster import Cluster

pytestmark = pytest.mark.e2e

_EVERY_SECONDS = 0.2
Record = Callable[[str, object], None]


_ROWS = [case for case in CASES if case.concerns(transport(), files_only=files_only())]
_CORE = {"out-of-memory-child", "image-missing", "cancel-obedient"}  # rows that `make test` also runs


def _marks(case: Case) -> list[pytest.MarkDecorator]:
    found = [pytest.mark.disruptive] if case.alone else []
    return [*found, pytest.mark.core] if case.id in _CORE else found


def _cases(release: str) -> Callable[..., object]:
    cases = [pytest.param(case, id=case.id, marks=_marks(case)) for case in _ROWS if case.release == release]
    return pytest.mark.parametrize("case", cases)


def _together(release: str) -> list[object]:
    """Return the release's cases, grouped by those that run at the same time."""
    groups: dict[str, list[Case]] = {}
    for case in _ROWS:
        if case.release == release:
            groups.setdefault(case.together or case.id, []).append(case)
    return [pytest.param(group, id="+".join(case.id for case in group)) for group in groups.values()]


@_cases("first")
async def test_failure_matches_the_table(
    *,
    case: Case,
    client: TesClient,
    release: Release,
    kube: Kube,
    node: Node,
    world_for: Callable[..., World],
    record_property: Record,
    machine: Machine,
    cluster: Cluster,
) -> None:
    services = service_kube_of(cluster, release)
    world = world_for(client=client, kube=kube, services=services, node=node, api_url=release.url)
    await _prove([case], [world], record_property, machine)


@_cases("second")
async def test_failure_matches_the_table_on_node_disks(
    *,
    case: Case,
    second_client: TesClient,
    second: Release,
    second_kube: Kube,
    node: Node,
    world_for: Callable[..., World],
    record_property: Record,
    machine: Machine,
    cluster: Cluster,
) -> None:
    world = world_for(
        client=second_client,
        kube=second_kube,
        services=service_kube_of(cluster, second),
        node=node,
        api_url=second.url,
    )
    await _prove([case], [world], record_property, machine)


@_cases("queued")
async def test_failure_matches_the_table_with_kueue(
    *,
    case: Case,
    queued_client: TesClient,
    queued: Release,
    queued_kube: Kube,
    node: Node,
    world_for: Callable[..., World],
    record_property: Record,
    machine: Machine,
    cluster: Cluster,
) -> None:
    world = world_for(
        client=queued_client,
        kube=queued_kube,
        services=service_kube_of(cluster, queued),
        node=node,
        api_url=queued.url,
    )
    await _prove([case], [world], record_property, machine)


@pytest.mark.parametrize("cases", _together("nodes"))
async def test_failure_matches_the_table_on_failing_nodes(
    *,
    cases: Sequence[Case],
    nodes_client: TesClient,
    nodes_release: Release,
    nodes_kube: Kube,
    worker: Node,
    storage: Endpoint,
    world_for: Callable[..., World],
    record_property: Record,
    machine: Machine,
    two_nodes: Cluster,
) -> None:
    world = partial(
        world_for,
        client=nodes_client,
        kube=nodes_kube,
        services=service_kube_of(two_nodes, nodes_release),
        node=worker,
        api_url=nodes_release.url,
    )
    with ExitStack() as afterwards:
        worlds = []
        for _ in cases:
            bucket = make_bucket(storage)
            afterwards.callback(bucket.remove)
            worlds.append(world(bucket=bucket))
        await _prove(cases, worlds, record_property, machine)


async def _prove(cases: Sequence[Case], worlds: Sequence[World], record: Record, machine: Machine) -> None:
    """Check the cases; repeat late ones with exclusive use of the machine."""
    ends = await _ends(cases, worlds, record)
    if any(isinstance(end, Late) for end in ends):
        async with machine.alone():
            ends = await _ends(cases, worlds, record)
    if failures := [end for end in ends if end is not None]:
        raise failures[0] if len(failures) == 1 else BaseExceptionGroup("rows failed", failures)


async def _ends(
    cases: Sequence[Case], worlds: Sequence[World], record: Record
) -> Sequence[BaseException | None]:
    """Check each row independently of the others."""
    seen = (_seen(case, world, record) for case, world in zip(cases, worlds, strict=True))
    return await asyncio.gather(*seen, return_exceptions=True)


async def _seen(case: Case, world: World, record: Record) -> None:
    """Check every column of the row; record how long the client waited."""
    outcome = await _ended(case, world)
    assert_ended(outcome.task, case.state)
    waited = outcome.history.at(case.state) - case.after.moment(outcome)
    record("seconds", f"{waited:.1f}")
    log = last_log(outcome.task, attempts=case.attempts)
    metadata = log.get("metadata", {})
    assert metadata.get("reason") in (case.reasons or (None,))
    assert case.matches(metadata.get("message")), metadata
    assert metadata.get("container") == case.container
    assert metadata.get("reported_by") == case.expected_reporter(files_only=files_only())
    assert tuple(executor["exit_code"] for executor in log["logs"]) == case.exit_codes
    words = [part for part in (case.state, metadata.get("reason"), metadata.get("message")) if part]
    lines = [line.partition(" ")[2] for line in log.get("system_logs", [])]
    assert lines.count(": ".join(words)) == 1, lines
    assert _in_order(outcome.history.states, (*case.states, case.state)), str(outcome.history)
    for sight in case.sees:
        await sight.check(outcome)
    if waited > case.bound:
        raise Late(f"{waited:.1f} s {case.after.value}, not {case.bound:.0f} s; {outcome.history}")


async def _ended(case: Case, world: World) -> Outcome:
    if case.around is None:
        return await _followed(case, world)
    try:
        await case.around.begin(world)
        return await _followed(case, world)
    finally:
        await case.around.end(world)


async def _followed(case: Case, world: World) -> Outcome:
    client = world.client
    task_id = await client.create(await case.document(world))
    async with asyncio.TaskGroup() as group:
        wait = client.wait(task_id, timeout=case.wait_seconds, every=_EVERY_SECONDS)
        watching = group.create_task(wait)
        asked_at = None
        if case.meanwhile is not None:
            await case.meanwhile.act(world, task_id)
            asked_at = time.time()
    task = await client.get(task_id, "FULL")
    return Outcome(world=world, task=task, history=watching.result(), asked_at=asked_at)


def _in_order(seen: Sequence[State], possible: Sequence[State]) -> bool:
    """Return whether `seen` is a subsequence of `possible`."""
    left = iter(possible)
    return all(state in left for state in seen)
