# ruff: noqa: ASYNC240, PLR0917  # fixtures are arguments; tests may block
import asyncio
import hashlib
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web as server
from aiohttp.test_utils import TestServer, unused_port

from poiesis_transfer import fetch as fetch_module
from poiesis_transfer import pool
from poiesis_transfer import web as web_module
from poiesis_transfer.addresses import Allowed
from poiesis_transfer.errors import NotFound, Permanent, Refused, Retryable, TransferError
from poiesis_transfer.files import Destination
from poiesis_transfer.http_object import fetch_url
from poiesis_transfer.progress import Progress
from poiesis_transfer.retry import Retry
from poiesis_transfer.web import Limits, Url, Web, environments_proxy, retry_after, status_error, translated

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
    """Fetch in a thread, as the server runs in this one; by default with all addresses allowed."""

    def fetch(url: str, web: Web) -> bytes:
        with Destination(tmp_path / "f", "/in/f", progress) as destination:
            fetch_url(web, url, destination)
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
        ([redirect("ftp://h/x")], Permanent, "redirect target is not a valid HTTP URL", 1),
        ([status(500)], Retryable, "HTTP 500", 3),
        ([status(503)], Retryable, "unavailable (HTTP 503)", 3),
        ([truncated], Retryable, "received 3000000 of 5120000 bytes", 3),
        ([stalled], Retryable, "no response in time", 3),
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


async def test_a_server_without_tls_is_reported(unruly, get):
    _, running = unruly
    where = f"https://{running.host}:{running.port}/x"
    with pytest.raises(Permanent) as failure:
        await get(where)
    expected = "TLS: the server's certificate or protocol was rejected (wrong version number)"
    assert str(failure.value) == f"cannot fetch {where}: {expected}"


def test_a_rejected_certificate_is_reported():
    refused = ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed")
    refused.verify_message = "self-signed certificate"
    with pytest.raises(Permanent, match=r"was rejected \(self-signed certificate\)$"), translated("it"):
        raise refused


async def test_a_refused_connection_is_retryable(get):
    with pytest.raises(Retryable, match=r"cannot connect \(.*refused"):
        await get(f"http://127.0.0.1:{unused_port()}/x")


@pytest.mark.parametrize(
    "url", ["http://[::1/x", "http:///x", f"http://{'a' * 70}.invalid/x", "http://h:99999/x"]
)
async def test_a_malformed_url_is_a_permanent_failure(get, url: str):
    with pytest.raises(Permanent, match="not a valid"):
        await get(url)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (400, Permanent),
        (408, Retryable),
        (410, NotFound),
        (429, Retryable),
        (502, Retryable),
        (507, Retryable),
    ],
)
def test_statuses_are_retryable_or_permanent(code: int, kind: type[TransferError]):
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


NO_DATES = [
    "Mon, 99 Jan 2020 00:00:00 GMT",
    "Mon, 01 Jan 99999 00:00:00 GMT",
    "Mon, 31 Feb 2020 00:00:00 GMT",
]


@pytest.mark.parametrize("value", NO_DATES)
async def test_a_date_that_does_not_exist_is_ignored(unruly, get, value: str):
    handler, running = unruly

    async def dated(request: server.Request) -> server.StreamResponse:
        return server.Response(body=BODY, headers={"Last-Modified": value})

    handler.answers = [status(503, Retry_After=value), dated]
    assert await get(str(running.make_url("/f"))) == BODY
    assert len(handler.requests) == 2


