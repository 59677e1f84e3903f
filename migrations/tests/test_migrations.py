"""The run as the image does it, on a real Postgres."""

import asyncio
import base64
import hashlib
import hmac
import json
import shutil
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import asyncpg
import pytest

pytestmark = pytest.mark.integration

TABLES = [
    *(
        "backend_parameter",
        "claim_turn",
        "executor",
        "executor_env",
        "executor_log",
        "filer_log",
        "input",
        "output",
        "output_file_log",
    ),
    "owner_turn",
    *("schema_migrations", "system_log", "task", "task_log", "task_tag", "volume"),
]
PUBLIC_TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"
VERIFIER = "SELECT rolpassword FROM pg_authid WHERE rolname = $1"
SERVICE_ROLES = """
DO $$ BEGIN CREATE ROLE poiesis_api; EXCEPTION WHEN duplicate_object THEN END $$;
DO $$ BEGIN CREATE ROLE poiesis_recorder; EXCEPTION WHEN duplicate_object THEN END $$;
"""


async def tables(dsn: str) -> list[str]:
    db = await asyncpg.connect(dsn)
    try:
        return [row[0] for row in await db.fetch(PUBLIC_TABLES)]
    finally:
        await db.close()


def opens(verifier: str, password: str) -> bool:
    """Whether a SCRAM-SHA-256 verifier (RFC 5803) was made of this password."""
    _, iterations_salt, keys = verifier.split("$")
    iterations, salt = iterations_salt.split(":")
    stored, _ = keys.split(":")
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(salt), int(iterations))
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    return base64.b64encode(hashlib.sha256(client_key).digest()).decode() == stored


async def test_an_empty_database_gets_the_schema(database, run):
    code, output = await run()
    assert (code, await tables(database)) == (0, TABLES), output


async def test_a_second_run_changes_nothing(database, run):
    await run()
    code, output = await run()
    assert (code, await tables(database)) == (0, TABLES), output
    assert "Applying" not in output


async def test_runs_at_the_same_time_take_turns(database, run):
    ended = await asyncio.gather(*(run() for _ in range(4)))
    assert [code for code, _ in ended] == [0, 0, 0, 0], ended
    assert sum(output.count("Applied: 0001_task.sql") for _, output in ended) == 1


async def test_the_schema_goes_down_and_up_again(database, run):
    await run()
    dbmate = shutil.which("dbmate", path=f"{Path(sys.executable).parent}")
    assert dbmate is not None
    arguments = (dbmate, "--no-dump-schema", "--migrations-dir", str(Path(__file__).parents[1]))
    url = f"{database}?sslmode=prefer"
    for _ in Path(__file__).parents[1].glob("*.sql"):
        code, output = await run(*arguments, "down", DATABASE_URL=url)
        assert code == 0, output
    assert await tables(database) == ["schema_migrations"]
    code, output = await run()
    assert (code, await tables(database)) == (0, TABLES), output


async def test_a_database_of_an_earlier_release_is_migrated_and_keeps_its_tasks(
    database, run, environment, tmp_path
):
    for file in sorted(Path(__file__).parents[1].glob("*.sql"))[:-1]:
        shutil.copy(file, tmp_path)
    await run(POIESIS_MIGRATIONS_DIRECTORY=str(tmp_path))
    insert = "INSERT INTO task (id, owner, recorder_token_hash) VALUES (gen_random_uuid(), $1, $2)"
    api = await asyncpg.connect(database)
    await api.execute(insert, "before", b"x")
    code, output = await run()
    assert code == 0, output
    await api.execute(insert, "an old api, meanwhile", b"x")
    rows = await api.fetch("SELECT owner, s3_credentials FROM task ORDER BY seq")
    await api.close()
    assert [tuple(row) for row in rows] == [("before", []), ("an old api, meanwhile", [])]


async def test_the_services_log_in_with_the_passwords_of_their_dsns(db, environment):
    for name, role in (("POIESIS_API_DSN", "poiesis_api"), ("POIESIS_RECORDER_DSN", "poiesis_recorder")):
        service = await asyncpg.connect(environment[name])
        assert await service.fetchval("SELECT current_user") == role
        await service.close()
        verifier = await db.fetchval(VERIFIER, role)
        assert opens(verifier, unquote(urlsplit(environment[name]).password or ""))


