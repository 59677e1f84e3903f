"""Retries, credentials and redirects."""

import base64
import re
import socket
import ssl
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
import trustme
from tes_for_tests import FAST, Reply, task

TOKEN = "tok-geheim-123"


def _closed_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize(
    "trouble",
    [
        Reply(hang=True),
        Reply(cut=True),
        Reply({"error": "busy"}, 503),
        Reply({"error": "busy"}, 503, {"Retry-After": "0"}),
        Reply({"error": "slow down"}, 429, {"Retry-After": "0"}),
        Reply(b"bad gateway", 502),
        Reply({}, 503, {"Retry-After": "Thu, 01 Jan 1970 00:00:00 GMT"}),
        Reply({}, 503, {"Retry-After": "nonsense"}),
    ],
)
@pytest.mark.parametrize("words", [["get", "t1"], ["cancel", "t1"]])
def test_idempotent_requests_are_retried(server, poiesis, trouble, words):
    server.reply("POST /tasks/t1:cancel", trouble, {})
    server.reply("GET /tasks/t1", *([trouble] if words[0] == "get" else []), task("CANCELED"))
    ended = poiesis(*words, timing=replace(FAST, request=0.4) if trouble.hang else FAST)
    assert ended.code == 0, ended.err
    assert len(server.requests_to("GET /tasks/t1" if words[0] == "get" else "POST /tasks/t1:cancel")) == 2
    # aiohttp itself repeats a GET whose connection was closed.
    assert "retrying" in ended.err or (trouble.cut and words[0] == "get")


def test_retry_waits_for_retry_after(server, poiesis):
    at = (datetime.now(UTC) + timedelta(seconds=3)).replace(microsecond=0)
    came = []
    server.on_request = lambda _: came.append(datetime.now(UTC))
    reply = Reply({}, 503, {"Retry-After": format_datetime(at, usegmt=True)})
    server.reply("GET /tasks/t1", reply, task())
    assert poiesis("wait", "t1").code == 0
    assert came[-1] >= at


def test_long_retry_after_fails_at_once(server, poiesis):
    server.reply("GET /tasks/t1", Reply({"error": "limit"}, 429, {"Retry-After": "3600"}))
    ended = poiesis("get", "t1")
    assert ended.code == 69
    assert "returned 429: limit" in ended.err
    assert "try again in 3600 s" in ended.err
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413])
def test_rejected_request_is_not_retried(server, poiesis, status):
    server.reply("GET /tasks/t1", Reply({}, status))
    assert poiesis("get", "t1").code in {65, 77}
    assert len(server.requests) == 1


def test_create_is_retried_with_the_same_key(server, poiesis):
    server.reply("POST /tasks", Reply({}, 503), Reply({}, 503), {"id": "t1"})
    assert poiesis("run", "--detach", "i", "--", "x").out == "t1\n"
    keys = {request.headers["Idempotency-Key"] for request in server.requests}
    assert (len(server.requests), len(keys)) == (3, 1)
    assert len({request.body for request in server.requests}) == 1


def test_create_is_retried_without_a_connection(poiesis):
    port = _closed_port()
    poiesis.env["POIESIS_SERVER"] = f"http://127.0.0.1:{port}"
    ended = poiesis("run", "--detach", "i", "--", "x")
    assert ended.code == 69
    assert "Connection refused" in ended.err
    assert "retrying" in ended.err
    assert "may not have" not in ended.err


@pytest.mark.parametrize(
    "trouble", [Reply(hang=True), Reply(cut=True), Reply({}, 500), Reply({}, 502), Reply({}, 504)]
)
def test_possibly_started_create_is_not_retried(server, poiesis, trouble):
    server.reply("POST /tasks", trouble, {"id": "t1"})
    timing = replace(FAST, request=0.4) if trouble.hang else FAST
    ended = poiesis("run", "--detach", "i", "--", "x", timing=timing)
    assert ended.code == 69
    assert "the task may or may not have been created" in ended.err
    assert "poiesis list" in ended.err
    assert len(server.requests) == 1


