import asyncio
import ssl

import pytest
import trustme
from kube_server import document, hang_up, serving, serving_tls, stream, text
from kubernetes.aio.client import Configuration
from kubernetes.aio.config import incluster_config

from poiesis_kube import client as client_module
from poiesis_kube.client import Answer, connect
from poiesis_kube.credentials import authorization, tls_context
from poiesis_kube.errors import Refused, Unreachable

KUBECONFIG = """
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "%s", tls-server-name: api.example, proxy-url: "http://proxy:3128"}}]
users: [{name: u, user: {token: abc}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
"""


async def test_request_returns_the_document():
    async with serving(document({"kind": "Pod"}, 201)) as (server, client):
        assert await client.request("POST", "/x", params={"a": "b c"}, body={"d": 1}) == {"kind": "Pod"}
    (seen,) = server.seen
    assert (seen.method, seen.path, seen.body) == ("POST", "/x?a=b+c", {"d": 1})
    assert seen.headers["Content-Type"] == seen.headers["Accept"] == "application/json"
    assert "Authorization" not in seen.headers


async def test_patch_is_a_merge_patch():
    async with serving(document({})) as (server, client):
        await client.request("PATCH", "/x", body={})
    assert server.seen[0].headers["Content-Type"] == "application/merge-patch+json"


@pytest.mark.parametrize(
    ("response", "status", "reason", "message"),
    [
        (document({"reason": "Forbidden", "message": "no"}, 403), 403, "Forbidden", "no"),
        (document({"reason": None}, 409), 409, "Unknown", ""),
        (document(["x"], 500), 500, "Unknown", '["x"]'),
        (text("<html>", 502), 502, "Unknown", "<html>"),
        (text("x" * 5000, 502), 502, "Unknown", "x" * 1000),
    ],
)
async def test_error_status_is_refused(response, status, reason, message):
    async with serving(response) as (_, client):
        with pytest.raises(Refused) as error:
            await client.request("GET", "/x")
    assert (error.value.status, error.value.reason, error.value.message) == (status, reason, message)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        ("0", 0.0),
        ("-1", None),
        ("1.5", None),
        ("Sun, 29 Nov 2026 05:00:00 GMT", None),
        ("²", None),
    ],
)
async def test_retry_after_is_a_number_of_seconds(header, seconds):
    async with serving(document({}, 429, {"Retry-After": header})) as (_, client):
        with pytest.raises(Refused) as error:
            await client.request("GET", "/x")
    assert error.value.retry_after == seconds


async def test_every_answer_is_observed():
    seen: list[Answer] = []
    responses = [document({}), document({}, 429, {"Retry-After": "2"}), document({}, 404), hang_up]
    async with serving(*responses, observe=seen.append) as (_, client):
        await client.request("GET", "/x")
        for _ in range(3):
            with pytest.raises((Refused, Unreachable)):
                await client.request("GET", "/x")
    assert [(one.status, one.retry_after) for one in seen] == [
        (200, None),
        (429, 2.0),
        (404, None),
        (None, None),
    ]
    assert all(one.seconds > 0 for one in seen)


@pytest.mark.parametrize("response", [text("<html>"), document(["x"]), text("")])
async def test_response_that_is_no_object_is_unreachable(response):
    async with serving(response) as (_, client):
        with pytest.raises(Unreachable, match="GET /x: the response is not a JSON object"):
            await client.request("GET", "/x")


@pytest.mark.parametrize("method", ["GET", "POST", "PATCH", "DELETE"])
async def test_broken_connection_is_retried_once(method):
    async with serving(hang_up, document({"a": 1})) as (server, client):
        assert await client.request(method, "/x", body={}) == {"a": 1}
    assert len(server.seen) == 2


async def test_second_broken_connection_is_unreachable():
    async with serving(hang_up) as (_, client):
        with pytest.raises(Unreachable, match="POST /x: ServerDisconnectedError"):
            await client.request("POST", "/x", body={})


async def test_slow_response_times_out():
    async def forever(_: object) -> None:
        await asyncio.Event().wait()

    async with serving(stream(then=forever), request_seconds=0.2) as (_, client):
        with pytest.raises(Unreachable, match="GET /x: TimeoutError"):
            await client.request("GET", "/x")


async def test_closed_port_is_unreachable():
    async with serving(document({})) as (_, client):
        client._base = "http://127.0.0.1:1"
        with pytest.raises(Unreachable, match="ClientConnectorError"):
            await client.request("GET", "/x")


