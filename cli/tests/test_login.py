"""`poiesis login` with an issuer (RFC 8628, OpenID Connect Discovery), and the use of its tokens."""

import json
import stat
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from tes_for_tests import FAST, Reply, task

from poiesis_cli.app import main

ACCESS, REFRESH = "access-geheim-1", "refresh-geheim-1"
CONFIGURATION = "GET //realm/.well-known/openid-configuration"


class Issuer:
    """An issuer at `server.url/realm`; a test may add or replace replies."""

    def __init__(self, server):
        self.server = server
        self.name = f"{server.url}/realm"
        self.document = {
            "issuer": self.name,
            "token_endpoint": f"{self.name}/token",
            "device_authorization_endpoint": f"{self.name}/device",
        }

    def offers_a_code(self, **fields):
        self.server.reply(CONFIGURATION, self.document)
        code = {
            "device_code": "dev-geheim",
            "user_code": "ABCD-EFGH",
            "verification_uri": f"{self.name}/activate",
            "expires_in": 600,
            "interval": 0.01,
        }
        self.server.reply("POST //realm/device", code | fields)

    def answers(self, *replies):
        self.server.reply("POST //realm/token", *replies)


def tokens(access=ACCESS, refresh=REFRESH, expires_in=3600, **fields):
    document = {"access_token": access, "token_type": "Bearer", "expires_in": expires_in, **fields}
    return document | ({"refresh_token": refresh} if refresh else {})


def pending(code="authorization_pending"):
    return Reply({"error": code}, 400)


@pytest.fixture
def issuer(elsewhere):
    return Issuer(elsewhere)


@pytest.fixture
def login(poiesis, issuer):
    def call(*words, timing=FAST):
        return poiesis("login", "--issuer", issuer.name, "--client-id", "cli", *words, timing=timing)

    return call


def logins_file(poiesis):
    return Path(poiesis.env["HOME"]) / ".local/state/poiesis/logins.json"


def _keep(poiesis, server, issuer, **fields):
    """Store a login as an earlier command would."""
    login = {
        "issuer": issuer.name,
        "client_id": "cli",
        "scope": "openid",
        "access_token": ACCESS,
        "refresh_token": REFRESH,
        "expires_at": time.time() + 3600,
    }
    file = logins_file(poiesis)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({f"{server.url}/ga4gh/tes/v1": login | fields}))


def test_login_shows_the_code_and_stores_the_token(server, poiesis, issuer, login):
    issuer.offers_a_code(verification_uri_complete="http://x/activate?code=ABCD-EFGH")
    issuer.answers(pending(), pending(), tokens())
    ended = login("--scope", "openid groups")
    assert (ended.code, ended.out) == (0, "")
    assert f"Open {issuer.name}/activate and enter the code ABCD-EFGH" in ended.err
    assert "http://x/activate?code=ABCD-EFGH" in ended.err
    (device,) = issuer.server.requests_to("POST //realm/device")
    assert device.form == {"client_id": "cli", "scope": "openid groups"}
    requests = issuer.server.requests_to("POST //realm/token")
    assert len(requests) == 3
    assert requests[0].form == {
        "grant_type": "urn:ietf:params:oauth:grant-type:device_code",
        "device_code": "dev-geheim",
        "client_id": "cli",
    }
    file = logins_file(poiesis)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert [one.name for one in file.parent.iterdir() if one.name.endswith("json")] == ["logins.json"]
    assert "geheim" not in ended.err
    server.reply("GET /tasks/t1", task())
    ended = poiesis("get", "t1")
    assert ended.code == 0
    assert server.requests[0].headers["Authorization"] == f"Bearer {ACCESS}"
    assert "geheim" not in ended.out + ended.err


def test_login_checks_the_token_with_the_server(server, poiesis, issuer, login):
    issuer.offers_a_code()
    issuer.answers(tokens())
    server.reply("GET /tasks", {"tasks": []}, Reply({"error": "wrong audience"}, 401))
    ended = login()
    assert ended.code == 0
    assert ended.err.splitlines()[-1] == f"logged in to {server.url}/ga4gh/tes/v1"
    assert server.requests[0].headers["Authorization"] == f"Bearer {ACCESS}"
    logins_file(poiesis).unlink()
    ended = login()
    assert ended.code == 77
    assert "does not accept it" in ended.err
    assert "wrong audience" in ended.err
    assert "geheim" not in ended.err
    assert not logins_file(poiesis).exists()


def test_login_without_a_working_server_warns(server, login, issuer):
    issuer.offers_a_code()
    issuer.answers(tokens())
    server.reply("GET /tasks", Reply({"error": "down"}, 503, {"Retry-After": "60"}))
    ended = login()
    assert ended.code == 0
    assert "warning: cannot check the token with the server" in ended.err