def test_create_over_a_limit_fails_at_once(server, poiesis):
    server.reply("POST /tasks", Reply({"error": "too many tasks"}, 429, {"Retry-After": "0"}), {"id": "t1"})
    ended = poiesis("run", "--detach", "i", "--", "x")
    assert ended.code == 69
    assert "too many tasks" in ended.err
    assert "may not have" not in ended.err
    assert len(server.requests) == 1


def test_unknown_host_is_reported(poiesis):
    poiesis.env["POIESIS_SERVER"] = "http://nowhere.invalid"
    ended = poiesis("list")
    assert ended.code == 69
    assert "cannot connect to http://nowhere.invalid" in ended.err


def test_untrusted_certificate_fails_at_once(poiesis):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    tries = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)

        def shake_hands():
            connection, _ = listener.accept()
            tries.append(1)
            with connection, pytest.raises(ssl.SSLError):
                context.wrap_socket(connection, server_side=True)

        thread = threading.Thread(target=shake_hands)
        thread.start()
        poiesis.env["POIESIS_SERVER"] = f"https://127.0.0.1:{listener.getsockname()[1]}"
        ended = poiesis("list")
        thread.join()
    assert ended.code == 69
    assert "the certificate of" in ended.err
    assert "SSL_CERT_FILE" in ended.err
    assert tries == [1]


@pytest.mark.parametrize("words", [["list"], ["run", "--detach", "i", "--", "x"]])
def test_https_to_a_plain_port_fails_at_once(server, poiesis, words):
    poiesis.env["POIESIS_SERVER"] = server.url.replace("http:", "https:")
    ended = poiesis(*words)
    assert ended.code == 69
    assert "TLS with https://127.0.0.1" in ended.err
    assert f"--server {server.url}" in ended.err
    assert "retrying" not in ended.err


@pytest.mark.parametrize("environment", [{}, {"POIESIS_TOKEN": TOKEN}])
def test_reason_of_a_401_is_shown(server, poiesis, environment):
    poiesis.env |= environment
    server.reply("GET /tasks/t1", Reply({"error": "token has expired"}, 401))
    ended = poiesis("get", "t1")
    assert ended.code == 77
    assert "token has expired" in ended.err


# ── credentials


def _files(tmp_path):
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    (tmp_path / "password").write_text("gehe:im\n")
    return {
        "POIESIS_TOKEN_FILE": str(tmp_path / "token"),
        "POIESIS_PASSWORD_FILE": str(tmp_path / "password"),
    }


_BASIC = "Basic " + base64.b64encode(b"alice:gehe:im").decode()


@pytest.mark.parametrize(
    ("environment", "header"),
    [
        ({}, None),
        ({"POIESIS_TOKEN": TOKEN}, f"Bearer {TOKEN}"),
        ({"POIESIS_TOKEN_FILE": "+"}, f"Bearer {TOKEN}"),
        ({"POIESIS_USER": "alice", "POIESIS_PASSWORD": "gehe:im"}, _BASIC),
        ({"POIESIS_USER": "alice", "POIESIS_PASSWORD_FILE": "+"}, _BASIC),
        ({"POIESIS_TOKEN": TOKEN, "POIESIS_USER": "alice"}, f"Bearer {TOKEN}"),
    ],
)
def test_credentials_from_environment_and_files(server, poiesis, tmp_path, environment, header):
    files = _files(tmp_path)
    poiesis.env |= {key: files[key] if value == "+" else value for key, value in environment.items()}
    server.reply("GET /tasks/t1", task())
    ended = poiesis("get", "t1")
    assert ended.code == 0
    assert server.requests[0].headers.get("Authorization") == header
    assert TOKEN not in ended.out + ended.err


def _configure(poiesis, text):
    file = Path(poiesis.env["HOME"]) / ".config/poiesis/config.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.mark.parametrize("named", ["lab", "url", "default"])
