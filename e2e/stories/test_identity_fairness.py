"""As a user I share the queue with a user whose tasks are unschedulable, and mine still run."""

from collections.abc import Callable

import pytest

from poiesis_e2e.documents import assert_ended, sh
from poiesis_e2e.install import Release, Secrets, Values, kube_of
from poiesis_e2e.kube import TASK_LABEL, Kube
from poiesis_e2e.ownership import users_secret
from poiesis_e2e.tes_client import Document, TesClient
from poiesis_e2e.waiting import eventually
from poiesis_lab.cluster import Cluster
from poiesis_lab.images import Images

pytestmark = pytest.mark.e2e

_PLACES = 4
_VALUES: Values = {
    "config": {
        "auth": {"mode": "basic", "basic": {"usersSecret": {"name": "tes-users"}}},
        "queue": {"maxActiveTasks": _PLACES, "stalledSeconds": 10, "pollSeconds": 1},
        "userLimits": {"active": {"tasks": 0}},  # no limit: by default, no user can fill the queue
    },
}


@pytest.fixture(scope="module")
def release(with_users: Callable[[Values, Secrets], Release]) -> Release:
    return with_users(_VALUES, {"tes-users": users_secret("alice", "bob")})


@pytest.fixture
def kube(cluster: Cluster, release: Release) -> Kube:
    return kube_of(cluster, release)


async def test_unschedulable_tasks_leave_capacity_to_other_users(
    alice: TesClient, bob: TesClient, kube: Kube, images: Images
) -> None:
    too_large: Document = {"executors": [sh(images.busybox, "true")], "resources": {"cpu_cores": 200}}
    stuck = [await alice.create(too_large) for _ in range(2 * _PLACES)]

    async def jobs() -> set[str]:
        return {job["metadata"]["labels"][TASK_LABEL] for job in await kube.find("jobs", TASK_LABEL)}

    async def all_places_taken() -> bool:
        return len(await jobs() & set(stuck)) == _PLACES

    try:
        await eventually(all_places_taken, f"{_PLACES} Jobs of tasks that no node takes")
        for _ in range(3):  # each starts after the previous one
            assert_ended(await bob.run({"executors": [sh(images.busybox, "true")]}), "COMPLETE")
        assert len(await jobs() & set(stuck)) == _PLACES
    finally:
        for task_id in stuck:
            await alice.cancel(task_id)
    for task_id in stuck:
        assert (await alice.wait(task_id, timeout=120)).state == "CANCELED"
