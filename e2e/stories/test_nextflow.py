"""As a user of Nextflow I run processes with its plugin nf-ga4gh 1.4, whose requests are repeated here.

The plugin polls without a view, reads the exit code from the first log of the first attempt, and reads
everything else from the work directory in object storage, also after a failure.
"""

from typing import Any

import pytest

from poiesis_e2e.storage import Bucket
from poiesis_e2e.tes_client import Document, TesClient

pytestmark = pytest.mark.e2e

_RUN = """
cd /work
bash .command.sh >.command.out 2>.command.err
code=$?
echo $code >.exitcode
exit $code
"""


async def _process(client: TesClient, bucket: Bucket, image: str, script: str, outputs: list[str]) -> Any:
    """Run one process in the work directory `work/`; return the task in the FULL view."""
    for name, content in ((".command.sh", script), (".command.run", _RUN), ("reads.txt", "acgt\n")):
        await bucket.put(f"work/{name}", content.encode())
    ours = [_output(bucket, name) for name in (".command.out", ".command.err", ".command.log", ".exitcode")]
    document: Document = {
        "name": "ALIGN (2)",
        "inputs": [
            {"url": bucket.url(f"work/{name}"), "path": f"/work/{name}", "type": "FILE"}
            for name in (".command.sh", ".command.run", "reads.txt")
        ],
        "outputs": [*ours, *(_output(bucket, name) for name in outputs)],
        "resources": {"ram_gb": 0.186, "backend_parameters_strict": False},
        "executors": [
            {
                "command": [
                    *("bash", "-o", "pipefail", "-c"),
                    "bash /work/.command.run 2>&1 | tee /work/.command.log",
                ],
                "image": image,
                "workdir": "/work",
            }
        ],
        "tags": {},
    }
    return await client.run(document)


def _output(bucket: Bucket, name: str) -> dict[str, str]:
    if "*" in name or "?" in name:
        pattern = {"path_prefix": "/work", "url": bucket.url("work")}
        return {"path": f"/work/{name}", "type": "FILE", **pattern}
    return {"path": f"/work/{name}", "url": bucket.url(f"work/{name}"), "type": "FILE"}


async def test_process_leaves_files_in_the_work_directory(
    client: TesClient, bucket: Bucket, snakemake_image: str
) -> None:
    script = "echo hello; tr a t <reads.txt >a.txt; mkdir -p results/deep; cp a.txt results/deep/b.txt"
    outputs = ["*.txt", "results", "optional.txt", "*.{bam,bai}"]

    task = await _process(client, bucket, snakemake_image, script, outputs)

    assert task["state"] == "COMPLETE", task
    assert await bucket.text("work/.command.out") == "hello\n"
    assert await bucket.text("work/.exitcode") == "0\n"
    assert await bucket.text("work/a.txt") == "tcgt\n"
    assert await bucket.text("work/results/deep/b.txt") == "tcgt\n"
    assert "work/optional.txt" not in await bucket.keys("work/")


async def test_failed_process_has_exit_code_and_output(
    client: TesClient, bucket: Bucket, snakemake_image: str
) -> None:
    task = await _process(client, bucket, snakemake_image, "echo gone wrong >&2; exit 3", ["*.txt"])

    assert task["state"] == "EXECUTOR_ERROR", task
    assert task["logs"][0]["logs"][0]["exit_code"] == 3
    assert await bucket.text("work/.command.err") == "gone wrong\n"
    assert await bucket.text("work/.exitcode") == "3\n"