async def test_watch_yields_complete_lines():
    async with (
        serving(stream(b'{"a":', b' 1}\n{"b": 2}\n')) as (server, client),
        client.watch("/x", {"resourceVersion": "1"}, silence=5) as lines,
    ):
        assert [line async for line in lines] == [b'{"a": 1}', b'{"b": 2}']
    assert server.seen[0].path == "/x?resourceVersion=1&watch=1"


@pytest.mark.parametrize(
    ("response", "error", "match"),
    [
        (document({"reason": "Expired"}, 410), Refused, "410 Expired"),
        (stream(b"{}\n{"), Unreachable, "ended within an event"),
        (stream(b"{}\n", then=hang_up), Unreachable, "watch /x"),
        (hang_up, Unreachable, "watch /x"),
    ],
)
async def test_broken_watch_raises(response, error, match):
    async with serving(response) as (_, client):
        with pytest.raises(error, match=match):
            async with client.watch("/x", {}, silence=5) as lines:
                _ = [line async for line in lines]


async def test_silent_watch_times_out():
    async def forever(_: object) -> None:
        await asyncio.Event().wait()

    async with serving(stream(b"{}\n", then=forever)) as (_, client):
        with pytest.raises(TimeoutError, match=r"no byte for 0\.2 s"):
            async with client.watch("/x", {}, silence=0.2) as lines:
                _ = [line async for line in lines]


async def test_watch_event_has_a_size_limit(monkeypatch):
    monkeypatch.setattr(client_module, "_EVENT_BYTES", 10)
    async with serving(stream(b"x" * 11)) as (_, client):
        with pytest.raises(Unreachable, match="exceeds 10 bytes"):
            async with client.watch("/x", {}, silence=5) as lines:
                _ = [line async for line in lines]


async def test_kubeconfig_gives_server_token_and_proxy(tmp_path):
    file = tmp_path / "config"
    file.write_text(KUBECONFIG % "https://api.example:6443")
    async with connect(str(file)) as client:
        assert client._base == "https://api.example:6443"
        assert (await client._headers("GET", body=False))["Authorization"] == "Bearer abc"
        assert client._options == {"server_hostname": "api.example", "proxy": "http://proxy:3128"}


async def test_missing_credentials_are_unreachable(monkeypatch, tmp_path):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(Unreachable, match="no credentials for Kubernetes"):
        async with connect(str(tmp_path / "none")):
            pass


async def test_pod_or_kubeconfig_is_required(monkeypatch, tmp_path):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(Unreachable, match="not in a Pod, and KUBECONFIG is not set"):
        async with connect():
            pass


async def test_service_account_token_and_ca_are_used(monkeypatch, tmp_path):
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.crt"))
    (tmp_path / "token").write_text("abc\n")
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(tmp_path / "ca.crt"))
    async with serving_tls(ca, document({"a": 1})) as server:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.port))
        async with connect() as client:
            assert await client.request("GET", "/x") == {"a": 1}
        trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.crt"))
        async with connect() as client:
            with pytest.raises(Unreachable, match="ClientConnectorCertificateError"):
                await client.request("GET", "/x")
    assert [seen.headers["Authorization"] for seen in server.seen] == ["bearer abc"]


async def test_incomplete_service_account_is_unreachable(monkeypatch):
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.delenv("KUBERNETES_SERVICE_PORT", raising=False)
    with pytest.raises(Unreachable, match="Service host/port is not set"):
        async with connect():
            pass


async def test_rotated_token_is_read_again():
    configuration = Configuration(host="http://x")
    tokens = iter(["bearer one\n", "bearer two\n"])

    def refresh(known: Configuration) -> None:
        known.api_key["BearerToken"] = next(tokens)

    configuration.api_key["BearerToken"] = "bearer none"
    configuration.refresh_api_key_hook = refresh
    assert [await authorization(configuration) for _ in range(2)] == ["bearer one", "bearer two"]


async def test_unreadable_token_is_unreachable():
    configuration = Configuration(host="http://x")

    def refresh(_: Configuration) -> None:
        raise OSError("no such file")

    configuration.api_key["BearerToken"] = "bearer x"
    configuration.refresh_api_key_hook = refresh
    with pytest.raises(Unreachable, match="no such file"):
        await authorization(configuration)


def test_tls_verifies_unless_disabled():
    context = tls_context(Configuration(host="https://x"))
    assert isinstance(context, ssl.SSLContext)
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    context = tls_context(Configuration(host="https://x", verify_ssl=False))
    assert isinstance(context, ssl.SSLContext)
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_NONE, False)
    assert tls_context(Configuration(host="http://x")) is True
