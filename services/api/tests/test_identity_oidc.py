"""Access tokens and the issuer behind them: rotation, outages, floods, opaque tokens."""

import asyncio
import base64
import hashlib
import logging
import tracemalloc

import pytest

from poiesis_api.config import Administrators, Auth, ConfigError, IdentityFiles, Oidc
from poiesis_api.errors import IdentityUnavailable, InsufficientScope, NotAuthenticated
from poiesis_api.identity.authenticators import open_authenticator
from poiesis_api.identity.caller import Caller

ALICE = Caller(name="alice", groups=("genomics",))
DISCOVERY, KEYS, INTROSPECT = "/.well-known/openid-configuration", "/keys", "/introspect"


class Clock:
    """Stands until it is moved."""

    def __init__(self, now):
        self.now = now

    def __call__(self):
        return self.now


@pytest.fixture
def clock(issuer):
    return Clock(issuer.now)


@pytest.fixture
def opened(issuer, clock, tmp_path):
    """Open an authenticator for the issuer, with changes to `auth.oidc`."""

    def open_(**changed):
        files = changed.pop("files", IdentityFiles(client_secret=tmp_path / "client-secret"))
        given = {"issuer": issuer.url, "audiences": [issuer.audience], "timeout_seconds": 5} | changed
        administrators = Administrators(groups=["administrators"], users=["boss"])
        config = Auth(mode="oidc", oidc=Oidc.model_validate(given), administrators=administrators)
        return open_authenticator(config, files, clock=clock, now=clock)

    return open_


@pytest.fixture
def introspection(issuer, tmp_path):
    """`auth.oidc.introspection`."""
    secret = tmp_path / "client-secret"
    secret.write_text(issuer.client[1] + "\n")
    return {"client_id": issuer.client[0], "client_secret": {"name": "tes-client"}}


async def ask(authenticator, token):
    return await authenticator.caller([f"Bearer {token}"])


async def refused(authenticator, token):
    with pytest.raises(NotAuthenticated) as raised:
        await ask(authenticator, token)
    return raised.value


async def test_a_token_tells_who_asks(issuer, opened):
    async with opened() as authenticator:
        assert await ask(authenticator, issuer.token()) == ALICE


@pytest.mark.parametrize(
    ("config", "claims", "caller"),
    [
        ({"user_claim": "email"}, {"email": "a@x"}, Caller(name="a@x", groups=("genomics",))),
        (
            {"groups_claim": "realm_access.roles"},
            {"realm_access": {"roles": ["r"]}},
            Caller(name="alice", groups=("r",)),
        ),
        (
            {"groups_claim": "https://x.org/g"},
            {"https://x.org/g": "one"},
            Caller(name="alice", groups=("one",)),
        ),
        ({"groups_claim": "a.b"}, {"a": ["b"]}, Caller(name="alice")),
        ({}, {"groups": [1, "", None, "b", "b", "\0"]}, Caller(name="alice", groups=("b",))),
        ({}, {"groups": None}, Caller(name="alice")),
        (
            {},
            {"groups": ["administrators"]},
            Caller(name="alice", groups=("administrators",), administrator=True),
        ),
        ({}, {"sub": "boss", "groups": None}, Caller(name="boss", administrator=True)),
        ({}, {"groups": ["Administrators", "boss"]}, Caller(name="alice", groups=("Administrators", "boss"))),
    ],
)
async def test_claims_say_name_and_groups(issuer, opened, config, claims, caller):
    async with opened(**config) as authenticator:
        assert await ask(authenticator, issuer.token(**claims)) == caller


@pytest.mark.parametrize("name", [None, "", "x" * 256, "a\0b", "a\nb", "\ud800", 5, ["a"], {"a": 1}])
async def test_invalid_user_name_is_rejected(issuer, opened, name):
    async with opened(user_claim="name") as authenticator:
        await refused(authenticator, issuer.token(name=name))


@pytest.mark.parametrize(
    ("claims", "enough"),
    [
        ({"scope": "tes write"}, True),
        ({"scope": "write openid tes"}, True),
        ({"scope": None, "scp": ["tes", "write"]}, True),
        ({"scope": None, "scp": "tes write"}, True),
        ({"scope": "tes"}, False),
        ({"scope": "tes-write TES WRITE"}, False),
        ({"scope": None}, False),
        ({"scope": 5}, False),
    ],
)
async def test_all_scopes_are_needed(issuer, opened, claims, enough):
    async with opened(scopes=["tes", "write"]) as authenticator:
        if enough:
            assert await ask(authenticator, issuer.token(**claims)) == ALICE
            return
        with pytest.raises(InsufficientScope) as raised:
            await ask(authenticator, issuer.token(**claims))
        challenge = 'Bearer realm="poiesis", error="insufficient_scope", scope="tes write"'
        assert raised.value.headers == {"WWW-Authenticate": challenge}


