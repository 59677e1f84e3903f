# ruff: noqa: ASYNC240, PLR0917  # fixtures are arguments; tests may block
import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web as server
from aiohttp.test_utils import TestServer, unused_port

from poiesis_transfer.errors import NotFound, Passing, Permanent, TransferError
from poiesis_transfer.files import Landing
from poiesis_transfer.pages import fetch_page
from poiesis_transfer.progress import Progress
from poiesis_transfer.retry import Retry
from poiesis_transfer.web import Limits, Web, retry_after, status_error, translated

Handler = Callable[[server.Request], Awaitable[server.StreamResponse]]
BODY = bytes(range(256)) * 20_000  # 5 MB: several blocks
LIMITS = Limits(connect=2, idle=0.3)
QUICK = Retry(attempts=3, first_seconds=0.001, longest_seconds=0.2)


class Unruly:
    """Answers one after the other by the handlers it is given, and by the last one from then on."""

    def __init__(self) -> None:
        self.answers: list[Handler] = []
        self.requests: list[server.Request] = []

    async def handle(self, request: server.Request) -> server.StreamResponse:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return await answer(request)


def status(code: int, **headers: str) -> Handler:
    async def answer(request: server.Request) -> server.StreamResponse:
        return server.Response(
            status=code, headers={name.replace("_", "-"): text for name, text in headers.items()}
        )

    return answer


async def whole(request: server.Request) -> server.StreamResponse:
    return server.Response(body=BODY)


async def chunked(request: server.Request) -> server.StreamResponse:
    response = server.StreamResponse()
    response.enable_chunked_encoding()
    await response.prepare(request)
    await response.write(BODY)
    return response


async def truncated(request: server.Request) -> server.StreamResponse:
    response = server.StreamResponse(headers={"Content-Length": str(len(BODY))})
    await response.prepare(request)
    await response.write(BODY[:3_000_000])
    assert request.transport is not None
    request.transport.close()
    return response


async def reset(request: server.Request) -> server.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return server.Response()


async def silent(request: server.Request) -> server.StreamResponse:
    await asyncio.Event().wait()
    return server.Response()


async def stalled(request: server.Request) -> server.StreamResponse:
    response = server.StreamResponse(headers={"Content-Length": "10"})
    await response.prepare(request)
    await response.write(b"12345")
    await asyncio.Event().wait()
    return response


def redirect(to: str) -> Handler:
    async def answer(request: server.Request) -> server.StreamResponse:
        raise server.HTTPFound(to)

    return answer


@pytest_asyncio.fixture
async def unruly() -> AsyncIterator[tuple[Unruly, TestServer]]:
    handler = Unruly()
    app = server.Application()
    app.router.add_route("*", "/{path:.*}", handler.handle)
    async with TestServer(app, shutdown_timeout=0.01) as running:
        yield handler, running


@pytest.fixture
def get(tmp_path: Path, progress: Progress):
    """Fetch in a thread, as the server runs in this one; any address is allowed unless told otherwise."""

    def fetch(url: str, web: Web) -> bytes:
        with Landing(tmp_path / "f", "/in/f", progress) as landing:
            fetch_page(web, url, landing)
        return (tmp_path / "f").read_bytes()

    async def get(url: str, **options: Any) -> bytes:
        web = Web(limits=LIMITS, retry=QUICK, **options)
        try:
            return await asyncio.to_thread(fetch, url, web)
        finally:
            web.close()

    return get


@pytest.mark.parametrize(
    "answers",
    [
        [whole],
        [chunked],
        [status(500), whole],
        [status(503), status(429, Retry_After="0"), whole],
        [truncated, whole],
        [reset, whole],
        [silent, whole],
        [stalled, whole],
        [redirect("/elsewhere"), whole],
    ],
    ids=["whole", "chunked", "500", "503-429", "truncated", "reset", "silent", "stalled", "redirect"],
)
async def test_a_file_arrives_in_spite_of_passing_failures(
    unruly, get, progress: Progress, answers: list[Handler]
):
    handler, running = unruly
    handler.answers = answers
    assert await get(str(running.make_url("/a b"))) == BODY
    assert (progress._files, progress._bytes) == (1, len(BODY))


