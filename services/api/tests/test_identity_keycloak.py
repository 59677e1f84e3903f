"""A real OpenID Provider: Keycloak with the realm of docs/how-to/operators/identity.md."""

import asyncio

import aiohttp
import pytest

from poiesis_api.config import Administrators, Auth, ClientSecret, IdentityFiles, Introspection, Oidc
from poiesis_api.errors import InsufficientScope, NotAuthenticated
from poiesis_api.identity.authenticators import open_authenticator
from poiesis_lab.realm import make_realm

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def realm(keycloak):
    """This module's own, so that several may rotate keys at once."""
    made = asyncio.run(make_realm(keycloak.url, keycloak.administrator, keycloak.password))
    yield made
    asyncio.run(made.remove())


@pytest.fixture
async def authenticator(tmp_path, realm):
    secret = tmp_path / "client-secret"
    secret.write_text("server-secret")
    oidc = Oidc(
        issuer=realm.issuer,
        audiences=["https://tes.example.org"],
        scopes=["tes"],
        min_refresh_seconds=0.001,
        timeout_seconds=30,
        introspection=Introspection(
            client_id="tes-server", client_secret=ClientSecret(name="tes-client"), cache_seconds=0
        ),
    )
    administrators = Administrators(groups=["tes-administrators"])
    auth = Auth(mode="oidc", oidc=oidc, administrators=administrators)
    async with open_authenticator(auth, IdentityFiles(client_secret=secret)) as opened:
        yield opened


async def ask(authenticator, bearer):
    return await authenticator.caller([f"Bearer {bearer}"])


async def test_users_have_their_groups_and_administrators_are_known(realm, authenticator):
    alice = await ask(authenticator, await realm.user_token("alice"))
    assert (alice.groups, alice.administrator) == (("genomics",), False)
    root = await ask(authenticator, await realm.user_token("root"))
    assert (root.groups, root.administrator) == (("tes-administrators",), True)
    assert alice == await ask(authenticator, await realm.user_token("alice"))
    assert alice.name != root.name


async def test_a_workflow_engine_has_credentials_of_its_own(realm, authenticator):
    caller = await ask(authenticator, await realm.workflow_token())
    assert (caller.groups, caller.administrator) == ((), False)


async def test_a_token_without_the_scope_is_not_for_this_server(realm, authenticator):
    with pytest.raises((NotAuthenticated, InsufficientScope)):
        await ask(authenticator, await realm.user_token("alice", scope=None))


async def test_an_opaque_token_that_keycloak_does_not_know_is_refused(authenticator):
    with pytest.raises(NotAuthenticated):
        await ask(authenticator, "opaque")


@pytest.mark.parametrize("algorithm", ["ES256", "PS256", "RS512"])
async def test_keys_and_algorithms_rotate(realm, authenticator, algorithm):
    before = await realm.user_token("alice")
    alice = await ask(authenticator, before)
    key = await realm.rotate_keys(algorithm)
    try:
        after = await realm.user_token("alice")
        assert await ask(authenticator, after) == alice, "of a key that was not there a moment ago"
        assert await ask(authenticator, before) == alice, "until Keycloak takes the former key away"
    finally:
        await realm.remove_key(key)
    await asyncio.sleep(0.01)  # more than min_refresh_seconds
    await authenticator._issuer._keys.newer()
    with pytest.raises(NotAuthenticated):
        await ask(authenticator, after)


async def test_a_device_asks_for_a_code_that_a_user_confirms_elsewhere(realm):
    form = {"grant_type": "urn:ietf:params:oauth:grant-type:device_code", "client_id": "tes-cli"}
    async with aiohttp.ClientSession() as http:
        asked = {"client_id": "tes-cli", "scope": "tes"}
        answer = await http.post(f"{realm.openid}/auth/device", data=asked, raise_for_status=True)
        body = await answer.json()
        assert body["verification_uri"] == f"{realm.issuer}/device"
        waiting = await http.post(f"{realm.openid}/token", data=form | {"device_code": body["device_code"]})
        assert (await waiting.json())["error"] == "authorization_pending"