async def test_rotated_key_replaces_former_immediately(issuer, opened, clock):
    async with opened() as authenticator:
        former = issuer.token()
        await ask(authenticator, former)
        clock.now += 11
        issuer.rotate(kid="second")
        assert await ask(authenticator, issuer.token("second")) == ALICE
        assert issuer.requests[KEYS] == 2
        await refused(authenticator, former)


async def test_unknown_kids_do_not_hammer_the_issuer(issuer, opened, clock):
    async with opened() as authenticator:
        await ask(authenticator, issuer.token())
        stranger = issuer.make_key("ES256", "x")
        tokens = [
            issuer.sign(stranger, {"alg": "ES256", "kid": f"k{number}"}, issuer.claims())
            for number in range(200)
        ]
        clock.now += 11
        await asyncio.gather(*(refused(authenticator, token) for token in tokens))
        await asyncio.gather(*(refused(authenticator, token) for token in tokens))
        assert issuer.requests == {DISCOVERY: 1, KEYS: 2}
        assert await ask(authenticator, issuer.token()) == ALICE


async def test_many_first_requests_are_one_fetch(issuer, opened):
    async with opened() as authenticator:
        token = issuer.token()
        assert set(await asyncio.gather(*(ask(authenticator, token) for _ in range(100)))) == {ALICE}
        assert issuer.requests == {DISCOVERY: 1, KEYS: 1}


async def test_keys_are_fetched_anew_in_the_background(issuer, opened, clock):
    async with opened(refresh_seconds=600) as authenticator:
        await ask(authenticator, issuer.token())
        clock.now += 601
        issuer.answers.clear()  # no request waits for it
        token = issuer.token(exp=clock.now + 60)
        assert await ask(authenticator, token) == ALICE
        issuer.answers.set()
        await issuer.until(lambda: issuer.requests[KEYS] == 2)
        assert await ask(authenticator, token) == ALICE


async def test_issuer_unreachable_at_start_recovers(issuer, opened, clock):
    issuer.status = 500
    async with opened() as authenticator:
        for _ in range(20):
            with pytest.raises(IdentityUnavailable):
                await ask(authenticator, issuer.token())
        assert issuer.requests.total() == 1, "it is not hammered while it is ill"
        issuer.status = 200
        clock.now += 11
        assert await ask(authenticator, issuer.token(exp=clock.now + 60)) == ALICE


async def test_known_keys_stay_valid_during_outage(issuer, opened, clock):
    async with opened(stale_seconds=3600) as authenticator:
        await ask(authenticator, issuer.token())
        issuer.status = 500
        for _ in range(5):
            clock.now += 700
            assert await ask(authenticator, issuer.token(exp=clock.now + 60)) == ALICE
            await issuer.until(lambda: issuer.at_once == 0)
        clock.now += 700
        with pytest.raises(IdentityUnavailable):
            await ask(authenticator, issuer.token(exp=clock.now + 60))


async def test_unknown_key_during_outage_is_503(issuer, opened, clock):
    async with opened() as authenticator:
        await ask(authenticator, issuer.token())
        clock.now += 11
        issuer.rotate(kid="second")
        issuer.status = 503
        for _ in range(3):
            with pytest.raises(IdentityUnavailable):
                await ask(authenticator, issuer.token("second"))
        assert issuer.requests[KEYS] == 2


async def test_an_issuer_that_hangs_is_503(issuer, opened):
    issuer.answers.clear()
    async with opened(timeout_seconds=0.2) as authenticator:
        with pytest.raises(IdentityUnavailable):
            await ask(authenticator, issuer.token())


async def test_issuer_that_does_not_listen_is_503(issuer, opened):
    async with opened(issuer="http://127.0.0.1:1") as authenticator:
        with pytest.raises(IdentityUnavailable):
            await ask(authenticator, issuer.token())


