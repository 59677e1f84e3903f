"""The page in a real browser: what a person sees, sends and gets, with no network but this server."""

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from playwright.async_api import Browser, Page, Request, async_playwright, expect

from poiesis_api import documentation, openapi
from poiesis_api.app import make_app
from poiesis_api.submitter import Submitter
from poiesis_lab import host

pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("error")]

BASE = "/ga4gh/tes/v1"
expect.set_options(timeout=30_000)
OPERATIONS = ["GetServiceInfo", "ListTasks", "CreateTask", "GetTask", "CancelTask"]


@dataclass
class Visit:
    """A page, and what happened while it was open."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)

    def operation(self, operation_id: str):
        return self.page.locator(f"#operations-TaskService-{operation_id}")

    async def execute(self, operation_id: str) -> str:
        """Open an operation, press Execute, and return the answer's text."""
        operation = self.operation(operation_id)
        await operation.locator(".opblock-summary-control").click()
        await operation.get_by_role("button", name="Execute").click()
        answer = operation.locator(".live-responses-table .highlight-code").first
        await expect(answer).to_be_visible()
        return await answer.inner_text()


@pytest.fixture(scope="session")
def executable() -> str:
    return os.environ.get("POIESIS_TEST_BROWSER") or host.browser()


@asynccontextmanager
async def chromium(executable: str) -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        sandbox: Sequence[str] = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = await playwright.chromium.launch(executable_path=executable, args=sandbox)
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def visit(executable: str, app: web.Application) -> AsyncIterator[Visit]:
    async with TestServer(app) as server, chromium(executable) as browser:
        page = await browser.new_page(viewport={"width": 1280, "height": 1000})
        seen = Visit(page)
        page.on("console", lambda message: seen.complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: seen.complaints.append(str(error)))
        page.on("request", lambda request: seen.requests.append(request))  # noqa: PLW0108 - Playwright marks it
        await page.goto(str(server.make_url(f"{BASE}/ui")))
        await expect(seen.operation(OPERATIONS[-1])).to_be_visible()
        yield seen
        origin = str(server.make_url("/"))
        elsewhere = [one.url for one in seen.requests if not one.url.startswith((origin, "data:"))]
        assert (seen.complaints, elsewhere) == ([], [])


@pytest.fixture
def app(pool, kubernetes, config, make_services):
    submitter = Submitter(pool, kubernetes.client, config)
    return make_app(make_services(config, pool=pool, submitter=submitter))


async def test_the_page_shows_every_operation(executable, app):
    async with visit(executable, app) as seen:
        shown = seen.page.locator(".opblock")
        assert [await one.get_attribute("id") for one in await shown.all()] == [
            *(f"operations-TaskService-{name}" for name in OPERATIONS),
            "operations-Poiesis-GetUsage",
        ]
        await expect(seen.page.get_by_role("button", name="Authorize")).to_have_count(0)
        if folder := os.environ.get("POIESIS_SCREENSHOTS"):
            await seen.page.screenshot(path=f"{folder}/page.png", full_page=True)


async def test_page_creates_example_task_and_reads_it(executable, app, pool):
    async with visit(executable, app) as seen:
        created = await seen.execute("CreateTask")
        (task_id,) = [str(row["id"]) for row in await pool.fetch("SELECT id FROM task")]
        assert task_id in created
        assert task_id in await seen.execute("ListTasks")


_POST = """async ([url, kind, mode]) => {
    const task = '{"executors": [{"image": "busybox", "command": ["true"]}]}'
    const headers = {"Content-Type": kind}
    try {
        const answer = await fetch(url, {method: "POST", mode: mode, headers: headers, body: task})
        return answer.type === "opaque" ? "unseen" : Object.keys(await answer.json()).join()
    } catch (error) { return String(error) }
}"""
FORM, JSON = ("text/plain", "no-cors"), ("application/json", "cors")


@asynccontextmanager
async def page_of_another_site(executable: str) -> AsyncIterator[tuple[Page, str]]:
    """A page with nothing on it, and its origin."""

    async def nothing(_: web.Request) -> web.Response:
        return web.Response(text="<!doctype html>", content_type="text/html")

    other = web.Application()
    other.add_routes([web.get("/", nothing)])
    async with TestServer(other) as server, chromium(executable) as browser:
        page = await browser.new_page()
        await page.goto(str(server.make_url("/")))
        yield page, str(server.make_url("/")).rstrip("/")


async def test_a_page_of_another_site_creates_no_task(executable, app, pool):
    async with TestServer(app) as server, page_of_another_site(executable) as (page, _):
        tasks = str(server.make_url(f"{BASE}/tasks"))
        assert await page.evaluate(_POST, [tasks, *FORM]) == "unseen"
        assert await page.evaluate(_POST, [tasks, *JSON]) == "TypeError: Failed to fetch"
        assert await pool.fetchval("SELECT count(*) FROM task") == 0


async def test_allowed_page_creates_task_and_reads_id(executable, pool, kubernetes, config, make_services):
    async with page_of_another_site(executable) as (page, origin):
        http = config.http.model_copy(update={"allowed_origins": [origin]})
        changed = config.model_copy(update={"http": http})
        submitter = Submitter(pool, kubernetes.client, changed)
        app = make_app(make_services(changed, pool=pool, submitter=submitter))
        async with TestServer(app) as server:
            assert await page.evaluate(_POST, [str(server.make_url(f"{BASE}/tasks")), *JSON]) == "id"
        assert await pool.fetchval("SELECT count(*) FROM task") == 1


async def test_entered_access_token_is_sent_but_not_stored(executable, config):
    heard = []

    async def listen(request: web.Request) -> web.Response:
        heard.append(request.headers.get("Authorization"))
        return web.json_response({})

    app = web.Application()
    document = openapi.document(config.service_info, [openapi.SecurityScheme.BEARER])
    app.add_routes([*documentation.routes(document), web.get(f"{BASE}/tasks", listen)])
    async with visit(executable, app) as seen:
        await seen.page.get_by_role("button", name="Authorize").first.click()
        dialog = seen.page.locator(".modal-ux")
        await dialog.get_by_role("textbox").fill("a-token")
        await dialog.get_by_role("button", name="Apply credentials").click()
        await dialog.get_by_role("button", name="Close", exact=True).click()
        await seen.execute("ListTasks")
        stored = await seen.page.evaluate("JSON.stringify({...localStorage, ...sessionStorage})")
        assert (heard, stored) == (["Bearer a-token"], "{}")
