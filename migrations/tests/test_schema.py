"""What the schema itself rejects, for every role that writes to it."""

import asyncio
import hashlib
import json
from uuid import UUID, uuid4

import asyncpg
import pytest
import pytest_asyncio

pytestmark = pytest.mark.integration

TOKEN = "the token of this task"
_ASK = "UPDATE task SET cancel_requested_at = now(), cancel_requested_by = 'me'"
REPORT = {
    "pod_uid": "uid-1",
    "pod_name": "poiesis-x-abcde",
    "node": "node-1",
    "state": "RUNNING",
    "executors": [{"index": 0, "start_ns": 1_700_000_000_000_000_000, "stdout": "hello"}],
    "system_logs": [{"key": "pulled", "at_ns": 1_700_000_000_000_000_000, "message": "image pulled"}],
}


@pytest_asyncio.fixture
async def task(db: asyncpg.Connection) -> UUID:
    """A submitted task with one executor."""
    task = uuid4()
    await db.execute(
        "INSERT INTO task (id, owner, submitted_at, recorder_token_hash) VALUES ($1, 'someone', now(), $2)",
        task,
        hashlib.sha256(TOKEN.encode()).digest(),
    )
    await db.execute(
        "INSERT INTO executor (task_id, index, image, command) VALUES ($1, 0, 'x', '{true}')", task
    )
    return task


@pytest_asyncio.fixture
async def recorder(db, environment):
    connection = await asyncpg.connect(environment["POIESIS_RECORDER_DSN"])
    yield connection
    await connection.close()


@pytest_asyncio.fixture
async def api(db, environment):
    connection = await asyncpg.connect(environment["POIESIS_API_DSN"])
    yield connection
    await connection.close()


async def report(recorder, task, token=TOKEN, **changed):
    text = json.dumps(REPORT | changed)
    return tuple(await recorder.fetchrow("SELECT * FROM record_report($1, $2, $3::jsonb)", task, token, text))


async def ask_for_cancel(db, task):
    await db.execute(f"{_ASK}, state = 'CANCELING' WHERE id = $1", task)


async def finish(db, task, state, *, cancel_seen=False):
    statement = "SELECT finish_task($1, $2, NULL, NULL, NULL, 'controller', $3)"
    return await db.fetchval(statement, task, state, cancel_seen)


async def test_the_recorder_reports_by_its_function(db, recorder, task):
    assert await report(recorder, task) == ("RUNNING", False, False)
    log = await db.fetchrow("SELECT attempt, pod_name, node FROM task_log WHERE task_id = $1", task)
    assert tuple(log) == (0, "poiesis-x-abcde", "node-1")
    assert await db.fetchval("SELECT stdout FROM executor_log WHERE task_id = $1", task) == "hello"


async def test_repeated_report_is_stored_once(db, recorder, task):
    await report(recorder, task)
    await report(recorder, task)
    for table in ("task_log", "executor_log", "system_log"):
        assert await db.fetchval(f"SELECT count(*) FROM {table} WHERE task_id = $1", task) == 1  # noqa: S608


async def test_outputs_with_long_paths_are_stored_once(db, recorder, task):
    noise = "".join(hashlib.sha256(str(number).encode()).hexdigest() for number in range(200))
    sent = [{"path": f"/{noise}/{name}", "url": f"s3://b/{noise}/{name}", "size_bytes": 1} for name in "ab"]
    await report(recorder, task, outputs=sent)
    await report(recorder, task, outputs=[sent[0] | {"size_bytes": 2}, sent[1]])
    rows = await db.fetch("SELECT size_bytes FROM output_file_log WHERE task_id = $1 ORDER BY path", task)
    assert [row["size_bytes"] for row in rows] == [2, 1]


def lines(count, **changed):
    return [{"key": str(number), "at_ns": 1, "message": "m"} | changed for number in range(count)]


def outputs(count, start=0, path="/o"):
    return [
        {"path": f"{path}/{n}", "url": f"s3://b/{n}", "size_bytes": 1} for n in range(start, start + count)
    ]


