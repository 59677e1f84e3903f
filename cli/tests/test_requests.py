"""How requests are made: what is tried again, where credentials go and where they never go."""

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
def test_what_changes_nothing_twice_is_tried_again(server, poiesis, trouble, words):
    server.reply("GET /tasks/t1", trouble, task())
    server.reply("POST /tasks/t1:cancel", trouble, {})
    ended = poiesis(*words, timing=replace(FAST, request=0.4) if trouble.hang else FAST)
    assert ended.code == 0, ended.err
    assert len(server.asked) == 2
    # The client library itself asks once more, in silence, when a GET is cut off.
    assert "trying again" in ended.err or (trouble.cut and words[0] == "get")


def test_nobody_comes_back_before_retry_after(server, poiesis):
    at = (datetime.now(UTC) + timedelta(seconds=3)).replace(microsecond=0)
    came = []
    server.on_request = lambda _: came.append(datetime.now(UTC))
    reply = Reply({}, 503, {"Retry-After": format_datetime(at, usegmt=True)})
    server.reply("GET /tasks/t1", reply, task())
    assert poiesis("wait", "t1").code == 0
    assert came[-1] >= at


def test_a_retry_after_beyond_all_patience_is_told_instead(server, poiesis):
    server.reply("GET /tasks/t1", Reply({"error": "limit"}, 429, {"Retry-After": "3600"}))
    ended = poiesis("get", "t1")
    assert ended.code == 69
    assert "slow down: 429 limit" in ended.err
    assert "come back in 3600 s" in ended.err
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413])
def test_a_refusal_is_not_tried_again(server, poiesis, status):
    server.reply("GET /tasks/t1", Reply({}, status))
    assert poiesis("get", "t1").code in {65, 77}
    assert len(server.asked) == 1


def test_a_create_is_tried_again_after_503_with_the_same_key(server, poiesis):
    server.reply("POST /tasks", Reply({}, 503), Reply({}, 503), {"id": "t1"})
    assert poiesis("run", "--detach", "i", "--", "x").out == "t1\n"
    keys = {asked.headers["Idempotency-Key"] for asked in server.asked}
    assert (len(server.asked), len(keys)) == (3, 1)
    assert len({asked.body for asked in server.asked}) == 1


def test_a_create_is_tried_again_when_no_connection_could_be_made(poiesis):
    port = _closed_port()
    poiesis.env["POIESIS_SERVER"] = f"http://127.0.0.1:{port}"
    ended = poiesis("run", "--detach", "i", "--", "x")
    assert ended.code == 69
    assert "cannot be reached: Connection refused" in ended.err
    assert "trying again" in ended.err
    assert "not known" not in ended.err


@pytest.mark.parametrize(
    "trouble", [Reply(hang=True), Reply(cut=True), Reply({}, 500), Reply({}, 502), Reply({}, 504)]
)
def test_a_create_that_the_server_may_have_begun_is_not_sent_twice(server, poiesis, trouble):
    server.reply("POST /tasks", trouble, {"id": "t1"})
    timing = replace(FAST, request=0.4) if trouble.hang else FAST
    ended = poiesis("run", "--detach", "i", "--", "x", timing=timing)
    assert ended.code == 69
    assert "whether there is a task now is not known" in ended.err
    assert "poiesis list" in ended.err
    assert len(server.asked) == 1


def test_a_create_beyond_a_limit_is_told_at_once(server, poiesis):
    server.reply("POST /tasks", Reply({"error": "too many tasks"}, 429, {"Retry-After": "0"}), {"id": "t1"})
    ended = poiesis("run", "--detach", "i", "--", "x")
    assert ended.code == 69
    assert "too many tasks" in ended.err
    assert "not known" not in ended.err
    assert len(server.asked) == 1


def test_a_name_that_no_server_has_is_told(poiesis):
    poiesis.env["POIESIS_SERVER"] = "http://nowhere.invalid"
    ended = poiesis("list")
    assert ended.code == 69
    assert "http://nowhere.invalid cannot be reached" in ended.err


