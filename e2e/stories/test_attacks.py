"""As a user of a shared server I am not affected by what other users' executors attack.

docs/security/promises.md lists the stories and rows that cover other attacks.
"""

import asyncio
import base64
import json

import aiohttp
import pytest

from poiesis_e2e import gateway_control
from poiesis_e2e.attacks import attack
from poiesis_e2e.documents import assert_ended, sh, stdout
from poiesis_e2e.install import Release, service_kube_of
from poiesis_e2e.kube import Kube
from poiesis_e2e.pressure import reading, restarts
from poiesis_e2e.tes_client import Document, TesClient
from poiesis_e2e.transport import transport
from poiesis_e2e.waiting import eventually
from poiesis_lab.cluster import Cluster
from poiesis_lab.images import Images

pytestmark = pytest.mark.e2e

with_gateway = pytest.mark.skipif(transport() != "gateway", reason="recorders report to Postgres")

_USERS = ("root", "1000")
_SESSIONS = """
SELECT DISTINCT usename || ' ' || ssl FROM pg_stat_activity JOIN pg_stat_ssl USING (pid)
 WHERE client_addr IS NOT NULL"""
_RECORDERS = "SELECT DISTINCT host(client_addr) FROM pg_stat_activity WHERE usename = 'poiesis_recorder'"
_LIMIT = "SELECT rolconnlimit FROM pg_roles WHERE rolname = 'poiesis_recorder'"
_FEW, _CHATTY = 3, 12
_FLOODS, _FLOOD_SECONDS = 4, 40


@pytest.fixture
def services(cluster: Cluster, second: Release) -> Kube:
    """Return kubectl for the namespace of the second release's services."""
    return service_kube_of(cluster, second)


@pytest.mark.parametrize("user", _USERS)
async def test_executor_cannot_capture_or_forge_packets(
    user: str, client: TesClient, attackers: dict[str, str]
) -> None:
    """The executor shares the network namespace of its recorder."""
    task = await client.run({"executors": [attack(attackers[user], "take_over_sessions")]})

    assert_ended(task, "COMPLETE")
    attempts = dict(line.split(": ", 1) for line in stdout(task).splitlines())
    assert len(attempts) > 5
    assert set(attempts.values()) == {"PermissionError; in a user namespace: PermissionError"}, attempts


@with_gateway
@pytest.mark.parametrize("user", _USERS)
async def test_executor_cannot_exhaust_postgres(
    *, user: str, second_client: TesClient, services: Kube, attackers: dict[str, str]
) -> None:
    """More than max_connections: each would hold a server process for a minute."""
    (service,) = await services.of_component("services", "postgres")
    host = f"{service['metadata']['name']}.{services.namespace}.svc"
    async with reading(second_client) as reads:
        task = await second_client.run(
            {"executors": [attack(attackers[user], "flood_postgres", host, "460", "20")]}
        )

    assert_ended(task, "COMPLETE")
    assert stdout(task).startswith("reached 0")
    assert reads.errors == []


@with_gateway
@pytest.mark.disruptive
async def test_flood_of_the_gateway_stops_no_other_task(
    *, second_client: TesClient, services: Kube, images: Images, attackers: dict[str, str]
) -> None:
    where = (await gateway_control.host(services), str(gateway_control.PORT))
    flood = attack(attackers["1000"], "flood_gateway", *where, "500", str(_FLOOD_SECONDS))
    before = await restarts(services, "gateway")
    floods = [await second_client.create({"executors": [flood]}) for _ in range(_FLOODS)]
    for one in floods:
        await second_client.wait(one, until={"RUNNING"})

    async with reading(second_client) as reads:
        document: Document = {"executors": [sh(images.busybox, "echo one; sleep 3; echo two")]}
        others = await asyncio.gather(*(second_client.run(document, timeout=60) for _ in range(3)))
    ended = [await second_client.wait(one, timeout=120) for one in floods]

    assert reads.errors == []
    assert max(reads.seconds) < 5
    for task in others:
        assert_ended(task, "COMPLETE")
        assert stdout(task) == "one\ntwo\n"
    assert [history.state for history in ended] == ["EXECUTOR_ERROR"] * _FLOODS
    for one in floods:
        statuses = stdout(await second_client.get(one, "FULL")).split()
        assert set(statuses) <= {"401", "429", "503", "-"}
    assert await restarts(services, "gateway") == before