async def logged(db, task):
    rows = await db.fetch("SELECT key, message FROM system_log WHERE task_id = $1 ORDER BY id", task)
    return {row["key"]: row["message"] for row in rows}


async def test_only_inputs_without_a_type_get_one(db, recorder, task):
    sent = [("/none", None), ("/slash/", None), ("/declared", "FILE"), ("/twice", None), ("/odd", None)]
    for index, (path, kind) in enumerate(sent):
        await db.execute(
            "INSERT INTO input (task_id, index, path, url, type) VALUES ($1, $2, $3, 's3://b/k', $4)",
            *(task, index, path, kind),
        )
    found = [
        {"path": "/none", "type": "FILE"},
        {"path": "/slash", "type": "DIRECTORY"},
        {"path": "/declared", "type": "DIRECTORY"},
        {"path": "/odd", "type": "LINK"},
        {"path": "/odd"},
        {"path": "/unknown", "type": "FILE"},
    ]
    assert await report(recorder, task, inputs=found) == ("RUNNING", False, False)
    await report(recorder, task, inputs=[{"path": "/twice", "type": "FILE"}])
    await report(recorder, task, inputs=[{"path": "/twice", "type": "DIRECTORY"}])
    rows = await db.fetch("SELECT path, type::text FROM input WHERE task_id = $1 ORDER BY index", task)
    assert [tuple(row) for row in rows] == [
        ("/none", "FILE"),
        ("/slash/", "DIRECTORY"),
        ("/declared", "FILE"),
        ("/twice", "FILE"),
        ("/odd", None),
    ]


async def test_a_report_changes_no_input_of_another_task(db, recorder, task):
    other = uuid4()
    await db.execute("INSERT INTO task (id, owner, recorder_token_hash) VALUES ($1, 'x', 'x')", other)
    await db.execute("INSERT INTO input (task_id, index, path, url) VALUES ($1, 0, '/a', 'x')", other)
    await report(recorder, task, inputs=[{"path": "/a", "type": "FILE"}])
    assert await db.fetchval("SELECT type FROM input WHERE task_id = $1", other) is None


async def test_lines_of_an_attempt_have_a_bound(db, recorder, task):
    await report(recorder, task, system_logs=lines(600, message="x" * 10_000))
    assert "lines-left-out" not in await logged(db, task)
    assert await report(recorder, task, system_logs=lines(2000)) == ("RUNNING", False, False)
    stored = await logged(db, task)
    assert len(stored) == 1001
    assert "at most 1000 lines" in stored["lines-left-out"]
    assert len(stored["0"]) == 8192
    await report(recorder, task, system_logs=lines(1, key="k" * 3000))  # no index holds that
    assert len(await logged(db, task)) == 1001


async def test_outputs_of_an_attempt_have_a_bound(db, recorder, task):
    count = "SELECT count(*) FROM output_file_log WHERE task_id = $1"
    await report(recorder, task, outputs=outputs(9_500))
    assert "outputs-left-out" not in await logged(db, task)
    await report(
        recorder, task, outputs=outputs(1_000, start=9_000)
    )  # half of them again, as after a restart
    assert await db.fetchval(count, task) == 10_000
    assert "outputs-left-out" in await logged(db, task)  # conservatively
    await report(recorder, task, outputs=outputs(1_000, start=9_500))
    assert await db.fetchval(count, task) == 10_000
    assert "at most 10000 files" in (await logged(db, task))["outputs-left-out"]


async def test_paths_of_outputs_have_a_bound(db, recorder, task):
    count = "SELECT count(*) FROM output_file_log WHERE task_id = $1"
    for start in (0, 1000, 2000):
        await report(recorder, task, outputs=outputs(1000, start, path="/" + "p" * 2000))
    assert 2000 < await db.fetchval(count, task) < 2200
    assert "outputs-left-out" in await logged(db, task)


