"""The Pod of the embedded Postgres as the chart renders it, as two containers of docker."""

import asyncio
import os
import secrets
import shutil
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
import yaml

from poiesis_setup import decide
from poiesis_setup.decide import Stored
from poiesis_setup.document import Certificate, Passwords

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[3]
CHART = ROOT / "deployment/helm/poiesis"
NOW = datetime.now(UTC)
OLD_URLS = {
    "migrations-dsn": "postgresql://poiesis:old-owner@db/poiesis",
    "api-dsn": "postgresql://poiesis_api:old-api@db/poiesis",
    "recorder-dsn": "postgresql://poiesis_recorder:old-recorder@db/poiesis",
}
SECONDS = 60
READY = "roles and certificate are those of the Secrets"


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr}{done.stdout}"
    return done.stdout.strip()


def rendered() -> dict[tuple[str, str], Any]:
    from poiesis_lab import binaries

    program = os.environ.get("POIESIS_HELM") or str(binaries.helm())
    done = subprocess.run(
        [program, "template", "tes", CHART, "--namespace", "tes", "--kube-version", "1.29.0"],
        capture_output=True,
        text=True,
        check=True,
    )
    documents = [one for one in yaml.safe_load_all(done.stdout) if one]
    return {(one["kind"], one["metadata"]["name"]): one for one in documents}


