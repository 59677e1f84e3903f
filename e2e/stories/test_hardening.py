"""As an operator I decide what tasks may do on my nodes, and what each user may choose for a task."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from poiesis_e2e.documents import RunTask, assert_ended, only_log, reason, sh, stdout, system_logs
from poiesis_e2e.install import Release, Secrets, Values, kube_of, merged
from poiesis_e2e.kube import Kube
from poiesis_e2e.ownership import users_secret
from poiesis_e2e.storage import Bucket
from poiesis_e2e.tes_client import TesClient, TesError
from poiesis_lab.cluster import Cluster
from poiesis_lab.images import Images

pytestmark = pytest.mark.e2e

NET_RAW, MKNOD, AUDIT_WRITE = 1 << 13, 1 << 27, 1 << 29  # capabilities(7), linux/capability.h
SECCOMP_FILTER = "2"  # proc_pid_status(5)
POD_SECURITY = "pod-security.kubernetes.io/enforce"
USER = 1000
ALL_USERS = "4294967295"  # the length of the map in the first user namespace, user_namespaces(7)
STATUS = "grep -E '^(CapBnd|NoNewPrivs|Seccomp):' /proc/self/status"


def _status(text: str) -> dict[str, str]:
    return dict(line.split(":\t") for line in text.splitlines() if ":\t" in line)


async def test_root_lacks_capabilities_of_no_use(run_task: RunTask, images: Images) -> None:
    script = f"id -u; {STATUS}; mknod /device c 1 3 2>&1; true"
    task = await run_task({"executors": [sh(images.busybox, script)]})

    assert_ended(task, "COMPLETE")
    uid, *_, refusal = stdout(task).splitlines()
    assert uid == "0"
    assert int(_status(stdout(task))["CapBnd"], 16) & (NET_RAW | MKNOD | AUDIT_WRITE) == 0
    assert "Operation not permitted" in refusal


async def test_task_has_limits_of_time_and_disk(client: TesClient, kube: Kube, images: Images) -> None:
    task = await client.run({"executors": [sh(images.busybox, "true")]})

    (job,) = await kube.of_task("jobs", task["id"])
    spec = job["spec"]["template"]["spec"]
    (executor,) = (one for one in spec["initContainers"] if one["name"] == "executor-0")
    assert spec["activeDeadlineSeconds"] == 7 * 24 * 3600
    assert int(executor["resources"]["limits"]["ephemeral-storage"]) > 20 * 10**9
    assert executor["resources"]["requests"]["ephemeral-storage"] == "0"


def _values(images: Images) -> Values:
    """Return the values of a release for users who do not trust one another."""
    config: Values = {
        "auth": {"mode": "basic", "basic": {"usersSecret": {"name": "tes-users"}}},
        "executors": {
            "profile": "restricted",
            "securityContext": {"runAsUser": USER, "runAsGroup": USER},
            "images": [images.busybox, {"value": images.busybox_nonroot, "users": ["alice"]}],
            "rootDiskGb": 0.05,
        },
        "volume": {"type": "emptyDir"},
        "backendParameters": {
            "wallTimeSeconds": 600,
            "volumeType": ["emptyDir", {"value": "ephemeral", "users": ["alice"]}],
            "storageClass": [{"value": "standard", "users": ["alice"]}],
        },
    }
    return {"config": config}


@pytest.fixture(scope="module")
def release_of(
    with_users: Callable[[Values, Secrets], Release], images: Images
) -> Callable[[Values], Release]:
    """Return a function that installs the release with more values."""

    def have(more: Values) -> Release:
        return with_users(merged(_values(images), more), {"tes-users": users_secret("alice", "bob")})

    return have


@pytest.fixture(scope="module")
def hardened(cluster: Cluster, release_of: Callable[[Values], Release]) -> Iterator[Release]:
    """Return the release; Kubernetes admits only Pods of the level "restricted" to its tasks' namespace."""
    release = release_of({})
    namespace = kube_of(cluster, release).namespace
    cluster.kubectl("label", "--overwrite", "namespace", namespace, f"{POD_SECURITY}=restricted")
    yield release
    cluster.kubectl("label", "namespace", namespace, f"{POD_SECURITY}-")


