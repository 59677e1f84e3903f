"""As a newcomer I install the chart with the embedded Postgres and disks on the node."""

import pytest

from poiesis_e2e.documents import assert_ended, sh
from poiesis_e2e.kube import Kube
from poiesis_e2e.storage import Bucket
from poiesis_e2e.tes_client import TesClient
from poiesis_lab.images import Images

pytestmark = pytest.mark.e2e


async def test_task_runs_with_embedded_postgres_and_node_disk(
    second_client: TesClient, second_kube: Kube, images: Images, bucket: Bucket
) -> None:
    task = await second_client.run(
        {
            "executors": [sh(images.busybox_nonroot, "echo kept >/out/kept")],
            "outputs": [{"path": "/out/kept", "url": bucket.url("kept")}],
        }
    )

    assert_ended(task, "COMPLETE")
    assert await bucket.text("kept") == "kept\n"
    assert await second_kube.of_task("persistentvolumeclaims", task["id"]) == []
    databases = await second_kube.of_component("statefulsets", "postgres")
    assert [one["status"]["readyReplicas"] for one in databases] == [1]
