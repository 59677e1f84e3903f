"""As an operator of several groups I give each task the S3 credentials of its owner and no others."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from poiesis_e2e.documents import assert_ended, only_log, reason, sh
from poiesis_e2e.install import Release, Secrets, Values, kube_of
from poiesis_e2e.kube import Kube, containers
from poiesis_e2e.ownership import users_secret
from poiesis_e2e.storage import Bucket, Endpoint, make_bucket
from poiesis_e2e.tes_client import Document, TesClient
from poiesis_lab.cluster import Cluster
from poiesis_lab.images import Images

pytestmark = pytest.mark.e2e

# All that an executor can read in its Pod, except for its own data, which would contain the report.
_LOOK = (
    "env; cat /proc/mounts; "
    "find /poiesis -path /poiesis/collect -prune -o -type f -print -exec cat {} + 2>/dev/null; true"
)


@pytest.fixture(scope="module")
def lab_a(storage: Endpoint) -> Iterator[Bucket]:
    made = make_bucket(storage)
    yield made
    made.remove()


@pytest.fixture(scope="module")
def lab_b(storage: Endpoint) -> Iterator[Bucket]:
    made = make_bucket(storage)
    yield made
    made.remove()


@pytest.fixture(scope="module")
def secrets(storage: Endpoint, lab_a: Bucket, lab_b: Bucket) -> dict[str, dict[str, str]]:
    """Return Secrets for each bucket, one that is deleted later, and the deployment's without access."""
    return {
        "lab-a-keys": storage.secret_for(lab_a.name),
        "lab-b-keys": storage.secret_for(lab_b.name),
        "lost-keys": storage.secret_for(lab_a.name),
        "other-keys": storage.secret_for("poiesis-no-such-bucket"),
    }


@pytest.fixture(scope="module")
def release(
    with_users: Callable[[Values, Secrets], Release],
    lab_a: Bucket,
    lab_b: Bucket,
    secrets: dict[str, dict[str, str]],
) -> Release:
    credentials: list[dict[str, Any]] = [
        {"name": "lab-a", "urls": [lab_a.url()], "secretName": "lab-a-keys", "users": ["alice"]},
        {"name": "lab-b", "urls": [lab_b.url()], "secretName": "lab-b-keys", "users": ["bob"]},
        {"name": "foreign", "urls": [lab_b.url("foreign/")], "secretName": "lab-a-keys"},
        {"name": "lost", "urls": [lab_a.url("lost")], "secretName": "lost-keys"},
    ]
    config: Values = {
        "auth": {"mode": "basic", "basic": {"usersSecret": {"name": "tes-users"}}},
        "storage": {"s3": {"secretName": "other-keys", "credentials": credentials}},
    }
    return with_users({"config": config}, {"tes-users": users_secret("alice", "bob"), **secrets})


@pytest.fixture
def own_kube(cluster: Cluster, release: Release) -> Kube:
    return kube_of(cluster, release)


def _copy(images: Images, source: str, target: str) -> Document:
    return {
        "executors": [sh(images.busybox, "cp /in/it /out/it")],
        "inputs": [{"path": "/in/it", "url": source}],
        "outputs": [{"path": "/out/it", "url": target}],
    }


async def test_users_read_and_write_their_own_bucket(
    alice: TesClient, bob: TesClient, images: Images, lab_a: Bucket, lab_b: Bucket
) -> None:
    for client, bucket in ((alice, lab_a), (bob, lab_b)):
        source = await bucket.put("in", b"data")
        assert_ended(await client.run(_copy(images, source, bucket.url("out"))), "COMPLETE")
        assert await bucket.text("out") == "data"


async def test_bucket_of_another_group_is_rejected(
    alice: TesClient, images: Images, lab_a: Bucket, lab_b: Bucket, storage: Endpoint
) -> None:
    source = await lab_b.put("theirs", b"secret")
    task = await alice.run(_copy(images, source, lab_a.url("stolen")))
    assert_ended(task, "SYSTEM_ERROR")
    why = "access denied: the service's credentials do not allow it (HTTP 403, AccessDenied)"
    message = only_log(task)["metadata"]["message"]
    assert message == f"cannot read {source} (input /in/it) at {storage.pod_url}: {why}"
    assert await lab_a.keys("stolen") == []


async def test_error_names_the_rejected_credentials(
    bob: TesClient, images: Images, lab_b: Bucket, storage: Endpoint
) -> None:
    source = await lab_b.put("foreign/it", b"data")
    task = await bob.run(_copy(images, source, lab_b.url("out")))
    assert_ended(task, "SYSTEM_ERROR")
    where = f"at {storage.pod_url} with the credentials foreign: access denied"
    assert where in only_log(task)["metadata"]["message"]


async def test_only_filers_get_credentials_that_they_need(
    alice: TesClient,
    own_kube: Kube,
    images: Images,
    lab_a: Bucket,
    secrets: dict[str, dict[str, str]],
) -> None:
    source = await lab_a.put("in", b"data")
    document = _copy(images, source, lab_a.url("look"))
    document["executors"] = [sh(images.busybox, f"({_LOOK}) >/out/it; cat /in/it >>/out/it")]
    task_id = await alice.create(document)
    pod = await own_kube.pod(task_id)
    await alice.wait(task_id)
    assert_ended(await alice.get(task_id, "FULL"), "COMPLETE")

    mounted = {
        name: [mount["name"] for mount in one["volumeMounts"] if mount["name"].startswith("credentials-")]
        for name, one in containers(pod).items()
    }
    assert {name: mounts for name, mounts in mounted.items() if mounts} == {
        "tif-0": ["credentials-lab-a"],
        "rescue-0": ["credentials-lab-a"],
        "tof-0": ["credentials-lab-a"],
    }
    looked = await lab_a.get("look")
    assert looked.endswith(b"data")
    shown = [
        f"{name}/{key}"
        for name, one in secrets.items()
        for key, value in one.items()
        if value.encode() in looked
    ]
    assert shown == []
    assert b"POIESIS_S3_CREDENTIALS" not in looked


async def test_missing_secret_fails_task_with_its_name(
    alice: TesClient, own_kube: Kube, images: Images, lab_a: Bucket
) -> None:
    source = await lab_a.put("lost/it", b"data")
    await own_kube.delete("secret", "lost-keys")
    task = await alice.run(_copy(images, source, lab_a.url("out")))
    assert_ended(task, "SYSTEM_ERROR")
    message = "credentials lost: the Secret lost-keys does not exist or has no AWS_ACCESS_KEY_ID"
    assert (reason(task), only_log(task)["metadata"]["message"]) == ("Error", message)