async def test_texts_filers_and_messages_have_a_bound(db, recorder, task):
    executor = {"index": 0, "start_ns": 1, "stdout": "x" * 3_000_000 + "e"}
    filer = {"start_ns": 1, "files": 1, "bytes": 1, "bytes_per_second": 1}
    await report(
        recorder,
        task,
        executors=[executor],
        filers=[filer | {"container": f"c-{number}"} for number in range(300)],
    )
    changed = [filer | {"container": "c-0", "files": 2}, filer | {"container": "new"}]
    ending = {"state": "SYSTEM_ERROR", "message": "m" * 100_000}
    await report(recorder, task, executors=[], filers=changed, ending=ending)

    text = await db.fetchval("SELECT stdout FROM executor_log WHERE task_id = $1", task)
    assert (len(text), text[-1]) == (2 * 1024 * 1024, "e")
    assert await db.fetchval("SELECT count(*) FROM filer_log WHERE task_id = $1", task) == 100
    assert await db.fetchval("SELECT files FROM filer_log WHERE container = 'c-0'") == 2
    assert await db.fetchval("SELECT length(message) FROM task WHERE id = $1", task) == 8192


async def test_late_logs_are_limited_in_time_and_attempt(db, recorder, task):
    await report(recorder, task)
    await report(recorder, task, pod_uid="uid-2", ending={"state": "COMPLETE"})
    other = {"executors": [], "system_logs": lines(1)}
    for uid in ("uid-1", "uid-3"):
        assert await report(recorder, task, pod_uid=uid, **other) == ("COMPLETE", False, True)
    assert set(await logged(db, task)) == {"pulled", "end"}
    assert await db.fetchval("SELECT count(*) FROM task_log WHERE task_id = $1", task) == 2

    executor = REPORT["executors"][0]
    last = "SELECT stdout FROM executor_log WHERE task_id = $1 AND attempt = 1"
    await report(recorder, task, pod_uid="uid-2", executors=[executor | {"stdout": "late"}])
    assert await db.fetchval(last, task) == "late"
    await db.execute("UPDATE task SET ended_at = ended_at - interval '16 minutes' WHERE id = $1", task)
    result = await report(recorder, task, pod_uid="uid-2", executors=[executor | {"stdout": "forged"}])
    assert result == ("COMPLETE", False, True)
    assert await db.fetchval(last, task) == "late"


async def test_first_report_after_the_end_is_stored(db, recorder, task):
    await finish(db, task, "SYSTEM_ERROR")
    await report(recorder, task)
    assert await db.fetchval("SELECT stdout FROM executor_log WHERE task_id = $1", task) == "hello"


STARTED = {"index": 0, "start_ns": 1_700_000_000_000_000_000}
ENDED = STARTED | {"end_ns": 1_700_000_001_000_000_000, "exit_code": 0}
_TEXT = "SELECT stdout FROM executor_log_text WHERE task_id = $1"


def whole(text, end, executor=STARTED):
    return executor | {"stdout": text, "stdout_bytes": end}


def more(text, after):
    return STARTED | {"stdout_more": {"after": after, "text": text}, "stdout_bytes": after + len(text)}


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ([whole("ab", 2), more("cd", 2), more("e", 4)], "abcde"),
        ([whole("ab", 2), more("cd", 2), more("cd", 2)], "abcd"),  # a duplicate
        ([whole("ab", 2), more("cd", 2), whole("ab", 2)], "abcd"),  # an older text arrives late
        ([whole("ab", 2), more("ef", 4)], "ab"),  # the piece between is missing
        ([more("cd", 0)], None),
        ([whole("ab", 2), more("cd", 2), whole("[mark] cdef", 6), more("cd", 2)], "[mark] cdef"),
        ([whole("ab", 2), more("cd", 2), whole("abcd", 4, ENDED), whole("bcd", 4)], "abcd"),
        ([whole("cd", 4), whole("abcd", 4, ENDED), more("e", 4)], "abcde"),
        ([whole("", 0), more("a", 0), more("", 1)], "a"),
        ([whole("ab", 2), STARTED | {"stdout": "of the earlier release"}], "of the earlier release"),
        ([whole("ab", 2), STARTED | {"stdout_more": {"after": 2, "text": "c"}}], "ab"),  # without its end
    ],
)
async def test_texts_grow_and_never_shrink(db, recorder, task, sent, stored):
    for one in sent:
        await report(recorder, task, executors=[one])
    assert await db.fetchval(_TEXT, task) == stored


