"""As an operator I admit Keycloak's users (docs/how-to/operators/identity.md), who see only their tasks.

The realm is docs/examples/science-realm.json, and the chart's values are docs/examples/keycloak-values.yaml,
except for the issuer, which is a proxy in front of Keycloak.
"""

import asyncio
import base64
import json
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
import yaml

from poiesis_e2e.command import Command, ended
from poiesis_e2e.documents import assert_ended, sh
from poiesis_e2e.install import Release, Secrets, Values, kube_of, merged
from poiesis_e2e.keycloak_page import confirm
from poiesis_e2e.keycloak_proxy import KeycloakProxy, keycloak_proxy
from poiesis_e2e.kube import Kube, Node
from poiesis_e2e.ownership import assert_a_task_is_its_owners
from poiesis_e2e.tes_client import PATH, TesClient, connect
from poiesis_e2e.waiting import eventually
from poiesis_lab.backends import Keycloak
from poiesis_lab.cluster import Cluster
from poiesis_lab.images import Images
from poiesis_lab.realm import EXAMPLE, Realm, make_realm

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

_VALUES = EXAMPLE.with_name("keycloak-values.yaml")
_ENOUGH = 12  # requests on separate connections, so that both replicas get some


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def issuer(node: Node, keycloak: Keycloak) -> AsyncIterator[KeycloakProxy]:
    """Return the proxy that Pods and users address as Keycloak."""
    async with keycloak_proxy(await node.host_address(), keycloak.url) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def realm(issuer: KeycloakProxy, keycloak: Keycloak) -> AsyncIterator[Realm]:
    """Return the example's realm under a unique name."""
    made = await make_realm(issuer.url, keycloak.administrator, keycloak.password)
    yield made
    await made.remove()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def release(with_users: Callable[[Values, Secrets], Release], realm: Realm) -> Release:
    """Return a release with the example's values and short cache times."""
    here = {"issuer": realm.issuer, "minRefreshSeconds": 1, "introspection": {"cacheSeconds": 0}}
    values = merged(yaml.safe_load(_VALUES.read_text()), {"config": {"auth": {"oidc": here}}})
    secret = {"tes-introspection": {"client-secret": "server-secret"}}
    return await asyncio.to_thread(with_users, values, secret)


async def _as(stack: AsyncExitStack, release: Release, realm: Realm, user: str) -> TesClient:
    return await stack.enter_async_context(connect(release.url, token=await realm.user_token(user)))