class Ranged:
    """A file with ranges, of which every answer breaks off after `piece` bytes; `versions` come in turn."""

    def __init__(self, *versions: bytes, piece: int, tags: bool = True) -> None:
        self.versions = list(versions)
        self.piece = piece
        self.tags = tags
        self.ranges: list[str | None] = []

    async def __call__(self, request: server.Request) -> server.StreamResponse:
        self.ranges.append(request.headers.get("Range"))
        body = self.versions.pop(0) if len(self.versions) > 1 else self.versions[0]
        tag = f'"{hashlib.sha256(body).hexdigest()}"'
        start, stop, code = 0, len(body), 200
        asked = request.http_range
        if asked.start is not None and request.headers.get("If-Range") in {tag, None}:
            start, stop, code = asked.start, asked.stop, 206
        headers = {"Content-Length": str(stop - start), "Accept-Ranges": "bytes"}
        if self.tags:
            headers["ETag"] = tag
        if code == 206:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(body)}"
        response = server.StreamResponse(status=code, headers=headers)
        await response.prepare(request)
        await response.write(body[start : min(stop, start + self.piece)])
        if stop - start > self.piece:
            assert request.transport is not None
            request.transport.close()
        return response


async def test_a_broken_transfer_resumes(unruly, get):
    handler, running = unruly
    ranged = Ranged(BODY, piece=700_000)  # eight pieces, and three attempts: each gets further
    handler.answers = [ranged]
    assert await get(str(running.make_url("/f"))) == BODY
    assert ranged.ranges[:2] == [
        None,
        f"bytes={ranged.ranges[1].split('=')[1].split('-')[0]}-{len(BODY) - 1}",
    ]
    assert len(ranged.ranges) > 6


async def test_a_transfer_without_version_starts_over(unruly, get):
    handler, running = unruly
    ranged = Ranged(BODY, piece=700_000, tags=False)
    handler.answers = [ranged, whole]
    assert await get(str(running.make_url("/f"))) == BODY
    assert ranged.ranges == [None]


async def test_an_object_changed_between_parts_starts_over(unruly, get):
    handler, running = unruly
    new = BODY[::-1]
    handler.answers = [Ranged(BODY, piece=700_000), Ranged(new, piece=10**9)]
    assert await get(str(running.make_url("/f"))) == new


async def test_a_long_object_arrives_in_concurrent_parts(unruly, get, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fetch_module, "WHOLE_BYTES", 1_000_000)
    monkeypatch.setattr(fetch_module, "PART_BYTES", 900_001)
    handler, running = unruly
    ranged = Ranged(BODY, piece=10**9)
    handler.answers = [ranged]
    assert await get(str(running.make_url("/f"))) == BODY
    assert sorted(each or "" for each in ranged.ranges) == sorted(
        [
            "",
            *(
                f"bytes={start}-{min(start + 900_001, len(BODY)) - 1}"
                for start in range(900_001, len(BODY), 900_001)
            ),
        ]
    )


async def test_a_checksum_mismatch_is_not_kept(unruly, get, tmp_path: Path):
    async def spoilt(request: server.Request) -> server.StreamResponse:
        digest = hashlib.md5(BODY, usedforsecurity=False).hexdigest()
        return server.Response(
            body=BODY[:-1] + b"!", headers={"ETag": f'"{digest}"', "x-amz-request-id": "1"}
        )

    handler, running = unruly
    handler.answers = [spoilt, whole]
    assert await get(str(running.make_url("/f"))) == BODY
    handler.answers = [spoilt]
    with pytest.raises(Retryable, match=r"does not match the store's MD5"):
        await get(str(running.make_url("/g")))


async def test_last_modified_becomes_the_files_time(unruly, get, tmp_path: Path):
    handler, running = unruly
    handler.answers = [status(200, Last_Modified="Mon, 01 Jan 2001 00:00:00 GMT")]
    await get(str(running.make_url("/f")))
    assert (tmp_path / "f").stat().st_mtime == 978_307_200


async def test_private_addresses_are_not_connected_to(unruly, get):
    handler, running = unruly
    handler.answers = [whole]
    for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1"):
        with pytest.raises(Refused, match="the host has no public address") as failure:
            await get(f"http://{host}:{running.port}/x?X-Amz-Signature=signed", allowed=Allowed())
        assert "signed" not in str(failure.value)
    assert handler.requests == []