async def test_pieces_of_both_streams_are_independent(db, recorder, task):
    first = whole("o", 1) | {"stderr": "e", "stderr_bytes": 1}
    second = more("p", 1) | {"stderr_more": {"after": 1, "text": "f"}, "stderr_bytes": 2}
    await report(recorder, task, executors=[first])
    await report(recorder, task, executors=[second])
    await report(recorder, task, executors=[whole("op!", 3)])
    row = await db.fetchrow("SELECT stdout, stderr FROM executor_log_text WHERE task_id = $1", task)
    assert tuple(row) == ("op!", "ef")
    assert await db.fetchval("SELECT count(*) FROM executor_log_more") == 1


async def test_pieces_of_a_text_are_limited(db, recorder, task):
    await report(recorder, task, executors=[whole("x", 1)])
    for number in range(1, 210):
        await report(recorder, task, executors=[more("x", number)])
    assert await db.fetchval("SELECT count(*) FROM executor_log_more") == 200
    await report(recorder, task, executors=[whole("x", 1000)])
    await report(recorder, task, executors=[more("x" * (2 * 1024 * 1024 + 1), 1000)])
    assert await db.fetchval(_TEXT, task) == "x"


async def test_report_without_news_writes_no_row(db, recorder, task):
    version = "SELECT xmin::text || ctid::text FROM executor_log WHERE task_id = $1"
    await report(recorder, task, executors=[whole("ab", 2)])
    before = await db.fetchval(version, task)
    await report(recorder, task, executors=[more("cd", 2)])
    assert await db.fetchval(version, task) == before


async def test_deleted_task_leaves_no_pieces(db, recorder, task):
    await report(recorder, task, executors=[whole("ab", 2)])
    await report(recorder, task, executors=[more("cd", 2)])
    await db.execute("DELETE FROM task WHERE id = $1", task)
    assert await db.fetchval("SELECT count(*) FROM executor_log_more") == 0


async def record_executors(connection, task, *executors):
    await connection.execute("SELECT record_executors($1, 0, $2::jsonb)", task, json.dumps(executors))


async def test_an_end_is_stored_once(db, api, recorder, task):
    one = {"index": 0, "start_ns": 10**18, "end_ns": 2 * 10**18, "exit_code": 3}
    await report(recorder, task, executors=[one | {"stdout": "kept"}])
    await record_executors(api, task, one | {"end_ns": 3 * 10**18, "exit_code": 137, "oom": True})
    row = await db.fetchrow(
        "SELECT extract(epoch FROM end_time)::bigint, exit_code, oom, stdout "
        "FROM executor_log WHERE task_id = $1",
        task,
    )
    assert tuple(row) == (2 * 10**9, 3, True, "kept")


USAGE = {
    "user_us": 1,
    "sys_us": 2,
    "peak_memory_bytes": 3,
    "read_bytes": 4,
    "written_bytes": 5,
    "disk_used_bytes": 2**63 - 1,
}
ONE_END = {"index": 0, "start_ns": 10**18, "end_ns": 2 * 10**18, "exit_code": 0}


async def stored_usage(db, task):
    columns = ", ".join(USAGE)
    return dict(await db.fetchrow(f"SELECT {columns} FROM executor_log WHERE task_id = $1", task))  # noqa: S608


async def test_usage_is_stored_with_the_end(db, recorder, task):
    await report(recorder, task)
    await report(recorder, task, executors=[ONE_END | {"usage": USAGE}])
    assert await stored_usage(db, task) == USAGE


