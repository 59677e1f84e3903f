"""As an operator I know that a task's own containers hold no token and no credential."""

import base64

import pytest

from poiesis_e2e.documents import assert_ended, sh
from poiesis_e2e.kube import Kube, Object, containers
from poiesis_e2e.storage import Bucket, Endpoint
from poiesis_e2e.tes_client import TesClient
from poiesis_lab.images import Images

pytestmark = pytest.mark.e2e

# all that the executor can read, except for the kernel's files and its own data
_LOOK = """
exec >/out/report 2>/dev/null
env; echo; cat /proc/1/environ /proc/self/environ; echo; cat /proc/mounts
find / \\( -path /proc -o -path /sys -o -path /bin -o -name out \\) -prune -o -type f -print >/tmp/files
cat /tmp/files
while read -r file; do [ "$(stat -c %s "$file")" -lt 1000000 ] && cat "$file"; done </tmp/files
echo looked at $(wc -l </tmp/files) files
"""


@pytest.mark.core
async def test_executor_sees_no_token_and_no_credential(
    client: TesClient, kube: Kube, images: Images, bucket: Bucket, storage: Endpoint
) -> None:
    await bucket.put("in", b"an input as a control\n")
    executor = sh(images.busybox, _LOOK)
    executor["env"] = {"CONTROL": "a variable as a control"}
    task_id = await client.create(
        {
            "executors": [executor, sh(images.busybox, "sleep 5")],
            "inputs": [{"path": "/in/it", "url": bucket.url("in")}],
            "outputs": [
                {"path": "/out/report", "url": bucket.url("report")},
                {"path": "/etc/made", "url": bucket.url("made")},  # mounts /poiesis/collect too
            ],
        }
    )
    await client.wait(task_id, until={"RUNNING"})
    pod = await kube.pod(task_id)
    stored = [*await kube.find("secrets"), *await kube.service.find("secrets")]
    secrets = _secrets(stored) | {"storage": storage.secret_key.encode()}
    await client.wait(task_id)
    assert_ended(await client.get(task_id, "FULL"), "COMPLETE")
    report = await bucket.get("report")

    assert b"a variable as a control" in report
    assert b"an input as a control" in report
    assert b"looked at" in report
    assert any(name.endswith("/token") for name in secrets)
    assert any(name.endswith("dsn") for name in secrets)
    found = [name for name, secret in secrets.items() if secret in report]
    assert found == []
    assert b"serviceaccount" not in report
    _assert_manifest(pod)


def _secrets(objects: list[Object]) -> dict[str, bytes]:
    """Return the values in the namespace's Secrets by name, without helm's records and lists of paths."""
    return {
        f"{one['metadata']['name']}/{key}": base64.b64decode(value)
        for one in objects
        if not one["type"].startswith("helm.sh/")
        for key, value in one.get("data", {}).items()
        if len(base64.b64decode(value)) >= 8 and not key.startswith("paths-")  # the task's own paths
    }


def _assert_manifest(pod: Object) -> None:
    assert pod["spec"]["automountServiceAccountToken"] is False
    secret_volumes = {
        volume["name"]
        for volume in pod["spec"]["volumes"]
        if not {"emptyDir", "persistentVolumeClaim", "ephemeral"} & volume.keys()
    }
    assert secret_volumes
    executors = {name: one for name, one in containers(pod).items() if name.startswith("executor-")}
    assert len(executors) == 2
    for one in executors.values():
        assert "envFrom" not in one
        assert [variable for variable in one.get("env", ()) if "valueFrom" in variable] == []
        assert {mount["name"] for mount in one["volumeMounts"]} & secret_volumes == set()
        assert one["securityContext"]["allowPrivilegeEscalation"] is False
