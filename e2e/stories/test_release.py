"""As an operator I install a release from an image registry, by one command, and run the demo's task."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from poiesis_e2e.demo import data, task
from poiesis_e2e.documents import assert_ended
from poiesis_e2e.install import (
    STORAGE_SECRET,
    Release,
    Values,
    chart_values,
    install,
    kube_of,
    service_kube_of,
    storage_secret,
    uninstall,
)
from poiesis_e2e.kube import Kube
from poiesis_e2e.storage import Bucket, Endpoint
from poiesis_e2e.tes_client import TesClient, connect
from poiesis_e2e.transport import transport
from poiesis_lab import backends, host
from poiesis_lab.cluster import Cluster
from poiesis_lab.images import Images
from poiesis_tools.release import facts, publish
from poiesis_tools.release.__main__ import build

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

_NAME = "published"
_REGISTRY = "poiesis-registry"
_VALUES: Values = {
    "images": {"registry": None},  # that of the released chart
    "config": {"volume": {"type": "emptyDir"}},
    "api": {"replicas": 1},
    "gateway": {"replicas": 1},
    "tctl": {"replicas": 1},
}


@pytest.fixture(scope="module")
def published(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Build a release, push it to a registry that the nodes reach, and return its digests.json."""
    registry = backends.start_registry(_REGISTRY)
    address = f"{registry.pod_host}:{registry.pod_port}"
    cluster.trust_registry(address)
    folder: Path = tmp_path_factory.mktemp("release")
    build(folder, facts.gather(f"{address}/bio"), [f"linux/{host.architecture()}"])
    publish.publish(folder)
    yield json.loads((folder / "digests.json").read_text())
    backends.remove(_REGISTRY)


@pytest.fixture(scope="module")
def release(
    cluster: Cluster, published: Mapping[str, Any], storage: Endpoint, images: Images
) -> Iterator[Release]:
    """Return a release of the published chart; nothing of it is in the nodes."""
    namespace = f"poiesis-e2e-{os.environ['POIESIS_E2E_RUN']}-{_NAME}"
    chart = (f"oci://{published['registry']}/charts/poiesis", "--version", published["version"])
    try:
        yield install(
            cluster,
            name=_NAME,
            namespace=namespace,
            values=chart_values({}, storage, images.postgres, _VALUES),
            secrets={STORAGE_SECRET: storage_secret(storage)},
            seconds=300,
            chart=(*chart, "--plain-http"),
        )
    finally:
        uninstall(cluster, _NAME, namespace)


@pytest_asyncio.fixture(loop_scope="module")
async def client(release: Release) -> AsyncIterator[TesClient]:
    async with connect(release.url, keep_alive=False) as made:
        yield made


@pytest.fixture
def tasks(cluster: Cluster, release: Release) -> Kube:
    """Return kubectl for the namespace of the tasks."""
    return kube_of(cluster, release)


def _images(pods: list[dict[str, Any]]) -> set[str]:
    return {
        container["image"]
        for pod in pods
        for kind in ("initContainers", "containers")
        for container in pod["spec"].get(kind, ())
    }


def _by_digest(published: Mapping[str, Any], *services: str) -> set[str]:
    registry, version, digests = published["registry"], published["version"], published["artifacts"]
    return {f"{registry}/{name}:{version}@{digests[name]}" for name in (f"poiesis-{one}" for one in services)}


async def test_services_run_the_published_images(
    cluster: Cluster, release: Release, published: Mapping[str, Any]
) -> None:
    kube = service_kube_of(cluster, release)

    services = ("api", "tctl", "gateway") if transport() == "gateway" else ("api", "tctl")

    found = _images(await kube.of_component("pods", *services))

    assert found >= _by_digest(published, *services)


async def test_demo_task_runs_on_the_published_images(
    tasks: Kube, published: Mapping[str, Any], client: TesClient, bucket: Bucket, demo_image: str
) -> None:
    files = await asyncio.to_thread(data.example_files)
    server = await asyncio.to_thread(backends.start_file_server, task.served(files))
    await task.upload_reads(files, bucket)

    finished = await client.run(task.document(demo_image, server.pod_url, bucket), timeout=600)

    assert_ended(finished, "COMPLETE")
    results = await task.verify(finished, bucket)
    assert results.mapped_percent > task.MAPPED_AT_LEAST
    pods = await tasks.of_task("pods", finished["id"])
    assert _images(pods) >= _by_digest(published, "trec", "helper", "tif", "tof")