def test_section_credentials_go_to_its_server(server, poiesis, tmp_path, named):
    _files(tmp_path)
    _configure(
        poiesis,
        f'server = "lab"\n[servers.lab]\nurl = "{server.url}/ga4gh/tes/v1/"\nuser = "alice"\n'
        f'password_file = "~/password"\n[servers.other]\nurl = "http://other.invalid"\n',
    )
    del poiesis.env["POIESIS_SERVER"]
    server.reply("GET /tasks/t1", task())
    words = {"lab": ["--server", "lab"], "url": ["--server", server.url], "default": []}[named]
    assert poiesis("get", "t1", *words).code == 0
    assert server.requests[0].headers["Authorization"] == _BASIC


def test_section_credentials_go_to_no_other_server(server, elsewhere, poiesis, tmp_path):
    _files(tmp_path)
    _configure(poiesis, f'[servers.lab]\nurl = "{server.url}"\ntoken_file = "~/token"\n')
    elsewhere.reply("GET /tasks/t1", Reply({}, 401))
    assert poiesis("--server", elsewhere.url, "get", "t1").code == 77
    assert "Authorization" not in elsewhere.requests[0].headers


def test_environment_credentials_belong_to_its_server(server, elsewhere, poiesis):
    poiesis.env["POIESIS_TOKEN"] = TOKEN
    elsewhere.reply("GET /tasks/t1", Reply({}, 401))
    ended = poiesis("get", "t1", "--server", elsewhere.url)
    assert ended.code == 77
    assert "belong to POIESIS_SERVER" in ended.err
    assert "Authorization" not in elsewhere.requests[0].headers
    del poiesis.env["POIESIS_SERVER"]
    poiesis("get", "t1", "--server", elsewhere.url)
    assert elsewhere.requests[1].headers["Authorization"] == f"Bearer {TOKEN}"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("server = 3", "server must be a string"),
        ("sever = 'x'", "unknown key 'sever'"),
        ("servers = 1", "servers must be a table"),
        ("[servers.a]\nissuer = 'x'", "servers.a must be a table with a url"),
        ("[servers.a]\nurl = 'http://x'\ntoken = 'geheim'", "servers.a: unknown key 'token'"),
        ("[servers.a]\nurl = 3", "servers.a.url must be a string"),
        ("[servers", "is not valid TOML"),
    ],
)
def test_invalid_configuration_is_reported(poiesis, text, words):
    _configure(poiesis, text)
    ended = poiesis("list")
    assert ended.code == 64
    assert words in ended.err
    assert "geheim" not in ended.err


def test_unknown_server_name_is_reported(poiesis):
    _configure(poiesis, "[servers.lab]\nurl = 'http://x'")
    ended = poiesis("list", "--server", "lob")
    assert ended.code == 64
    assert "no server 'lob' in the configuration (configured: lab)" in ended.err


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"POIESIS_TOKEN": "geheim\nX: y"}, "POIESIS_TOKEN contains characters"),
        ({"POIESIS_TOKEN_FILE": "/nonexistent"}, "POIESIS_TOKEN_FILE: cannot read"),
        ({"POIESIS_USER": "alice"}, "POIESIS_USER requires a password"),
        ({"POIESIS_USER": "a:b", "POIESIS_PASSWORD": "geheim"}, "POIESIS_USER must not contain a colon"),
        ({"POIESIS_CONFIG": "/nonexistent"}, "no such configuration file"),
    ],
)
def test_invalid_credentials_are_reported_and_hidden(server, poiesis, environment, words):
    poiesis.env |= environment
    ended = poiesis("list")
    assert ended.code == 64
    assert words in ended.err
    assert "geheim" not in ended.err
    assert server.requests == []


def test_netrc_is_ignored(server, poiesis, tmp_path, monkeypatch):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login bob password x\n")
    monkeypatch.setenv("NETRC", str(netrc))
    server.reply("GET /tasks/t1", task())
    poiesis("get", "t1")
    poiesis.env["POIESIS_TOKEN"] = TOKEN
    poiesis("get", "t1")
    assert [request.headers.get("Authorization") for request in server.requests] == [None, f"Bearer {TOKEN}"]


