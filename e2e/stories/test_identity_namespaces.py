"""As an operator of several groups I give each a namespace and a quota, apart from the services."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import pytest
import pytest_asyncio
import yaml

from poiesis_e2e.documents import assert_ended, sh
from poiesis_e2e.install import Release, Secrets, Values, kube_of, merged
from poiesis_e2e.keycloak_proxy import keycloak_proxy
from poiesis_e2e.kube import CommandError, Kube, Node
from poiesis_e2e.tes_client import Document, TesClient, connect
from poiesis_e2e.waiting import eventually
from poiesis_lab.backends import Keycloak
from poiesis_lab.cluster import Cluster
from poiesis_lab.images import Images
from poiesis_lab.realm import EXAMPLE, Realm, make_realm

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

_VALUES = EXAMPLE.with_name("keycloak-values.yaml")
_QUOTA = "pods-of-group"
_GROUPS = {"genomics": "lab-a", "tes-administrators": "lab-b"}  # alice's and root's; bob has none


def _name(lab: str) -> str:
    return f"poiesis-e2e-{os.environ['POIESIS_E2E_RUN']}-{lab}"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def realm(node: Node, keycloak: Keycloak) -> AsyncIterator[Realm]:
    async with keycloak_proxy(await node.host_address(), keycloak.url) as proxy:
        made = await make_realm(proxy.url, keycloak.administrator, keycloak.password)
        yield made
        await made.remove()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def release(with_users: Callable[[Values, Secrets], Release], realm: Realm) -> Release:
    """Return a release with a namespace for each of two groups."""
    namespaces = [{"name": _name(lab), "groups": [group]} for group, lab in _GROUPS.items()]
    values = merged(
        yaml.safe_load(_VALUES.read_text()),
        {"config": {"auth": {"oidc": {"issuer": realm.issuer}}}, "tasks": {"namespaces": namespaces}},
    )
    secret = {"tes-introspection": {"client-secret": "server-secret"}}
    return await asyncio.to_thread(with_users, values, secret)


@pytest.fixture
def labs(cluster: Cluster, release: Release) -> dict[str, Kube]:
    """Return kubectl for each namespace of tasks, by the name of its user."""
    kube = kube_of(cluster, release)
    return {
        "alice": replace(kube, namespace=_name("lab-a")),
        "root": replace(kube, namespace=_name("lab-b")),
        "bob": kube,
    }


@asynccontextmanager
async def _quota(kube: Kube, pods: int) -> AsyncIterator[None]:
    """Limit the Pods of a namespace in the meantime."""
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": _QUOTA}}
    await kube.run(
        "apply", "-f", "-", input_text=json.dumps({**quota, "spec": {"hard": {"pods": str(pods)}}})
    )

    async def counted() -> bool:
        found = await kube.get("resourcequota", _QUOTA)
        return found is not None and found.get("status", {}).get("hard") == {"pods": str(pods)}

    try:
        await eventually(counted, f"a quota of {pods} Pods")
        yield
    finally:
        await kube.run("delete", "resourcequota", _QUOTA, "--ignore-not-found")


async def _as(stack: AsyncExitStack, release: Release, realm: Realm, user: str) -> TesClient:
    return await stack.enter_async_context(connect(release.url, token=await realm.user_token(user)))


async def test_tasks_run_in_the_namespace_of_their_owners_group(
    release: Release, realm: Realm, images: Images, labs: dict[str, Kube]
) -> None:
    async with AsyncExitStack() as stack:
        found = {}
        for user in labs:
            client = await _as(stack, release, realm, user)
            task = await client.run({"executors": [sh(images.busybox, "echo here")]})
            assert_ended(task, "COMPLETE")
            found[user] = [
                other for other, kube in labs.items() if await kube.of_task("jobs,pods,secrets", task["id"])
            ]

    assert found == {user: [user] for user in labs}


async def test_full_quota_of_one_group_does_not_delay_others(
    release: Release, realm: Realm, images: Images, labs: dict[str, Kube]
) -> None:
    document: Document = {"executors": [sh(images.busybox, "true")]}
    async with AsyncExitStack() as stack:
        alice, root = [await _as(stack, release, realm, user) for user in ("alice", "root")]
        async with _quota(labs["alice"], 0), _quota(labs["root"], 5):
            waiting = [await alice.create(document) for _ in range(3)]

            async def explained() -> bool:
                tasks = [await alice.get(task_id, "FULL") for task_id in waiting]
                return all("exceeded quota" in json.dumps(task) for task in tasks)

            await eventually(explained, "the quota in the logs of the waiting tasks", seconds=90)
            for _ in range(3):
                assert_ended(await root.run(document), "COMPLETE")
            states = [(await alice.get(task_id))["state"] for task_id in waiting]
            assert set(states) == {"QUEUED"}
        for task_id in waiting:
            assert (await alice.wait(task_id, timeout=180)).state == "COMPLETE"


async def test_canceled_task_leaves_nothing_in_its_namespace(
    release: Release, realm: Realm, images: Images, labs: dict[str, Kube]
) -> None:
    async with AsyncExitStack() as stack:
        alice = await _as(stack, release, realm, "alice")
        task_id = await alice.create({"executors": [sh(images.busybox, "sleep 600")]})
        await alice.wait(task_id, until={"RUNNING"})
        await alice.cancel(task_id)
        assert (await alice.wait(task_id, timeout=120)).state == "CANCELED"

        async def nothing_left() -> bool:
            return not await labs["alice"].of_task("jobs,pods,secrets,serviceaccounts", task_id)

        await eventually(nothing_left, "an empty namespace", seconds=120)


@pytest.mark.parametrize(
    ("service", "right"),
    [
        *(("api", f"{verb} secrets") for verb in ("get", "list", "update", "delete")),
        *(("tctl", f"{verb} secrets") for verb in ("get", "list", "create")),
        *(("api", right) for right in ("get pods", "create pods", "delete pods")),
        *(("api", right) for right in ("create roles", "get configmaps")),
        *(("tctl", right) for right in ("create pods", "create jobs", "create pods/exec")),
    ],
)
async def test_services_have_no_such_right_in_any_namespace(
    release: Release, labs: dict[str, Kube], service: str, right: str
) -> None:
    account = _account(release, service)
    everywhere = [*labs.values(), labs["bob"].service]
    assert [kube.namespace for kube in everywhere if await _may(kube, account, right)] == []


@pytest.mark.parametrize(
    ("service", "right"),
    [
        *(("api", right) for right in ("create jobs", "create secrets", "create persistentvolumeclaims")),
        *(
            ("tctl", right)
            for right in ("patch pods", "delete pods", "get pods", "list events", "delete jobs")
        ),
    ],
)
async def test_rights_about_tasks_end_at_their_namespaces(
    release: Release, labs: dict[str, Kube], service: str, right: str
) -> None:
    account = _account(release, service)
    assert [kube.namespace for kube in labs.values() if not await _may(kube, account, right)] == []
    assert not await _may(labs["bob"].service, account, right)


def _account(release: Release, service: str) -> str:
    return f"system:serviceaccount:{release.namespace}:{release.name}-poiesis-{service}"


async def _may(kube: Kube, user: str, right: str) -> bool:
    try:
        answer = await kube.run("auth", "can-i", *right.split(), "--as", user)
    except CommandError as error:  # kubectl exits with 1 for "no"
        answer = error.output
    last = answer.split()[-1]
    assert last in {"yes", "no"}, answer
    return last == "yes"


async def test_task_pod_cannot_mount_the_services_secrets(release: Release, labs: dict[str, Kube]) -> None:
    """A Secret is mounted by its name, in the Pod's own namespace."""
    theirs = {one["metadata"]["name"] for one in await labs["bob"].service.find("secrets")}
    dsns = {name for name in theirs if "postgres" in name or "recorder" in name}
    assert dsns
    for kube in labs.values():
        reachable = {one["metadata"]["name"] for one in await kube.find("secrets")}
        assert not reachable & dsns