def test_login_parameters_from_the_environment(poiesis, issuer):
    issuer.offers_a_code()
    issuer.answers(tokens())
    poiesis.env |= {"POIESIS_ISSUER": issuer.name, "POIESIS_CLIENT_ID": "cli"}
    assert poiesis("login").code == 0
    (device,) = issuer.server.requests_to("POST //realm/device")
    assert device.form == {"client_id": "cli", "scope": "openid offline_access"}


def test_login_without_issuer_is_explained(poiesis):
    ended = poiesis("login")
    assert ended.code == 64
    assert "--issuer is required" in ended.err


def test_login_obeys_slow_down(issuer, login):
    issuer.offers_a_code()
    issuer.answers(pending("slow_down"), tokens())
    start = time.monotonic()
    assert login().code == 0
    assert time.monotonic() - start > 0.2  # FAST.slow_down


def test_login_retries_the_token_endpoint(issuer, login):
    issuer.offers_a_code()
    issuer.answers(Reply(hang=True), Reply(cut=True), tokens())
    assert login(timing=replace(FAST, request=0.4)).code == 0


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("access_denied", "the login was denied"),
        ("expired_token", "the login code expired"),
        ("invalid_client", "unknown client"),
        ("something_\x1bnew", "returned 400 something_\ufffdnew"),
    ],
)
def test_login_reports_the_issuers_error(poiesis, issuer, login, error, words):
    issuer.offers_a_code()
    issuer.answers(pending(error))
    ended = login()
    assert ended.code == 77
    assert words in ended.err
    assert not logins_file(poiesis).exists()


def test_login_code_expires(issuer, login):
    issuer.offers_a_code(expires_in=0.1)
    issuer.answers(pending())
    ended = login()
    assert ended.code == 77
    assert "the login code expired" in ended.err


@pytest.mark.parametrize("missing", ["device_code", "user_code", "verification_uri"])
def test_login_reports_missing_response_fields(issuer, login, missing):
    issuer.offers_a_code(**{missing: None})
    ended = login()
    assert ended.code == 76
    assert f"has no {missing}" in ended.err


def test_numbers_may_be_strings_or_missing(poiesis, issuer, login):
    issuer.offers_a_code(expires_in="600", interval=None)
    issuer.answers(tokens(expires_in=None))
    assert login().code == 0
    (kept,) = json.loads(logins_file(poiesis).read_text()).values()
    assert kept["expires_at"] is None


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"issuer": "http://evil.invalid"}, 76, "expected"),
        ({"token_endpoint": None}, 76, "has no token_endpoint"),
        ({"token_endpoint": "ftp://x"}, 64, "token_endpoint must be an http or https URL"),
    ],
)
def test_invalid_issuer_metadata_is_rejected(issuer, login, change, code, words):
    issuer.document |= change
    issuer.offers_a_code()
    ended = login()
    assert ended.code == code
    assert words in ended.err
    assert not issuer.server.requests_to("POST //realm/device")


def test_issuer_without_device_grant_is_explained(issuer, login):
    del issuer.document["device_authorization_endpoint"]
    issuer.server.reply(CONFIGURATION, issuer.document)
    ended = login()
    assert ended.code == 65
    assert "POIESIS_TOKEN_FILE" in ended.err


@pytest.mark.parametrize(
    ("reply", "code"), [(Reply({}, 404), 65), (Reply({}, 503), 69), (Reply(b"<html>"), 76)]
)
def test_failed_discovery_is_reported(issuer, login, reply, code):
    issuer.server.reply(CONFIGURATION, reply)
    assert login().code == code


def test_issuer_redirects_are_not_followed(server, issuer, login):
    issuer.offers_a_code()
    issuer.answers(Reply(b"", 307, {"Location": f"{server.url}/steal"}))
    assert login().code == 77
    assert server.requests == []


# ── later


@pytest.mark.parametrize("expired_by_the_clock", [True, False])
def test_expired_token_is_renewed_and_stored(server, poiesis, issuer, expired_by_the_clock):
    _keep(poiesis, server, issuer, expires_at=time.time() + (-5 if expired_by_the_clock else 3600))
    issuer.server.reply(CONFIGURATION, issuer.document)
    issuer.answers(tokens("access-geheim-2", "refresh-geheim-2"))
    if not expired_by_the_clock:
        server.reply("GET /tasks/t1", Reply({}, 401))
    server.reply("GET /tasks/t1", task())
    for _ in range(2):
        assert poiesis("get", "t1").code == 0
    assert [request.form for request in issuer.server.requests_to("POST //realm/token")] == [
        {"grant_type": "refresh_token", "refresh_token": REFRESH, "client_id": "cli"}
    ]
    assert server.requests[-1].headers["Authorization"] == "Bearer access-geheim-2"
    assert stat.S_IMODE(logins_file(poiesis).stat().st_mode) == 0o600
    assert "refresh-geheim-2" in logins_file(poiesis).read_text()


