"""Who sees and cancels which task, over HTTP and a real Postgres: every endpoint, filter and page token."""

import asyncio
import base64
import json
import logging

import bcrypt
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from poiesis_api.app import BASE, PUBLIC, make_app
from poiesis_api.config import (
    S3,
    Administrators,
    Auth,
    BackendParameters,
    Basic,
    Executors,
    IdentityFiles,
    Oidc,
    Sharing,
    UserLimits,
    UsersSecret,
    Volume,
)
from poiesis_api.handlers import Services
from poiesis_api.identity.authenticators import NoAuthenticator, open_authenticator
from poiesis_api.identity.credentials import HEADER_BYTES
from poiesis_api.limits import RequestRates
from poiesis_api.logs import without_request
from poiesis_api.openapi import USAGE_PATH
from poiesis_api.queries import Filter, page_token
from poiesis_api.submitter import Submitter

pytestmark = pytest.mark.integration

TASK = {"executors": [{"image": "busybox", "command": ["true"]}]}
SHARED = {**TASK, "name": "shared", "tags": {"group": "genomics", "project": "x"}}
TASKS = f"{BASE}/tasks"
# alice and bob work together, mallory alone; groups by name, as in their tokens.
GROUPS = {
    "alice": ["genomics"],
    "bob": ["genomics", "other"],
    "mallory": ["evil"],
    "root": ["administrators"],
}


@pytest.fixture
def auth(issuer):
    return Auth(
        mode="oidc",
        oidc=Oidc(issuer=issuer.url, audiences=[issuer.audience], scopes=["tes"]),
        administrators=Administrators(groups=["administrators"]),
        sharing=Sharing(tag="group"),
    )


@pytest.fixture
async def services(pool, kubernetes, config, auth, issuer):
    config = config.model_copy(update={"auth": auth, "user_limits": UserLimits()})
    async with open_authenticator(auth, now=lambda: issuer.now) as authenticator:
        yield Services(
            pool=pool,
            submitter=Submitter(pool, kubernetes.client, config),
            config=config,
            authenticator=authenticator,
            rates=RequestRates(None),
        )


@pytest.fixture
async def client(services):
    async with TestClient(TestServer(make_app(services))) as client:
        yield client


@pytest.fixture
def as_user(client, issuer):
    """Send a request as this user: status and JSON."""

    async def send(user, method, path, **given):
        headers = {"Authorization": f"Bearer {issuer.token(sub=user, groups=GROUPS[user])}"}
        response = await client.request(method, path, headers=headers, **given)
        return response.status, await response.json()

    return send


async def create(as_user, user, task=TASK):
    status, body = await as_user(user, "POST", TASKS, json=task)
    assert status == 200, body
    return body["id"]


async def seen(as_user, user, **params):
    """Ids of all pages, newest first, and no id twice."""
    found, token = [], None
    while token != "":
        given = params | ({"page_token": token} if token else {})
        status, body = await as_user(user, "GET", TASKS, params=given)
        assert status == 200, body
        found += [task["id"] for task in body["tasks"]]
        token = body.get("next_page_token", "")
    assert len(found) == len(set(found))
    return found


async def test_usage_is_ones_own_unless_administrator(pool, as_user):
    await pool.execute("DELETE FROM task_usage")
    for user in ("alice", "bob"):
        await create(as_user, user, SHARED)
    await pool.execute("SELECT finish_task(id, 'SYSTEM_ERROR', '', '', NULL, 'api', false) FROM task")

    async def tasks(user):
        status, body = await as_user(user, "GET", USAGE_PATH, params={"group_by": "owner"})
        assert status == 200, body
        return {row["owner"]: row["tasks"] for row in body["rows"]}

    assert await tasks("alice") == {"alice": 1}
    assert await tasks("mallory") == {}
    assert await tasks("root") == {"alice": 1, "bob": 1}


async def test_every_private_route_requires_authentication(client):
    asked = set()
    for route in client.app.router.routes():
        path = route.resource.canonical.format(id="00000000-0000-0000-0000-000000000000:cancel")
        response = await client.request(route.method, path)
        assert (response.status == 401) == (route.handler not in client.app[PUBLIC]), (route.method, path)
        if response.status == 401:
            asked.add((route.method, route.resource.canonical))
            assert response.headers["WWW-Authenticate"] == 'Bearer realm="poiesis"'
            body = "" if route.method == "HEAD" else '{"error": "authentication required"}'
            assert await response.text() == body
    assert asked == {
        *((method, TASKS) for method in ("GET", "HEAD", "POST")),
        *((method, TASKS + "/{id}") for method in ("GET", "HEAD", "POST")),
        *((method, USAGE_PATH) for method in ("GET", "HEAD")),
    }