class TestRestricted:
    """Stories of one release."""

    @pytest.fixture
    def release(self, hardened: Release) -> Release:
        """Return the release that `alice` and `bob` use."""
        return hardened

    async def test_restricted_task_works_from_input_to_output(
        self, alice: TesClient, images: Images, bucket: Bucket
    ) -> None:
        source = await bucket.put("in", b"data")
        script = f"id -u; {STATUS}; cp /in/it /out/it"
        task = await alice.run(
            {
                "executors": [{**sh(images.busybox, script), "workdir": "/work"}],
                "inputs": [{"path": "/in/it", "url": source}],
                "outputs": [{"path": "/out/it", "url": bucket.url("out")}],
            }
        )

        assert_ended(task, "COMPLETE")
        assert await bucket.text("out") == "data"
        status = _status(stdout(task))
        assert stdout(task).startswith(f"{USER}\n")
        assert int(status["CapBnd"], 16) == 0
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", SECCOMP_FILTER)

    @pytest.mark.parametrize("image", ["10.0.0.1:22/x", "library-evil/x", "quay.io/biocontainers/samtools:1"])
    async def test_other_image_is_refused_with_the_allowed_ones(
        self, bob: TesClient, images: Images, image: str
    ) -> None:
        with pytest.raises(TesError) as refused:
            await bob.create({"executors": [sh(image, "true")]})
        assert refused.value.status == 403
        assert f"executors[0].image: '{image}'" in str(refused.value)
        assert images.busybox in str(refused.value)
        assert images.busybox_nonroot not in str(refused.value)

    async def test_image_of_one_user_is_refused_to_others(
        self, alice: TesClient, bob: TesClient, images: Images
    ) -> None:
        theirs: Any = {"executors": [sh(images.busybox_nonroot, "echo mine")]}
        assert stdout(await alice.run(theirs)) == "mine\n"
        with pytest.raises(TesError) as refused:
            await bob.create(theirs)
        assert refused.value.status == 403

    async def test_parameter_of_one_user_is_refused_to_others(
        self, alice: TesClient, bob: TesClient, images: Images
    ) -> None:
        strict: Any = {"backend_parameters": {"volume_type": "ephemeral"}, "backend_parameters_strict": True}
        wanted: Any = {"executors": [sh(images.busybox, "echo mine")], "resources": strict}
        assert_ended(await alice.run(wanted), "COMPLETE")
        with pytest.raises(TesError, match="'volume_type' must be one of emptyDir, got 'ephemeral'"):
            await bob.create(wanted)
        for client, more in ((alice, {"storage_class"}), (bob, set[str]())):
            keys = (await client.service_info())["tesResources_backend_parameters"]
            assert set(keys) == {"volume_type", "wall_time_seconds"} | more

    async def test_full_root_disk_ends_the_task_with_its_reason(
        self, alice: TesClient, images: Images
    ) -> None:
        script = "dd if=/dev/zero of=/tmp/much bs=1M count=1300 && sleep 300"
        task = await alice.run({"executors": [sh(images.busybox, script)]})

        assert_ended(task, "SYSTEM_ERROR")
        assert reason(task) == "Evicted"
        assert (
            "ephemeral local storage usage exceeds the total limit" in only_log(task)["metadata"]["message"]
        )

    async def test_wall_time_ends_the_task_and_is_named(self, alice: TesClient, images: Images) -> None:
        limit: Any = {"backend_parameters": {"wall_time_seconds": "5"}}
        task = await alice.run({"executors": [sh(images.busybox, "sleep 300")], "resources": limit})

        assert_ended(task, "SYSTEM_ERROR")
        assert reason(task) == "DeadlineExceeded"
        assert "(5 s: wall_time_seconds of the task" in only_log(task)["metadata"]["message"]


class TestUserNamespace:
    """The release after an upgrade, so this comes last."""

    @pytest.fixture
    def release(self, hardened: Release, release_of: Callable[[Values], Release]) -> Release:
        """Return the release with user namespaces for TaskPods."""
        assert hardened.name
        return release_of(
            {"config": {"pod": {"hostUsers": False}}, "tctl": {"thresholds": {"unschedulableSeconds": 20}}}
        )

    async def test_user_namespace_is_used_or_its_absence_explained(
        self, alice: TesClient, images: Images
    ) -> None:
        """Nodes with containerd 2.0 support it; on others the task must not run without it."""
        task = await alice.run({"executors": [sh(images.busybox, "cat /proc/self/uid_map")]})

        if task["state"] == "COMPLETE":
            assert ALL_USERS not in stdout(task)
            return
        assert_ended(task, "SYSTEM_ERROR")
        assert "user namespaces" in only_log(task)["metadata"]["message"] + system_logs(task)