def test_refresh_token_is_kept_unless_replaced(server, poiesis, issuer):
    _keep(poiesis, server, issuer, expires_at=0)
    issuer.server.reply(CONFIGURATION, issuer.document)
    issuer.answers(tokens("access-geheim-2", None))
    server.reply("GET /tasks/t1", task())
    assert poiesis("get", "t1").code == 0
    (kept,) = json.loads(logins_file(poiesis).read_text()).values()
    assert (kept["access_token"], kept["refresh_token"]) == ("access-geheim-2", REFRESH)


def test_token_is_renewed_during_wait(server, poiesis, issuer):
    _keep(poiesis, server, issuer)
    issuer.server.reply(CONFIGURATION, issuer.document)
    issuer.answers(tokens("access-geheim-2"), tokens("access-geheim-3"))
    server.reply(
        "GET /tasks/t1", task("RUNNING"), Reply({}, 401), task("RUNNING"), Reply({}, 401), task("COMPLETE")
    )
    assert poiesis("wait", "t1").code == 0


@pytest.mark.parametrize(
    ("fields", "reply"),
    [
        ({"expires_at": 0}, pending("invalid_grant")),
        ({"expires_at": 0, "refresh_token": None}, None),
        ({"refresh_token": None}, None),
    ],
)
def test_failed_renewal_requires_a_new_login(server, poiesis, issuer, fields, reply):
    _keep(poiesis, server, issuer, **fields)
    issuer.server.reply(CONFIGURATION, issuer.document)
    if reply:
        issuer.answers(reply)
    server.reply("GET /tasks/t1", Reply({}, 401))
    ended = poiesis("get", "t1")
    assert ended.code == 77
    assert "run poiesis login again" in ended.err
    assert "geheim" not in ended.err


def test_rejected_new_token_is_not_renewed_again(server, poiesis, issuer):
    _keep(poiesis, server, issuer)
    issuer.server.reply(CONFIGURATION, issuer.document)
    issuer.answers(tokens("access-geheim-2"))
    server.reply("GET /tasks/t1", Reply({}, 401))
    assert poiesis("get", "t1").code == 77
    assert len(server.requests) == 2


def test_wait_retries_an_unavailable_issuer(server, poiesis, issuer):
    _keep(poiesis, server, issuer, expires_at=0)
    issuer.server.reply(CONFIGURATION, Reply({}, 503), Reply(cut=True), issuer.document)
    issuer.answers(tokens("access-geheim-2"))
    server.reply("GET /tasks/t1", task())
    ended = poiesis("wait", "t1")
    assert ended.code == 0
    assert "cannot renew the login" in ended.err


def test_create_is_not_sent_after_failed_renewal(server, poiesis, issuer):
    _keep(poiesis, server, issuer, expires_at=0)
    issuer.server.reply(CONFIGURATION, Reply({}, 503))
    ended = poiesis("run", "--detach", "i", "--", "x")
    assert ended.code == 69
    assert "may not have" not in ended.err
    assert server.requests == []


def test_login_is_sent_to_its_server_only(server, elsewhere, poiesis, issuer):
    _keep(poiesis, server, issuer)
    elsewhere.reply("GET /tasks/t1", Reply({}, 401))
    assert poiesis("get", "t1", "--server", elsewhere.url).code == 77
    assert "Authorization" not in elsewhere.requests[0].headers


def test_concurrent_commands_renew_the_token_once(server, poiesis, issuer):
    """A refresh token often works once: a second use would end the login of both."""
    _keep(poiesis, server, issuer, expires_at=0)
    issuer.server.reply(CONFIGURATION, issuer.document)
    issuer.answers(tokens("access-geheim-2", "refresh-geheim-2"), pending("invalid_grant"))
    server.reply("GET /tasks/t1", task())
    both = threading.Barrier(2)
    codes = []

    def call():
        both.wait(10)
        codes.append(main(["logs", "t1", "--system"], environ=poiesis.env))

    threads = [threading.Thread(target=call) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert codes == [0, 0]
    assert len(issuer.server.requests_to("POST //realm/token")) == 1
    assert {request.headers["Authorization"] for request in server.requests} == {"Bearer access-geheim-2"}


def test_logout_deletes_the_login(server, poiesis, issuer):
    _keep(poiesis, server, issuer)
    ended = poiesis("logout")
    assert (ended.code, ended.err) == (0, f"logged out of {server.url}/ga4gh/tes/v1\n")
    assert json.loads(logins_file(poiesis).read_text()) == {}
    ended = poiesis("logout")
    assert (ended.code, ended.err) == (0, f"poiesis: you were not logged in to {server.url}/ga4gh/tes/v1\n")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"SERVER": {"access_token": "geheim"}}', '{"SERVER": 3}'])
def test_malformed_logins_file_is_reported(server, poiesis, text):
    file = logins_file(poiesis)
    file.parent.mkdir(parents=True)
    file.write_text(text.replace("SERVER", f"{server.url}/ga4gh/tes/v1"))
    ended = poiesis("get", "t1")
    assert ended.code == 64
    assert "was not written by poiesis login" in ended.err
    assert "geheim" not in ended.err