@pytest.mark.parametrize(
    ("answers", "kind", "words", "requests"),
    [
        ([status(404)], NotFound, "not found (HTTP 404)", 1),
        ([status(403)], Permanent, "access denied (HTTP 403)", 1),
        ([status(418)], Permanent, "HTTP 418", 1),
        ([redirect("/again")], Permanent, "more than 10 redirects", None),
        ([redirect("ftp://h/x")], Permanent, "where it redirects to, is not a valid HTTP URL", 1),
        ([status(500)], Passing, "HTTP 500", 3),
        ([status(503)], Passing, "not available (HTTP 503)", 3),
        ([truncated], Passing, "3000000 of 5120000 bytes came", 3),
        ([stalled], Passing, "no answer in time", 3),
        ([status(204)], Permanent, "HTTP 204", 1),
    ],
    ids=lambda value: getattr(value, "__name__", None) if callable(value) else None,
)
async def test_a_failure_is_named_without_query_and_userinfo(
    unruly,
    get,
    progress: Progress,
    tmp_path: Path,
    answers,
    kind: type[TransferError],
    words: str,
    requests: int | None,
):
    handler, running = unruly
    handler.answers = answers
    url = (
        str(running.make_url("/data/x")).replace("http://", "http://user:password@")
        + "?X-Amz-Signature=signed"
    )
    with pytest.raises(TransferError) as failure:
        await get(url)
    assert type(failure.value) is kind
    assert words in str(failure.value)
    assert f"http://{running.host}:{running.port}/data/x" in str(failure.value)
    assert not any(secret in str(failure.value) for secret in ("password", "signed", "user"))
    assert requests is None or len(handler.requests) == requests
    assert [path.name for path in tmp_path.iterdir()] == ["progress.jsonl"]
    assert progress._bytes == 0


async def test_a_compressed_body_stays_as_it_was_sent(unruly, get):
    async def squeezed(request: server.Request) -> server.StreamResponse:
        return server.Response(body=b"not really gzip", headers={"Content-Encoding": "gzip"})

    handler, running = unruly
    handler.answers = [squeezed]
    assert await get(str(running.make_url("/f.gz"))) == b"not really gzip"
    assert handler.requests[0].headers["Accept-Encoding"] == "identity"


async def test_a_query_is_sent_as_it_was_given(unruly, get):
    handler, running = unruly
    handler.answers = [whole]
    await get(str(running.make_url("/")) + "a%2Fb%7E?sig=%2B%7e/&x")
    assert handler.requests[0].raw_path == "/a%2Fb%7E?sig=%2B%7e/&x"


async def test_a_server_without_tls_is_told_of_in_the_words_of_openssl(unruly, get):
    _, running = unruly
    where = f"https://{running.host}:{running.port}/x"
    with pytest.raises(Permanent) as failure:
        await get(where)
    expected = "TLS: the server's certificate or protocol is not accepted (wrong version number)"
    assert str(failure.value) == f"cannot fetch {where}: {expected}"


def test_a_certificate_that_is_not_accepted_is_told_of_in_the_words_of_openssl():
    refused = ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed")
    refused.verify_message = "self-signed certificate"
    with pytest.raises(Permanent, match=r"not accepted \(self-signed certificate\)$"), translated("it"):
        raise refused


async def test_nobody_listening_is_a_passing_failure(get):
    with pytest.raises(Passing, match=r"no connection \(.*refused"):
        await get(f"http://127.0.0.1:{unused_port()}/x")


@pytest.mark.parametrize(
    "url", ["http://[::1/x", "http:///x", f"http://{'a' * 70}.invalid/x", "http://h:99999/x"]
)
async def test_a_malformed_url_is_a_permanent_failure(get, url: str):
    with pytest.raises(Permanent, match="not a valid"):
        await get(url)


@pytest.mark.parametrize(
    ("code", "kind"),
    [(400, Permanent), (408, Passing), (410, NotFound), (429, Passing), (502, Passing), (507, Passing)],
)
def test_a_status_says_whether_trying_again_may_help(code: int, kind: type[TransferError]):
    assert type(status_error("x", code, {})) is kind


@pytest.mark.parametrize(
    ("value", "expected"), [("7", 7.0), ("", None), ("soon", None), ("-1", None), ("²", None)]
)
def test_retry_after_in_seconds(value: str, expected: float | None):
    assert retry_after({"Retry-After": value}) == expected


def test_retry_after_as_a_date():
    date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 60))
    assert 50 < (retry_after({"Retry-After": date}) or 0) <= 60
    assert retry_after({"Retry-After": "Mon, 01 Jan 2001 00:00:00 GMT"}) == 0
