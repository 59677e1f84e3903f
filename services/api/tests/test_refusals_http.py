"""Whatever is sent, a refusal is `{"error": sentence, "field": path}`, and nothing is a 500."""

import asyncio
import gzip
import io
import json
import threading

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from yarl import URL

from poiesis_api import bodies, handlers
from poiesis_api.app import make_app
from poiesis_api.submitter import Submitter
from poiesis_api.validation import parse_task

pytestmark = pytest.mark.integration

BASE = "/ga4gh/tes/v1"
EXECUTORS = b'"executors": [{"image": "busybox", "command": ["true"]}]'
SMALL = b"{" + EXECUTORS + b"}"


async def refusal(response):
    """Status, field and sentence; the shape is the same whatever went wrong."""
    body = await response.json()
    assert response.content_type == "application/json"
    assert set(body) in ({"error"}, {"error", "field"})
    assert all(isinstance(value, str) and value for value in body.values())
    return response.status, body.get("field"), body["error"]


BODIES = [
    ("empty", b"", 400, None, "the body is not JSON: it is empty"),
    ("cut", b"{" + EXECUTORS, 400, None, "the body is not JSON: "),
    ("two documents", SMALL + SMALL, 400, None, "the body is not JSON: "),
    ("a comment", b"/**/" + SMALL, 400, None, "the body is not JSON: "),
    ("latin-1", b'{"name": "\xe4"}', 400, None, "the body is not JSON in UTF-8: byte 0xe4"),
    ("UTF-16", SMALL.decode().encode("utf-16"), 400, None, "the body is not JSON in UTF-8"),
    ("a lone surrogate", b'{"name": "\\ud800", ' + EXECUTORS + b"}", 400, None, "the body is not JSON: "),
    ("nested deeply", b"[" * 100_000, 400, None, "the body is not JSON: "),
    ("nested in an unknown field", b'{"x": ' + b"[" * 9999 + b"]" * 9999 + b"}", 400, None, "the body"),
    ("NaN in an unknown field", b'{"x": NaN, ' + EXECUTORS + b"}", 400, None, "the body is not JSON: "),
    ("a number of 5000 digits", b'{"x": ' + b"9" * 5000 + b"}", 400, None, "the body is not JSON: "),
    ("a list", b"[]", 400, None, "the body: Input should be an object"),
    ("a string", b'"task"', 400, None, "the body: Input should be an object"),
    ("null", b"null", 400, None, "the body: Input should be an object"),
    ("nothing in it", b"{}", 400, "executors", "executors: Field required"),
    ("NUL", b'{"name": "a\\u0000", ' + EXECUTORS + b"}", 400, "name", "name: must not contain NUL"),
    ("NUL in a key", b'{"tags": {"a\\u0000": ""}, ' + EXECUTORS + b"}", 400, "tags.a\0", "tags.a\0: must"),
    ("a string for a number", b'{"resources": {"cpu_cores": "1"}, ' + EXECUTORS + b"}", 400,
     "resources.cpu_cores", "resources.cpu_cores: Input should be a valid integer"),
    ("a huge integer", b'{"resources": {"cpu_cores": 1' + b"0" * 400 + b"}, " + EXECUTORS + b"}", 400,
     "resources.cpu_cores", "resources.cpu_cores: Input should be less than or equal to 2147483647"),
    ("a huge integer for a double", b'{"resources": {"ram_gb": 1' + b"0" * 400 + b"}, " + EXECUTORS + b"}",
     400, "resources.ram_gb", "resources.ram_gb: Input should be a finite number"),
    ("a double that overflows", b'{"resources": {"disk_gb": 1e999}, ' + EXECUTORS + b"}", 400,
     "resources.disk_gb", "resources.disk_gb: Input should be a finite number"),
    ("true for a number", b'{"resources": {"ram_gb": true}, ' + EXECUTORS + b"}", 400, "resources.ram_gb",
     "resources.ram_gb: Input should be a valid number"),
    ("an object for a list", b'{"executors": {}}', 400, "executors", "executors: Input should be a valid"),
    ("too long", b'{"description": "' + b"x" * 9_000_000 + b'"}', 413, None, "the body is longer than 8388"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "status", "field", "words"), [one[1:] for one in BODIES], ids=[one[0] for one in BODIES]
)
async def test_a_body_that_is_no_task_is_refused(client, body, status, field, words):
    answer = await refusal(await client.post(f"{BASE}/tasks", data=io.BytesIO(body)))
    assert answer[:2] == (status, field)
    assert answer[2].startswith(words)