def test_a_certificate_that_is_not_trusted_is_told_and_not_tried_again(poiesis):
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
    assert "certificate is not trusted" in ended.err
    assert "SSL_CERT_FILE" in ended.err
    assert tries == [1]


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
def test_credentials_come_from_the_environment_and_its_files(server, poiesis, tmp_path, environment, header):
    files = _files(tmp_path)
    poiesis.env |= {key: files[key] if value == "+" else value for key, value in environment.items()}
    server.reply("GET /tasks/t1", task())
    ended = poiesis("get", "t1")
    assert ended.code == 0
    assert server.asked[0].headers.get("Authorization") == header
    assert TOKEN not in ended.out + ended.err


def _configure(poiesis, text):
    file = Path(poiesis.env["HOME"]) / ".config/poiesis/config.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.mark.parametrize("named", ["lab", "url", "default"])
def test_a_sections_credentials_go_to_its_server(server, poiesis, tmp_path, named):
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
    assert server.asked[0].headers["Authorization"] == _BASIC


def test_a_sections_credentials_go_to_no_other_server(server, elsewhere, poiesis, tmp_path):
    _files(tmp_path)
    _configure(poiesis, f'[servers.lab]\nurl = "{server.url}"\ntoken_file = "~/token"\n')
    elsewhere.reply("GET /tasks/t1", Reply({}, 401))
    assert poiesis("--server", elsewhere.url, "get", "t1").code == 77
    assert "Authorization" not in elsewhere.asked[0].headers


def test_the_environments_credentials_belong_to_the_environments_server(server, elsewhere, poiesis):
    poiesis.env["POIESIS_TOKEN"] = TOKEN
    elsewhere.reply("GET /tasks/t1", Reply({}, 401))
    ended = poiesis("get", "t1", "--server", elsewhere.url)
    assert ended.code == 77
    assert "belong to POIESIS_SERVER" in ended.err
    assert "Authorization" not in elsewhere.asked[0].headers
    del poiesis.env["POIESIS_SERVER"]
    poiesis("get", "t1", "--server", elsewhere.url)
    assert elsewhere.asked[1].headers["Authorization"] == f"Bearer {TOKEN}"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("server = 3", "server must be a string"),
        ("sever = 'x'", "unknown key 'sever'"),
        ("servers = 1", "servers must be a table"),
        ("[servers.a]\nissuer = 'x'", "servers.a must be a table with a url"),
        ("[servers.a]\nurl = 'http://x'\ntoken = 'geheim'", "servers.a: unknown key 'token'"),
        ("[servers.a]\nurl = 3", "servers.a.url must be a string"),
        ("[servers", "not TOML"),
    ],
)
def test_a_wrong_configuration_is_named(poiesis, text, words):
    _configure(poiesis, text)
    ended = poiesis("list")
    assert ended.code == 64
    assert words in ended.err
    assert "geheim" not in ended.err


def test_a_server_that_the_configuration_does_not_name_is_told(poiesis):
    _configure(poiesis, "[servers.lab]\nurl = 'http://x'")
    ended = poiesis("list", "--server", "lob")
    assert ended.code == 64
    assert "no server 'lob' in the configuration; there are lab" in ended.err


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"POIESIS_TOKEN": "geheim\nX: y"}, "POIESIS_TOKEN: holds characters"),
        ({"POIESIS_TOKEN_FILE": "/nonexistent"}, "POIESIS_TOKEN_FILE: cannot read"),
        ({"POIESIS_USER": "alice"}, "POIESIS_USER is set without a password"),
        ({"POIESIS_USER": "a:b", "POIESIS_PASSWORD": "geheim"}, "POIESIS_USER: a user's name must not"),
        ({"POIESIS_CONFIG": "/nonexistent"}, "no configuration file"),
    ],
)
def test_credentials_that_cannot_be_used_are_named_and_not_shown(server, poiesis, environment, words):
    poiesis.env |= environment
    ended = poiesis("list")
    assert ended.code == 64
    assert words in ended.err
    assert "geheim" not in ended.err
    assert server.asked == []