class Pod:
    """Postgres and the container `roles`, with the volumes of the Pod as folders of this machine."""

    def __init__(self, folder: Path, image: str, free_port: Callable[[], int]) -> None:
        self.folder, self.image, self._free_port = folder, image, free_port
        self.name = f"poiesis-embedded-{secrets.token_hex(4)}"
        self.chart = rendered()
        self.spec = self.chart["StatefulSet", "tes-poiesis-postgres"]["spec"]["template"]["spec"]
        for name in ("access/tls", "roles", "data", "run"):
            (folder / name).mkdir(parents=True)
            (folder / name).chmod(0o777)
        for name, text in self.chart["ConfigMap", "tes-poiesis-postgres"]["data"].items():
            (folder / ("access" if name == "pg_hba.conf" else "roles") / name).write_text(text)
        self.authority = _change(decide.authority("tes-ca", None, NOW, ""))
        self.renew()

    def renew(self) -> None:
        """Replace the certificate by a new one of the same authority."""
        wanted = Certificate(secret="tls", names=("localhost",))
        made = _change(decide.certificate(wanted, None, self.authority, NOW, ""))
        self.certificate = made["tls.crt"]
        (self.folder / "ca.crt").write_bytes(made["ca.crt"])
        for key in ("tls.crt", "tls.key"):
            self._put(f"tls/{key}", made[key])

    def set_urls(self, urls: dict[str, str]) -> None:
        self.urls = urls
        for key, url in urls.items():
            self._put(key, url.encode())

    def _put(self, path: str, content: bytes) -> None:
        """Write a file as kubelet does: readable by the group 999, replaced as a whole."""
        new = self.folder / "access" / f"{path}.new"
        new.write_bytes(content)
        new.chmod(0o440)
        os.chown(new, 0, 999)
        new.replace(self.folder / "access" / path)

    def start(self, *, owner: str = "postgres", password: str = "removed", roles: bool = True) -> None:  # noqa: S107
        """Start the containers as the chart does; `owner`: the superuser of a new data directory."""
        self.port = self._free_port()
        docker(
            *(
                "run",
                "--detach",
                "--name",
                self.name,
                *self._volumes(),
                f"--publish=127.0.0.1:{self.port}:5432",
            ),
            *("--volume", f"{self.folder}/data:/var/lib/postgresql/data"),
            *("--env=PGDATA=/var/lib/postgresql/data/pgdata", "--env=POSTGRES_DB=poiesis"),
            *(f"--env=POSTGRES_USER={owner}", f"--env=POSTGRES_PASSWORD={password}"),
            *(self.image, *self.spec["containers"][0]["args"]),
        )
        if roles:
            self.start_roles()

    def start_roles(self) -> None:
        """Start the second container alone."""
        program, *arguments = self.spec["containers"][1]["command"]
        docker(
            *("run", "--detach", "--name", f"{self.name}-roles", "--network=none", *self._volumes()),
            *("--volume", f"{self.folder}/roles:/etc/poiesis-roles:ro"),
            *("--read-only", "--tmpfs=/tmp:mode=1777", f"--entrypoint={program}", self.image, *arguments),
        )

    def _volumes(self) -> list[str]:
        return [
            *("--user=999:999", "--volume", f"{self.folder}/run:/var/run/postgresql"),
            *("--volume", f"{self.folder}/access:/etc/poiesis-postgres:ro"),
        ]

    def stop(self) -> None:
        for name in (f"{self.name}-roles", self.name):
            subprocess.run(["docker", "rm", "--force", "--volumes", name], capture_output=True, check=False)

    def logs(self) -> str:
        parts = (self.name, f"{self.name}-roles")
        run = [
            subprocess.run(["docker", "logs", one], capture_output=True, text=True, check=False)
            for one in parts
        ]
        return "\n".join(one.stdout + one.stderr for one in run)

    def sql(self, statement: str, user: str = "postgres") -> str:
        """Run a statement through the socket, as `kubectl exec` does."""
        return docker(
            *("exec", self.name, "psql", "--tuples-only", "--no-align", "--username", user),
            *("--dbname=poiesis", "--command", statement),
        )

    async def connect(self, key: str, urls: dict[str, str] | None = None) -> asyncpg.Connection:
        """Log in with the user and password of a URL, and verify the certificate."""
        parts = urlsplit((urls or self.urls)[key])
        context = ssl.create_default_context(cafile=self.folder / "ca.crt")
        return await asyncpg.connect(
            host="localhost", port=self.port, user=parts.username, password=parts.password,
            database="poiesis", ssl=context, timeout=10,
        )  # fmt: skip

    async def until_logged(self, text: str) -> None:
        """Wait until a container logs a text."""
        await until(lambda: text in self.logs())

    async def until_login(self, key: str = "recorder-dsn") -> None:
        """Wait until this URL, and so every URL, is accepted. The three are changed in one transaction."""
        async with asyncio.timeout(SECONDS):
            while True:
                try:
                    await (await self.connect(key)).close()
                except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                    await asyncio.sleep(0.2)
                else:
                    return

    async def migrate(self) -> tuple[int, str]:
        """Run the migrations of this release as the owner."""
        query = f"?sslmode=verify-full&sslrootcert={self.folder}/ca.crt"
        variables = {"migrations-dsn": "MIGRATIONS", "api-dsn": "API", "recorder-dsn": "RECORDER"}
        env = {}
        for key, name in variables.items():
            parts = urlsplit(self.urls[key])
            user = f"{parts.username}:{parts.password}"
            env[f"POIESIS_{name}_DSN"] = f"postgresql://{user}@localhost:{self.port}/poiesis{query}"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "poiesis_migrations"),
            env={"PATH": os.environ["PATH"], "POIESIS_MIGRATIONS_DIRECTORY": str(ROOT / "migrations"), **env},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await asyncio.wait_for(process.communicate(), SECONDS)
        assert process.returncode is not None
        return process.returncode, output.decode()


async def until(true: Callable[[], bool]) -> None:
    """Wait until something outside of this process is true."""
    async with asyncio.timeout(SECONDS):
        while not await asyncio.to_thread(true):  # noqa: ASYNC110
            await asyncio.sleep(0.2)


def _change(change: decide.Change | None) -> decide.Data:
    assert change is not None
    return change.data


def new_urls(rotation: str = "") -> dict[str, str]:
    """Return the URLs that setup makes; with a rotation, those that replace others."""
    wanted = Passwords(
        secret="postgres",
        urls={key: f"postgresql://{urlsplit(url).username}@db/poiesis" for key, url in OLD_URLS.items()},
    )
    stored = Stored(data={key: url.encode() for key, url in OLD_URLS.items()}) if rotation else None
    made = _change(decide.passwords(wanted, stored, rotation, lambda: secrets.token_urlsafe(24)))
    return {key: value.decode() for key, value in made.items()}