ENCODED = [
    ("gzip", gzip.compress(SMALL, mtime=0), 200, None),
    ("gzip", b"no gzip", 400, "the body is not valid gzip"),
    ("gzip", gzip.compress(b" " * 10**8, mtime=0), 413, "the body is longer than 8388608 bytes"),
    ("br", SMALL, 415, "unsupported Content-Encoding 'br'"),
    ("zstd", SMALL, 415, "unsupported Content-Encoding 'zstd'"),
    ("x", SMALL, 415, "unsupported Content-Encoding 'x'"),
]


@pytest.mark.parametrize(("encoding", "body", "status", "words"), ENCODED)
async def test_a_body_may_be_encoded(client, encoding, body, status, words):
    async def chunks():  # bytes alone the client would encode a second time
        yield body

    response = await client.post(f"{BASE}/tasks", data=chunks(), headers={"Content-Encoding": encoding})
    assert response.status == status
    assert response.headers.get("Accept-Encoding") == ("gzip, deflate" if status == 415 else None)
    if words is not None:
        assert (await refusal(response))[2].startswith(words)


@pytest.mark.parametrize(
    "content_type",
    [None, "application/json; charset=utf-16", "application/x-www-form-urlencoded", "text/plain", ";"],
)
async def test_the_content_type_does_not_matter(client, content_type):
    headers = {} if content_type is None else {"Content-Type": content_type}
    response = await client.post(f"{BASE}/tasks", data=SMALL, headers=headers)
    assert response.status == 200


async def test_last_of_duplicate_json_keys_is_used(client):
    body = b'{"name": "first", "name": "last", ' + EXECUTORS + b"}"
    task_id = (await (await client.post(f"{BASE}/tasks", data=body)).json())["id"]
    task = await (await client.get(f"{BASE}/tasks/{task_id}", params={"view": "FULL"})).json()
    assert task["name"] == "last"


METHODS = [
    ("PUT", "/tasks", "GET, HEAD, POST"),
    ("DELETE", "/tasks", "GET, HEAD, POST"),
    ("OPTIONS", "/tasks", "GET, HEAD, POST"),
    ("TRACE", "/tasks", "GET, HEAD, POST"),
    ("DELETE", "/tasks/x", "GET, HEAD, POST"),
    ("PATCH", "/service-info", "GET, HEAD"),
    ("POST", "/openapi.json", "GET, HEAD"),
    ("POST", "/ui", "GET, HEAD"),
]


@pytest.mark.parametrize(("method", "path", "allowed"), METHODS)
async def test_unsupported_method_is_405_with_allow(client, method, path, allowed):
    response = await client.request(method, f"{BASE}{path}")
    assert response.headers["Allow"] == allowed
    assert await refusal(response) == (
        405,
        None,
        f"method {method} not allowed for {BASE}{path} (allowed: {allowed})",
    )


@pytest.mark.parametrize("path", ["/tasks", "/service-info", "/openapi.json", "/ui"])
async def test_head_is_get_without_its_body(client, path):
    got, headed = await client.get(f"{BASE}{path}"), await client.head(f"{BASE}{path}")
    assert headed.status == got.status
    of_each = {"Date": "", "X-Request-ID": ""}
    assert {**headed.headers, **of_each} == {**got.headers, **of_each}
    assert await headed.read() == b""


async def test_no_other_origin_is_let_in(client):
    headers = {"Origin": "https://elsewhere.example", "Access-Control-Request-Method": "POST"}
    for response in (
        await client.options(f"{BASE}/tasks", headers=headers),
        await client.get(f"{BASE}/tasks", headers=headers),
    ):
        assert [name for name in response.headers if name.lower().startswith("access-control")] == []