def test_netrc_is_not_read(server, poiesis, tmp_path, monkeypatch):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login bob password x\n")
    monkeypatch.setenv("NETRC", str(netrc))
    server.reply("GET /tasks/t1", task())
    poiesis("get", "t1")
    poiesis.env["POIESIS_TOKEN"] = TOKEN
    poiesis("get", "t1")
    assert [asked.headers.get("Authorization") for asked in server.asked] == [None, f"Bearer {TOKEN}"]


def test_credentials_that_go_without_encryption_are_warned_of(poiesis, monkeypatch):
    poiesis.env |= {"POIESIS_TOKEN": TOKEN, "POIESIS_SERVER": "http://tes.invalid"}
    ended = poiesis("list")
    assert "your credentials go to http://tes.invalid without encryption" in ended.err
    assert TOKEN not in ended.err


def test_a_proxy_of_the_environment_is_used(elsewhere, poiesis, monkeypatch):
    monkeypatch.setenv("http_proxy", elsewhere.url)
    monkeypatch.setenv("no_proxy", "")
    poiesis.env["POIESIS_SERVER"] = "http://tes.invalid"
    poiesis("get", "t1")
    assert [asked.path for asked in elsewhere.asked] == ["http://tes.invalid/ga4gh/tes/v1/tasks/t1"]


# ── redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_within_the_server_is_followed_with_the_token(server, poiesis, status):
    poiesis.env["POIESIS_TOKEN"] = TOKEN
    server.reply("GET /tasks/t1", Reply(b"", status, {"Location": "/new/t1?view=FULL"}))
    server.reply("GET //new/t1", task())
    assert poiesis("get", "t1").code == 0
    assert [asked.headers["Authorization"] for asked in server.asked] == [f"Bearer {TOKEN}"] * 2
    assert server.asked[1].query == {"view": ["FULL"]}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("words", [["get", "t1"], ["run", "--detach", "i", "--", "x"], ["cancel", "t1"]])
def test_nothing_is_sent_to_another_server_that_a_redirect_names(server, elsewhere, poiesis, status, words):
    poiesis.env["POIESIS_TOKEN"] = TOKEN
    reply = Reply(b"", status, {"Location": f"{elsewhere.url}/ga4gh/tes/v1/tasks"})
    for route in ("GET /tasks/t1", "POST /tasks", "POST /tasks/t1:cancel"):
        server.reply(route, reply)
    ended = poiesis(*words)
    assert ended.code == 76
    assert elsewhere.asked == []
    assert f"--server {elsewhere.url}" in ended.err
    assert TOKEN not in ended.err


def test_a_redirect_to_the_same_host_by_another_scheme_is_another_server(server, poiesis):
    poiesis.env["POIESIS_TOKEN"] = TOKEN
    server.reply("GET /tasks/t1", Reply(b"", 301, {"Location": server.url.replace("http:", "https:")}))
    ended = poiesis("get", "t1")
    assert ended.code == 76
    assert "--server https://127.0.0.1" in ended.err


@pytest.mark.parametrize(("status", "code"), [(307, 0), (308, 0), (301, 76), (302, 76), (303, 76)])
def test_a_create_is_redirected_only_as_a_create(server, poiesis, status, code):
    server.reply("POST /tasks", Reply(b"", status, {"Location": "/other"}))
    server.reply("POST //other", {"id": "t1"})
    server.reply("GET //other", {"id": "t1"})
    assert poiesis("run", "--detach", "i", "--", "x").code == code
    assert [asked.method for asked in server.asked] == ["POST"] * (2 if code == 0 else 1)
    assert len({asked.body for asked in server.asked}) == 1


def test_redirects_in_a_circle_end(server, poiesis):
    server.reply("GET /tasks/t1", Reply(b"", 302, {"Location": "t1"}))
    ended = poiesis("get", "t1")
    assert ended.code == 76
    assert "more than 5 redirects" in ended.err


@pytest.mark.parametrize("location", ["http://", "http://[", "mailto:x", "http://user:pw@other.invalid/"])
def test_a_redirect_to_nowhere_is_told(server, poiesis, location):
    server.reply("GET /tasks/t1", Reply(b"", 302, {"Location": location}))
    ended = poiesis("get", "t1")
    assert ended.code == 76
    assert not re.search("Traceback|pw@", ended.err)
