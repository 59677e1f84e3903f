"""Pages of other sites neither create nor cancel tasks; those that are allowed do, and see the answer."""

import pytest
from aiohttp.test_utils import TestClient, TestServer

from poiesis_api.app import make_app
from poiesis_api.errors import ForeignOrigin
from poiesis_api.origins import refuse_foreign
from poiesis_api.submitter import Submitter

BASE = "/ga4gh/tes/v1"
TASK = '{"executors": [{"image": "busybox", "command": ["true"]}]}'
OURS = "tes.example.org"
PORTAL = "https://portal.example.org"
EVIL = "https://evil.example"


PASSES = [
    ("a program", None, None, OURS),
    ("our page, by its address", f"https://{OURS}", None, OURS),
    ("our page, in upper case", f"https://{OURS}", None, OURS.upper()),
    ("our page, its port left out", f"https://{OURS}", None, f"{OURS}:443"),
    ("our page, by another port", "http://localhost:8080", None, "localhost:8080"),
    ("our page, by an IPv6 address", "http://[::1]:8080", None, "[::1]:8080"),
    ("our page, by the browser's word", f"https://{OURS}", "same-origin", OURS),
    ("our page, behind a proxy that sets Host", f"https://{OURS}", "same-origin", "poiesis-api.tes.svc"),
    ("our page, without Origin", None, "same-origin", OURS),
    ("a person who typed the address", None, "none", OURS),
    ("a page that is allowed", PORTAL, None, OURS),
    ("a page that is allowed, by the browser's word another site's", PORTAL, "cross-site", OURS),
]
REFUSED = [
    ("another site", EVIL, None, OURS, "Origin"),
    ("another site, by the browser's word", EVIL, "cross-site", OURS, "Origin"),
    ("another site, though its host is ours", f"https://{OURS}", "cross-site", OURS, "Origin"),
    ("another site without Origin", None, "cross-site", OURS, "Sec-Fetch-Site"),
    ("a neighbour of ours", "https://wiki.example.org", "same-site", OURS, "Origin"),
    ("another port", f"https://{OURS}:8443", None, OURS, "Origin"),
    ("another scheme's port", f"http://{OURS}", None, f"{OURS}:443", "Origin"),
    ("a page below ours", f"https://x.{OURS}", None, OURS, "Origin"),
    ("a page that begins as one that is allowed", f"{PORTAL}.evil.example", None, OURS, "Origin"),
    ("an allowed page without TLS", PORTAL.replace("https", "http"), None, OURS, "Origin"),
    ("a sandbox, or a file", "null", None, OURS, "Origin"),
    ("an empty one", "", None, OURS, "Origin"),
    ("two of them", f"{PORTAL}, {EVIL}", None, OURS, "Origin"),
    ("no URL", "https://[", None, OURS, "Origin"),
    ("no port", f"https://{OURS}:x", None, OURS, "Origin"),
    ("a value that browsers do not send", f"https://{OURS}", "own", OURS, "Origin"),
]


@pytest.mark.parametrize(
    ("origin", "fetch_site", "host"), [one[1:] for one in PASSES], ids=[one[0] for one in PASSES]
)
def test_programs_our_own_page_and_allowed_ones_pass(origin, fetch_site, host):
    assert refuse_foreign(origin=origin, fetch_site=fetch_site, host=host, allowed={PORTAL}) is None


@pytest.mark.parametrize(
    ("origin", "fetch_site", "host", "field"), [one[1:] for one in REFUSED], ids=[one[0] for one in REFUSED]
)
def test_pages_of_others_are_refused(origin, fetch_site, host, field):
    with pytest.raises(ForeignOrigin) as refusal:
        refuse_foreign(origin=origin, fetch_site=fetch_site, host=host, allowed={PORTAL})
    assert refusal.value.field == field


@pytest.fixture
def serve(pool, kubernetes, config, conformance, make_services):
    """A client of a server that allows these origins."""

    def make(*allowed):
        changed = config.model_copy(
            update={"http": config.http.model_copy(update={"allowed_origins": list(allowed)})}
        )
        submitter = Submitter(pool, kubernetes.client, changed)
        app = make_app(make_services(changed, pool=pool, submitter=submitter))
        return TestClient(TestServer(app), middlewares=[conformance])

    return make