async def test_usage_may_follow_an_end_and_is_stored_once(db, api, recorder, task):
    await report(recorder, task, executors=[ONE_END])
    await record_executors(api, task, ONE_END | {"usage": {"user_us": 7}})
    await report(recorder, task, executors=[ONE_END | {"usage": USAGE}])
    assert await stored_usage(db, task) == dict.fromkeys(USAGE) | {"user_us": 7}


@pytest.mark.parametrize("name", USAGE)
async def test_negative_usage_is_rejected(recorder, task, name):
    with pytest.raises(asyncpg.CheckViolationError):
        await report(recorder, task, executors=[ONE_END | {"usage": {name: -1}}])


async def test_unknown_executors_are_ignored(db, api, recorder, task):
    unknown = {"index": 7, "start_ns": 1}
    await report(recorder, task, executors=[unknown])
    await record_executors(api, task, unknown)
    assert await db.fetchval("SELECT count(*) FROM executor_log WHERE task_id = $1", task) == 0


async def test_the_recorder_cannot_store_executors_directly(recorder, task):
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await record_executors(recorder, task)


async def test_first_outcome_is_kept(db, recorder, task):
    assert await report(recorder, task, ending={"state": "COMPLETE"}) == ("COMPLETE", False, True)
    assert await report(recorder, task, ending={"state": "SYSTEM_ERROR"}) == ("COMPLETE", False, True)
    assert await finish(db, task, "SYSTEM_ERROR") is False


async def test_outcome_with_unseen_cancel_is_rejected(db, task):
    await ask_for_cancel(db, task)
    assert await finish(db, task, "COMPLETE") is False
    assert await finish(db, task, "CANCELED", cancel_seen=True) is True


async def test_invalid_token_looks_like_unknown_task(recorder, task):
    for other, token in ((task, "guessed"), (uuid4(), TOKEN)):
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match=r"no task .* with this token"):
            await report(recorder, other, token)


