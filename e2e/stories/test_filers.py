"""As an operator I offer many kinds of stores, and tasks use several of them."""

import json
import uuid

import pytest

from poiesis_e2e.documents import assert_ended, only_log, sh, stdout, system_logs
from poiesis_e2e.install import SHARED_CLAIM
from poiesis_e2e.kube import Kube, containers
from poiesis_e2e.storage import Bucket
from poiesis_e2e.tes_client import TesClient, TesError
from poiesis_lab.backends import Remote
from poiesis_lab.images import Images

pytestmark = pytest.mark.e2e


async def test_one_task_uses_several_stores(
    *,
    second_client: TesClient,
    second_kube: Kube,
    images: Images,
    bucket: Bucket,
    weed: Bucket,
    remotes: dict[str, Remote],
) -> None:
    folder = uuid.uuid4().hex
    sftp, webdav = remotes["sftp"], remotes["webdav"]
    by_sftp, by_webdav = (f"{name}://{one.pod_address}/{folder}" for name, one in remotes.items())
    in_weed, out_weed = (weed.url(key).replace("s3:", "weed:") for key in ("in", "out"))
    sftp.put({f"{folder}/in/a b": b"by sftp\n"})
    webdav.put({f"{folder}/in/ref/1": b"by webdav\n", f"{folder}/in/ref/sub/2": b"and below\n"})
    await weed.put("in", b"by another S3\n")
    await bucket.put("in", b"by S3\n")

    task = await second_client.run(
        {
            "executors": [
                sh(images.busybox, "cat /in/a /in/ref/1 /in/ref/sub/2 /in/weed /in/s3 | tee /out/all.txt")
            ],
            "inputs": [
                {"path": "/in/a", "url": f"{by_sftp}/in/a%20b"},
                {
                    "path": "/in/ref",
                    "url": f"{by_webdav}/in/ref",
                    "type": "DIRECTORY",
                },
                {"path": "/in/weed", "url": in_weed},
                {"path": "/in/s3", "url": bucket.url("in")},
            ],
            "outputs": [
                {"path": "/out/all.txt", "url": f"{by_sftp}/out/all.txt"},
                {
                    "path": "/out/*.txt",
                    "path_prefix": "/out",
                    "url": f"{by_webdav}/out",
                },
                {"path": "/out/all.txt", "url": out_weed},
                {"path": "/out/all.txt", "url": bucket.url("out")},
            ],
        }
    )

    assert_ended(task, "COMPLETE")
    everything = "by sftp\nby webdav\nand below\nby another S3\nby S3\n"
    assert stdout(task) == everything
    assert sftp.get(f"{folder}/out/all.txt") == webdav.get(f"{folder}/out/all.txt") == everything.encode()
    assert await weed.text("out") == await bucket.text("out") == everything
    assert {(sent["url"], sent["path"], sent["size_bytes"]) for sent in only_log(task)["outputs"]} == {
        (url, "/out/all.txt", str(len(everything)))
        for url in (
            f"{by_sftp}/out/all.txt",
            f"{by_webdav}/out/all.txt",
            out_weed,
            bucket.url("out"),
        )
    }
    pod = await second_kube.pod(task["id"])
    assert [name for name in containers(pod) if name.startswith(("tif-", "tof-"))] == [
        *("tif-0", "tif-1", "tof-0", "tof-1")  # one container per filer, not per scheme
    ]
    assert sftp.password not in json.dumps(pod) + json.dumps(task)


async def test_missing_remote_object_fails_task_with_its_name(
    second_client: TesClient, images: Images, remotes: dict[str, Remote]
) -> None:
    url = f"sftp://{remotes['sftp'].pod_address}/no/such/file"
    task = await second_client.run(
        {"executors": [sh(images.busybox, "echo never")], "inputs": [{"path": "/in/it", "url": url}]}
    )
    assert_ended(task, "SYSTEM_ERROR")
    assert f"cannot read {url} (input /in/it): not found" in system_logs(task)


@pytest.mark.usefixtures("shared_claim")
async def test_shared_volume_exposes_only_its_own_files(second_client: TesClient, images: Images) -> None:
    folder = uuid.uuid4().hex
    made = await second_client.run(
        {
            "executors": [sh(images.busybox, "mkdir /out/sub && echo one >/out/1 && echo two >/out/sub/2")],
            "outputs": [{"path": "/out", "url": f"file:///lab/write/{folder}/run%201", "type": "DIRECTORY"}],
        }
    )
    assert_ended(made, "COMPLETE")

    used = await second_client.run(
        {
            "executors": [sh(images.busybox, "cat /in/1 /dir/1 /dir/sub/2; ls /lab /poiesis")],
            "inputs": [
                {"path": "/in/1", "url": f"/lab/read/{folder}/run 1/1"},
                {"path": "/dir", "url": f"file:///lab/read/{folder}/run%201", "type": "DIRECTORY"},
            ],
        }
    )
    assert stdout(used).startswith("one\none\ntwo\n")
    assert "shared" not in stdout(used)

    linked = await second_client.run(
        {
            "executors": [sh(images.busybox, "echo never")],
            "inputs": [{"path": "/in/link", "url": "/lab/read/link"}],
        }
    )
    assert_ended(linked, "SYSTEM_ERROR")
    assert "the symbolic link /lab/read/link leads to /poiesis/spec/work.json" in system_logs(linked)

    for key, url in (("inputs", "/etc/passwd"), ("outputs", "/lab/read/x")):
        with pytest.raises(TesError) as refused:
            await second_client.create(
                {"executors": [sh(images.busybox, "true")], key: [{"path": "/data/x", "url": url}]}
            )
        assert f"{key}[0].url: {url!r} is outside every " in str(refused.value)


@pytest.fixture
async def shared_claim(second_kube: Kube, images: Images) -> None:
    """Create the claim of the shared volumes, with a link to the filer's work list."""
    name = f"link-{uuid.uuid4().hex[:8]}"
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": SHARED_CLAIM},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Mi"}}},
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "restartPolicy": "Never",
            "volumes": [{"name": "shared", "persistentVolumeClaim": {"claimName": SHARED_CLAIM}}],
            "containers": [
                {
                    "name": "link",
                    "image": images.busybox,
                    "command": ["ln", "-sfn", "/poiesis/spec/work.json", "/shared/link"],
                    "volumeMounts": [{"name": "shared", "mountPath": "/shared"}],
                }
            ],
        },
    }
    for manifest in (claim, pod):
        await second_kube.run("apply", "-f", "-", input_text=json.dumps(manifest))
    await second_kube.run("wait", f"pod/{name}", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=120s")
    await second_kube.run("delete", "pod", name, "--wait=false")