@pytest.mark.disruptive
async def test_chatty_tasks_hold_no_database_connection(
    second_client: TesClient, services: Kube, images: Images
) -> None:
    limit = await services.sql(_LIMIT)
    await services.sql(f"ALTER ROLE poiesis_recorder CONNECTION LIMIT {_FEW}")
    document: Document = {"executors": [sh(images.busybox, "while :; do date; sleep 0.1; done")]}
    tasks: list[str] = []
    try:
        async with reading(second_client) as reads:
            tasks = [await second_client.create(document) for _ in range(_CHATTY)]

            async def all_run() -> bool:
                return all([(await second_client.get(one))["state"] == "RUNNING" for one in tasks])

            await eventually(all_run, "all tasks running", seconds=180)
            addresses = set((await services.sql(_RECORDERS)).split())
    finally:
        await services.sql(f"ALTER ROLE poiesis_recorder CONNECTION LIMIT {limit}")
        await asyncio.gather(*(second_client.cancel(one) for one in tasks))

    assert reads.errors == []
    assert max(reads.seconds) < 5
    if transport() == "gateway":
        gateways = {pod["status"]["podIP"] for pod in await services.of_component("pods", "gateway")}
        assert addresses <= gateways


async def test_every_session_of_embedded_postgres_is_encrypted(
    second_client: TesClient, services: Kube, images: Images
) -> None:
    script = "for i in 1 2 3 4 5; do echo $i; sleep 1; done"
    task_id = await second_client.create({"executors": [sh(images.busybox, script)]})
    seen: set[str] = set()

    async def both_roles() -> bool:
        seen.update((await services.sql(_SESSIONS)).splitlines())
        return {session.split()[0] for session in seen} == {"poiesis_api", "poiesis_recorder"}

    await eventually(both_roles, "sessions of both roles")
    await second_client.wait(task_id)

    assert seen == {"poiesis_api true", "poiesis_recorder true"}


@with_gateway
async def test_taskpod_contains_no_database_credential(
    second_client: TesClient, second_kube: Kube, images: Images
) -> None:
    """A compromised recorder or filer has the token of its own task only."""
    task_id = await second_client.create({"executors": [sh(images.busybox, "sleep 3")]})
    await second_client.wait(task_id, until={"RUNNING"})
    pod = await second_kube.pod(task_id)
    secrets = await second_kube.of_task("secrets", task_id)

    contents = [base64.b64decode(value) for one in secrets for value in one.get("data", {}).values()]
    assert contents
    assert [one for one in contents if b"postgresql://" in one] == []
    assert {key for one in secrets for key in one["data"]} & {"dsn", "recorder-dsn"} == set()
    words = json.dumps(pod["spec"])
    assert [word for word in ("PGSSLROOTCERT", "recorder-dsn", ":5432") if word in words] == []


async def test_page_of_a_rebound_name_creates_no_task(second_client: TesClient, images: Images) -> None:
    """DNS rebinding: the page's name leads to the api, so Origin and Host match."""
    before = await second_client.list_tasks(page_size=1)
    foreign = {"Host": "evil.example.org", "Origin": "http://evil.example.org"}
    document = {"executors": [sh(images.busybox, "true")]}
    async with (
        aiohttp.ClientSession(headers=foreign) as http,
        http.post(f"{second_client.base}/tasks", json=document) as created,
    ):
        assert created.status == 421

    assert (await second_client.list_tasks(page_size=1))["tasks"] == before["tasks"]
