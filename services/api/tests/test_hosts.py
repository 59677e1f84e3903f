"""Requests to names that are not the server's are rejected: DNS rebinding has no effect."""

import pytest
from aiohttp.test_utils import TestClient, TestServer

from poiesis_api.app import make_app
from poiesis_api.config import Document
from poiesis_api.errors import MisdirectedRequest
from poiesis_api.hosts import refuse_unknown
from poiesis_api.submitter import Submitter

BASE = "/ga4gh/tes/v1"
TASK = '{"executors": [{"image": "busybox", "command": ["true"]}]}'
OURS = {"tes.example.org", "poiesis-api.tes.svc", "*.lab.example"}


@pytest.mark.parametrize(
    "host",
    [
        *("tes.example.org", "tes.example.org:8443", "TES.Example.ORG", "tes.example.org."),
        *("tes.example.org.:80", "a.lab.example", "b.Lab.example:80", "poiesis-api.tes.svc"),
        *("localhost", "localhost:8080", "LOCALHOST"),
        *("127.0.0.1", "127.0.0.1:8080", "172.18.0.2:31234", "[::1]", "[::1]:8080", "[2001:DB8::1]:80"),
    ],
)
def test_names_and_addresses_of_the_server_pass(host):
    assert refuse_unknown(host, OURS) is None


@pytest.mark.parametrize(
    "host",
    [
        *("evil", "evil:8080", "evil.example", "tes.example.org.evil.example", "x.tes.example.org"),
        *("localhost.evil.example", "127.0.0.1.evil.example", "eviltes.example.org", "tes.example.org.."),
        *("evil/tes.example.org", "evil?tes.example.org", "evil#tes.example.org", "evil@tes.example.org"),
        *("tes.example.org:x", "tes.example.org:99999", "[::1", "::1", "0x7f000001", "127.1", "", None),
        *("tes.example.org, evil", "*", "lab.example", "a.b.lab.example", "example"),
    ],
)
def test_other_names_are_rejected(host):
    with pytest.raises(MisdirectedRequest) as rejection:
        refuse_unknown(host, OURS)
    assert rejection.value.field == "Host"


@pytest.mark.parametrize("host", ["tes.example.org:80", "https://tes", "a.*.example", "*.", "[::1]", ""])
def test_configured_hosts_are_names_without_port(host):
    with pytest.raises(ValueError, match=r"http\.hosts\.0"):
        Document.model_validate({"http": {"hosts": [host]}})


@pytest.fixture
def serve(pool, kubernetes, config, make_services):
    """A client of a server with these names."""

    def make(*hosts):
        changed = config.model_copy(update={"http": config.http.model_copy(update={"hosts": list(hosts)})})
        submitter = Submitter(pool, kubernetes.client, changed)
        return TestClient(TestServer(make_app(make_services(changed, pool=pool, submitter=submitter))))

    return make


@pytest.mark.integration
async def test_rebound_page_neither_reads_nor_creates(serve, pool):
    host = "evil.example:8080"
    evil = {"Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}
    async with serve("tes.example.org") as client:
        for method, path in (
            ("POST", f"{BASE}/tasks"),
            ("GET", f"{BASE}/tasks"),
            ("GET", f"{BASE}/service-info"),
            ("GET", f"{BASE}/openapi.json"),
            ("DELETE", f"{BASE}/tasks"),
            ("GET", "/nothing"),
        ):
            response = await client.request(method, path, data=TASK, headers=evil)
            assert response.status == 421, path
            assert await response.json() == {
                "error": "Host must be a name or IP address of this server, got 'evil.example:8080'; "
                "the operator can add names to config.http.hosts",
                "field": "Host",
            }
        assert await pool.fetch("SELECT 1 FROM task") == []


@pytest.mark.integration
async def test_health_probes_need_no_name(serve):
    async with serve() as client:
        for path in ("/healthz", "/readyz"):
            assert (await client.get(path, headers={"Host": "evil.example"})).status == 200


@pytest.mark.integration
async def test_configured_names_are_served_in_any_case(serve):
    async with serve("TES.example.org") as client:
        for host in ("tes.example.org", "Tes.Example.Org.:8080", f"{client.host}:{client.port}"):
            assert (await client.get(f"{BASE}/tasks", headers={"Host": host})).status == 200


@pytest.mark.integration
async def test_asterisk_accepts_every_name(serve):
    async with serve("*") as client:
        assert (await client.get(f"{BASE}/tasks", headers={"Host": "evil.example"})).status == 200