@pytest.mark.parametrize("status", [301, 302, 307, 404])
async def test_no_redirect_is_followed(issuer, opened, status):
    issuer.status = status
    async with opened() as authenticator:
        with pytest.raises(IdentityUnavailable):
            await ask(authenticator, issuer.token())
    assert issuer.requests == {DISCOVERY: 1}


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "https://evil.example"},
        {"issuer": None},
        {"jwks_uri": None},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": 5},
        {"introspection_endpoint": "gopher://x"},
        {"padding": "x" * 2_000_000},
    ],
)
async def test_foreign_discovery_document_is_503(issuer, opened, metadata):
    issuer.metadata = metadata
    async with opened() as authenticator:
        with pytest.raises(IdentityUnavailable):
            await ask(authenticator, issuer.token())
    assert issuer.requests == {DISCOVERY: 1}


async def test_the_challenge_says_what_would_do(issuer, opened):
    async with opened() as authenticator:
        for headers in ([], ["Basic YTpi"], ["Bearer"], ["Bearer  "], ["Bearer a", "Bearer b"], ["x"], [""]):
            with pytest.raises(NotAuthenticated) as raised:
                await authenticator.caller(headers)
            assert raised.value.headers == {"WWW-Authenticate": 'Bearer realm="poiesis"'}
        error = await refused(authenticator, issuer.token(exp=issuer.now - 60))
        expired = 'error="invalid_token", error_description="the access token has expired"'
        assert error.headers == {"WWW-Authenticate": f'Bearer realm="poiesis", {expired}'}


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer  ", " Bearer"])
async def test_the_scheme_has_no_case(issuer, opened, scheme):
    async with opened() as authenticator:
        assert await authenticator.caller([f"{scheme} {issuer.token()}"]) == ALICE


@pytest.mark.parametrize("token", ["x" * 16385, "a b", "ä", "a,b", "="])
async def test_malformed_token_is_rejected_without_introspection(issuer, opened, introspection, token):
    async with opened(introspection=introspection) as authenticator:
        error = await refused(authenticator, token)
        assert error.headers["WWW-Authenticate"].startswith('Bearer realm="poiesis", error="invalid_token"')
    assert issuer.requests[INTROSPECT] == 0


@pytest.mark.parametrize("token", ["a.b.c", "....", "x" * 16384])
async def test_what_looks_like_no_jwt_is_asked_for(issuer, opened, introspection, token):
    async with opened(introspection=introspection) as authenticator:
        await refused(authenticator, token)
    assert issuer.requests[INTROSPECT] == 1


async def test_no_token_is_logged_or_shown(issuer, opened, introspection, caplog):
    caplog.set_level(logging.DEBUG)
    texts: list[str] = []
    tokens = [
        issuer.token(),
        issuer.token(aud="other"),
        issuer.token(kid="first", algorithm="ES256") + "x",
        "opaque-s3cr3t",
    ]
    async with opened(introspection=introspection) as authenticator:
        await ask(authenticator, tokens[0])
        for token in tokens[1:]:
            error = await refused(authenticator, token)
            texts.append(f"{error} {error.why} {error.headers}")
        issuer.status = 500
        with pytest.raises(IdentityUnavailable):
            await ask(authenticator, "another-s3cr3t")
    texts += [f"{record.getMessage()} {record.__dict__}" for record in caplog.records]
    for secret in (*tokens, "s3cr3t", issuer.client[1], *(token.rpartition(".")[2] for token in tokens)):
        assert secret not in " ".join(texts)


# Opaque tokens


async def test_introspection_result_is_cached(issuer, opened, introspection, clock):
    issuer.opaque["t-1"] = issuer.claims(active=True)
    async with opened(introspection=introspection | {"cache_seconds": 60}) as authenticator:
        assert set(await asyncio.gather(*(ask(authenticator, "t-1") for _ in range(50)))) == {ALICE}
        assert issuer.requests[INTROSPECT] == 1
        clock.now += 61
        assert await ask(authenticator, "t-1") == ALICE
        assert issuer.requests[INTROSPECT] == 2
        issuer.opaque["t-1"] = {"active": False}
        clock.now += 59
        assert await ask(authenticator, "t-1") == ALICE
        clock.now += 2
        await refused(authenticator, "t-1")
    assert issuer.authorizations == {"tes+server:p%3Ass+%25w%C3%B6rd"}


async def test_without_introspection_an_opaque_token_does_not_count(issuer, opened):
    async with opened() as authenticator:
        await refused(authenticator, "opaque")
    assert issuer.requests[INTROSPECT] == 0


async def test_a_refused_token_is_remembered_a_little_while(issuer, opened, introspection, clock):
    async with opened(introspection=introspection | {"refused_seconds": 10}) as authenticator:
        for _ in range(20):
            await refused(authenticator, "nobody")
        assert issuer.requests[INTROSPECT] == 1
        clock.now += 11
        issuer.opaque["nobody"] = issuer.claims(active=True)
        assert await ask(authenticator, "nobody") == ALICE


