"""Generated requests, made from our own OpenAPI document and from what TES allows in a task.

Deterministic, and as many as `make test` has time for; `make fuzz EXAMPLES=2000` makes new ones each time.
"""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any

import pytest
import schemathesis
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from poiesis_api.app import make_app
from poiesis_api.config import Database, ServiceInfo
from poiesis_api.openapi import BASE, USAGE_PATH, document
from poiesis_api.postgres import open_pool
from poiesis_api.submitter import Submitter

pytestmark = pytest.mark.integration


def promised() -> dict[str, Any]:
    """The document without `default`: a status that an operation does not name is a mistake."""
    made = document(ServiceInfo())
    for methods in made["paths"].values():
        for operation in methods.values():
            del operation["responses"]["default"]
    return made


schema = schemathesis.openapi.from_dict(promised())
CHECKS = [
    schemathesis.checks.not_a_server_error,
    *schemathesis.checks.CHECKS.get_by_names(
        [
            "status_code_conformance",
            "content_type_conformance",
            "response_headers_conformance",
            "response_schema_conformance",
            "unsupported_method",
        ]
    ),
]


@contextmanager
def served(dsn: str, config: Any, services_for: Any) -> Iterator[str]:
    """The real application on a port of its own, in a thread: what calls it here is not asynchronous."""
    started = threading.Event()
    stop = asyncio.Event()
    found: dict[str, Any] = {}

    async def run() -> None:
        async with AsyncExitStack() as stack:
            pool = await stack.enter_async_context(open_pool(dsn, Database()))
            services = services_for(config, pool=pool, submitter=Submitter(pool, None, config))
            server = await stack.enter_async_context(TestServer(make_app(services)))
            found.update(loop=asyncio.get_running_loop(), url=str(server.make_url(BASE)))
            started.set()
            await stop.wait()

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    try:
        assert started.wait(30)
        yield found["url"]
    finally:
        if started.is_set():
            found["loop"].call_soon_threadsafe(stop.set)
        thread.join(30)


@pytest.fixture(scope="module")
def url(postgres_dsn: str, config: Any, make_services: Any) -> Iterator[str]:
    with served(postgres_dsn, config, make_services) as url:
        yield url


def every_answer_is_promised(method: str, path: str, *, base: str = BASE) -> Any:
    """A test of its own for each operation: of tests with one name, xdist's schedulers by scope run one."""

    @schema.include(method=method, path=path).parametrize()
    @settings(suppress_health_check=list(HealthCheck))
    def test(case: Any, url: str) -> None:
        response = case.call(base_url=url.removesuffix(BASE) + base, timeout=120)
        case.validate_response(response, checks=CHECKS)

    return test


test_every_answer_to_get_service_info_is_promised = every_answer_is_promised("GET", "/service-info")
test_every_answer_to_list_tasks_is_promised = every_answer_is_promised("GET", "/tasks")
test_every_answer_to_create_task_is_promised = every_answer_is_promised("POST", "/tasks")
test_every_answer_to_get_task_is_promised = every_answer_is_promised("GET", "/tasks/{id}")
test_every_answer_to_cancel_task_is_promised = every_answer_is_promised("POST", "/tasks/{id}:cancel")

test_every_answer_to_get_usage_is_promised = every_answer_is_promised("GET", USAGE_PATH, base="")


def test_every_operation_is_asked(request):
    asked = {item.name for item in request.node.parent.collect()}
    operations = [
        operation["operationId"] for methods in promised()["paths"].values() for operation in methods.values()
    ]
    assert len([name for name in asked if name.endswith("_is_promised")]) == len(operations) == 6


# Tasks