def test_unencrypted_credentials_cause_one_warning(poiesis, monkeypatch):
    poiesis.env |= {"POIESIS_TOKEN": TOKEN, "POIESIS_SERVER": "http://tes.invalid"}
    ended = poiesis("list")
    assert ended.err.count("sending credentials to http://tes.invalid without encryption") == 1
    assert TOKEN not in ended.err


def test_environment_proxy_is_used(elsewhere, poiesis, monkeypatch):
    monkeypatch.setenv("http_proxy", elsewhere.url)
    monkeypatch.setenv("no_proxy", "")
    poiesis.env["POIESIS_SERVER"] = "http://tes.invalid"
    poiesis("get", "t1")
    assert [request.path for request in elsewhere.requests] == ["http://tes.invalid/ga4gh/tes/v1/tasks/t1"]


# ── redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_within_the_server_keeps_the_token(server, poiesis, status):
    poiesis.env["POIESIS_TOKEN"] = TOKEN
    server.reply("GET /tasks/t1", Reply(b"", status, {"Location": "/new/t1?view=FULL"}))
    server.reply("GET //new/t1", task())
    assert poiesis("get", "t1").code == 0
    assert [request.headers["Authorization"] for request in server.requests] == [f"Bearer {TOKEN}"] * 2
    assert server.requests[1].query == {"view": ["FULL"]}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("words", [["get", "t1"], ["run", "--detach", "i", "--", "x"], ["cancel", "t1"]])
def test_redirect_to_another_server_is_not_followed(server, elsewhere, poiesis, status, words):
    poiesis.env["POIESIS_TOKEN"] = TOKEN
    reply = Reply(b"", status, {"Location": f"{elsewhere.url}/ga4gh/tes/v1/tasks"})
    for route in ("GET /tasks/t1", "POST /tasks", "POST /tasks/t1:cancel"):
        server.reply(route, reply)
    ended = poiesis(*words)
    assert ended.code == 76
    assert elsewhere.requests == []
    assert f"--server {elsewhere.url}" in ended.err
    assert TOKEN not in ended.err


def test_redirect_to_another_scheme_is_not_followed(server, poiesis):
    poiesis.env["POIESIS_TOKEN"] = TOKEN
    server.reply("GET /tasks/t1", Reply(b"", 301, {"Location": server.url.replace("http:", "https:")}))
    ended = poiesis("get", "t1")
    assert ended.code == 76
    assert "--server https://127.0.0.1" in ended.err


@pytest.mark.parametrize(("status", "code"), [(307, 0), (308, 0), (301, 76), (302, 76), (303, 76)])
def test_redirected_create_keeps_its_method(server, poiesis, status, code):
    server.reply("POST /tasks", Reply(b"", status, {"Location": "/other"}))
    server.reply("POST //other", {"id": "t1"})
    server.reply("GET //other", {"id": "t1"})
    assert poiesis("run", "--detach", "i", "--", "x").code == code
    assert [request.method for request in server.requests] == ["POST"] * (2 if code == 0 else 1)
    assert len({request.body for request in server.requests}) == 1


def test_endless_redirects_fail(server, poiesis):
    server.reply("GET /tasks/t1", Reply(b"", 302, {"Location": "t1"}))
    ended = poiesis("get", "t1")
    assert ended.code == 76
    assert "more than 5 redirects" in ended.err


@pytest.mark.parametrize("location", ["http://", "http://[", "mailto:x", "http://user:pw@other.invalid/"])
def test_invalid_redirect_is_reported(server, poiesis, location):
    server.reply("GET /tasks/t1", Reply(b"", 302, {"Location": location}))
    ended = poiesis("get", "t1")
    assert ended.code == 76
    assert not re.search("Traceback|pw@", ended.err)
