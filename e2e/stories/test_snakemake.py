"""As a user of Snakemake I run my rules as tasks, with my files in object storage."""

import asyncio
import os
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from poiesis_e2e.command import ended
from poiesis_e2e.kube import Kube, Node
from poiesis_e2e.little_cpu import little_cpu
from poiesis_e2e.storage import Bucket, Endpoint
from poiesis_e2e.tes_client import TesClient
from poiesis_lab import clients

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("room")]

_SCRIPT = "/tmp/run_snakemake.sh"  # occurs in Snakemake's tasks only
_SUBMITTED = r"Task submitted: (\S+)"
_SNAKEFILE = """
rule all:
    input: "shouted.txt"

rule sort:
    input: "words.txt"
    output: "sorted.txt"
    shell: "sort {input} > {output}"

rule shout:
    input: "sorted.txt"
    output: "shouted.txt"
    shell: "tr a-z A-Z < {input} > {output}; %s"
"""


@dataclass(frozen=True, kw_only=True)
class Snakemake:
    """Snakemake 9 with the executor plugin tes 0.1.3, in a directory, with a server and a bucket."""

    program: Path
    folder: Path
    client: TesClient
    options: tuple[str, ...]
    environment: dict[str, str]

    async def run(self, snakefile: str) -> tuple[int | None, str]:
        """Return the exit code, and the output of Snakemake and its tasks."""
        (self.folder / "Snakefile").write_text(snakefile)
        process = await asyncio.create_subprocess_exec(
            *(self.program, *self.options),
            cwd=self.folder,
            env=self.environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        code, output, _ = await ended(process, 900)  # the first poll of each job is after 40 s
        tasks = [await self.client.get(task_id, "FULL") for task_id in re.findall(_SUBMITTED, output)]
        return code, "\n".join([output, *map(str, tasks)])


@pytest.fixture
def keys(storage: Endpoint) -> dict[str, str]:
    """Return the storage's keys as environment variables, which Snakemake passes to its jobs."""
    return {
        "SNAKEMAKE_STORAGE_S3_ACCESS_KEY": storage.access_key,
        "SNAKEMAKE_STORAGE_S3_SECRET_KEY": storage.secret_key,
    }


@pytest.fixture
def files(storage: Endpoint, bucket: Bucket) -> tuple[str, ...]:
    """Return the storage options: Snakemake and its jobs use the same URL."""
    return (
        *("--default-storage-provider", "s3", "--default-storage-prefix", f"s3://{bucket.name}"),
        *("--storage-s3-endpoint-url", storage.pod_url),
    )


@pytest.fixture
async def room(kube: Kube, node: Node) -> AsyncIterator[None]:
    """Reduce the CPU request of jobs, which is a whole core."""
    async with little_cpu(kube, node, _SCRIPT):
        yield


@pytest.fixture
async def snakemake(
    client: TesClient, snakemake_image: str, files: tuple[str, ...], keys: dict[str, str], tmp_path: Path
) -> Snakemake:
    """Return Snakemake in an empty directory."""
    binaries = await asyncio.to_thread(clients.environment, "snakemake-9")
    (tmp_path / "funnel.log").touch()  # the plugin prints it for a failed job
    return Snakemake(
        program=binaries / "snakemake",
        folder=tmp_path,
        client=client,
        options=(
            *("--executor", "tes", "--tes-url", client.base.removesuffix("/v1"), "--jobs", "2"),
            *("--container-image", snakemake_image, "--default-resources", "mem_mb=500"),
            *files,
        ),
        environment={
            "PATH": f"{binaries}:{os.environ['PATH']}",
            "HOME": str(tmp_path),
            "NO_PROXY": "*",
            "GITHUB_WORKSPACE": str(tmp_path),
            **keys,
        },
    )


async def test_two_rules_give_their_file(snakemake: Snakemake, bucket: Bucket) -> None:
    await bucket.put("words.txt", b"pear\napple\nfig\n")

    code, output = await snakemake.run(_SNAKEFILE % "true")

    assert code == 0, output
    assert await bucket.text("shouted.txt") == "APPLE\nFIG\nPEAR\n"


async def test_a_rule_that_fails_fails_the_workflow(snakemake: Snakemake, bucket: Bucket) -> None:
    await bucket.put("words.txt", b"fig\n")

    code, output = await snakemake.run(_SNAKEFILE % "exit 3")

    assert code == 1, output
    assert "Error in rule shout" in output
    assert await bucket.text("sorted.txt") == "fig\n"
    assert "shouted.txt" not in await bucket.keys()