async def test_health_and_service_info_need_no_issuer(client, issuer):
    issuer.status = 500
    for path in ("/healthz", "/readyz", f"{BASE}/service-info", f"{BASE}/tasks/service-info"):
        response = await client.get(path, headers={"Authorization": "Bearer nonsense"})
        assert response.status == 200


@pytest.fixture
def limited(services):
    """Let only members of genomics use a queue, a pull secret and the images of a registry."""
    config = services.config
    genomics = {"groups": ["genomics"]}
    services.config = config.model_copy(
        update={
            "volume": Volume(type="ephemeral"),
            "executors": Executors(images=["busybox", {"value": "quay.io/genomics/", **genomics}]),
            "backend_parameters": BackendParameters(
                runtime_class=["gvisor"],
                queue=[{"value": "night", **genomics}],
                image_pull_secret=[{"value": "registry", **genomics}],
            ),
        }
    )


@pytest.mark.usefixtures("limited")
async def test_service_info_lists_the_parameters_of_the_caller(client, as_user, issuer):
    async def keys(user):
        _, info = await as_user(user, "GET", f"{BASE}/service-info")
        return info["tesResources_backend_parameters"]

    assert await keys("alice") == ["image_pull_secret", "queue", "runtime_class"]
    assert await keys("mallory") == ["runtime_class"]
    for headers in ({}, {"Authorization": "Bearer nonsense"}):
        response = await client.get(f"{BASE}/service-info", headers=headers)
        assert (await response.json())["tesResources_backend_parameters"] == ["runtime_class"]
    issuer.status = 500
    assert (await client.get(f"{BASE}/service-info")).status == 200


@pytest.mark.usefixtures("limited")
async def test_parameter_of_a_group_is_decided_at_the_create(as_user):
    wanted = {"queue": "night", "image_pull_secret": "registry"}
    task = {**TASK, "resources": {"backend_parameters": wanted}}
    ours, theirs = await create(as_user, "alice", task), await create(as_user, "mallory", task)
    _, stored = await as_user("alice", "GET", f"{TASKS}/{ours}?view=FULL")
    assert stored["resources"]["backend_parameters"] == wanted
    _, stored = await as_user("mallory", "GET", f"{TASKS}/{theirs}?view=FULL")
    assert "backend_parameters" not in stored["resources"]
    strict = {"backend_parameters": {"queue": "night"}, "backend_parameters_strict": True}
    status, body = await as_user("mallory", "POST", TASKS, json={**TASK, "resources": strict})
    assert (status, body["field"]) == (400, "resources.backend_parameters")


@pytest.mark.usefixtures("limited")
async def test_image_of_a_group_is_refused_to_others(as_user):
    task = {"executors": [{"image": "quay.io/genomics/bwa:1", "command": ["true"]}]}
    await create(as_user, "alice", task)
    status, body = await as_user("mallory", "POST", TASKS, json=task)
    assert status == 403
    assert body == {
        "error": "executors[0].image: 'quay.io/genomics/bwa:1' is quay.io/genomics/bwa:1, which you may not"
        " use (allowed: docker.io/library/busybox)",
        "field": "executors[0].image",
    }


async def test_refusals_by_their_status(client, issuer):
    async def status(**claims):
        headers = {"Authorization": f"Bearer {issuer.token(**claims)}"}
        response = await client.get(TASKS, headers=headers)
        return response.status, response.headers.get("WWW-Authenticate", "").partition('error="')[2].split(
            '"'
        )[0]

    assert await status() == (200, "")
    assert await status(exp=issuer.now - 60) == (401, "invalid_token")
    assert await status(aud="other") == (401, "invalid_token")
    assert await status(scope="openid") == (403, "insufficient_scope")


async def test_unreachable_issuer_is_503_with_retry_after(client, issuer):
    issuer.status = 500
    response = await client.get(TASKS, headers={"Authorization": f"Bearer {issuer.token()}"})
    assert (response.status, response.headers["Retry-After"]) == (503, "5")
    assert "WWW-Authenticate" not in response.headers


@pytest.mark.parametrize("user", ["bob", "mallory"])
@pytest.mark.parametrize("view", ["MINIMAL", "BASIC", "FULL"])
async def test_others_do_not_see_a_task(as_user, user, view):
    task = await create(as_user, "alice", {**TASK, "name": "mine", "tags": {"k": "v"}})
    unknown = "00000000-0000-0000-0000-000000000000"

    async def answers(task_id):
        got = await as_user(user, "GET", f"{TASKS}/{task_id}", params={"view": view})
        canceled = await as_user(user, "POST", f"{TASKS}/{task_id}:cancel")
        return [(status, str(body).replace(task_id, "")) for status, body in (got, canceled)]

    assert await answers(task) == await answers(unknown), "not even that it exists"
    for params in (
        {},
        {"state": "QUEUED"},
        {"name_prefix": "mine"},
        {"tag_key": "k"},
        {"tag_key": "k", "tag_value": "v"},
    ):
        assert await seen(as_user, user, view=view, **params) == []
        assert await seen(as_user, "alice", view=view, **params) == [task]
    assert (await as_user("alice", "GET", f"{TASKS}/{task}"))[1]["state"] == "QUEUED"


