"""The run as the image does it, on a real Postgres."""

import asyncio
import base64
import hashlib
import hmac
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

import asyncpg
import pytest

SQL_DIRECTORY = Path(__file__).parents[1]
pytestmark = pytest.mark.integration

TABLES = [
    *(
        "backend_parameter",
        "claim_turn",
        "executor",
        "executor_env",
        "executor_log",
        "executor_log_more",
        "filer_log",
        "input",
        "outcome_count",
        "output",
        "output_file_log",
    ),
    *("owner_turn", "phase_count"),
    *("schema_migrations", "system_log", "task", "task_end", "task_log", "task_tag", "task_usage", "volume"),
]
PUBLIC_TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"
RIGHTS = {
    "poiesis_api": {
        "is_terminal",
        "guard_task_state",
        "delete_ended_tasks",
        "delete_logs",
        "finish_task",
        "from_ns",
        "record_executors",
        "record_text",
    },
    "poiesis_recorder": {
        "is_terminal",
        "guard_task_state",
        "record_report",
        "gateway_report",
        "recorder_access",
    },
}
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


async def functions(dsn: str) -> dict[str, str]:
    """Their definitions by signature, in order."""
    db = await asyncpg.connect(dsn)
    try:
        return {
            row["signature"]: row["text"]
            for row in await db.fetch(
                "SELECT oid::regprocedure::text AS signature, pg_get_functiondef(oid) AS text FROM pg_proc "
                "WHERE pronamespace = 'public'::regnamespace ORDER BY 1"
            )
        }
    finally:
        await db.close()


async def identities(dsn: str) -> list[int]:
    db = await asyncpg.connect(dsn)
    try:
        return [
            row["oid"]
            for row in await db.fetch(
                "SELECT oid FROM pg_proc WHERE pronamespace = 'public'::regnamespace ORDER BY oid"
            )
        ]
    finally:
        await db.close()


async def rights(dsn: str) -> dict[str, set[str]]:
    """The functions that each service may call."""
    db = await asyncpg.connect(dsn)
    query = (
        "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace "
        "AND has_function_privilege($1, oid, 'EXECUTE')"
    )
    try:
        return {
            role: {row["proname"] for row in await db.fetch(query, role)}
            for role in ("poiesis_api", "poiesis_recorder")
        }
    finally:
        await db.close()


@pytest.fixture
def release(tmp_path: Path) -> Callable[..., Path]:
    """The SQL of another release: this one's, with other texts of some functions."""

    def release(**texts: str) -> Path:
        directory = tmp_path / "release"
        shutil.copytree(
            SQL_DIRECTORY,
            directory,
            ignore=lambda _, names: [
                name for name in names if not name.endswith(".sql") and name != "functions"
            ],
        )
        for name, text in texts.items():
            (directory / "functions" / f"{name}.sql").write_text(text)
        return directory

    return release


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
    assert "applied" not in output


async def test_runs_at_the_same_time_take_turns(database, run):
    ended = await asyncio.gather(*(run() for _ in range(4)))
    assert [code for code, _ in ended] == [0, 0, 0, 0], ended
    assert sum(output.count("applied 0001_task.sql") for _, output in ended) == 1


async def test_the_schema_goes_down_and_up_again(database, run):
    await run()
    for file in sorted(SQL_DIRECTORY.glob("*.sql"), reverse=True)[1:]:
        code, output = await run("down", file.name.partition("_")[0])
        assert code == 0, output
    code, output = await run("down", "0000")
    assert (code, await tables(database)) == (0, ["schema_migrations"]), output
    code, output = await run()
    assert (code, await tables(database)) == (0, TABLES), output


async def test_down_to_an_unknown_version_changes_nothing(database, run):
    await run()
    code, output = await run("down", "0815")
    assert (code, await tables(database)) == (1, TABLES)
    assert "no applied migration '0815' (applied: 0001, 0002," in output


async def test_down_leaves_migrations_of_a_newer_release(run, release):
    newer = release()
    (newer / "9999_newer.sql").write_text(
        "-- migrate:up\nCREATE TABLE newer ();\n-- migrate:down\nDROP TABLE newer;\n"
    )
    assert (await run(POIESIS_MIGRATIONS_DIRECTORY=str(newer)))[0] == 0
    code, output = await run("down", "0000")
    assert code == 1
    assert "migration 9999 is of a newer release" in output
    assert (await run())[0] == 0  # as after `helm rollback`


@pytest.mark.parametrize("arguments", [("up",), ("down",), ("down", "0001", "0002")])
async def test_unknown_arguments_exit_with_2(run, arguments):
    code, output = await run(*arguments)
    assert code == 2
    assert "usage: python -m poiesis_migrations [down VERSION]" in output


