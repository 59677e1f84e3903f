"""The statements in a real Postgres."""

import asyncio
import re
from dataclasses import replace
from uuid import uuid4

import pytest
from gateway_fakes import TOKEN, report_of
from gateway_tasks import add_task, end_task

from poiesis_gateway import reports_db
from poiesis_gateway.errors import DatabaseUnavailable, MalformedReport
from poiesis_models.report import ExecutorReport
from poiesis_models.runfiles import ResourceUsage
from poiesis_models.states import TaskOutcome, TesState

pytestmark = pytest.mark.integration

ENDED = ExecutorReport(index=0, start_ns=1, end_ns=2, exit_code=0)
RUNNING = report_of(state=TesState.RUNNING).encode()


@pytest.fixture
async def db(open_reports_db):
    async with open_reports_db() as opened:
        yield opened


async def state_of(superuser, task_id):
    return await superuser.fetchval("SELECT state::text FROM task WHERE id = $1", task_id)


async def test_report_is_applied_by_record_report(db, superuser):
    task_id = await add_task(superuser)
    body = report_of(
        state=TesState.RUNNING, executors=(ExecutorReport(index=0, start_ns=1, stdout="größer\n"),)
    )
    result = await db.report(task_id, TOKEN, body.encode())
    assert (result.closed, result.response.state, result.response.ended) == (False, TesState.RUNNING, False)
    assert await superuser.fetchval("SELECT stdout FROM executor_log WHERE task_id = $1", task_id) == (
        "größer\n"
    )


async def test_outcome_is_applied(db, superuser):
    task_id = await add_task(superuser)
    await db.report(task_id, TOKEN, RUNNING)
    ending = TaskOutcome(state=TesState.COMPLETE)
    result = await db.report(task_id, TOKEN, report_of(ending=ending).encode())
    assert (result.closed, result.response.state, result.response.ended) == (False, TesState.COMPLETE, True)


@pytest.mark.parametrize("own", [True, False])
async def test_unknown_token_changes_nothing(db, superuser, own):
    task_id = await add_task(superuser, token="another") if own else uuid4()
    assert await db.access(task_id, TOKEN) is None
    assert await db.report(task_id, TOKEN, RUNNING) is None
    assert await superuser.fetchval("SELECT count(*) FROM task_log WHERE task_id = $1", task_id) == 0


async def test_access_takes_no_lock(db, superuser):
    task_id = await add_task(superuser)
    async with superuser.transaction():
        await superuser.execute("SELECT 1 FROM task WHERE id = $1 FOR UPDATE", task_id)
        async with asyncio.timeout(2):
            assert (await db.access(task_id, TOKEN)).closed is False
            assert await db.access(task_id, "wrong") is None


@pytest.mark.parametrize(("minutes", "closed"), [(14, False), (16, True)])
async def test_reports_are_refused_15_minutes_after_the_end(db, superuser, minutes, closed):
    task_id = await add_task(superuser)
    await db.report(task_id, TOKEN, RUNNING)
    await end_task(superuser, task_id, minutes_ago=minutes)
    body = report_of(executors=(ExecutorReport(index=0, start_ns=1),)).encode()
    result = await db.report(task_id, TOKEN, body)
    assert (result.closed, result.response.state, result.response.ended) == (closed, TesState.COMPLETE, True)
    assert (await db.access(task_id, TOKEN)).closed is closed
    written = await superuser.fetchval("SELECT count(*) FROM executor_log WHERE task_id = $1", task_id)
    assert written == (0 if closed else 1)


@pytest.mark.parametrize("ended", [False, True])
async def test_only_the_last_pod_may_report(db, superuser, ended):
    task_id = await add_task(superuser)
    await db.report(task_id, TOKEN, RUNNING)
    await db.report(task_id, TOKEN, report_of("pod-2").encode())
    if ended:
        await end_task(superuser, task_id)
    ending = TaskOutcome(state=TesState.EXECUTOR_ERROR)
    earlier = await db.report(task_id, TOKEN, report_of("pod-1", ending=ending).encode())
    assert (earlier.closed, earlier.response.ended) == (True, ended)
    assert await state_of(superuser, task_id) == ("COMPLETE" if ended else "RUNNING")
    last = await db.report(task_id, TOKEN, report_of("pod-2").encode())
    assert last.closed is False