PATHS = [
    "/", "/tasks", "/v1/tasks", "/ga4gh/tes", "/ga4gh/tes/v1", "/ga4gh/tes/v1/", f"{BASE}/tasks/",
    f"{BASE}/tasks//", f"{BASE}/TASKS", f"{BASE}/service-info/", f"{BASE}/tasks/a/b",
    f"{BASE}/%zz", f"{BASE}/tasks%2F",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
async def test_a_path_of_no_operation_is_404(client, path):
    for method in ("GET", "POST"):
        status, field, sentence = await refusal(await client.request(method, URL(path, encoded=True)))
        assert (status, field) == (404, None)
        assert sentence.endswith(f" (the TES API is at {BASE})")


QUERIES = [
    ("page_size=0", "page_size"),
    ("page_size=2048", "page_size"),
    ("page_size=1e3", "page_size"),
    ("page_size=+5", "page_size"),
    ("page_size=" + "9" * 5000, "page_size"),
    ("page_token=%00", "page_token"),
    ("page_token=" + "A" * 5000, "page_token"),
    ("view=full", "view"),
    ("view=FULL;state=QUEUED", "view"),
    ("view=%ED%A0%80", "view"),
    ("state=queued", "state"),
    ("tag_value=x", "tag_value"),
    ("tag_key=a%00", "tag_key"),
    ("name_prefix=%00", "name_prefix"),
]


@pytest.mark.parametrize(("query", "field"), QUERIES)
async def test_a_parameter_that_cannot_be_understood_is_named(client, query, field):
    status, named, sentence = await refusal(await client.get(URL(f"{BASE}/tasks?{query}", encoded=True)))
    assert (status, named) == (400, field)
    assert sentence.startswith(f"{field} ")
    assert len(sentence) < 400


@pytest.mark.parametrize(
    "query",
    ["", "x=y", "view=", "state=", "page_token=", "name_prefix=%FF", "x=%zz", "&&&", "=", "view=FULL&view=x"],
)
async def test_unknown_and_empty_parameters_are_ignored(client, query):
    assert (await client.get(URL(f"{BASE}/tasks?{query}", encoded=True))).status == 200


async def test_query_with_many_tags_is_fast(client):
    tags = {f"k{number}": "v" for number in range(500)}
    body = json.dumps({"tags": tags, "executors": [{"image": "busybox", "command": ["true"]}]})
    task_id = (await (await client.post(f"{BASE}/tasks", data=body)).json())["id"]
    query = [*(("tag_key", key) for key in tags), *(("tag_value", "v") for _ in range(50))]
    async with asyncio.timeout(30):
        response = await client.get(f"{BASE}/tasks", params=query)
        assert [task["id"] for task in (await response.json())["tasks"]] == [task_id]


WIRE = [
    ("no HTTP", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    ("an unknown method", b"BREW /ga4gh/tes/v1/tasks HTTP/1.1\r\nHost: x\r\n\r\n"),
    ("no host", b"GET /ga4gh/tes/v1/tasks HTTP/1.1\r\n\r\n"),
    ("bytes in a query", b"GET /ga4gh/tes/v1/tasks?name_prefix=\xff HTTP/1.1\r\nHost: x\r\n\r\n"),
    ("a long line", b"GET /ga4gh/tes/v1/tasks?x=" + b"x" * 10_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n"),
    ("a long header", b"GET /ga4gh/tes/v1/tasks HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 10_000 + b"\r\n\r\n"),
    ("two lengths",
     b"POST /ga4gh/tes/v1/tasks HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}"),
    ("a length below nothing", b"POST /ga4gh/tes/v1/tasks HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n"),
    ("no chunks",
     b"POST /ga4gh/tes/v1/tasks HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
]  # fmt: skip


@pytest.mark.parametrize("sent", [one[1] for one in WIRE], ids=[one[0] for one in WIRE])
async def test_malformed_http_is_400(client, sent):
    reader, writer = await asyncio.open_connection(client.host, client.port)
    writer.write(sent)
    await writer.drain()
    async with asyncio.timeout(30):
        answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))


async def test_a_body_in_two_encodings_is_415(client):
    headers = [("Content-Encoding", "identity"), ("Content-Encoding", "gzip")]
    response = await client.post(f"{BASE}/tasks", data=io.BytesIO(SMALL), headers=headers)
    assert (await refusal(response))[0] == 415


@pytest.fixture
async def hurried(pool, kubernetes, config, conformance, make_services):
    """A client of a server that waits half a second for a body."""
    limits = config.limits.model_copy(update={"body_seconds": 0.5})
    changed = config.model_copy(update={"limits": limits})
    services = make_services(changed, pool=pool, submitter=Submitter(pool, kubernetes.client, changed))
    async with TestClient(TestServer(make_app(services)), middlewares=[conformance]) as client:
        yield client


STALLED = [
    ("no more bytes", b"Content-Length: 100\r\n\r\n{"),
    ("no more chunks", b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"),
    ("half a chunk", b"Transfer-Encoding: chunked\r\n\r\n64\r\n{"),
]
START = b"POST /ga4gh/tes/v1/tasks HTTP/1.1\r\nHost: localhost\r\n"


@pytest.mark.parametrize("rest", [one[1] for one in STALLED], ids=[one[0] for one in STALLED])
async def test_a_body_that_stalls_is_408(hurried, rest):
    reader, writer = await asyncio.open_connection(hurried.host, hurried.port)
    writer.write(START + rest)
    async with asyncio.timeout(30):
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.readuntil(b"}")
    writer.close()
    await writer.wait_closed()
    assert head.startswith(b"HTTP/1.1 408 ")
    assert json.loads(body) == {"error": "the body did not arrive within 0.5 seconds"}


async def test_client_disconnect_is_not_a_server_error(pool, kubernetes, config, make_services, caplog):
    came, gone = asyncio.Event(), asyncio.Event()

    @web.middleware
    async def watched(request, handler):
        came.set()
        try:
            return await handler(request)
        finally:
            gone.set()

    services = make_services(config, pool=pool, submitter=Submitter(pool, kubernetes.client, config))
    app = make_app(services)
    app.middlewares.insert(0, watched)
    async with TestServer(app) as server, asyncio.timeout(30):
        _, writer = await asyncio.open_connection(server.host, server.port)
        writer.write(START + b"Content-Length: 100\r\n\r\n{")
        await came.wait()
        writer.close()
        await writer.wait_closed()
        await gone.wait()
    assert "a mistake" not in caplog.text


async def test_long_validation_does_not_block_other_requests(client, monkeypatch):
    begun, answered = threading.Event(), threading.Event()

    def slow(body):
        begun.set()
        assert answered.wait(30)
        return parse_task(body)

    monkeypatch.setattr(handlers, "parse_task", slow)
    body = SMALL + b" " * bodies.SMALL_BYTES
    long = asyncio.create_task(client.post(f"{BASE}/tasks", data=io.BytesIO(body)))
    assert await asyncio.to_thread(begun.wait, 30)
    assert (await client.get(f"{BASE}/tasks")).status == 200
    answered.set()
    assert (await long).status == 200


async def test_rejected_create_is_one_log_line(client, caplog):
    caplog.set_level("INFO")
    headers = {"User-Agent": "tes/0.11"}
    body = b'{"executors": [{"image": "b", "command": ["c"]}], "volumes": ["/etc"]}'
    assert (await client.post(f"{BASE}/tasks", data=io.BytesIO(body), headers=headers)).status == 400
    assert (await client.get(f"{BASE}/tasks?view=x", headers=headers)).status == 400
    (line,) = [one for one in caplog.records if one.message == "rejected create"]
    assert (line.status, line.field, line.user, line.user_agent) == (
        400,
        "volumes[0]",
        "anonymous",
        "tes/0.11",
    )
    assert "system directory" in line.reason
