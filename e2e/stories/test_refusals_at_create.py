"""As a user I get an error at the create if a task cannot run; every other task is accepted."""

import json
import re
from typing import Any, cast

import pytest

from poiesis_e2e.documents import RunTask, assert_ended, only_log, sh, stdout, system_logs
from poiesis_e2e.kube import TASK_LABEL, Kube
from poiesis_e2e.storage import Bucket
from poiesis_e2e.tes_client import Document, Input, TesClient, TesError
from poiesis_lab.images import Images

pytestmark = pytest.mark.e2e

_SHARD = "/cromwell-executions/JointGenotyping/3c1f0f52-9b5e-4d0a-8f7e-2a6c4b1d9e80/call-ImportGVCFs/shard-0"
_REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "user, host and port in an S3 URL": (
        {"outputs": [{"path": "/data/r", "url": "s3://someone:hidden-word@s3.example.org:9000/bucket/r"}]},
        "outputs[0].url",
        "s3://bucket/key",
    ),
    "a file for a directory's URL": (
        {"outputs": [{"path": "/data/r", "url": "s3://bucket/r/", "type": "FILE"}]},
        "outputs[0].url",
        "names a directory",
    ),
    "a directory by HTTP": (
        {"inputs": [{"path": "/data/", "url": "https://example.org/data/"}]},
        "inputs[0].url",
        "cannot list a directory",
    ),
    "a kernel's path": ({"inputs": [{"path": "/proc/x", "content": "x"}]}, "inputs[0].path", "/proc"),
    "a reversed range": (
        {"outputs": [{"path": "/out/[z-a]", "path_prefix": "/out", "url": "s3://bucket/o"}]},
        "outputs[0].path",
        "'z-a'",
    ),
    "more than a node has": ({"resources": {"cpu_cores": 100000}}, "resources.cpu_cores", "at most 256"),
}
_EXECUTORS: dict[str, tuple[dict[str, Any], str, str]] = {
    "a long argument": ({"command": ["sh", "-c", ": " + "x" * 200_000]}, "executors[0].command[2]", "131071"),
    "a long variable": ({"env": {"A": "x" * 131_072}}, "executors[0].env", "131071"),
    "a descriptor as workdir": ({"workdir": "/proc/self/fd/8"}, "executors[0].workdir", "/proc"),
    "no image name": ({"image": "docker://busybox"}, "executors[0].image", "scheme"),
}


@pytest.mark.parametrize("case", [*_REFUSED, *_EXECUTORS])
async def test_task_that_cannot_run_is_rejected(client: TesClient, images: Images, case: str) -> None:
    fields, field, words = (_REFUSED | _EXECUTORS)[case]
    changed, fields = (fields, {}) if case in _EXECUTORS else ({}, fields)
    executor = {"image": images.busybox, "command": ["true"]} | changed
    with pytest.raises(TesError) as refusal:
        await client.create(cast("Document", {"executors": [executor], **fields}))
    assert refusal.value.status == 400
    assert field in str(refusal.value)
    assert words in str(refusal.value)
    assert "hidden-word" not in str(refusal.value)


async def test_too_many_executors_for_kubernetes_are_rejected(client: TesClient, images: Images) -> None:
    with pytest.raises(TesError) as refusal:
        await client.create(
            {
                "executors": [sh(images.busybox, "true")] * 315,
                "outputs": [{"path": "/out/x", "url": "s3://bucket/x"}],
            }
        )
    assert refusal.value.status == 400
    assert "the maximum is 100" in str(refusal.value)