async def test_an_administrator_sees_and_cancels_every_task(as_user):
    ids = [await create(as_user, user) for user in ("alice", "bob", "mallory", "root")]
    assert await seen(as_user, "root", page_size=1) == ids[::-1]
    assert await seen(as_user, "root", state="QUEUED") == ids[::-1]
    for task in ids:
        assert (await as_user("root", "GET", f"{TASKS}/{task}"))[0] == 200
        assert await as_user("root", "POST", f"{TASKS}/{task}:cancel") == (200, {})
        _, body = await as_user("root", "GET", f"{TASKS}/{task}", params={"view": "FULL"})
        assert body["state"] == "CANCELED"
        assert body["logs"][0]["system_logs"][0].endswith("cancel requested by root")


async def test_shared_task_is_visible_to_group_only(as_user):
    task = await create(as_user, "alice", SHARED)
    for user, status, canceled in (("bob", 200, 403), ("mallory", 404, 404)):
        for view in ("MINIMAL", "BASIC", "FULL"):
            assert (await as_user(user, "GET", f"{TASKS}/{task}", params={"view": view}))[0] == status
        assert (await as_user(user, "POST", f"{TASKS}/{task}:cancel"))[0] == canceled
    assert await as_user("alice", "POST", f"{TASKS}/{task}:cancel") == (200, {})
    assert (await as_user("bob", "POST", f"{TASKS}/{task}:cancel"))[0] == 403


@pytest.mark.parametrize("size", [1, 2, 3, 7, 256])
async def test_pages_list_own_and_shared_tasks_once(as_user, size):
    bobs = []
    for number in range(9):
        user, task = [("alice", SHARED), ("bob", TASK), ("bob", SHARED), ("mallory", TASK), ("alice", TASK)][
            number % 5
        ]
        task_id = await create(as_user, user, task)
        if user == "bob" or (user == "alice" and task is SHARED):
            bobs.append(task_id)
    assert await seen(as_user, "bob", page_size=size) == bobs[::-1]


@pytest.mark.parametrize(
    "params",
    [
        {"state": "QUEUED"},
        {"name_prefix": "sha"},
        {"tag_key": "project"},
        {"tag_key": "project", "tag_value": "x"},
    ],
)
async def test_filters_hold_for_shared_tasks_as_for_own(as_user, params):
    shared = [await create(as_user, user, SHARED) for user in ("alice", "bob", "alice")]
    await create(as_user, "mallory", {**SHARED, "tags": {"project": "x"}})
    no_match = {"tag_key": "project", "tag_value": "y"} if "tag_key" in params else {"state": "RUNNING"}
    for user in ("alice", "bob"):
        assert await seen(as_user, user, page_size=2, **params) == shared[::-1]
        assert await seen(as_user, user, **no_match) == []


async def test_page_token_is_invalid_for_other_users(as_user):
    ids = [await create(as_user, "alice") for _ in range(3)]
    await create(as_user, "mallory")
    _, body = await as_user("alice", "GET", TASKS, params={"page_size": 1})
    stolen = body["next_page_token"]
    assert (await as_user("mallory", "GET", TASKS, params={"page_token": stolen}))[0] == 400
    # Even a token that is made up shows one's own tasks alone.
    forged = page_token(2**62, Filter(), "mallory")
    _, body = await as_user("mallory", "GET", TASKS, params={"page_token": forged})
    assert not {task["id"] for task in body["tasks"]} & set(ids)


async def test_lost_membership_hides_tasks(as_user, monkeypatch):
    task = await create(as_user, "alice", SHARED)
    assert await seen(as_user, "bob") == await seen(as_user, "root") == [task]
    monkeypatch.setitem(GROUPS, "bob", [])
    monkeypatch.setitem(GROUPS, "root", [])
    assert await seen(as_user, "bob") == await seen(as_user, "root") == []


async def test_task_is_shared_only_with_groups_of_creator(as_user, client, services, auth):
    status, body = await as_user("mallory", "POST", TASKS, json=SHARED)
    assert (status, body["field"]) == (400, "tags.group")
    narrow = auth.model_copy(update={"sharing": Sharing(tag="group", groups=["other"])})
    services.config = services.config.model_copy(update={"auth": narrow})
    status, body = await as_user("bob", "POST", TASKS, json=SHARED)
    assert (status, body["field"]) == (400, "tags.group")
    await create(as_user, "bob", {**TASK, "tags": {"group": "other"}})
    await create(as_user, "bob", {**TASK, "tags": {"group": ""}})