async def test_recorder_may_only_call_its_functions(db):
    assert [
        row[0]
        for row in await db.fetch(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND has_table_privilege("
            "'poiesis_recorder', format('%I.%I', schemaname, tablename), "
            "'SELECT, INSERT, UPDATE, DELETE, TRUNCATE')"
        )
    ] == []
    functions = await db.fetch(
        "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND proname NOT IN "
        "('is_terminal', 'guard_task_state') "
        "AND has_function_privilege('poiesis_recorder', oid, 'EXECUTE')"
    )
    # All need the token of a task.
    assert {row[0] for row in functions} == {"record_report", "gateway_report", "recorder_access"}


async def test_api_finishes_tasks_but_cannot_report(api, task):
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await report(api, task)
    assert await finish(api, task, "SYSTEM_ERROR") is True


@pytest.mark.parametrize("state", ["RUNNING", "QUEUED", "SYSTEM_ERROR", "CANCELING"])
async def test_a_terminal_state_never_changes(db, task, state):
    await finish(db, task, "COMPLETE")
    with pytest.raises(asyncpg.CheckViolationError, match="has ended as COMPLETE"):
        await db.execute("UPDATE task SET state = $2 WHERE id = $1", task, state)


@pytest.mark.parametrize(
    ("before", "after"), [("RUNNING", "INITIALIZING"), ("CANCELING", "RUNNING"), ("CANCELING", "QUEUED")]
)
async def test_a_state_never_goes_back(db, task, before, after):
    await db.execute(f"{_ASK} WHERE id = $1", task)
    await db.execute("UPDATE task SET state = $2 WHERE id = $1", task, before)
    with pytest.raises(asyncpg.CheckViolationError, match=f"cannot go from {before} back to {after}"):
        await db.execute("UPDATE task SET state = $2 WHERE id = $1", task, after)


IMPOSSIBLE = [
    ("UPDATE task SET state = 'COMPLETE'", "check"),  # without an end
    ("UPDATE task SET ended_at = now()", "check"),  # without a terminal state
    ("UPDATE task SET state = 'CANCELING'", "check"),  # no cancel was requested
    ("UPDATE task SET cancel_requested_at = now()", "check"),  # by whom?
    ("UPDATE task SET recorder_token = 'x'", "check"),  # kept after the submission
    ("UPDATE task SET cpu_cores = 0", "check"),
    ("UPDATE task SET ram_gb = 0", "check"),
    ("UPDATE task SET disk_gb = -1", "check"),
    ("UPDATE task SET owner = NULL", "not null"),
    ("UPDATE executor SET command = '{}'", "check"),
    ("UPDATE executor SET image = ''", "check"),
    ("UPDATE executor SET index = -1", "check"),
    ("INSERT INTO executor_log SELECT id, 0, 0, now() FROM task", "foreign key"),  # of no attempt
    ("INSERT INTO task_tag SELECT id, '', 'x' FROM task", "check"),
    ("INSERT INTO input (task_id, index, path) SELECT id, 0, '/a' FROM task", "check"),
    ("INSERT INTO input (task_id, index, path, url) SELECT id, 0, 'a', 'x' FROM task", "check"),
    (
        "INSERT INTO input (task_id, index, path, content) SELECT id, 0, '/a', repeat('x', 131073) FROM task",
        "check",
    ),
    ("INSERT INTO output (task_id, index, path, url) SELECT id, 0, '/a', '' FROM task", "check"),
    ("INSERT INTO volume SELECT id, 0, 'data' FROM task", "check"),
    ("INSERT INTO task_log SELECT id, -1, 'uid', 'pod', 'node' FROM task", "check"),
]
VIOLATIONS = {
    "check": asyncpg.CheckViolationError,
    "not null": asyncpg.NotNullViolationError,
    "foreign key": asyncpg.ForeignKeyViolationError,
}


@pytest.mark.parametrize(("statement", "violated"), IMPOSSIBLE)
async def test_impossible_row_is_rejected(db, task, statement, violated):
    with pytest.raises(VIOLATIONS[violated]):
        await db.execute(statement)


async def test_deleted_task_deletes_all_its_rows(db, recorder, task):
    await report(recorder, task)
    await db.execute("DELETE FROM task WHERE id = $1", task)
    for table in ("executor", "task_log", "executor_log", "system_log"):
        assert await db.fetchval(f"SELECT count(*) FROM {table}") == 0  # noqa: S608


async def ended_ago(db, task, minutes):
    await db.execute(
        "UPDATE task SET ended_at = now() - make_interval(mins => $2) WHERE id = $1", task, minutes
    )


async def ids(connection, statement, *values):
    return [row[0] for row in await connection.fetch(statement, *values)]


async def test_task_is_deleted_an_hour_after_its_end(db, api, task):
    delete = "SELECT delete_ended_tasks($1)"
    assert await ids(api, delete, [task]) == []
    await finish(db, task, "COMPLETE")
    for minutes, deleted in ((0, []), (59, []), (61, [task])):
        await ended_ago(db, task, minutes)
        assert await ids(api, delete, [task, uuid4()]) == deleted
    assert await db.fetchval("SELECT count(*) FROM executor") == 0


async def test_logs_are_deleted_once(db, api, recorder, task):
    await report(recorder, task, executors=[whole("ab", 2)])
    await report(recorder, task, executors=[more("cd", 2)])
    delete = "SELECT delete_logs($1, 'deleted')"
    assert await ids(api, delete, [task]) == []
    await finish(db, task, "SYSTEM_ERROR")
    await ended_ago(db, task, 59)
    assert await ids(api, delete, [task]) == []
    await ended_ago(db, task, 61)
    assert await ids(api, delete, [task]) == [task]
    assert await ids(api, delete, [task]) == []
    assert await db.fetchval("SELECT count(*) FROM executor_log_text WHERE stdout IS NOT NULL") == 0
    assert (await logged(db, task))["logs-deleted"] == "deleted"


async def test_task_without_output_gets_no_line_about_logs(db, api, task):
    await finish(db, task, "SYSTEM_ERROR")
    await ended_ago(db, task, 61)
    assert await ids(api, "SELECT delete_logs($1, 'deleted')", [task]) == [task]
    assert "logs-deleted" not in await logged(db, task)


@pytest.mark.parametrize("delete", ["delete_ended_tasks($1)", "delete_logs($1, 'deleted')"])
async def test_locked_task_is_left_out(db, api, task, delete):
    await finish(db, task, "COMPLETE")
    await ended_ago(db, task, 61)
    async with db.transaction():
        await db.execute("SELECT FROM task WHERE id = $1 FOR UPDATE", task)
        assert await asyncio.wait_for(ids(api, f"SELECT {delete}", [task]), 10) == []
    assert await ids(api, f"SELECT {delete}", [task]) == [task]


@pytest.mark.parametrize("table", ["task", "executor", "executor_log", "task_tag", "system_log"])
async def test_services_delete_no_row_themselves(api, recorder, table):
    for connection in (api, recorder):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(f"DELETE FROM {table}")  # noqa: S608


async def test_earlier_release_creates_tasks_in_this_schema(api):
    """0003: what it does not name is NULL, so no other user sees its tasks and no limit counts them."""
    await api.execute(
        "INSERT INTO task (id, owner, recorder_token, recorder_token_hash) VALUES ($1, 'someone', 't', 'h')",
        uuid4(),
    )
    columns = "shared_with, reserved_cpu_cores, reserved_ram_gb, reserved_disk_gb"
    assert tuple(await api.fetchrow(f"SELECT {columns} FROM task")) == (None,) * 4  # noqa: S608


ACCOUNT = "SELECT * FROM task_usage WHERE task_id = $1"
_RESERVE = """
UPDATE task SET reserved_cpu_cores = 2, reserved_ram_gb = 4, reserved_disk_gb = 10, shared_with = 'lab'
 WHERE id = $1
"""


async def test_end_of_a_task_is_accounted(db, recorder, task):
    await db.execute(_RESERVE, task)
    await db.execute("INSERT INTO task_tag (task_id, key, value) VALUES ($1, 'project', 'x')", task)
    await report(recorder, task)
    await db.execute("UPDATE task_log SET start_time = now() - interval '100 s'")
    await db.execute("UPDATE task_log SET end_time = start_time + interval '20 s'")
    await report(
        recorder, task, pod_uid="uid-2", executors=[ONE_END | {"usage": USAGE | {"user_us": 500_000}}]
    )
    await db.execute("UPDATE task_log SET start_time = now() - interval '80 s' WHERE attempt = 1")
    await report(recorder, task, pod_uid="uid-2", ending={"state": "EXECUTOR_ERROR"})
    row = dict(await db.fetchrow(ACCOUNT, task))
    assert (row["owner"], row["shared_with"], row["state"]) == ("someone", "lab", "EXECUTOR_ERROR")
    assert json.loads(row["tags"]) == {"project": "x"}
    assert row["used_cpu_seconds"] == pytest.approx(0.500_002)
    seconds = row["cpu_seconds"] / 2
    assert 100 <= seconds < 160  # of both attempts
    assert (row["ram_gb_seconds"], row["disk_gb_seconds"]) == (
        pytest.approx(4 * seconds),
        pytest.approx(10 * seconds),
    )
    assert row["gpu_seconds"] == 0


async def test_task_without_a_pod_is_accounted_with_nothing(db, task):
    await db.execute(_RESERVE, task)
    assert await finish(db, task, "SYSTEM_ERROR") is True
    row = await db.fetchrow(ACCOUNT, task)
    assert (row["cpu_seconds"], row["used_cpu_seconds"], row["tags"]) == (0, None, None)


async def test_account_outlives_its_task(db, task):
    await finish(db, task, "COMPLETE")
    await db.execute("DELETE FROM task WHERE id = $1", task)
    assert await db.fetchrow(ACCOUNT, task) is not None


async def test_rejected_outcome_is_not_accounted(db, task):
    await ask_for_cancel(db, task)
    await finish(db, task, "COMPLETE")
    assert await db.fetchrow(ACCOUNT, task) is None