async def _answers(release: Release, token: str, path: str) -> list[tuple[int, str]]:
    """Return the status, and the WWW-Authenticate or Retry-After header, of responses of all replicas."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(connector=connector, headers=headers) as http:

        async def ask() -> tuple[int, str]:
            async with http.get(f"{release.url}{path}") as answer:
                hints = (answer.headers.get(name, "") for name in ("WWW-Authenticate", "Retry-After"))
                return answer.status, "".join(hints)

        return sorted(set(await asyncio.gather(*(ask() for _ in range(_ENOUGH)))))


async def test_task_is_visible_to_bearer_and_administrators(
    release: Release, realm: Realm, images: Images
) -> None:
    async with AsyncExitStack() as stack:
        alice, bob, root = [await _as(stack, release, realm, user) for user in ("alice", "bob", "root")]
        await assert_a_task_is_its_owners(owner=alice, other=bob, root=root, image=images.busybox)


async def test_workflow_engine_runs_tasks_with_its_own_token(
    release: Release, realm: Realm, images: Images
) -> None:
    async with connect(release.url, token=await realm.workflow_token()) as engine:
        task = await engine.run({"executors": [sh(images.busybox, "echo engine")]})
        assert_ended(task, "COMPLETE")
        assert [one["id"] for one in (await engine.list_tasks())["tasks"]] == [task["id"]]


@pytest.mark.parametrize(
    "path", [f"{PATH}/service-info", f"{PATH}/openapi.json", f"{PATH}/ui", "/healthz", "/readyz"]
)
async def test_public_paths_need_no_token(release: Release, path: str) -> None:
    assert await _answers(release, "", path) == [(200, "")]


async def test_other_paths_need_a_valid_token(release: Release, realm: Realm) -> None:
    tasks = f"{PATH}/tasks"
    assert await _answers(release, "", tasks) == [(401, 'Bearer realm="poiesis"')]
    ((status, challenge),) = await _answers(release, f"{await realm.user_token('alice')}x", tasks)
    assert (status, 'error="invalid_token"' in challenge) == (401, True)
    assert await _answers(release, await realm.user_token("alice"), tasks) == [(200, "")]


async def test_user_logs_in_by_device_and_runs_task(
    release: Release, realm: Realm, images: Images, tmp_path: Path
) -> None:
    poiesis = Command(home=tmp_path, environment={"POIESIS_SERVER": release.url})
    login = await poiesis.start("login", "--issuer", realm.issuer, "--client-id", "tes-cli", "--scope", "tes")
    assert login.stderr is not None
    lines: list[str] = []
    while not (lines and lines[-1].startswith("or open ")):
        line = await asyncio.wait_for(login.stderr.readline(), 60)
        assert line, lines
        lines.append(line.decode())
    page = await confirm(lines[-1].split()[-1], user="alice", password="alice-password")
    assert "Device Login Successful" in page
    code, _, err = await ended(login)
    assert (code, err) == (0, f"logged in to {release.url}{PATH}\n")

    name = f"by-device-{uuid.uuid4().hex}"
    code, out, err = await poiesis.run(
        "run", "--name", name, "--logs", images.busybox, "--", "echo", "logged in"
    )
    assert (code, out) == (0, "logged in\n"), err
    async with connect(release.url, token=await realm.user_token("alice")) as alice:
        assert len((await alice.list_tasks(name_prefix=name))["tasks"]) == 1
    assert (await poiesis.run("logout"))[0] == 0
    assert (await poiesis.run("list"))[0] == 77


@pytest.mark.parametrize("variable", ["POIESIS_TOKEN", "POIESIS_TOKEN_FILE"])
async def test_command_reads_token_from_environment_and_file(
    variable: str, release: Release, realm: Realm, tmp_path: Path
) -> None:
    token, file = await realm.user_token("bob"), tmp_path / "token"
    file.write_text(f"{token}\n")
    given = token if variable == "POIESIS_TOKEN" else str(file)
    poiesis = Command(home=tmp_path, environment={"POIESIS_SERVER": release.url, variable: given})
    code, out, err = await poiesis.run("--output", "json", "list")
    assert (code, json.loads(out)["tasks"]) == (0, []), err


async def test_rotated_signing_key_works_without_api_restart(
    release: Release, realm: Realm, cluster: Cluster
) -> None:
    kube, tasks = kube_of(cluster, release), f"{PATH}/tasks"
    before, apis = await realm.user_token("alice"), await _apis(kube)
    key = await realm.rotate_keys("ES256")
    try:
        after = await realm.user_token("alice")
        assert [_header(token)["alg"] for token in (before, after)] == ["RS256", "ES256"]
        await asyncio.sleep(1)  # minRefreshSeconds: keys may have been fetched just now
        for token in (after, before):
            assert await _answers(release, token, tasks) == [(200, "")]
    finally:
        await realm.remove_key(key)
    assert await _apis(kube) == apis


async def test_issuer_outage_affects_only_unknown_keys(
    release: Release, realm: Realm, issuer: KeycloakProxy
) -> None:
    tasks = f"{PATH}/tasks"
    known = await realm.user_token("alice")
    assert await _answers(release, known, tasks) == [(200, "")]
    key = await realm.rotate_keys("PS256")
    try:
        unknown, opaque = await realm.user_token("alice"), issuer.opaque(known)
        async with issuer.away():
            assert await _answers(release, known, tasks) == [(200, "")]
            for token in (unknown, opaque):
                answers = await _answers(release, token, tasks)
                assert {status for status, _ in answers} == {503}
                assert all(int(retry_after) > 0 for _, retry_after in answers)

        async def again() -> bool:
            return await _answers(release, unknown, tasks) == [(200, "")]

        await eventually(again, "keys from the restored issuer")
        assert await _answers(release, opaque, tasks) == [(200, "")]
    finally:
        await realm.remove_key(key)


async def test_opaque_token_is_valid_until_revoked(
    release: Release, realm: Realm, issuer: KeycloakProxy
) -> None:
    tasks, signed = f"{PATH}/tasks", await realm.user_token("alice")
    opaque = issuer.opaque(signed)
    async with connect(release.url, token=opaque) as by_opaque, connect(release.url, token=signed) as alice:
        assert await by_opaque.list_tasks() == await alice.list_tasks()
    await realm.revoke(signed)
    ((status, challenge),) = await _answers(release, opaque, tasks)
    assert (status, 'error="invalid_token"' in challenge) == (401, True)
    assert await _answers(release, signed, tasks) == [(200, "")], "a signed token was introspected"


async def _apis(kube: Kube) -> Mapping[str, int]:
    """Return the restart counts of the apis, by Pod."""
    return {
        pod["metadata"]["name"]: pod["status"]["containerStatuses"][0]["restartCount"]
        for pod in await kube.of_component("pods", "api")
    }


def _header(token: str) -> Mapping[str, Any]:
    part = token.partition(".")[0]
    header: Mapping[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return header