async def test_what_the_operator_allows_or_configures_is_fetched(unruly, get):
    handler, running = unruly
    handler.answers = [whole]
    url = str(running.make_url("/x"))
    assert await get(url, allowed=Allowed.parse(["127.0.0.0/8"])) == BODY
    assert await get(url, allowed=Allowed(), trusted=frozenset({(running.host, running.port)})) == BODY
    with pytest.raises(Refused):
        await get(url, allowed=Allowed(), trusted=frozenset({(running.host, 1)}))
    by_name = f"http://localhost:{running.port}/f"
    assert await get(by_name, allowed=Allowed.parse(["127.0.0.0/8"])) == BODY
    for allowed in (Allowed.parse(["127.0.0.0/8"], ["localhost"]), Allowed.parse([], ["127.0.0.0/8"])):
        with pytest.raises(Refused, match=r"storage\.http\.deny"):
            await get(by_name, allowed=allowed)


async def test_a_redirect_leads_nowhere_else(unruly, get):
    handler, running = unruly
    handler.answers = [redirect("http://169.254.169.254/latest/meta-data/")]
    with pytest.raises(Refused, match="has no public address"):
        await get(str(running.make_url("/x")), allowed=Allowed.parse(["127.0.0.1"]))


async def test_dns_rebinding_gains_nothing(unruly, get, monkeypatch: pytest.MonkeyPatch):
    handler, running = unruly
    handler.answers = [whole]
    answers = [[("127.0.0.1", running.port)], [("169.254.169.254", 80)]]
    asked = []

    def rebinding(host: str, port: int, **kind: Any) -> Any:
        asked.append(host)
        addresses = answers.pop(0) if len(answers) > 1 else answers[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]

    monkeypatch.setattr(web_module.socket, "getaddrinfo", rebinding)
    allowed = Allowed.parse(["127.0.0.0/8"])
    assert await get(f"http://rebound.example:{running.port}/x", allowed=allowed) == BODY
    assert asked == ["rebound.example"]  # what was checked is what was connected to
    with pytest.raises(Refused):
        await get(f"http://rebound.example:{running.port}/x", allowed=allowed)


async def test_a_proxy_receives_the_whole_url(unruly, get):
    handler, running = unruly
    handler.answers = [whole]
    proxy = str(running.make_url("")).replace("http://", "http://user:pass@")
    assert await get("http://files.invalid/x?y", proxy=lambda *_: proxy, allowed=Allowed()) == BODY
    (request,) = handler.requests
    assert (request.headers["Host"], request.path_qs) == ("files.invalid", "/x?y")
    assert request.headers["Proxy-Authorization"] == "Basic dXNlcjpwYXNz"
    with pytest.raises(Refused):
        await get("http://169.254.169.254/x", proxy=lambda *_: proxy, allowed=Allowed())


def test_an_interrupted_connection_sends_no_request(
    monkeypatch: pytest.MonkeyPatch,
):
    connecting, interrupted = threading.Event(), threading.Event()
    web = Web(limits=LIMITS)

    def resolve(*_: object, **__: object) -> Any:
        connecting.set()
        assert interrupted.wait(60)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", listening.getsockname())]

    def interrupt() -> None:
        web.interrupt()
        interrupted.set()

    def work(number: int) -> None:
        if number == 0:
            assert connecting.wait(60)
            raise Permanent("the other one")
        with web.get(Url.parse("http://files.example/x"), "x", {}):
            pass

    with socket.create_server(("127.0.0.1", 0)) as listening:
        monkeypatch.setattr(web_module.socket, "getaddrinfo", resolve)
        with pytest.raises(Permanent, match="the other one"):
            pool.for_each(range(2), work, concurrency=2, interrupt=interrupt)
        connection, _ = listening.accept()
        with connection:
            assert connection.recv(1000) == b""


def test_the_environment_names_the_proxy(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    monkeypatch.setenv("NO_PROXY", "inside.example")
    assert environments_proxy("https", "files.example") == "http://proxy:3128"
    assert environments_proxy("https", "inside.example") is None
    assert environments_proxy("http", "files.example") is None