async def test_a_failed_migration_undoes_the_whole_run(database, run, release):
    broken = release(
        from_ns="CREATE OR REPLACE FUNCTION from_ns(ns bigint) RETURNS timestamptz RETURN now();"
    )
    (broken / "9998_good.sql").write_text(
        "-- migrate:up\nCREATE TABLE good ();\n-- migrate:down\nDROP TABLE good;\n"
    )
    (broken / "functions" / "zz.sql").write_text("CREATE FUNCTION zz() RETURNS integer RETURN nothing;")
    await run()
    before = await functions(database)
    code, output = await run(POIESIS_MIGRATIONS_DIRECTORY=str(broken))
    assert (code, await tables(database)) == (1, TABLES)
    assert "functions/zz.sql: column" in output
    assert await functions(database) == before


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("SELECT 1;", "must have a part migrate:up, followed by a part migrate:down"),
        ("-- migrate:down\n-- migrate:up\n", "must have a part migrate:up, followed by a part migrate:down"),
        ("-- migrate:up\nCREATE x ();\n-- migrate:down\n", "syntax error at or near"),
    ],
)
async def test_a_migration_with_an_error_is_named(run, release, text, complaint):
    broken = release()
    (broken / "9999_broken.sql").write_text(text)
    code, output = await run(POIESIS_MIGRATIONS_DIRECTORY=str(broken))
    assert code == 1
    assert "9999_broken.sql" in output
    assert complaint in output


async def test_a_changed_function_needs_no_migration(database, run, release):
    await run()
    before = await functions(database)
    changed = release(
        from_ns="CREATE OR REPLACE FUNCTION from_ns(ns bigint) RETURNS timestamptz RETURN now();"
    )
    code, output = await run(POIESIS_MIGRATIONS_DIRECTORY=str(changed))
    assert code == 0, output
    assert "applied" not in output
    after = await functions(database)
    assert after.keys() == before.keys()
    assert [name for name in after if after[name] != before[name]] == ["from_ns(bigint)"]
    assert await rights(database) == RIGHTS


async def test_replaced_functions_keep_their_identity(database, run):
    """A session that calls one meanwhile must not find it gone."""
    await run()
    before = await identities(database)
    await run()
    assert await identities(database) == before


@pytest.mark.parametrize(
    ("arguments", "result", "signature"),
    [
        ("p_task uuid, p_token text, p_report jsonb", "text", "record_report(uuid,text,jsonb)"),
        ("p_task uuid, p_report jsonb", "text", "record_report(uuid,jsonb)"),
    ],
    ids=["another result", "other arguments"],
)
async def test_a_changed_signature_replaces_the_old_function(  # noqa: PLR0917
    database, run, release, arguments, result, signature
):
    await run()
    changed = release(
        record_report=f"""
        CREATE OR REPLACE FUNCTION record_report({arguments}) RETURNS {result} RETURN 'new';
        REVOKE ALL ON FUNCTION record_report({signature[14:-1]}) FROM PUBLIC;
        GRANT EXECUTE ON FUNCTION record_report({signature[14:-1]}) TO poiesis_recorder;
        """
    )
    code, output = await run(POIESIS_MIGRATIONS_DIRECTORY=str(changed))
    assert code == 0, output
    assert "dropped record_report(uuid,text,jsonb)" in output
    assert [name for name in await functions(database) if "record_report" in name] == [signature]
    assert (await rights(database))["poiesis_recorder"] == RIGHTS["poiesis_recorder"]


async def test_a_file_may_define_two_signatures(database, run, release):
    await run()
    text = (SQL_DIRECTORY / "functions/record_report.sql").read_text()
    both = release(
        record_report=f"""{text}
        CREATE OR REPLACE FUNCTION record_report(p_task uuid, p_report jsonb) RETURNS text RETURN 'new';
        """
    )
    for _ in range(2):
        code, output = await run(POIESIS_MIGRATIONS_DIRECTORY=str(both))
        assert code == 0, output
        assert [name for name in await functions(database) if "record_report" in name] == [
            "record_report(uuid,jsonb)",
            "record_report(uuid,text,jsonb)",
        ]


async def test_file_must_define_function_of_its_name(run, release):
    code, output = await run(POIESIS_MIGRATIONS_DIRECTORY=str(release(from_ns="SELECT 1;")))
    assert code == 1
    assert "functions/from_ns.sql must define a function from_ns" in output


async def test_every_function_has_a_file_and_its_rights(database, run):
    """Except is_terminal: a CHECK uses it, so it belongs to its migration."""
    await run()
    names = {signature.partition("(")[0] for signature in await functions(database)}
    assert names == {file.stem for file in (SQL_DIRECTORY / "functions").glob("*.sql")} | {"is_terminal"}
    assert await rights(database) == RIGHTS
    db = await asyncpg.connect(database)
    definers = await db.fetch(
        "SELECT proname, proconfig FROM pg_proc WHERE prosecdef AND pronamespace = 'public'::regnamespace "
        "ORDER BY proname"
    )
    await db.close()
    assert [tuple(row) for row in definers] == [
        (name, ["search_path=pg_catalog, public, pg_temp"])
        for name in ("delete_ended_tasks", "gateway_report", "record_report", "recorder_access")
    ]