@pytest.fixture
def pod(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[Pod]:
    from poiesis_lab import daemon, images

    daemon.ensure()
    tmp_path.chmod(0o755)
    pod = Pod(tmp_path, images.images().postgres, free_port)
    yield pod
    pod.stop()
    shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.fixture
async def fresh(pod: Pod) -> AsyncIterator[Pod]:
    """A new data directory that is ready."""
    pod.set_urls(new_urls())
    pod.start()
    await pod.until_login()
    return pod


async def test_owner_migrates_without_being_a_superuser(fresh):
    code, output = await fresh.migrate()
    assert code == 0, output
    owner = await fresh.connect("migrations-dsn")
    rights = await owner.fetchrow(
        "SELECT rolsuper, rolcreatedb, rolreplication, rolbypassrls FROM pg_roles WHERE rolname = 'poiesis'"
    )
    assert set(rights.values()) == {False}
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await owner.execute("COPY (SELECT 1) TO PROGRAM 'true'")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await owner.execute("SET ROLE postgres")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await owner.execute("GRANT pg_execute_server_program TO poiesis")
    limit = await owner.fetchval("SELECT rolconnlimit FROM pg_roles WHERE rolname = 'poiesis_recorder'")
    assert limit > 0
    await owner.close()


async def test_superuser_cannot_log_in_over_the_network(fresh):
    assert fresh.sql("SELECT rolpassword IS NULL FROM pg_authid WHERE rolname = 'postgres'") == "t"
    urls = {"superuser": "postgresql://postgres:removed@db/poiesis"}
    with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError, match=r"pg_hba\.conf rejects"):
        await fresh.connect("superuser", urls)
    await fresh.until_login()  # others can; asyncpg closes the rejected connection meanwhile


async def test_service_roles_cannot_use_large_objects(fresh):
    recorder = await fresh.connect("recorder-dsn")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await recorder.execute("SELECT lo_create(0)")
    await recorder.close()


async def test_changed_passwords_take_effect_without_a_restart(fresh):
    before = dict(fresh.urls)
    assert (await fresh.migrate())[0] == 0
    open_session = await fresh.connect("api-dsn")
    fresh.set_urls(new_urls("1"))
    await fresh.until_login()
    for key in before:
        await (await fresh.connect(key)).close()
        with pytest.raises(asyncpg.InvalidPasswordError):
            await fresh.connect(key, before)
    assert await open_session.fetchval("SELECT count(*) FROM task") == 0
    await open_session.close()
    code, output = await fresh.migrate()
    assert code == 0, output


async def test_password_that_was_set_otherwise_becomes_that_of_the_secret(fresh):
    fresh.sql("ALTER ROLE poiesis_recorder PASSWORD 'other'")
    await fresh.until_login()
    with pytest.raises(asyncpg.InvalidPasswordError):
        await fresh.connect(
            "recorder-dsn", {"recorder-dsn": "postgresql://poiesis_recorder:other@db/poiesis"}
        )
    await fresh.until_login()  # asyncpg closes the rejected connection meanwhile


async def test_renewed_certificate_is_served_without_a_restart(fresh):
    def served() -> bytes:
        return subprocess.run(
            ["openssl", "s_client", "-starttls", "postgres", "-connect", f"localhost:{fresh.port}"],
            capture_output=True, input=b"", check=False,
        ).stdout  # fmt: skip

    session = await fresh.connect("api-dsn")
    fresh.renew()
    await until(lambda: fresh.certificate.strip() in served())
    assert await session.fetchval("SELECT 1") == 1
    await session.close()
    await (await fresh.connect("api-dsn")).close()


