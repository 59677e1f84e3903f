"""As a user I read the events of a task in its system_logs, in order, without kubectl."""

import hashlib
import json
import re
import tarfile
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path

import pytest

from poiesis_e2e.documents import assert_ended, only_log, seconds, sh
from poiesis_e2e.kube import Kube, Node
from poiesis_e2e.storage import Bucket
from poiesis_e2e.tes_client import Task, TesClient
from poiesis_e2e.waiting import eventually
from poiesis_lab import docker
from poiesis_lab.images import Images

pytestmark = pytest.mark.e2e

_PORT = 5081  # on the node; the kubelet accepts plain HTTP from a registry on localhost
# The media types of a registry, which the file server lacks.
_ANSWER = """
read -r method path version
while read -r line && [ "${line%?}" ]; do :; done
type=application/octet-stream
case "$path" in
    /v2/) file=/tmp/empty; : >$file ;;
    */manifests/*) file=/tmp/manifest; type=application/vnd.oci.image.manifest.v1+json ;;
    *) file="/tmp/${path##*:}" ;;
esac
[ -f "$file" ] || wget -q -O "$file" "$0/${file##*/}" || exit 1
printf 'HTTP/1.1 200 OK\\r\\nConnection: close\\r\\nContent-Type: %s\\r\\n' "$type"
printf 'Content-Length: %s\\r\\n\\r\\n' "$(wc -c <"$file")"
[ "$method" = HEAD ] || cat "$file"
"""


async def test_system_logs_list_events_in_order(client: TesClient, images: Images, bucket: Bucket) -> None:
    await bucket.put("in", b"12345")
    task_id = await client.create(
        {
            "inputs": [{"path": "/data/in", "url": bucket.url("in")}],
            "executors": [sh(images.busybox, "cat /data/in"), sh(images.busybox, "echo it >/data/out")],
            "outputs": [{"path": "/data/out", "url": bucket.url("out")}],
        }
    )
    lines = await _story(client, task_id)
    _assert_in_order(
        lines,
        r"Scheduled: Successfully assigned \S+ to \S+",
        r"Pod \S+ started on node \S+",
        r"tif-0 staged 1 file, 5 bytes",
        r"executor 0 started",
        r"executor 0 exited with code 0",
        r"executor 1 started",
        r"executor 1 exited with code 0",
        r"tof-0 sent 1 file, 3 bytes",
        r"COMPLETE",
    )
    assert not [line for line in lines if "Pull" in line], lines  # every image was present
    assert len(lines) == len(set(lines))


async def test_pulled_image_is_logged_with_size_and_duration(
    client: TesClient, images: Images, registry: str
) -> None:
    task_id = await client.create(
        {"executors": [sh(images.busybox, "echo first"), sh(registry, "echo second")]}
    )
    lines = await _story(client, task_id)
    image = re.escape(f'"{registry}"')
    _assert_in_order(
        lines,
        r"Scheduled: .*",
        r"executor 0 exited with code 0",
        f"executor-1: Pulling: Pulling image {image}",
        f"executor-1: Pulled: Successfully pulled image {image} in .*s.*bytes.*",
        r"executor 1 started",
        r"executor 1 exited with code 0",
        r"COMPLETE",
    )


async def test_unschedulable_task_states_why_while_queued(client: TesClient, images: Images) -> None:
    task_id = await client.create(
        {"executors": [sh(images.busybox, "true")], "resources": {"cpu_cores": 250}}
    )

    async def explained() -> bool:
        task = await client.get(task_id, "FULL")
        assert task["state"] == "QUEUED"
        return any("FailedScheduling: 0/" in line for line in _lines(task))

    await eventually(explained, "why it waits", seconds=20)
    await client.cancel(task_id)
    await client.wait(task_id)


async def _story(client: TesClient, task_id: str) -> list[str]:
    """Return the system logs without times; wait for events, which may arrive after the outcome."""
    await client.wait(task_id)

    async def whole() -> Task | None:
        task = await client.get(task_id, "FULL")
        return task if any(": Successfully assigned " in line for line in _lines(task)) else None

    task = await eventually(whole, "the message of the scheduler", seconds=20)
    assert_ended(task, "COMPLETE")
    times = [seconds(line.partition(" ")[0]) for line in _lines(task)]
    assert times == sorted(times)
    return [line.partition(" ")[2] for line in _lines(task)]


def _lines(task: Task) -> Sequence[str]:
    return only_log(task).get("system_logs", []) if task.get("logs") else []


def _assert_in_order(lines: Sequence[str], *patterns: str) -> None:
    rest = iter(lines)
    for pattern in patterns:
        assert any(re.fullmatch(pattern, line) for line in rest), (pattern, lines)


@pytest.fixture
async def registry(
    kube: Kube, node: Node, images: Images, serve: Callable[[str, bytes], str], tmp_path: Path
) -> AsyncIterator[str]:
    """Start a registry on the node with an image that the node does not have."""
    (where,) = {
        serve(name, content).rpartition("/")[0]
        for name, content in _in_a_registry(images.busybox, tmp_path / "image.tar").items()
    }
    name = f"registry-{uuid.uuid4().hex[:8]}"
    command = ["nc", "-ll", "-p", str(_PORT), "-e", "sh", "-c", _ANSWER, where]
    server = {"name": "registry", "image": images.busybox, "command": command}
    spec = {"containers": [server], "terminationGracePeriodSeconds": 0, "hostNetwork": True}
    kube = kube.service  # Pod Security of the tasks' namespace forbids the node's network
    await kube.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})

    async def runs() -> bool:
        pod = await kube.get("pod", name)
        return pod is not None and pod["status"]["phase"] == "Running"

    await eventually(runs, "a registry", seconds=60)
    image = f"localhost:{_PORT}/tool:{name}"
    yield image
    await kube.delete("pod", name)
    await node.run("ctr", "--namespace", "k8s.io", "images", "rm", image)


def _in_a_registry(image: str, archive: Path) -> Mapping[str, bytes]:
    """Return an image's OCI manifest, configuration and layers, by path in a registry."""
    docker.docker("save", "--output", archive, image)
    with tarfile.open(archive) as tar:

        def content(name: str) -> bytes:
            file = tar.extractfile(name)
            assert file is not None
            return file.read()

        (saved,) = json.loads(content("manifest.json"))
        config, layers = content(saved["Config"]), [content(layer) for layer in saved["Layers"]]
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": _blob("config.v1+json", config),
        "layers": [_blob("layer.v1.tar", layer) for layer in layers],
    }
    blobs = {hashlib.sha256(blob).hexdigest(): blob for blob in (config, *layers)}
    return {**blobs, "manifest": json.dumps(manifest).encode()}


def _blob(kind: str, content: bytes) -> Mapping[str, object]:
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": digest, "size": len(content)}
