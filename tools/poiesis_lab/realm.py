"""A separate realm in the lab's Keycloak, with actions of its users and its administrator."""

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

EXAMPLE = Path(__file__).resolve().parents[2] / "docs/examples/science-realm.json"
_ALGORITHM = "RS256"  # of a new realm
_KEYS = {  # provider and settings of a new signing key, by algorithm
    "ES256": ("ecdsa-generated", {"ecdsaEllipticCurveKey": ["P-256"]}),
    "PS256": ("rsa-generated", {"algorithm": ["PS256"]}),
    "RS512": ("rsa-generated", {"algorithm": ["RS512"]}),
}


@dataclass(frozen=True, kw_only=True)
class Realm:
    """`keycloak`: the URL that its clients use; a realm has one issuer per URL."""

    keycloak: str
    name: str
    administrator: str
    password: str = field(repr=False)

    @property
    def issuer(self) -> str:
        return f"{self.keycloak}/realms/{self.name}"

    @property
    def openid(self) -> str:
        """Return the base URL of its endpoints."""
        return f"{self.issuer}/protocol/openid-connect"

    async def user_token(self, user: str, *, scope: str | None = "tes") -> str:
        """Return an access token of a user of the example, by password."""
        form = {"grant_type": "password", "client_id": "tes-cli"}
        form |= {"username": user, "password": f"{user}-password"}
        return await self._token(form | ({"scope": scope} if scope else {}))

    async def workflow_token(self) -> str:
        """Return an access token of the example's workflow engine, by its client secret."""
        form = {"grant_type": "client_credentials", "client_id": "tes-workflows"}
        return await self._token(form | {"client_secret": "workflows-secret"})

    async def revoke(self, token: str) -> None:
        """Revoke a user's access token."""
        form = {"client_id": "tes-cli", "token": token}
        async with aiohttp.ClientSession(raise_for_status=True) as http:
            await http.post(f"{self.openid}/revoke", data=form)

    async def rotate_keys(self, algorithm: str) -> str:
        """Sign with a new key; earlier keys stay valid. Return the id for `remove_key`."""
        provider, settings = _KEYS[algorithm]
        key = {
            "name": f"rotated-{algorithm}",
            "providerId": provider,
            "providerType": "org.keycloak.keys.KeyProvider",
            "config": {"priority": ["1000"], "enabled": ["true"], "active": ["true"], **settings},
        }
        made = await self._administer("POST", f"/{self.name}/components", key)
        await self._administer("PUT", f"/{self.name}", {"defaultSignatureAlgorithm": algorithm})
        return made["Location"].rpartition("/")[2]

    async def remove_key(self, key: str) -> None:
        """Remove a key, so that the first key signs again."""
        await self._administer("PUT", f"/{self.name}", {"defaultSignatureAlgorithm": _ALGORITHM})
        await self._administer("DELETE", f"/{self.name}/components/{key}")

    async def make(self, document: Mapping[str, Any]) -> None:
        """Import a realm like Keycloak's console; the name in the document is ignored."""
        await self._administer("POST", "", {**document, "realm": self.name})

    async def remove(self) -> None:
        """Remove the realm with all its users."""
        await self._administer("DELETE", f"/{self.name}")

    async def _administer(self, method: str, path: str, body: object = None) -> Mapping[str, str]:
        """Call Keycloak's admin API and return the response headers; `path` below the realms."""
        form = {"grant_type": "password", "client_id": "admin-cli"}
        form |= {"username": self.administrator, "password": self.password}
        token = await _token(f"{self.keycloak}/realms/master/protocol/openid-connect", form)
        headers = {"Authorization": f"Bearer {token}"}
        url = f"{self.keycloak}/admin/realms{path}"
        async with (
            aiohttp.ClientSession(raise_for_status=True, headers=headers) as http,
            http.request(method, url, json=body) as answer,
        ):
            return answer.headers

    async def _token(self, form: Mapping[str, str]) -> str:
        return await _token(self.openid, form)


async def make_realm(keycloak: str, administrator: str, password: str) -> Realm:
    """Create the realm of docs/how-to/operators/identity.md under a unique name."""
    name = f"science-{secrets.token_hex(4)}"
    realm = Realm(keycloak=keycloak, name=name, administrator=administrator, password=password)
    await realm.make(json.loads(EXAMPLE.read_text()))
    return realm


async def _token(openid: str, form: Mapping[str, str]) -> str:
    async with (
        aiohttp.ClientSession(raise_for_status=True) as http,
        http.post(f"{openid}/token", data=form) as answer,
    ):
        token: str = (await answer.json())["access_token"]
        return token
