"""The log line, the audit line and the observation of each request, against a real Postgres."""

import logging
from uuid import uuid4

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client.samples import Sample

from poiesis_api.app import BASE, make_app
from poiesis_api.errors import NotAuthenticated
from poiesis_api.handlers import Services
from poiesis_api.identity.caller import Caller
from poiesis_api.limits import RequestRates
from poiesis_api.logs import return_request_id, with_request_id
from poiesis_api.metrics import REGISTRY
from poiesis_api.request_log import audit_event
from poiesis_api.submitter import Submitter

TASK = {"executors": [{"image": "busybox", "command": ["true"]}]}


class Names:
    """An authenticator that takes the header for the name; `root` is an administrator."""

    async def caller(self, headers):
        if not headers:
            raise NotAuthenticated("no credentials", "Basic")
        return Caller(name=headers[0], administrator=headers[0] == "root")


@pytest.fixture
async def api(pool, kubernetes, config):
    services = Services(
        pool=pool,
        submitter=Submitter(pool, kubernetes.client, config),
        config=config,
        authenticator=Names(),
        rates=RequestRates(None),
    )
    async with TestClient(TestServer(make_app(services))) as client:
        yield client


def lines(caplog, logger):
    return [record for record in caplog.records if record.name == logger]


async def create(api, **headers):
    response = await api.post(f"{BASE}/tasks", json=TASK, headers={"Authorization": "alice", **headers})
    return (await response.json())["id"]


def requests_counted(**labels):
    return REGISTRY.get_sample_value("poiesis_api_request_seconds_count", labels) or 0.0


@pytest.mark.parametrize(
    ("operation", "status", "administrator", "event"),
    [
        ("create_task", 200, False, "created task"),
        ("create_task", 400, False, None),
        ("create_task", 401, False, "refused request"),
        ("cancel_task", 200, False, "requested cancel"),
        ("cancel_task", 403, False, "refused request"),
        ("get_task", 200, False, None),
        ("get_task", 200, True, "read as administrator"),
        ("list_tasks", 200, True, "read as administrator"),
        ("get_task", 404, True, None),
        ("service_info", 200, True, None),
        ("other", 403, False, "refused request"),
    ],
)
def test_audit_log_has_changes_refusals_and_reads_as_administrator(operation, status, administrator, event):
    assert audit_event(operation, status, administrator=administrator) == event


@pytest.mark.integration
async def test_request_is_logged_with_route_user_and_task(api, caplog):
    caplog.set_level(logging.INFO)
    task_id = await create(api)
    await api.get(f"{BASE}/tasks/{task_id}?view=FULL", headers={"Authorization": "alice"})
    created, read = lines(caplog, "poiesis_api.request_log")
    assert (created.method, created.route, created.status) == ("POST", f"{BASE}/tasks", 200)
    assert (read.method, read.route, read.status) == ("GET", f"{BASE}/tasks/{{id}}", 200)
    assert {(line.user, line.task, line.address) for line in (created, read)} == {
        ("alice", task_id, "127.0.0.1")
    }
    assert 0 < read.milliseconds < 10_000


@pytest.mark.integration
async def test_probes_are_logged_at_debug_only(api, caplog):
    caplog.set_level(logging.DEBUG)
    before = sum(one.value for one in samples("poiesis_api_request_seconds_count"))
    await api.get("/healthz")
    (line,) = lines(caplog, "poiesis_api.request_log")
    assert line.levelno == logging.DEBUG
    assert sum(one.value for one in samples("poiesis_api_request_seconds_count")) == before


def samples(name: str) -> list[Sample]:
    return [one for family in REGISTRY.collect() for one in family.samples if one.name == name]


@pytest.mark.integration
async def test_audit_log_names_user_task_and_origin(api, caplog):
    caplog.set_level(logging.INFO)
    task_id = await create(api, **{"X-Forwarded-For": "203.0.113.9"})
    await api.get(f"{BASE}/tasks/{task_id}", headers={"Authorization": "root"})
    await api.post(f"{BASE}/tasks/{task_id}:cancel", headers={"Authorization": "root"})
    await api.get(f"{BASE}/tasks")
    assert [
        (line.message, line.user, line.administrator, line.task, line.status, line.forwarded_for)
        for line in lines(caplog, "audit")
    ] == [
        ("created task", "alice", False, task_id, 200, "203.0.113.9"),
        ("read as administrator", "root", True, task_id, 200, None),
        ("requested cancel", "root", True, task_id, 200, None),
        ("refused request", None, False, None, 401, None),
    ]


@pytest.mark.integration
async def test_no_log_line_has_credentials(api, caplog):
    caplog.set_level(logging.DEBUG)
    await api.get(f"{BASE}/tasks", headers={"Authorization": "alice", "Cookie": "s3cret"})
    await api.get(f"{BASE}/tasks?page_token=s3cret", headers={"Authorization": "alice"})
    assert not any("s3cret" in str(vars(record)) for record in lines(caplog, "poiesis_api.request_log"))


@pytest.mark.integration
async def test_requests_are_measured_by_operation_view_and_status(api):
    cases = [
        ("/tasks", {"operation": "list_tasks", "view": "MINIMAL", "status": "2xx"}),
        ("/tasks?view=BASIC", {"operation": "list_tasks", "view": "BASIC", "status": "2xx"}),
        ("/tasks?view=ALL", {"operation": "list_tasks", "view": "invalid", "status": "4xx"}),
        (f"/tasks/{uuid4()}", {"operation": "get_task", "view": "MINIMAL", "status": "4xx"}),
        ("/nothing", {"operation": "other", "view": "", "status": "4xx"}),
        ("/service-info", {"operation": "service_info", "view": "", "status": "2xx"}),
    ]
    for path, labels in cases:
        before = requests_counted(**labels)
        await api.get(f"{BASE}{path}", headers={"Authorization": "alice"})
        assert requests_counted(**labels) == before + 1


@pytest.mark.integration
async def test_response_has_the_request_id(api):
    given = await api.get("/healthz", headers={"X-Request-ID": "run-7.sample_2"})
    assert given.headers["X-Request-ID"] == "run-7.sample_2"
    invalid = await api.get("/healthz", headers={"X-Request-ID": "a b"})
    assert len(invalid.headers["X-Request-ID"]) == 32


@pytest.mark.integration
async def test_labels_do_not_grow_with_paths_and_queries(api):
    async def series() -> int:
        for number in range(3):
            await api.get(f"{BASE}/tasks/{uuid4()}?view=V{number}", headers={"Authorization": f"u{number}"})
            await api.get(f"/{uuid4()}")
        return len(samples("poiesis_api_request_seconds_count"))

    assert await series() == await series()


async def test_streamed_response_has_the_request_id():
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write_eof()
        return response

    app = web.Application(middlewares=[with_request_id])
    app.on_response_prepare.append(return_request_id)
    app.router.add_get("/", handler)
    async with TestClient(TestServer(app)) as client:
        response = await client.get("/", headers={"X-Request-ID": "abc"})
        assert response.headers["X-Request-ID"] == "abc"