async def test_database_of_earlier_release_keeps_its_tasks(database, run, environment, tmp_path):
    for file in sorted(SQL_DIRECTORY.glob("*.sql"))[:-1]:
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


async def test_services_log_in_with_passwords_of_dsns(db, environment):
    for name, role in (("POIESIS_API_DSN", "poiesis_api"), ("POIESIS_RECORDER_DSN", "poiesis_recorder")):
        service = await asyncpg.connect(environment[name])
        assert await service.fetchval("SELECT current_user") == role
        await service.close()
        verifier = await db.fetchval(VERIFIER, role)
        assert opens(verifier, unquote(urlsplit(environment[name]).password or ""))


async def test_changed_password_is_set_in_the_database(db, run, environment):
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


async def test_recorder_gets_the_remaining_connections(db, run, environment):
    limit = "SELECT rolconnlimit FROM pg_roles WHERE rolname = 'poiesis_recorder'"
    most, reserved = [
        int(await db.fetchval(f"SHOW {name}"))
        for name in ("max_connections", "superuser_reserved_connections")
    ]
    code, output = await run(POIESIS_SERVICE_CONNECTIONS="20")
    assert (code, await db.fetchval(limit)) == (0, most - reserved - 25), output
    code, output = await run(POIESIS_RECORDER_CONNECTIONS="7")
    assert (code, await db.fetchval(limit)) == (0, 7), output


async def test_recorder_cannot_hold_locks_or_space(db, environment):
    recorder = await asyncpg.connect(environment["POIESIS_RECORDER_DSN"])
    for statement in (
        "CREATE TEMPORARY TABLE t (n integer)",
        "CREATE TABLE t (n integer)",
        "SELECT lo_from_bytea(0, 'x')",
        "SELECT lo_create(0)",
        "SELECT lo_creat(-1)",
        "SELECT FROM claim_turn FOR UPDATE",
        "SELECT FROM owner_turn FOR UPDATE",
        "SELECT FROM executor_log_text",
        "DELETE FROM executor_log_more",
        "LOCK TABLE schema_migrations IN ACCESS SHARE MODE",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with recorder.transaction():
                await recorder.execute(statement)
    assert await recorder.fetchval("SHOW idle_in_transaction_session_timeout") == "15s"
    assert await recorder.fetchval("SHOW statement_timeout") == "20s"
    assert await recorder.fetchval("SHOW tcp_keepalives_idle") == "10"
    await recorder.close()


async def test_advisory_locks_of_the_recorder_delay_no_run(db, run, environment):
    """Any role of a database can take advisory locks, so nothing depends on them."""
    recorder = await asyncpg.connect(environment["POIESIS_RECORDER_DSN"])
    await recorder.execute("SELECT pg_advisory_lock(key) FROM unnest(ARRAY[1886349669, 7053477]) key")
    code, output = await asyncio.wait_for(run(), 30)
    assert code == 0, output
    await recorder.close()


async def test_a_user_that_does_not_exist_is_named(run, environment):
    dsn = environment["POIESIS_API_DSN"].replace("poiesis_api", "no_such_user")
    code, output = await run(POIESIS_API_DSN=dsn)
    assert code == 1
    assert "the DSN names user no_such_user, which does not exist" in output


async def test_recorder_that_could_read_tables_is_rejected_and_unchanged(run, database, postgres_server):
    settings = "SELECT rolconfig FROM pg_roles WHERE rolname = current_user"
    admin = await asyncpg.connect(postgres_server)
    await admin.execute("ALTER ROLE CURRENT_USER RESET ALL")
    code, output = await run(POIESIS_RECORDER_DSN=database)
    assert code == 1
    assert "has rights on the task table: its DSN is in every task's Pod" in output
    assert await admin.fetchval(settings) is None
    await admin.close()


async def test_owner_without_createrole_gets_the_statement(database, run, environment, role, postgres_server):
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


async def test_unreachable_database_is_retried_and_then_named(run, environment):
    code, output = await run(
        POIESIS_MIGRATIONS_DSN="postgresql://u:hidden@127.0.0.1:1/none", POIESIS_MIGRATIONS_WAIT_SECONDS="1"
    )
    assert code == 1
    assert "cannot connect as u: " in output
    assert "hidden" not in output


async def test_a_missing_dsn_ends_the_run_with_2(run):
    code, output = await run(POIESIS_RECORDER_DSN="")
    line = json.loads(output)
    assert (code, line["level"], line["message"]) == (2, "ERROR", "cannot start")
    assert line["error"] == "POIESIS_RECORDER_DSN is not set"
