"""A real OpenID Provider: POIESIS_TEST_KEYCLOAK is the URL of a Keycloak that imported science-realm.json.

Its administrator is admin with the password admin, as `kc.sh start-dev` makes it of KC_BOOTSTRAP_ADMIN_*.
"""

import asyncio
import os

import aiohttp
import pytest

from poiesis_api.config import Administrators, Auth, Introspection, Oidc
from poiesis_api.errors import InsufficientScope, NotAuthenticated
from poiesis_api.identity.authenticators import open_authenticator

URL = os.environ.get("POIESIS_TEST_KEYCLOAK", "")
REALM = f"{URL}/realms/science"
OPENID = f"{REALM}/protocol/openid-connect"
ADMIN = f"{URL}/admin/realms/science"

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not URL, reason="POIESIS_TEST_KEYCLOAK names no Keycloak"),
]


@pytest.fixture
async def http():
    async with aiohttp.ClientSession(raise_for_status=True) as session:
        yield session


@pytest.fixture
async def administration(http):
    """Headers of an administrator of the realm."""
    form = {"grant_type": "password", "client_id": "admin-cli", "username": "admin", "password": "admin"}
    answer = await http.post(f"{URL}/realms/master/protocol/openid-connect/token", data=form)
    return {"Authorization": f"Bearer {(await answer.json())['access_token']}"}


@pytest.fixture
async def authenticator(tmp_path):
    secret = tmp_path / "client-secret"
    secret.write_text("server-secret")
    oidc = Oidc(
        issuer=REALM,
        audiences=["https://tes.example.org"],
        scopes=["tes"],
        min_refresh_seconds=0.001,
        timeout_seconds=30,
        introspection=Introspection(client_id="tes-server", client_secret_file=str(secret), cache_seconds=0),
    )
    administrators = Administrators(groups=["tes-administrators"])
    async with open_authenticator(Auth(mode="oidc", oidc=oidc, administrators=administrators)) as opened:
        yield opened


async def token(http, **form):
    answer = await http.post(f"{OPENID}/token", data=form)
    return (await answer.json())["access_token"]


async def password_token(http, user, scope="tes"):
    form = {
        "grant_type": "password",
        "client_id": "tes-cli",
        "username": user,
        "password": f"{user}-password",
    }
    return await token(http, **form, **({"scope": scope} if scope else {}))


async def ask(authenticator, bearer):
    return await authenticator.caller([f"Bearer {bearer}"])


async def test_users_have_their_groups_and_administrators_are_known(http, authenticator):
    alice = await ask(authenticator, await password_token(http, "alice"))
    assert (alice.groups, alice.administrator) == (("genomics",), False)
    root = await ask(authenticator, await password_token(http, "root"))
    assert (root.groups, root.administrator) == (("tes-administrators",), True)
    assert alice == await ask(authenticator, await password_token(http, "alice"))
    assert alice.name != root.name


async def test_a_workflow_engine_has_credentials_of_its_own(http, authenticator):
    form = {
        "grant_type": "client_credentials",
        "client_id": "tes-workflows",
        "client_secret": "workflows-secret",
    }
    caller = await ask(authenticator, await token(http, **form))
    assert (caller.groups, caller.administrator) == ((), False)


async def test_a_token_without_the_scope_is_not_for_this_server(http, authenticator):
    with pytest.raises((NotAuthenticated, InsufficientScope)):
        await ask(authenticator, await password_token(http, "alice", scope=None))


async def test_an_opaque_token_that_keycloak_does_not_know_is_refused(authenticator):
    with pytest.raises(NotAuthenticated):
        await ask(authenticator, "opaque")


@pytest.mark.parametrize("algorithm", ["ES256", "PS256", "RS512"])
async def test_keys_and_algorithms_rotate(http, authenticator, administration, algorithm):
    before = await password_token(http, "alice")
    alice = await ask(authenticator, before)
    provider = "ecdsa-generated" if algorithm.startswith("ES") else "rsa-generated"
    key = {
        "name": f"rotated-{algorithm}",
        "providerId": provider,
        "providerType": "org.keycloak.keys.KeyProvider",
        "config": {"priority": ["1000"], "enabled": ["true"], "active": ["true"]}
        | (
            {"ecdsaEllipticCurveKey": ["P-256"]}
            if provider.startswith("ecdsa")
            else {"algorithm": [algorithm]}
        ),
    }
    made = await http.post(f"{ADMIN}/components", json=key, headers=administration)
    try:
        await set_algorithm(http, administration, algorithm)
        after = await password_token(http, "alice")
        assert await ask(authenticator, after) == alice, "of a key that was not there a moment ago"
        assert await ask(authenticator, before) == alice, "until Keycloak takes the former key away"
    finally:
        await set_algorithm(http, administration, "RS256")
        await http.delete(made.headers["Location"], headers=administration)
    await asyncio.sleep(0.01)  # more than min_refresh_seconds
    await authenticator._issuer._keys.newer()
    with pytest.raises(NotAuthenticated):
        await ask(authenticator, after)


async def set_algorithm(http, administration, algorithm):
    changed = {"defaultSignatureAlgorithm": algorithm}
    await http.put(ADMIN, json=changed, headers=administration)


async def test_a_device_asks_for_a_code_that_a_user_confirms_elsewhere(http):
    answer = await http.post(f"{OPENID}/auth/device", data={"client_id": "tes-cli", "scope": "tes"})
    body = await answer.json()
    assert body["verification_uri"] == f"{REALM}/device"
    form = {"grant_type": "urn:ietf:params:oauth:grant-type:device_code", "client_id": "tes-cli"}
    waiting = await http.post(
        f"{OPENID}/token", data=form | {"device_code": body["device_code"]}, raise_for_status=False
    )
    assert (await waiting.json())["error"] == "authorization_pending"
