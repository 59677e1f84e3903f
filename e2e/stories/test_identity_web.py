"""As an operator I give filers a role by their Pod's token: there are no keys that could leak."""

import base64
import json
from collections.abc import Callable, Iterator

import pytest

from poiesis_e2e.documents import assert_ended, sh
from poiesis_e2e.install import Release, Secrets, Values, endpoint_of, kube_of
from poiesis_e2e.kube import containers
from poiesis_e2e.storage import Bucket, Endpoint, make_bucket
from poiesis_e2e.tes_client import connect
from poiesis_lab import backends, docker
from poiesis_lab.cluster import Cluster
from poiesis_lab.images import Images

pytestmark = pytest.mark.e2e

_AUDIENCE = "sts.poiesis.test"
_DISCOVERY = "poiesis-e2e-issuer-discovery"
_LOOK = "env; cat /proc/mounts; find /poiesis -type f -print 2>/dev/null; true"


@pytest.fixture(scope="module")
def issuer(cluster: Cluster) -> Iterator[str]:
    """Return the issuer of the cluster's API server, with its signing keys readable without a login."""
    binding = ("clusterrolebinding", _DISCOVERY)
    cluster.kubectl("delete", *binding, "--ignore-not-found")
    role = "--clusterrole=system:service-account-issuer-discovery"
    cluster.kubectl("create", *binding, role, "--group=system:unauthenticated")
    yield f"https://{cluster.address()}:6443"
    cluster.kubectl("delete", *binding)


@pytest.fixture(scope="module")
def store(cluster: Cluster, issuer: str) -> Iterator[Endpoint]:
    """Return an S3 service whose STS trusts the issuer."""
    config = json.loads(cluster.kubectl("config", "view", "--raw", "-o", "json"))
    ca = base64.b64decode(config["clusters"][0]["cluster"]["certificate-authority-data"]).decode()
    made = backends.start_minio_for_tokens(issuer, ca, _AUDIENCE)
    yield endpoint_of(made)
    docker.docker("rm", "--force", "--volumes", made.container)


@pytest.fixture(scope="module")
def own_bucket(store: Endpoint) -> Bucket:
    return make_bucket(store)


@pytest.fixture(scope="module")
def release(with_users: Callable[[Values, Secrets], Release], store: Endpoint) -> Release:
    role = {
        "roleArn": backends.minio_role(_AUDIENCE),
        "audience": _AUDIENCE,
        "stsEndpoint": store.pod_url,
    }
    s3 = {"endpoint": store.pod_url, "secretName": None, "webIdentity": role}
    return with_users({"config": {"storage": {"s3": s3}}}, {})


async def test_filers_use_pod_token_that_executors_cannot_read(
    cluster: Cluster, release: Release, images: Images, own_bucket: Bucket
) -> None:
    async with connect(release.url) as client:
        task_id = await client.create(
            {
                "executors": [sh(images.busybox, f"({_LOOK}) >/out/it; cat /in/it >>/out/it")],
                "inputs": [{"path": "/in/it", "url": await own_bucket.put("in", b"data")}],
                "outputs": [{"path": "/out/it", "url": own_bucket.url("out")}],
            }
        )
        pod = await kube_of(cluster, release).pod(task_id)
        await client.wait(task_id)
        assert_ended(await client.get(task_id, "FULL"), "COMPLETE")

    looked = await own_bucket.text("out")
    assert looked.endswith("data")
    assert "web-identity" not in looked
    assert "AWS_" not in looked
    with_token = {
        name
        for name, one in containers(pod).items()
        if "web-identity" in {mount["name"] for mount in one["volumeMounts"]}
    }
    assert with_token == {"tif-0", "tof-0", "rescue-0"}