async def test_password_that_a_url_must_encode_is_reported(fresh):
    before = dict(fresh.urls)
    fresh.set_urls({**before, "api-dsn": "postgresql://poiesis_api:p%40ss@db/poiesis"})
    await fresh.until_logged("the password in api-dsn must consist of letters, digits")
    assert "p%40ss" not in fresh.logs()
    await (await fresh.connect("api-dsn", before)).close()


@pytest.fixture
async def old(pod: Pod) -> AsyncIterator[Pod]:
    """A stopped Pod with the data of an earlier chart, whose owner was the superuser."""
    pod.set_urls(OLD_URLS)
    pod.start(owner="poiesis", password="old-owner", roles=False)
    await pod.until_login("migrations-dsn")
    code, output = await pod.migrate()
    assert code == 0, output
    pod.sql(
        "CREATE SCHEMA site; CREATE TABLE site.kept AS SELECT 7 AS n; CREATE VIEW site.v AS TABLE site.kept",
        "poiesis",
    )
    pod.sql("CREATE TYPE site.pair AS (a int, b int); CREATE SEQUENCE site.s", "poiesis")
    pod.sql("CREATE TABLE site.numbered (id serial, other int GENERATED ALWAYS AS IDENTITY)", "poiesis")
    pod.stop()
    return pod


def of_superuser(pod: Pod) -> list[str]:
    """Return what the superuser owns in the database, except for the system's own objects."""
    found = pod.sql(
        """SELECT 'relation ' || oid::regclass FROM pg_class
            WHERE relowner = 10 AND oid >= 16384 AND relnamespace <> 'pg_toast'::regnamespace
           UNION ALL SELECT 'type ' || oid::regtype FROM pg_type WHERE typowner = 10 AND oid >= 16384
           UNION ALL SELECT 'routine ' || oid::regprocedure FROM pg_proc WHERE proowner = 10 AND oid >= 16384
           UNION ALL SELECT 'schema ' || nspname FROM pg_namespace WHERE nspowner = 10 AND oid >= 16384
           UNION ALL SELECT 'database' FROM pg_database WHERE datname = 'poiesis' AND datdba = 10"""
    )
    return found.splitlines()


async def test_data_directory_of_an_earlier_chart_gets_an_owner_without_superuser(old):
    old.start()
    await old.until_logged(READY)
    assert old.sql("SELECT rolsuper FROM pg_roles WHERE rolname = 'poiesis'", "poiesis") == "f"
    assert of_superuser(old) == []
    assert old.sql("SELECT count(*) FROM pg_roles WHERE rolname = 'poiesis_conversion'") == "0"
    assert old.sql("SELECT n FROM site.v", "poiesis") == "7"
    code, output = await old.migrate()
    assert code == 0, output
    api = await old.connect("api-dsn")
    assert await api.fetchval("SELECT count(*) FROM task") == 0
    await api.close()
    with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
        await old.connect("x", {"x": "postgresql://postgres:old-owner@db/poiesis"})
    old.stop()
    old.start()  # finds nothing to convert
    await old.until_logged(READY)
    assert "converting" not in old.logs()
    assert of_superuser(old) == []


async def test_conversion_that_was_interrupted_is_completed(old):
    old.start(roles=False)
    await old.until_login("migrations-dsn")
    old.sql("CREATE ROLE poiesis_conversion SUPERUSER LOGIN", "poiesis")
    old.stop()
    old.start()
    await old.until_logged(READY)
    assert of_superuser(old) == []
    assert old.sql("SELECT count(*) FROM pg_roles WHERE rolname = 'poiesis_conversion'") == "0"


async def test_conversion_waits_for_a_transaction_of_a_client(old):
    old.start(roles=False)
    await old.until_login("migrations-dsn")
    session = await old.connect("api-dsn")
    transaction = session.transaction()
    await transaction.start()
    await session.fetchval("SELECT count(*) FROM task")
    old.start_roles()
    await old.until_logged("canceling statement due to lock timeout")
    await transaction.rollback()
    await old.until_logged(READY)
    assert of_superuser(old) == []
    assert await session.fetchval("SELECT count(*) FROM task") == 0
    await session.close()
