import ssl

import aiohttp
import pytest
from kubernetes.aio.client import Configuration
from tctl_builders import TASK, job, pod
from tctl_fakes import client

from poiesis_tctl import kube as kube_module
from poiesis_tctl import roles
from poiesis_tctl.decide import EnsureRole
from poiesis_tctl.kube import Kube, KubeError, connect

POD = f"poiesis-{TASK}-abcde"
KUBECONFIG = """
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "%s"}}]
users: [{name: u, user: {token: abc}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
"""


def test_role_lets_the_recorder_see_its_own_pod_and_goes_with_it():
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


async def test_creating_twice_is_creating_once(fake_api):
    wanted = EnsureRole(task_id=TASK, pod_name=POD, pod_uid="pod-uid-1")
    async with client(fake_api) as kube:
        for _ in range(2):
            await kube.create_role(roles.role(wanted))
            await kube.create_role_binding(roles.role_binding(wanted))
    assert list(fake_api.objects["roles"]) == list(fake_api.objects["rolebindings"]) == [POD]


async def test_ending_a_pod_keeps_it(fake_api):
    await fake_api.put("pods", pod())
    async with client(fake_api) as kube:
        await kube.end_pod(POD, "pod-uid-1")
        assert fake_api.objects["pods"][POD]["spec"]["activeDeadlineSeconds"] == 1
        await kube.end_pod("gone", "x")


async def test_only_the_pod_and_the_job_that_are_meant_are_touched(fake_api):
    await fake_api.put("pods", pod(uid="another"))
    await fake_api.put("jobs", job(uid="another"))
    async with client(fake_api) as kube:
        await kube.end_pod(POD, "pod-uid-1")
        await kube.delete_job(f"poiesis-{TASK}", "job-uid-1")
    assert "activeDeadlineSeconds" not in fake_api.objects["pods"][POD]["spec"]
    assert f"poiesis-{TASK}" in fake_api.objects["jobs"]


async def test_job_is_deleted_in_the_background(fake_api):
    await fake_api.put("jobs", job())
    async with client(fake_api) as kube:
        await kube.delete_job(f"poiesis-{TASK}", "job-uid-1")
        await kube.delete_job(f"poiesis-{TASK}", "job-uid-1")
    assert fake_api.objects["jobs"] == {}


async def test_refusals_and_silence_are_one_kind_of_error(fake_api):
    fake_api.refuse = lambda _: 403
    async with client(fake_api) as kube:
        for call in (
            kube.end_pod(POD, "u"),
            kube.delete_job("j", "u"),
            kube.create_role(pod()),
            kube.pods_of("t"),
            kube.jobs_of("t"),
            kube.events_of("u", reason="r"),
            kube.get_lease("l"),
        ):
            with pytest.raises(KubeError) as error:
                await call
            assert error.value.status == 403
        kube._base = "http://127.0.0.1:1"
        with pytest.raises(KubeError) as error:
            await kube.pods_of("t")
        assert error.value.status == 0


@pytest.mark.parametrize("document", ["{}", "[]", "<html>", '{"metadata": {"name": "x"}}'])
async def test_what_is_no_lease_is_an_error(document, fake_api, monkeypatch):
    async with client(fake_api) as kube:

        async def answer(*_: object, **__: object) -> object:
            return kube_module._document(document.encode(), "test")

        monkeypatch.setattr(kube, "_request", answer)
        with pytest.raises(KubeError):
            await kube.get_lease("l")


async def test_credentials_come_from_a_kubeconfig(fake_api, tmp_path):
    file = tmp_path / "config"
    file.write_text(KUBECONFIG % fake_api.url)
    seen: list[str | None] = []
    fake_api.refuse = lambda request: seen.append(request.headers.get("Authorization"))
    async with connect(str(file), "tes") as kube:
        assert await kube.pods_of(str(TASK)) == []
    assert seen == ["Bearer abc"]


async def test_no_credentials_is_an_error(monkeypatch, tmp_path):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    for kubeconfig in (None, str(tmp_path / "none")):
        with pytest.raises(KubeError, match="NoCredentials"):
            async with connect(kubeconfig, "tes"):
                pass


def test_tls_verifies_unless_told_otherwise():
    context = kube_module._tls(Configuration(host="https://x"))
    assert isinstance(context, ssl.SSLContext)
    assert context.verify_mode is ssl.CERT_REQUIRED
    careless = Configuration(host="https://x")
    careless.verify_ssl = False
    context = kube_module._tls(careless)
    assert isinstance(context, ssl.SSLContext)
    assert context.verify_mode is ssl.CERT_NONE


async def test_event_without_an_end_is_refused(monkeypatch):
    monkeypatch.setattr(kube_module, "_EVENT_BYTES", 10)

    class Content:
        async def iter_any(self):
            yield b"x" * 11

    with pytest.raises(KubeError, match="EventTooLarge"):
        async for _ in kube_module._lines(Content()):
            pass


async def test_token_is_a_header_and_nothing_else():
    configuration = Configuration(host="http://x")
    configuration.api_key["BearerToken"] = "bearer abc\n"
    async with aiohttp.ClientSession() as session:
        assert (await Kube(session, configuration, "tes")._headers())["Authorization"] == "bearer abc"