async def test_the_largest_accepted_task_fits_into_etcd(
    client: TesClient, kube: Kube, images: Images
) -> None:
    """Kubernetes stores the whole Pod again whenever one of its containers starts or ends."""
    executors, too_long = 100, 20_000

    def document(length: int) -> Document:
        executor = {**sh(images.busybox, "true"), "env": {"LONG": "x" * length}}
        return cast(
            "Document",
            {
                "executors": [executor] * executors,
                "outputs": [{"path": "/out/x", "url": "s3://bucket/x"}],
                "resources": {"cpu_cores": 200},  # unschedulable: only its size matters
            },
        )

    with pytest.raises(TesError) as refusal:
        await client.create(document(too_long))
    found = re.search(r"about (\d+) bytes; the maximum is (\d+)", refusal.value.body)
    assert found, refusal.value.body
    size, limit = map(int, found.groups())

    task_id = await client.create(document(too_long - (size - limit) // executors - 1))
    try:
        await kube.pod(task_id)
        selector = f"--selector={TASK_LABEL}={task_id}"
        listed = await kube.run("get", "pods", selector, "--show-managed-fields", "--output=json")
        (pod,) = json.loads(listed)["items"]
    finally:
        await client.cancel(task_id)

    assert len(json.dumps(pod, separators=(",", ":"))) <= limit
    assert (await client.wait(task_id)).state == "CANCELED"


async def test_an_input_without_type_may_be_a_directory(
    run_task: RunTask, images: Images, bucket: Bucket
) -> None:
    await bucket.put("ref/genome.fa", b"ACGT\n")
    task = await run_task(
        {
            "executors": [
                sh(images.busybox, "ls /ref && echo idx > /ref/genome.fa.fai && cat /ref/extra.txt")
            ],
            "inputs": [
                {"path": "/ref", "url": bucket.url("ref/")},
                {"path": "/ref/extra.txt", "content": "extra\n"},
            ],
            "outputs": [
                {"path": "/ref/genome.fa.fai", "url": bucket.url("idx/genome.fa.fai"), "type": "FILE"}
            ],
            "volumes": ["/ref"],
        }
    )

    assert_ended(task, "COMPLETE")
    assert stdout(task) == "extra.txt\ngenome.fa\nextra\n"
    assert await bucket.text("idx/genome.fa.fai") == "idx\n"


async def test_brackets_may_be_escaped_or_not(run_task: RunTask, images: Images, bucket: Bucket) -> None:
    script = "mkdir -p /out '/run[1]'; echo 1 >'/out/sample[1].txt'; echo 2 >'/out/plain[2].txt'"
    script += "; echo 3 >'/run[1]/x'"
    task = await run_task(
        {
            "executors": [sh(images.busybox, script)],
            "outputs": [
                {"path": r"/out/sample\[1\].txt", "url": bucket.url("o/one.txt"), "type": "FILE"},
                {"path": "/out/plain[2].txt", "url": bucket.url("o/two.txt"), "type": "FILE"},
                {"path": r"/run\[1\]/x", "url": bucket.url("o/three.txt")},
                {"path": "/out/[a-c]*.none", "path_prefix": "/out", "url": bucket.url("nothing")},
            ],
        }
    )

    assert_ended(task, "COMPLETE")
    assert {key: await bucket.text(key) for key in await bucket.keys()} == {
        "o/one.txt": "1\n",
        "o/two.txt": "2\n",
        "o/three.txt": "3\n",
    }
    sent = {log["path"] for log in only_log(task)["outputs"]}
    assert sent == {"/out/sample[1].txt", "/out/plain[2].txt", "/run[1]/x"}
    assert "is used as a pattern, and as the name of a file" in system_logs(task)


async def test_unusual_paths_tags_and_strings_are_accepted(run_task: RunTask, images: Images) -> None:
    longest = "x" * 131_071
    task = await run_task(
        {
            "executors": [
                {
                    "image": images.busybox,
                    "command": [
                        "sh",
                        "-c",
                        "cat /etc/hosts '/data:x/y:z'; echo ${#1} ${#LONG}",
                        "sh",
                        longest,
                    ],
                    "env": {"LONG": longest[len("LONG=") :]},
                    "stdin": "/dev/null",
                    "stderr": "/dev/null",
                    "workdir": "/dev/shm",
                }
            ],
            "inputs": [
                {"path": "/etc/hosts", "content": "hosts\n"},
                {"path": "/data:x/y:z", "content": "colon\n"},
            ],
            "tags": {"document": "v" * 5000},
        }
    )

    assert_ended(task, "COMPLETE")
    assert stdout(task) == "hosts\ncolon\n131071 131066\n"


async def test_1200_inputs_in_separate_directories_are_staged(
    run_task: RunTask, images: Images, bucket: Bucket
) -> None:
    await bucket.put("in/x", b"x\n")
    inputs: list[Input] = [
        {"path": f"{_SHARD}/inputs/{n:010d}/sample.g.vcf.gz", "type": "FILE", "url": bucket.url("in/x")}
        for n in range(1200)
    ]
    script = "find /cromwell-executions -name sample.g.vcf.gz | wc -l"
    task = await run_task({"executors": [sh(images.busybox, script)], "inputs": inputs})

    assert_ended(task, "COMPLETE")
    assert stdout(task).strip() == "1200"