async def test_cached_result_expires_with_token(issuer, opened, introspection, clock):
    issuer.opaque["short"] = issuer.claims(active=True, exp=issuer.now + 5)
    async with opened(introspection=introspection, leeway_seconds=0) as authenticator:
        await ask(authenticator, "short")
        clock.now += 6
        error = await refused(authenticator, "short")
        assert str(error) == "the access token has expired"


@pytest.mark.parametrize(
    ("claims", "counts"),
    [
        ({}, True),
        ({"iss": None, "exp": None, "iat": None}, True),
        ({"exp": 2**70}, True),
        ({"exp": 1e400}, False),
        ({"exp": "soon"}, False),
        ({"aud": None}, False),
        ({"aud": "other"}, False),
        ({"iss": "https://evil.example"}, False),
        ({"active": False}, False),
    ],
)
async def test_introspected_claims_are_checked(issuer, opened, introspection, claims, counts):
    issuer.opaque["t"] = issuer.claims(**({"active": True} | claims))
    async with opened(introspection=introspection) as authenticator:
        if counts:
            assert await ask(authenticator, "t") == ALICE
        else:
            await refused(authenticator, "t")


async def test_introspection_without_audience_can_be_allowed(issuer, opened, introspection):
    issuer.opaque["t"] = issuer.claims(active=True, aud=None)
    issuer.opaque["other"] = issuer.claims(active=True, aud="other")
    async with opened(introspection=introspection | {"audience_required": False}) as authenticator:
        assert await ask(authenticator, "t") == ALICE
        await refused(authenticator, "other")


async def test_concurrent_introspections_are_bounded(issuer, opened, introspection):
    async with opened(introspection=introspection | {"max_requests": 3}, timeout_seconds=3) as authenticator:
        await ask(authenticator, issuer.token())
        issuer.most_at_once = 0
        issuer.answers.clear()
        outcomes = await asyncio.gather(
            *(ask(authenticator, f"t-{number}") for number in range(1200)), return_exceptions=True
        )
        assert {type(outcome) for outcome in outcomes} == {IdentityUnavailable}
        assert issuer.most_at_once == 3
        issuer.answers.set()
        await refused(authenticator, "t-0")


@pytest.mark.parametrize("answer", [{}, {"active": "true"}, {"active": 1}])
async def test_invalid_introspection_response_is_503(issuer, opened, introspection, answer):
    issuer.opaque["t"] = answer
    async with opened(introspection=introspection) as authenticator:
        with pytest.raises(IdentityUnavailable):
            await ask(authenticator, "t")


async def test_an_issuer_without_introspection_is_503(issuer, opened, introspection):
    issuer.metadata = {"introspection_endpoint": None}
    async with opened(introspection=introspection) as authenticator:
        with pytest.raises(IdentityUnavailable):
            await ask(authenticator, "t")
        assert await ask(authenticator, issuer.token()) == ALICE


async def test_missing_or_empty_secret_is_a_configuration_error(opened, introspection, tmp_path):
    (tmp_path / "empty").write_text("\n")
    for name in ("none", "empty"):
        with pytest.raises(ConfigError, match="clientSecret"):
            async with opened(
                introspection=introspection, files=IdentityFiles(client_secret=tmp_path / name)
            ):
                pass


async def test_invalid_ca_bundle_is_a_configuration_error(opened, tmp_path):
    (tmp_path / "none.pem").write_text("no certificate")
    for name in ("none.pem", "missing.pem"):
        with pytest.raises(ConfigError, match="caSecret"):
            async with opened(ca_secret={"name": "ca"}, files=IdentityFiles(ca=tmp_path / name)):
                pass


async def test_ten_thousand_tokens_leave_memory_as_it_was(issuer, opened, introspection):
    """Of opaque ones `max_cached` answers are kept, found by hash; of signed ones nothing."""
    async with opened(introspection=introspection | {"max_cached": 100}) as authenticator:
        signed = issuer.token()
        await ask(authenticator, signed)
        answers = authenticator._introspector._results
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        for number in range(2_000):
            digest = hashlib.sha256(str(number).encode()).hexdigest()
            await refused(authenticator, base64.b64encode((digest * 20).encode()).decode())
        for _ in range(8_000):
            await ask(authenticator, signed)
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(answers) == 100
        assert after - before < 2_000_000
