"""Whole runs against the Secrets of a namespace."""

import asyncio
import base64
import json
from datetime import UTC, datetime

import pytest
from secret_server import SecretServer

from poiesis_kube.errors import Refused
from poiesis_setup import __main__ as program
from poiesis_setup.decide import UnusableSecret
from poiesis_setup.document import ConfigError, Document, namespace_of

NOW = datetime(2026, 11, 29, tzinfo=UTC)
DOCUMENT = {
    "authority": "tes-ca",
    "certificates": [
        {"secret": "tes-postgres-tls", "names": ["tes-postgres"]},
        {"secret": "tes-gateway-tls", "names": ["tes-gateway"]},
    ],
    "passwords": [
        {"secret": "tes-postgres", "urls": {"api-dsn": "postgresql://poiesis_api@tes-postgres:5432/poiesis"}},
        {
            "secret": "tes-recorder",
            "urls": {"recorder-dsn": "postgresql://poiesis_recorder@tes-postgres:5432/poiesis"},
        },
    ],
}
ALL = ["tes-ca", "tes-postgres-tls", "tes-gateway-tls", "tes-postgres", "tes-recorder"]


def document(**changed):
    return Document.from_env({"POIESIS_SETUP": json.dumps({**DOCUMENT, **changed})})


async def run(server, **changed):
    async with server.serve() as namespace:
        await program.run(namespace, document(**changed), NOW)


async def test_first_run_creates_every_secret():
    server = SecretServer()
    await run(server)
    assert server.writes == ALL
    assert server.secrets["tes-gateway-tls"]["type"] == "kubernetes.io/tls"
    assert server.secrets["tes-postgres"]["type"] == "Opaque"


async def test_secrets_carry_no_label_that_deployment_tools_track():
    server = SecretServer()
    await run(server)
    for secret in server.secrets.values():
        assert secret["metadata"]["labels"] == {
            "app.kubernetes.io/name": "poiesis",
            "app.kubernetes.io/part-of": "poiesis",
            "app.kubernetes.io/managed-by": "poiesis-setup",
        }


async def test_second_run_writes_nothing():
    server = SecretServer()
    await run(server)
    versions = server.versions()
    await run(server)
    assert server.versions() == versions


async def test_rotation_writes_everything_once():
    server = SecretServer()
    await run(server)
    before = {name: one["data"] for name, one in server.secrets.items()}
    await run(server, rotation="2026-12")
    after = {name: one["data"] for name, one in server.secrets.items()}
    assert [name for name in ALL if before[name] == after[name]] == []
    versions = server.versions()
    await run(server, rotation="2026-12")
    assert server.versions() == versions


async def test_renewal_alone_does_not_mark_passwords_as_rotated():
    server = SecretServer()
    await run(server)
    url = base64.b64encode(b"postgresql://poiesis_api:a@tes-postgres:5432/poiesis?sslmode=disable").decode()
    server.put({**server.secrets["tes-postgres"], "data": {"api-dsn": url}})
    await run(server)
    assert "annotations" not in server.secrets["tes-postgres"]["metadata"]


async def test_loser_of_a_race_takes_what_the_other_run_created():
    server, other = SecretServer(), SecretServer()
    await run(other)

    def create() -> None:
        for secret in other.secrets.values():
            server.put(secret)

    server.before_write = create
    await run(server)
    assert server.writes == []
    assert server.secrets["tes-ca"]["data"] == other.secrets["tes-ca"]["data"]


async def test_concurrent_runs_end_with_one_authority():
    server = SecretServer()
    async with server.serve() as namespace:
        await asyncio.gather(*(program.run(namespace, document(), NOW) for _ in range(5)))
    assert sorted(server.writes) == sorted(ALL)
    authority = server.secrets["tes-ca"]["data"]["ca.crt"]
    assert server.secrets["tes-gateway-tls"]["data"]["ca.crt"] == authority
    assert server.secrets["tes-postgres-tls"]["data"]["ca.crt"] == authority


async def test_concurrent_rotations_rotate_once():
    server = SecretServer()
    await run(server)
    server.writes.clear()
    async with server.serve() as namespace:
        await asyncio.gather(*(program.run(namespace, document(rotation="1"), NOW) for _ in range(5)))
    assert sorted(server.writes) == sorted(ALL)


async def test_secret_that_changes_all_the_time_ends_the_run():
    server = SecretServer()
    await run(server)
    async with server.serve() as namespace:
        # Each write finds that another one was faster.
        def write() -> None:
            server.put(server.secrets["tes-ca"])
            server.before_write = write

        server.before_write = write
        with pytest.raises(Refused):
            await program.run(namespace, document(rotation="1"), NOW)


async def test_missing_secret_of_the_operator_ends_the_run_before_any_write():
    server = SecretServer()
    required = [{"secret": "my-tls", "keys": ["tls.crt"], "value": "postgresql.tlsSecret"}]
    with pytest.raises(UnusableSecret, match=r"postgresql\.tlsSecret: no such Secret: my-tls"):
        await run(server, required=required)
    assert server.writes == []


async def test_foreign_secret_is_left_unchanged():
    server = SecretServer()
    await run(server)
    mine = server.secrets["tes-gateway-tls"]
    server.put({**mine, "metadata": {"name": "tes-gateway-tls", "labels": {}}})
    version = server.versions()["tes-gateway-tls"]
    await run(server, rotation="1")
    assert server.versions()["tes-gateway-tls"] == version


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "POIESIS_SETUP is not set"),
        ("{}", "POIESIS_SETUP: authority: Field required"),
        ('{"authority": "A_B"}', "POIESIS_SETUP: authority: .* got 'A_B'"),
        ('{"authority": "a", "rotation": "a b"}', "POIESIS_SETUP: rotation: .* got 'a b'"),
        (
            '{"authority": "a", "passwords": [{"secret": "s", "urls": {"k": "postgresql://h/db"}}]}',
            r"POIESIS_SETUP: passwords\.0\.urls\.k: must be a URL without a password",
        ),
    ],
)
def test_invalid_document_is_rejected_by_field(text, message):
    with pytest.raises(ConfigError, match=message):
        Document.from_env({"POIESIS_SETUP": text})


def test_namespace_is_required():
    with pytest.raises(ConfigError, match="POD_NAMESPACE must be the name of a namespace, got ''"):
        namespace_of({})
    assert namespace_of({"POD_NAMESPACE": "tes"}) == "tes"


def test_exit_codes(monkeypatch, capsys):
    monkeypatch.delenv("POIESIS_SETUP", raising=False)
    assert program.main(["x"]) == 2
    assert program.main([]) == 2
    assert "POIESIS_SETUP is not set" in capsys.readouterr().err
    monkeypatch.setenv("POIESIS_SETUP", json.dumps(DOCUMENT))
    monkeypatch.setenv("POD_NAMESPACE", "tes")

    async def fail(*_):
        raise UnusableSecret("Secret tes-ca must have the key ca.key")

    monkeypatch.setattr(program, "_connected", fail)
    assert program.main([]) == 1
    assert "must have the key ca.key" in capsys.readouterr().err

    async def work(*_):
        return None

    monkeypatch.setattr(program, "_connected", work)
    assert program.main([]) == 0


async def test_no_value_reaches_the_log(caplog):
    server = SecretServer()
    with caplog.at_level("DEBUG"):
        await run(server)
    values = [
        base64.b64decode(value).decode() for one in server.secrets.values() for value in one["data"].values()
    ]
    assert caplog.records
    assert [value for value in values if value in caplog.text] == []
