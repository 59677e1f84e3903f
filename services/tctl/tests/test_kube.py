import pytest
from tctl_builders import TASK, job, pod
from tctl_fakes import client

from poiesis_kube.errors import Refused, Unreachable
from poiesis_tctl import roles
from poiesis_tctl.decide import EnsureRole
from poiesis_tctl.kube import connect
from poiesis_tctl.podfacts import is_deleted

POD = f"poiesis-{TASK}-abcde"
KUBECONFIG = """
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "%s"}}]
users: [{name: u, user: {token: abc}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
"""


def test_role_allows_the_recorder_its_own_pod():
    wanted = EnsureRole(task_id=TASK, pod_name=POD, pod_uid="pod-uid-1")
    metadata = {
        "name": POD,
        "labels": {"poiesis.io/task": str(TASK), "app.kubernetes.io/managed-by": "poiesis"},
        "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": POD, "uid": "pod-uid-1"}],
    }
    assert roles.role(wanted) == {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": metadata,
        "rules": [
            {"apiGroups": [""], "resources": ["pods"], "resourceNames": [POD], "verbs": ["get", "watch"]}
        ],
    }
    assert roles.role_binding(wanted) == {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": metadata,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": POD},
        "subjects": [{"kind": "ServiceAccount", "name": f"poiesis-{TASK}"}],
    }


async def test_creating_twice_is_a_no_op(fake_api):
    wanted = EnsureRole(task_id=TASK, pod_name=POD, pod_uid="pod-uid-1")
    async with client(fake_api) as kube:
        for _ in range(2):
            await kube.create_if_missing(roles.role(wanted))
            await kube.create_if_missing(roles.role_binding(wanted))
    assert list(fake_api.objects["roles"]) == list(fake_api.objects["rolebindings"]) == [POD]


async def test_ending_a_pod_keeps_the_object(fake_api):
    await fake_api.put("pods", pod())
    async with client(fake_api) as kube:
        await kube.end_pod(POD, "pod-uid-1")
        assert fake_api.objects["pods"][POD]["spec"]["activeDeadlineSeconds"] == 1
        await kube.end_pod("gone", "x")


async def test_objects_with_another_uid_are_left_alone(fake_api):
    await fake_api.put("pods", pod(uid="another"))
    await fake_api.put("jobs", job(uid="another"))
    async with client(fake_api) as kube:
        await kube.end_pod(POD, "pod-uid-1")
        await kube.delete_job(f"poiesis-{TASK}", "job-uid-1")
        await kube.delete_pod(POD, "pod-uid-1")
    assert "activeDeadlineSeconds" not in fake_api.objects["pods"][POD]["spec"]
    assert f"poiesis-{TASK}" in fake_api.objects["jobs"]


async def test_second_deletion_is_a_no_op(fake_api):
    await fake_api.put("jobs", job())
    await fake_api.put("pods", pod())
    async with client(fake_api) as kube:
        for _ in range(2):
            await kube.delete_job(f"poiesis-{TASK}", "job-uid-1")
            await kube.delete_pod(POD, "pod-uid-1")
    assert fake_api.objects["jobs"] == {}
    assert is_deleted(fake_api.objects["pods"][POD])


async def test_missing_rights_are_refused(fake_api):
    fake_api.refuse = lambda _: 403
    async with client(fake_api) as kube:
        for call in (
            kube.end_pod(POD, "u"),
            kube.delete_job("j", "u"),
            kube.delete_pod(POD, "u"),
            kube.create_if_missing(roles.role(EnsureRole(task_id=TASK, pod_name=POD, pod_uid="u"))),
            kube.pods_of("t"),
            kube.jobs_of("t"),
            kube.events_of("u", reason="r"),
            kube.get_lease("l"),
        ):
            with pytest.raises(Refused, match="403"):
                await call


@pytest.mark.parametrize("document", [{}, {"metadata": None}, {"metadata": {"name": "x"}}])
async def test_response_that_is_no_lease_is_an_error(document, fake_api, monkeypatch):
    async with client(fake_api) as kube:

        async def respond(*_: object, **__: object) -> object:
            return document

        monkeypatch.setattr(kube._client, "request", respond)
        with pytest.raises(Unreachable, match="not a Lease"):
            await kube.get_lease("l")


async def test_credentials_come_from_a_kubeconfig(fake_api, tmp_path):
    file = tmp_path / "config"
    file.write_text(KUBECONFIG % fake_api.url)
    seen: list[str | None] = []
    fake_api.refuse = lambda request: seen.append(request.headers.get("Authorization"))
    async with connect(str(file)) as namespace:
        assert await namespace("tes").pods_of(str(TASK)) == []
    assert seen == ["Bearer abc"]
