"""As a newcomer I run the demo's task and get the documented results."""

import asyncio

import pytest

from poiesis_e2e.demo import data, task
from poiesis_e2e.documents import assert_ended
from poiesis_e2e.storage import Bucket
from poiesis_e2e.tes_client import TesClient
from poiesis_lab import backends

pytestmark = pytest.mark.e2e


@pytest.mark.core
async def test_demo_task_aligns_the_reads(client: TesClient, bucket: Bucket, demo_image: str) -> None:
    files = await asyncio.to_thread(data.example_files)
    server = await asyncio.to_thread(backends.start_file_server, task.served(files))
    await task.upload_reads(files, bucket)

    finished = await client.run(task.document(demo_image, server.pod_url, bucket), timeout=600)

    assert_ended(finished, "COMPLETE")
    results = await task.verify(finished, bucket)
    assert results.mapped_percent > task.MAPPED_AT_LEAST