async def test_new_pod_of_an_ended_task_is_refused(db, superuser):
    task_id = await add_task(superuser)
    await db.report(task_id, TOKEN, RUNNING)
    await end_task(superuser, task_id)
    assert (await db.report(task_id, TOKEN, report_of("pod-2").encode())).closed is True
    assert await superuser.fetchval("SELECT count(*) FROM task_log WHERE task_id = $1", task_id) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"no JSON",
        b'{"a": NaN}',
        b"\xff",
        b'"text"',
        b"{}",
        b'{"pod_uid": "\\u0000"}',
        b"[" * 100_000,
        report_of().encode().replace(b'{"pod_uid"', b'{"state":"DONE","pod_uid"'),
        report_of().encode().replace(b'"executors":[]', b'"executors":{}'),
        report_of(executors=(replace(ENDED, usage=ResourceUsage(user_us=-1)),)).encode(),
        report_of(executors=(replace(ENDED, usage=ResourceUsage(read_bytes=2**63)),)).encode(),
    ],
    ids=range(12),
)
async def test_invalid_report_is_malformed(db, superuser, body):
    task_id = await add_task(superuser)
    with pytest.raises(MalformedReport, match="SQLSTATE"):
        await db.report(task_id, TOKEN, body)
    assert (await db.report(task_id, TOKEN, RUNNING)).closed is False


async def test_fault_of_a_report_is_named_without_it_in_the_log(db, superuser):
    task_id = await add_task(superuser)
    with pytest.raises(MalformedReport) as raised:
        await db.report(
            task_id, TOKEN, report_of().replace('{"pod_uid"', '{"state":"DONE","pod_uid"').encode()
        )
    assert str(raised.value) == (
        'Postgres rejects the report: SQLSTATE 22P02: invalid input value for enum tes_state: "DONE"'
    )
    assert raised.value.reason == "Postgres rejects the report: SQLSTATE 22P02"


async def test_lost_connections_are_replaced(db, superuser):
    task_id = await add_task(superuser)
    await asyncio.gather(*(db.access(task_id, TOKEN) for _ in range(4)))
    await superuser.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'poiesis-gateway'"
    )
    for _ in range(4):
        assert (await db.report(task_id, TOKEN, RUNNING)).closed is False


async def test_locked_task_is_retryable(open_reports_db, superuser):
    async with open_reports_db(seconds=0.4) as db:
        task_id = await add_task(superuser)
        async with superuser.transaction():
            await superuser.execute("SELECT 1 FROM task WHERE id = $1 FOR UPDATE", task_id)
            with pytest.raises(DatabaseUnavailable, match="load or a conflict"):
                await db.report(task_id, TOKEN, RUNNING)
        assert (await db.report(task_id, TOKEN, RUNNING)).closed is False


async def test_readonly_postgres_is_retryable(open_reports_db, superuser, postgres_dsn):
    name = re.sub(r".*/", "", postgres_dsn)
    task_id = await add_task(superuser)
    await superuser.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    try:
        async with open_reports_db() as db:
            with pytest.raises(DatabaseUnavailable, match="read-only"):
                await db.report(task_id, TOKEN, RUNNING)
    finally:
        await superuser.execute("SET default_transaction_read_only = off")
        await superuser.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")


async def test_unreachable_postgres_is_retryable(tmp_path):
    dsn_file = tmp_path / "dsn"
    async with reports_db.connect(dsn_file, connections=1, seconds=1) as db:
        for dsn in (None, "", "no URL", "postgresql://u@localhost:1/x", "postgresql://u:p@[/x"):
            if dsn is not None:
                dsn_file.write_text(dsn)
            with pytest.raises(DatabaseUnavailable, match="does not answer"):
                await db.access(uuid4(), TOKEN)


async def test_replaced_dsn_needs_no_restart(superuser, tmp_path, recorder_dsn):
    task_id = await add_task(superuser)
    dsn_file = tmp_path / "dsn"
    dsn_file.write_text("postgresql://poiesis_recorder:old@localhost:1/poiesis")
    async with reports_db.connect(dsn_file, connections=1, seconds=5) as db:
        with pytest.raises(DatabaseUnavailable):
            await db.access(task_id, TOKEN)
        dsn_file.write_text(recorder_dsn)
        assert (await db.access(task_id, TOKEN)).closed is False


async def test_transactions_leave_no_state_in_the_session(db, superuser):
    """PgBouncer in transaction mode gives the same session to others."""
    task_id = await add_task(superuser)
    await db.report(task_id, TOKEN, RUNNING)
    async with db._pool.acquire() as connection:
        state = "SELECT setting = reset_val FROM pg_settings WHERE name = 'statement_timeout'"
        assert await connection.fetchval(state)
        assert await connection.fetchval("SELECT count(*) FROM pg_prepared_statements") == 0
