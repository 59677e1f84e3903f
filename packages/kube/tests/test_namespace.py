import pytest
from kube_server import document, serving

from poiesis_kube.errors import Refused
from poiesis_kube.namespace import Namespace

JOBS = "/apis/batch/v1/namespaces/tes/jobs"


def status(code: int, reason: str) -> object:
    return document({"kind": "Status", "reason": reason, "message": ""}, code)


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("Pod", "/api/v1/namespaces/tes/pods"),
        ("Job", JOBS),
        ("Role", "/apis/rbac.authorization.k8s.io/v1/namespaces/tes/roles"),
        ("Lease", "/apis/coordination.k8s.io/v1/namespaces/tes/leases"),
        ("PersistentVolumeClaim", "/api/v1/namespaces/tes/persistentvolumeclaims"),
    ],
)
async def test_each_kind_has_its_path(kind, path):
    async with serving(document({})) as (_, client):
        namespace = Namespace(client, "tes")
        assert namespace.path(kind) == path
        assert namespace.path(kind, "a b") == f"{path}/a%20b"


async def test_operations_are_requests():
    job = {"kind": "Job", "metadata": {"name": "j"}}
    async with serving(document({"items": [job]})) as (server, client):
        namespace = Namespace(client, "tes")
        await namespace.create(job)
        await namespace.read("Job", "j")
        assert await namespace.list_all("Job", {"labelSelector": "a=b"}) == [job]
        await namespace.patch("Job", "j", {"spec": {}})
        await namespace.replace(job)
        await namespace.delete("Job", "j", uid="u")
    assert [(seen.method, seen.path) for seen in server.seen] == [
        ("POST", JOBS),
        ("GET", f"{JOBS}/j"),
        ("GET", f"{JOBS}?labelSelector=a%3Db"),
        ("PATCH", f"{JOBS}/j"),
        ("PUT", f"{JOBS}/j"),
        ("DELETE", f"{JOBS}/j"),
    ]
    assert server.seen[-1].body == {
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "propagationPolicy": "Background",
        "preconditions": {"uid": "u"},
    }


@pytest.mark.parametrize(
    ("response", "uid"), [(status(404, "NotFound"), None), (status(409, "Conflict"), "another")]
)
async def test_deleting_what_is_gone_is_no_error(response, uid):
    async with serving(response) as (_, client):
        await Namespace(client, "tes").delete("Job", "j", uid=uid)


@pytest.mark.parametrize("response", [status(403, "Forbidden"), status(409, "Conflict")])
async def test_other_refusals_of_a_delete_are_raised(response):
    async with serving(response) as (_, client):
        with pytest.raises(Refused):
            await Namespace(client, "tes").delete("Job", "j")


def test_quota_conflict_is_not_already_exists():
    exists, quota = Refused(409, "AlreadyExists", ""), Refused(409, "Conflict", "quota changed")
    assert (exists.conflict, exists.already_exists, exists.not_found) == (True, True, False)
    assert (quota.conflict, quota.already_exists) == (True, False)
    assert Refused(404, "NotFound", "").not_found
