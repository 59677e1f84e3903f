"""As an operator I use my own Postgres over TLS, and services connect only to a verified server."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio
import trustme

from poiesis_e2e.documents import assert_ended, sh, stdout
from poiesis_e2e.install import DATABASE_SECRET, Release, Secrets, Values, database_secret, kube_of
from poiesis_e2e.kube import CommandError, Kube, Node, run
from poiesis_e2e.tes_client import TesClient, TesError, connect
from poiesis_e2e.waiting import eventually
from poiesis_lab.backends import Postgres
from poiesis_lab.cluster import Cluster
from poiesis_lab.images import Images

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

_AUTHORITY_SECRET, _AUTHORITY_KEY = "postgres-ca", "root.pem"
_VALUES: Values = {
    "postgresql": {
        "embedded": False,
        "existingSecret": DATABASE_SECRET,
        "caSecret": {"name": _AUTHORITY_SECRET, "key": _AUTHORITY_KEY},
    },
    "config": {"volume": {"type": "emptyDir"}},
    "api": {"replicas": 1},
    "gateway": {"replicas": 1},
    "tctl": {"replicas": 1},
}
_CERTIFICATE = "/var/lib/postgresql/certificate.pem"  # including the key
_PRESENT_IT = (
    f"ALTER SYSTEM SET ssl_cert_file = '{_CERTIFICATE}'",
    f"ALTER SYSTEM SET ssl_key_file = '{_CERTIFICATE}'",
    "ALTER SYSTEM SET ssl = on",
    "SELECT pg_reload_conf()",
)
_SESSIONS = """
SELECT usename, ssl FROM pg_stat_activity JOIN pg_stat_ssl USING (pid) WHERE usename LIKE 'poiesis\\_%'"""
_CUT = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename LIKE 'poiesis\\_%'"


async def _sql(server: Postgres, *statements: str) -> list[asyncpg.Record]:
    """Run statements as the owner, from this machine; return the rows of the last one."""
    connection = await asyncpg.connect(server.dsn)
    try:
        *before, last = statements
        for statement in before:
            await connection.execute(statement)
        return list(await connection.fetch(last))
    finally:
        await connection.close()


async def _present(node: Node, server: Postgres, authority: trustme.CA) -> None:
    """Install a certificate of this authority on the server."""
    certificate = authority.issue_cert(server.pod_host)
    write = f"umask 077; cat >{_CERTIFICATE}; chown postgres {_CERTIFICATE}"
    pem = certificate.private_key_and_cert_chain_pem.bytes().decode()
    await run(node.docker, "exec", "--interactive", server.container, "sh", "-c", write, input_text=pem)
    await _sql(server, *_PRESENT_IT)
    context = ssl.create_default_context()
    authority.configure_trust(context)

    async def verified() -> bool:
        try:
            await (await asyncpg.connect(server.pod_dsn, ssl=context)).close()
        except OSError:
            return False
        return True

    await eventually(verified, "a certificate of this authority")


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def release(
    installed: Callable[[str, Values, Secrets], Release],
    tls_postgres: Postgres,
    authority: trustme.CA,
    node: Node,
) -> Release:
    """Return a release whose DSNs verify a private certificate authority."""
    await _present(node, tls_postgres, authority)
    dsns = database_secret(f"{tls_postgres.pod_dsn}?sslmode=verify-full")
    secrets = {
        DATABASE_SECRET: dsns,
        _AUTHORITY_SECRET: {_AUTHORITY_KEY: authority.cert_pem.bytes().decode()},
    }
    return await asyncio.to_thread(installed, "external", _VALUES, secrets)


@pytest_asyncio.fixture(loop_scope="module")
async def client(release: Release) -> AsyncIterator[TesClient]:
    async with connect(release.url) as made:
        yield made


@pytest.fixture
def kube(cluster: Cluster, release: Release) -> Kube:
    return kube_of(cluster, release)


async def test_every_session_of_a_task_is_encrypted(
    client: TesClient, tls_postgres: Postgres, images: Images
) -> None:
    task_id = await client.create({"executors": [sh(images.busybox, "echo begun; sleep 5; echo done")]})
    seen: set[tuple[str, bool]] = set()

    async def all_services_seen() -> bool:
        seen.update((row["usename"], row["ssl"]) for row in await _sql(tls_postgres, _SESSIONS))
        return {user for user, _ in seen} == {"poiesis_api", "poiesis_recorder"}

    await eventually(all_services_seen, "sessions of both roles")
    await client.wait(task_id)

    assert seen == {("poiesis_api", True), ("poiesis_recorder", True)}
    task = await client.get(task_id, "FULL")
    assert_ended(task, "COMPLETE")
    assert stdout(task) == "begun\ndone\n"


async def test_server_of_another_authority_is_rejected(
    *,
    client: TesClient,
    kube: Kube,
    node: Node,
    tls_postgres: Postgres,
    authority: trustme.CA,
    images: Images,
) -> None:
    await _present(node, tls_postgres, trustme.CA())
    try:
        await _sql(tls_postgres, _CUT)

        async def all_cut() -> bool:
            return not await _sql(tls_postgres, _SESSIONS)

        await eventually(all_cut, "the end of all sessions")
        with pytest.raises(TesError) as refused:
            await client.list_tasks()
        sessions = await _sql(tls_postgres, _SESSIONS)
        log = await kube.service.run("logs", "--selector=app.kubernetes.io/component=api", "--tail=50")
    finally:
        await _present(node, tls_postgres, authority)
    await eventually(client.answers, "a response of the api")

    assert refused.value.status == 503
    assert sessions == []
    assert "certificate verify failed" in log
    assert_ended(await client.run({"executors": [sh(images.busybox, "true")]}), "COMPLETE")


async def test_migrations_with_another_authority_name_the_cause(
    release: Release, built: dict[str, str], node: Node, tls_postgres: Postgres, tmp_path: Path
) -> None:
    """Run the container of the chart's migration Job with another authority's certificate."""
    other = tmp_path / "ca.crt"
    trustme.CA().cert_pem.write_to_path(other)
    dsns = database_secret(f"{tls_postgres.pod_dsn}?sslmode=verify-full")
    environment = {
        "POIESIS_MIGRATIONS_DSN": dsns["migrations-dsn"],
        "POIESIS_API_DSN": dsns["api-dsn"],
        "POIESIS_RECORDER_DSN": dsns["recorder-dsn"],
        "POIESIS_MIGRATIONS_WAIT_SECONDS": "1",
        "PGSSLROOTCERT": "/ca.crt",
    }
    variables = [f"--env={name}={value}" for name, value in environment.items()]
    with pytest.raises(CommandError, match="certificate verify failed"):
        await run(
            *(node.docker, "run", "--rm", "--network", "kind", "--volume", f"{other}:/ca.crt:ro"),
            *variables,
            built["migrations"],
        )