def cors(response):
    """Return the CORS headers of a response, by the last words of their names."""
    prefix = "access-control-"
    return {
        name.lower().removeprefix(prefix): value
        for name, value in response.headers.items()
        if name.lower().startswith(prefix)
    }


@pytest.mark.integration
async def test_form_of_another_site_changes_nothing(serve, pool):
    form = {"Origin": EVIL, "Content-Type": "text/plain"}  # which a browser sends without asking
    async with serve() as client:
        task_id = (await (await client.post(f"{BASE}/tasks", data=TASK)).json())["id"]
        for path in ("", f"/{task_id}:cancel"):
            response = await client.post(f"{BASE}/tasks{path}", data=TASK, headers=form)
            assert response.status == 403
            assert await response.json() == {
                "error": f"Origin: pages of another site ('{EVIL}') may not create or cancel tasks, "
                "unless the operator allows it (api.allowedOrigins)",
                "field": "Origin",
            }
        assert await pool.fetch("SELECT state::text FROM task") == [("QUEUED",)]


@pytest.mark.integration
async def test_our_own_page_and_programs_create_and_cancel(serve):
    async with serve() as client:
        page = {"Origin": f"http://{client.host}:{client.port}"}
        for headers in ({}, page, {**page, "Sec-Fetch-Site": "same-origin"}):
            response = await client.post(f"{BASE}/tasks", data=TASK, headers=headers)
            assert response.status == 200
            task_id = (await response.json())["id"]
            assert (await client.post(f"{BASE}/tasks/{task_id}:cancel", headers=headers)).status == 200


@pytest.mark.integration
async def test_only_allowed_pages_can_read_responses(serve):
    async with serve(PORTAL) as client:
        for path in ("/tasks", "/service-info", "/tasks/x", "/nothing", "/openapi.json"):
            foreign = await client.get(f"{BASE}{path}", headers={"Origin": EVIL})
            allowed = await client.get(f"{BASE}{path}", headers={"Origin": PORTAL})
            assert foreign.status == allowed.status != 403
            assert cors(foreign) == {}
            assert cors(allowed) == {
                "allow-origin": PORTAL,
                "expose-headers": "Retry-After, WWW-Authenticate",
            }
            assert "Origin" in ", ".join(foreign.headers.getall("Vary")).split(", ")


@pytest.mark.integration
async def test_allowed_page_creates_and_reads_errors(serve):
    async with serve(PORTAL) as client:
        for body, status in ((TASK, 200), ("{}", 400)):
            headers = {"Origin": PORTAL, "Sec-Fetch-Site": "cross-site"}
            response = await client.post(f"{BASE}/tasks", data=body, headers=headers)
            assert response.status == status
            assert cors(response)["allow-origin"] == PORTAL


@pytest.mark.integration
@pytest.mark.parametrize(
    ("path", "methods"),
    [("/tasks", "GET, HEAD, POST"), ("/tasks/x:cancel", "GET, HEAD, POST"), ("/service-info", "GET, HEAD")],
)
async def test_preflight_lists_allowed_methods_and_headers(serve, path, methods):
    asked = {"Origin": PORTAL, "Access-Control-Request-Method": "POST"}
    async with serve(PORTAL) as client:
        response = await client.options(f"{BASE}{path}", headers=asked)
        assert (response.status, await response.read()) == (204, b"")
        assert cors(response) == {
            "allow-origin": PORTAL,
            "allow-methods": methods,
            "allow-headers": "Authorization, Content-Encoding, Content-Type, Idempotency-Key",
            "max-age": "600",
            "expose-headers": "Retry-After, WWW-Authenticate",
        }


@pytest.mark.integration
async def test_other_preflights_return_no_allowed_methods(serve):
    foreign = {"Origin": EVIL, "Access-Control-Request-Method": "POST"}
    async with serve(PORTAL) as client:
        for path, headers, status in (
            ("/tasks", foreign, 405),
            ("/tasks", {"Origin": PORTAL}, 405),
            ("/nothing", {**foreign, "Origin": PORTAL}, 404),
        ):
            response = await client.options(f"{BASE}{path}", headers=headers)
            assert response.status == status
            assert "allow-methods" not in cors(response)


@pytest.mark.integration
async def test_unknown_path_is_404_for_every_page(serve):
    async with serve() as client:
        response = await client.post("/v1/tasks", data=TASK, headers={"Origin": EVIL})
        assert response.status == 404