async def test_without_sharing_the_tag_is_a_tag(as_user, services, auth):
    services.config = services.config.model_copy(
        update={"auth": auth.model_copy(update={"sharing": Sharing()})}
    )
    task = await create(as_user, "alice", {**TASK, "tags": {"group": "evil"}})
    assert (await as_user("mallory", "GET", f"{TASKS}/{task}"))[0] == 404


@pytest.mark.parametrize("name", ["' OR true --", "%", "alice\\", "ALICE", "álice", "x" * 255, "{alice}"])
async def test_a_name_means_itself_alone(as_user, monkeypatch, name):
    await create(as_user, "alice")
    monkeypatch.setitem(GROUPS, name, ["{genomics}", "' OR true --", "%"])
    assert await seen(as_user, name) == []
    own = await create(as_user, name)
    assert await seen(as_user, name) == [own]


async def test_mode_none_ignores_credentials(services):
    services.authenticator = NoAuthenticator()
    async with TestClient(TestServer(make_app(services))) as client:
        for authorization in ({}, {"Authorization": "Bearer x"}, {"Authorization": "Basic !"}):
            assert (await client.post(TASKS, json=TASK, headers=authorization)).status == 200
            assert len((await (await client.get(TASKS)).json())["tasks"]) > 0
    assert await services.pool.fetchval("SELECT array_agg(DISTINCT owner) FROM task") == ["anonymous"]


async def test_mode_basic_password_gives_access_to_own_tasks(services, tmp_path):
    users = tmp_path / "htpasswd"
    hashed = bcrypt.hashpw(b"pw", bcrypt.gensalt(rounds=4)).decode()
    users.write_text(f"alice:{hashed}\nbob:{hashed}\n")

    def header(user, secret="pw"):  # noqa: S107
        return {"Authorization": "Basic " + base64.b64encode(f"{user}:{secret}".encode()).decode()}

    auth = Auth(mode="basic", basic=Basic(users_secret=UsersSecret(name="tes-users")))
    async with open_authenticator(auth, IdentityFiles(users=users)) as authenticator:
        services.authenticator = authenticator
        async with TestClient(TestServer(make_app(services))) as client:
            task = (await (await client.post(TASKS, json=TASK, headers=header("alice"))).json())["id"]
            statuses = [
                (await client.get(f"{TASKS}/{task}", headers=headers)).status
                for headers in (header("alice"), header("bob"), header("alice", "no"), {})
            ]
    assert statuses == [200, 404, 401, 401]


@pytest.fixture
def server_log(caplog):
    """What aiohttp logs, as the service has it logged."""
    caplog.set_level(logging.DEBUG)
    logger = logging.getLogger("aiohttp.server")
    logger.addFilter(without_request)
    yield caplog
    logger.removeFilter(without_request)


async def test_a_huge_token_is_refused_and_never_logged(services, server_log):
    runner = web.AppRunner(make_app(services), access_log=None, max_field_size=HEADER_BYTES)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]
    try:
        for length, status in ((HEADER_BYTES // 2 + 1, b"401"), (HEADER_BYTES + 1000, b"400")):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET " + TASKS.encode() + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n")
            writer.write(b"Authorization: Bearer s3cr3t" + b"x" * length + b"\r\n\r\n")
            answer = await reader.read()
            writer.close()
            assert answer.split()[1] == status
    finally:
        await runner.cleanup()
    (record,) = [record for record in server_log.records if record.name == "aiohttp.server"]
    assert record.error == "LineTooLong"
    assert "s3cr3t" not in " ".join(str(record.__dict__) for record in server_log.records)


async def test_task_gets_s3_credentials_of_its_creator(as_user, pool, services):
    entries = [
        {"name": "genomics", "urls": ["s3://lab"], "groups": ["genomics"]},
        {"name": "mallorys", "urls": ["s3://lab"], "users": ["mallory"]},
    ]
    s3 = S3.model_validate({"credentials": entries})
    storage = services.config.storage.model_copy(update={"s3": s3})
    services.config = services.config.model_copy(update={"storage": storage})
    task = {**TASK, "inputs": [{"path": "/data/a", "url": "s3://lab/a"}]}
    found = {}
    for user in GROUPS:
        status, created = await as_user(user, "POST", TASKS, json=task)
        assert status == 200
        query = "SELECT s3_credentials FROM task WHERE id = $1"
        found[user] = await pool.fetchval(query, created["id"])
        assert "genomics" not in json.dumps(await as_user(user, "GET", f"{TASKS}/{created['id']}?view=FULL"))
    assert found == {"alice": ["genomics"], "bob": ["genomics"], "mallory": ["mallorys"], "root": []}
