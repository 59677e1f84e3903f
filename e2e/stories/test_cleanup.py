"""As an operator I delete a Job, and Kubernetes removes all objects of the task."""

import pytest

from poiesis_e2e.documents import RunTask, assert_ended, sh
from poiesis_e2e.kube import TASK_LABEL, Kube, Object
from poiesis_e2e.storage import Bucket
from poiesis_e2e.transport import files_only
from poiesis_e2e.waiting import eventually
from poiesis_lab.images import Images

pytestmark = pytest.mark.e2e

_GROUPS = {
    "jobs": "batch",
    "roles": "rbac.authorization.k8s.io",
    "rolebindings": "rbac.authorization.k8s.io",
}
_KINDS = ("jobs", "pods", "persistentvolumeclaims", "secrets", "serviceaccounts", "roles", "rolebindings")


@pytest.mark.core
async def test_deleting_the_job_removes_all_its_objects(
    run_task: RunTask, kube: Kube, images: Images, bucket: Bucket
) -> None:
    task_id = await _finished(run_task, images, bucket)
    objects = await _objects(kube, task_id)
    by_kind = {one["kind"]: one for one in objects}
    access = set() if files_only() else {"ServiceAccount", "Role", "RoleBinding"}
    assert by_kind.keys() == {"Job", "Pod", "PersistentVolumeClaim", "Secret", *access}
    uids = {one["metadata"]["uid"]: one for one in objects}
    for one in objects:
        assert one["kind"] == "Job" or _reaches_job(one, uids), f"{one['kind']} is not owned by the Job"
    volume = by_kind["PersistentVolumeClaim"]["spec"]["volumeName"]
    assert await kube.get("persistentvolume", volume) is not None

    await kube.delete("job", by_kind["Job"]["metadata"]["name"])

    async def gone() -> bool:
        left = await _objects(kube, task_id)
        return not left and await kube.get("persistentvolume", volume) is None

    await eventually(gone, "nothing left of the task", seconds=120)


async def test_services_may_not_delete_these_objects(kube: Kube) -> None:
    accounts = [
        f"system:serviceaccount:{kube.service_namespace}:{account['metadata']['name']}"
        for account in await kube.service.find("serviceaccounts", "app.kubernetes.io/managed-by=Helm")
    ]
    kinds = (
        "jobs",
        "pods",
        "secrets",
        "serviceaccounts",
        "persistentvolumeclaims",
        "roles",
        "rolebindings",
    )
    allowed = {kind for account in accounts for kind in kinds if await _can_delete(kube, account, kind)}

    assert allowed == {"jobs", "pods"}


async def test_one_selector_finds_every_object_of_a_task(
    run_task: RunTask, kube: Kube, images: Images, bucket: Bucket
) -> None:
    task_id = await _finished(run_task, images, bucket)

    listed = await kube.run("api-resources", "--namespaced", "--verbs=list", "-o", "name")
    kinds = ",".join(sorted(kind for kind in listed.split() if not kind.startswith("events")))
    named = [one for one in await kube.find(kinds) if task_id in one["metadata"]["name"]]
    selected = await kube.find(kinds, f"{TASK_LABEL}={task_id}")

    assert {_identity(one) for one in named} == {_identity(one) for one in selected}
    assert len(selected) >= (4 if files_only() else 7)


async def _finished(run_task: RunTask, images: Images, bucket: Bucket) -> str:
    task = await run_task(
        {
            "executors": [sh(images.busybox, "echo kept >/out/kept")],
            "outputs": [{"path": "/out/kept", "url": bucket.url("kept")}],
        }
    )
    assert_ended(task, "COMPLETE")
    return task["id"]


async def _objects(kube: Kube, task_id: str) -> list[Object]:
    return await kube.of_task(",".join(_KINDS), task_id)


def _reaches_job(one: Object, uids: dict[str, Object]) -> bool:
    owners = [uids.get(owner["uid"]) for owner in one["metadata"].get("ownerReferences", ())]
    return any(
        owner is not None and (owner["kind"] == "Job" or _reaches_job(owner, uids)) for owner in owners
    )


def _identity(one: Object) -> tuple[str, str]:
    return one["kind"], one["metadata"]["name"]


async def _can_delete(kube: Kube, account: str, kind: str) -> bool:
    review = await kube.create(
        {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": account,
                "resourceAttributes": {
                    "namespace": kube.namespace,
                    "verb": "delete",
                    "group": _GROUPS.get(kind, ""),
                    "resource": kind,
                },
            },
        }
    )
    return bool(review["status"]["allowed"])