text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
names = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0/*?[\\"), min_size=1, max_size=20
).filter(lambda name: name not in {".", ".."})
kinds = st.sampled_from(["FILE", "DIRECTORY"])
urls = st.builds("s3://bucket/{}".format, text)
file_urls = st.builds("s3://bucket/{}x".format, text)
images = st.from_regex(
    r"([a-z0-9]{1,9}\.example(:[0-9]{1,5})?/)?[a-z0-9]{1,9}([._/-][a-z0-9]{1,9}){0,3}(:[A-Z0-9_][a-z.-]{0,9})?",
    fullmatch=True,
)
gigabytes = st.floats(0, 4096, exclude_min=True) | st.integers(1, 4096)


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Any of the fields."""
    return st.fixed_dictionaries({}, optional=fields)


def numbered(items: st.SearchStrategy[list[dict[str, Any]]], directory: str) -> st.SearchStrategy[Any]:
    """Each below a directory of its own, so that no path is another's."""
    return items.map(
        lambda found: [
            {**item, "path": f"{directory}/{number}/{item['path']}"} for number, item in enumerate(found)
        ]
    )


executors = st.builds(
    lambda needed, optional: needed | optional,
    st.fixed_dictionaries(
        {
            "image": images,
            "command": st.builds(lambda program, rest: [program, *rest], text.filter(bool), st.lists(text)),
        }
    ),
    some(
        workdir=names.map("/work/{}".format),
        stdin=names.map("/streams/{}".format),
        stdout=names.map("/streams/{}".format),
        stderr=names.map("/streams/{}".format),
        env=st.dictionaries(st.from_regex(r"[ -<>-~]+", fullmatch=True), text, max_size=3),
        ignore_error=st.booleans(),
    ),
)
labels = {"name": text, "description": text}
inputs = st.builds(
    lambda source, optional: source | optional,
    st.fixed_dictionaries({"path": names, "url": urls}, optional={"type": kinds})
    | st.fixed_dictionaries(
        {"path": names, "content": text}, optional={"url": text, "type": st.just("FILE")}
    ).filter(lambda source: source["content"] or not source.get("url")),
    some(**labels, streamable=st.booleans()),
)
outputs = st.builds(
    lambda target, optional: target | optional,
    st.fixed_dictionaries({"path": names, "url": file_urls}, optional={"type": kinds})
    | st.fixed_dictionaries(
        {"path": names.map("{}*".format), "url": urls, "path_prefix": st.just("/outputs/")}
    ),
    some(**labels),
)
resources = some(
    cpu_cores=st.integers(1, 256),
    preemptible=st.booleans(),
    ram_gb=gigabytes,
    disk_gb=gigabytes,
    zones=st.lists(text, max_size=3),
    backend_parameters_strict=st.booleans(),
)
tasks = st.builds(
    lambda needed, optional: needed | optional,
    st.fixed_dictionaries({"executors": st.lists(executors, min_size=1, max_size=3)}),
    some(
        **labels,
        inputs=numbered(st.lists(inputs, min_size=1, max_size=3), "/inputs"),
        outputs=numbered(st.lists(outputs, min_size=1, max_size=3), "/outputs"),
        resources=resources,
        volumes=st.lists(names.map("/volumes/{}".format), min_size=1, max_size=3, unique=True),
        tags=st.dictionaries(text.filter(bool), text, min_size=1, max_size=3),
    ),
)
ADDED = {"id", "state", "creation_time"}


@pytest.fixture
async def client(pool, config, conformance, make_services):
    services = make_services(config, pool=pool, submitter=Submitter(pool, None, config))
    async with TestClient(TestServer(make_app(services)), middlewares=[conformance]) as client:
        yield client


async def stored(client, body: dict[str, Any]) -> dict[str, Any]:
    """Return the FULL view of an accepted task without the fields that the server adds."""
    response = await client.post(f"{BASE}/tasks", json=body)
    answer = await response.json()
    assert response.status == 200, (answer, body)
    response = await client.get(f"{BASE}/tasks/{answer['id']}", params={"view": "FULL"})
    task = await response.json()
    return {key: value for key, value in task.items() if key not in ADDED}


@given(task=tasks)
@settings(suppress_health_check=list(HealthCheck))
async def test_task_is_returned_as_sent(client, task):
    assert await stored(client, task) == task


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(text, inner, max_size=2),
    max_leaves=4,
)
IGNORED = ("id", "state", "logs", "creation_time", "more")
OPTIONAL = ("name", "description", "inputs", "outputs", "resources", "volumes", "tags")


@given(task=tasks, ignored=some(**dict.fromkeys(IGNORED, junk)), absent=st.sets(st.sampled_from(OPTIONAL)))
@settings(suppress_health_check=list(HealthCheck))
async def test_read_only_unknown_and_null_fields_are_ignored(client, task, ignored, absent):
    sent = {**task, **ignored, **dict.fromkeys(absent)}
    assert await stored(client, sent) == {key: value for key, value in task.items() if key not in absent}


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value in a document."""
    yield path
    pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in pairs:
        yield from places(value, (*path, key))


def replaced(node: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A copy with another value at `path`."""
    if not path:
        return value
    copy = dict(node) if isinstance(node, dict) else list(node)
    copy[path[0]] = replaced(node[path[0]], path[1:], value)
    return copy


@given(data=st.data(), task=tasks)
@settings(suppress_health_check=list(HealthCheck))
async def test_odd_task_is_stored_or_rejected_by_field(client, data, task):
    sent = replaced(task, data.draw(st.sampled_from(list(places(task)))), data.draw(junk))
    response = await client.post(f"{BASE}/tasks", json=sent)
    answer = await response.json()
    if response.status == 200:
        response = await client.get(f"{BASE}/tasks/{answer['id']}", params={"view": "FULL"})
        assert response.status == 200
    else:
        assert response.status == 400, (answer, sent)
        assert answer["error"].startswith(answer.get("field", "the body"))