async def test_a_changed_password_in_the_secret_reaches_the_database(db, run, environment):
    dsn = urlsplit(environment["POIESIS_API_DSN"])
    changed = dsn._replace(netloc=dsn.netloc.replace(str(dsn.password), "another")).geturl()
    code, output = await run(POIESIS_API_DSN=changed)
    assert code == 0, output
    assert opens(await db.fetchval(VERIFIER, "poiesis_api"), "another")


async def test_another_login_role_is_made_a_member(db, run, environment, role):
    user = await role("LOGIN PASSWORD 'x'")
    code, output = await run(POIESIS_API_DSN=environment["POIESIS_API_DSN"].replace("poiesis_api", user))
    assert code == 0, output
    assert await db.fetchval("SELECT pg_has_role($1, 'poiesis_api', 'USAGE')", user) is True


async def test_the_recorder_gets_the_connections_that_the_services_leave(db, run, environment):
    limit = "SELECT rolconnlimit FROM pg_roles WHERE rolname = 'poiesis_recorder'"
    most, reserved = [
        int(await db.fetchval(f"SHOW {name}"))
        for name in ("max_connections", "superuser_reserved_connections")
    ]
    code, output = await run(POIESIS_SERVICE_CONNECTIONS="20")
    assert (code, await db.fetchval(limit)) == (0, most - reserved - 25), output
    code, output = await run(POIESIS_RECORDER_CONNECTIONS="7")
    assert (code, await db.fetchval(limit)) == (0, 7), output


async def test_the_recorder_can_hold_nothing_of_others(db, environment):
    recorder = await asyncpg.connect(environment["POIESIS_RECORDER_DSN"])
    for statement in (
        "CREATE TEMPORARY TABLE t (n integer)",
        "CREATE TABLE t (n integer)",
        "SELECT lo_from_bytea(0, 'x')",
        "SELECT lo_create(0)",
        "SELECT lo_creat(-1)",
        "SELECT FROM claim_turn FOR UPDATE",
        "SELECT FROM owner_turn FOR UPDATE",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await recorder.execute(statement)
    assert await recorder.fetchval("SHOW idle_in_transaction_session_timeout") == "15s"
    assert await recorder.fetchval("SHOW statement_timeout") == "20s"
    assert await recorder.fetchval("SHOW tcp_keepalives_idle") == "10"
    await recorder.close()


async def test_a_user_that_does_not_exist_is_named(run, environment):
    dsn = environment["POIESIS_API_DSN"].replace("poiesis_api", "nobody_such")
    code, output = await run(POIESIS_API_DSN=dsn)
    assert code == 1
    assert "the DSN names user nobody_such, which does not exist" in output


async def test_a_recorder_that_could_read_tables_is_refused(run, environment, database):
    code, output = await run(POIESIS_RECORDER_DSN=database)
    assert code == 1
    assert "has rights on the task table: its DSN is in every task's Pod" in output


async def test_an_owner_without_createrole_is_told_what_to_run(
    database, run, environment, role, postgres_server
):
    owner = await role("LOGIN PASSWORD 'x'")
    admin = await asyncpg.connect(postgres_server)
    await admin.execute(f'ALTER DATABASE "{urlsplit(database).path[1:]}" OWNER TO {owner}')
    await admin.execute(SERVICE_ROLES)
    await admin.close()
    parts = urlsplit(database)
    as_owner = parts._replace(netloc=f"{owner}:x@{parts.hostname}:{parts.port or 5432}").geturl()
    unreachable = environment["POIESIS_API_DSN"].replace(f":{parts.port or 5432}/", ":1/")
    code, output = await run(POIESIS_MIGRATIONS_DSN=as_owner, POIESIS_API_DSN=unreachable)
    assert code == 1
    assert "Let an administrator run: ALTER ROLE poiesis_api LOGIN PASSWORD" in output
    assert await tables(database) == TABLES


async def test_a_database_that_does_not_answer_is_waited_for_and_then_named(run, environment):
    code, output = await run(
        POIESIS_MIGRATIONS_DSN="postgresql://u:hidden@127.0.0.1:1/none", POIESIS_MIGRATIONS_WAIT_SECONDS="1"
    )
    assert code == 1
    assert "unable to connect to database" in output
    assert "hidden" not in output


async def test_a_missing_dsn_ends_the_run_with_2(run):
    code, output = await run(POIESIS_RECORDER_DSN="")
    line = json.loads(output)
    assert (code, line["level"], line["message"]) == (2, "ERROR", "cannot start")
    assert line["error"] == "POIESIS_RECORDER_DSN is not set"
