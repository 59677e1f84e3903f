"""Deletion by age on a real Postgres, with and without an archive."""

import gzip
import json
import secrets
from datetime import UTC, datetime, timedelta

import pytest
from tctl_tasks import add_task, logs_of, report

from poiesis_e2e.storage import Endpoint
from poiesis_models.report import ExecutorReport
from poiesis_models.states import TaskOutcome, TesState
from poiesis_tctl import erase, retention_db, tasks_db
from poiesis_tctl.archive import Archive, ArchiveUnavailable, UnusableArchive
from poiesis_tctl.config import Retention
from poiesis_tctl.deletion import Deletion
from poiesis_tctl.erase import EraseRefused
from poiesis_tctl.retention import FIRST, Sweep
from poiesis_tctl.retention_db import RetentionDb

pytestmark = pytest.mark.integration

OLD = Sweep(kind="tasks", state=TesState.COMPLETE, age=timedelta(days=90))
LOGS = Sweep(kind="logs", age=timedelta(days=30))


@pytest.fixture
async def db(controller_dsn, superuser):
    await superuser.execute("DELETE FROM task")
    async with tasks_db.connect(controller_dsn, connections=2, home="tes") as tasks:
        yield RetentionDb(tasks)


def deletion(db, *, kept=(), archive=None):
    return Deletion(db, Retention(), may_delete=lambda task: task.id not in kept, archive=archive)


async def add_ended(superuser, days=91.0, state=TesState.COMPLETE, *, at=None, output="hello", owner="alice"):
    """Add a task that ended `days` ago, or `at` a time."""
    task_id = await add_task(superuser, executors=1)
    ended = ExecutorReport(index=0, start_ns=10**18, end_ns=2 * 10**18, exit_code=0, stdout=output)
    await report(superuser, task_id, executors=(ended,), outcome=TaskOutcome(state=state))
    await superuser.execute(
        "UPDATE task SET ended_at = coalesce($3, now() - $2::interval), owner = $4 WHERE id = $1",
        *(task_id, timedelta(days=days), at, owner),
    )
    return task_id


async def left(superuser):
    return {row["id"] for row in await superuser.fetch("SELECT id FROM task")}


async def test_old_tasks_of_a_state_are_deleted(db, superuser):
    old = [await add_ended(superuser) for _ in range(3)]
    young = await add_ended(superuser, 89)
    failed = await add_ended(superuser, 400, TesState.SYSTEM_ERROR)
    running = await add_task(superuser, state="RUNNING")
    job = deletion(db)
    await job.sweep(OLD)
    assert await left(superuser) == {young, failed, running}
    assert job.counts.deleted["tasks"] == len(old)


async def test_tasks_with_objects_are_kept(db, superuser):
    old = [await add_ended(superuser, 95 - number) for number in range(3)]
    await deletion(db, kept={old[0]}).sweep(OLD)
    assert await left(superuser) == {old[0]}


async def test_only_output_is_deleted_with_the_logs(db, superuser):
    task_id = await add_ended(superuser, 31)
    job = deletion(db)
    for _ in range(2):
        await job.sweep(LOGS)
    row = await superuser.fetchrow("SELECT stdout, exit_code FROM executor_log WHERE task_id = $1", task_id)
    assert tuple(row) == (None, 0)
    assert (await logs_of(superuser, task_id))[-1] == (
        0,
        "logs-deleted",
        "stdout and stderr were deleted 30 days after the end of the task (retention)",
    )
    assert job.counts.deleted["logs"] == 1


@pytest.mark.parametrize(
    ("sql", "values"), [(retention_db._OLD_TASKS, ["COMPLETE"]), (retention_db._OLD_LOGS, [])]
)
async def test_due_tasks_are_found_on_an_index(db, superuser, sql, values):
    await superuser.execute("""
        INSERT INTO task (id, owner, state, recorder_token_hash, ended_at, reported_by)
        SELECT gen_random_uuid(), 'alice', 'COMPLETE', 'h', now() - interval '2 days', 'controller'
          FROM generate_series(1, 5000)
    """)
    await superuser.execute("ANALYZE task")
    given = ["tes", timedelta(days=30), *FIRST, 100, *values]
    plan = "\n".join(row[0] for row in await superuser.fetch(f"EXPLAIN {sql}", *given))
    assert "Index" in plan
    assert "Seq Scan" not in plan


# The archive


@pytest.fixture
def store(s3_endpoint):
    """The environment of an archive, and its bucket."""
    keys = {"access_key": s3_endpoint.access_key, "secret_key": s3_endpoint.secret_key}
    client = Endpoint(url=s3_endpoint.url, pod_url="", **keys).client()
    name = f"archive-{secrets.token_hex(6)}"
    client.create_bucket(Bucket=name)
    env = {
        "AWS_ENDPOINT_URL_S3": s3_endpoint.url,
        "AWS_ACCESS_KEY_ID": s3_endpoint.access_key,
        "AWS_SECRET_ACCESS_KEY": s3_endpoint.secret_key,
    }
    yield Store(client, name, env)
    client.close()


class Store:
    def __init__(self, client, name, env):
        self.client, self.name, self.env = client, name, env

    def archive(self, prefix="poiesis", **env):
        return Archive.from_env(f"s3://{self.name}/{prefix}", self.env | env)

    def objects(self):
        """Return the lines of all objects by key."""
        listed = self.client.list_objects_v2(Bucket=self.name).get("Contents", ())
        return {one["Key"]: self._lines(one["Key"]) for one in listed}

    def _lines(self, key):
        body = self.client.get_object(Bucket=self.name, Key=key)["Body"].read()
        return [json.loads(line) for line in gzip.decompress(body).splitlines()]


DAY = datetime(2020, 2, 29, 12, tzinfo=UTC)


async def test_deleted_tasks_are_archived_by_day(db, superuser, store):
    ids = [str(await add_ended(superuser, at=DAY + timedelta(hours=hours))) for hours in (0, 1, 12)]
    await deletion(db, archive=store.archive()).sweep(OLD)
    first, second = store.objects().items()
    assert [key.rpartition("/")[0] for key, _ in (first, second)] == [
        "poiesis/tasks/2020/02/29",
        "poiesis/tasks/2020/03/01",
    ]
    assert [line["task"]["id"] for _, lines in (first, second) for line in lines] == ids
    (line,) = second[1]
    assert (line["owner"], line["namespace"]) == ("alice", "tes")
    assert line["task"]["logs"][0]["logs"][0]["stdout"] == "hello"
    assert await left(superuser) == set()


async def test_same_batch_is_the_same_object(db, superuser, store):
    for _ in range(2):
        await add_ended(superuser, at=DAY)
    tasks = await db.due(OLD, FIRST, 100)
    for _ in range(2):
        await store.archive().store("tasks", tasks, db.documents([task.id for task in tasks]))
    assert [len(lines) for lines in store.objects().values()] == [2]


async def test_large_batch_is_several_objects(db, superuser, store):
    ids = {str(await add_ended(superuser, at=DAY, output="x" * 30_000)) for _ in range(5)}
    archive = store.archive()
    archive._most_bytes = 50_000
    await deletion(db, archive=archive).sweep(OLD)
    objects = store.objects()
    assert sorted(map(len, objects.values())) == [1, 2, 2]
    assert {line["task"]["id"] for lines in objects.values() for line in lines} == ids
    assert await left(superuser) == set()


async def test_logs_are_archived_before_they_are_deleted(db, superuser, store):
    await add_ended(superuser, at=DAY)
    await deletion(db, archive=store.archive("")).sweep(LOGS)
    ((key, (line,)),) = store.objects().items()
    assert key.startswith("logs/2020/02/29/")
    assert line["task"]["logs"][0]["logs"][0]["stdout"] == "hello"


async def test_nothing_is_deleted_without_its_archive(db, superuser, store):
    task_id = await add_ended(superuser)
    job = deletion(db, archive=store.archive(AWS_SECRET_ACCESS_KEY="not-the-key"))
    with pytest.raises(ArchiveUnavailable, match="rejected the service's secret key") as failure:
        await job.sweep(OLD)
    assert "not-the-key" not in str(failure.value)
    assert await left(superuser) == {task_id}


@pytest.mark.parametrize(
    ("url", "env", "message"),
    [
        ("https://b/p", {}, "is not an S3 URL"),
        ("s3://b/p", {}, "needs AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
        ("s3://b/p", {"AWS_ACCESS_KEY_ID": "k"}, "must be set together"),
    ],
)
def test_unusable_archive_is_named(url, env, message):
    with pytest.raises(UnusableArchive, match=f"POIESIS_RETENTION_ARCHIVE.*{message}"):
        Archive.from_env(url, env)


# One owner


async def test_erasure_without_confirmation_counts(db, superuser):
    ids = {await add_ended(superuser, 1), await add_ended(superuser, 2)}
    found = await erase.erase(db, "alice", confirmed=False)
    assert (found.ended, await left(superuser)) == (2, ids)


async def test_erasure_removes_the_owner(db, superuser):
    await add_ended(superuser, 1)
    other = await add_ended(superuser, 1, owner="bob")
    await superuser.execute(
        "UPDATE task SET cancel_requested_at = now(), cancel_requested_by = 'alice' WHERE id = $1", other
    )
    await superuser.execute(
        "INSERT INTO system_log (task_id, source, key, message)"
        " VALUES ($1, 'api', 'cancel', 'cancel requested by alice')",
        other,
    )
    await superuser.execute("INSERT INTO owner_turn (owner) VALUES ('alice'), ('bob') ON CONFLICT DO NOTHING")
    await superuser.execute(
        "INSERT INTO task_usage (task_id, ended_at, owner, state,"
        " cpu_seconds, ram_gb_seconds, disk_gb_seconds, gpu_seconds)"
        " SELECT gen_random_uuid(), now(), name, 'COMPLETE', 1, 1, 1, 0"
        " FROM unnest(ARRAY['alice', 'bob']) AS name"
    )
    await erase.erase(db, "alice", confirmed=True)
    assert await left(superuser) == {other}
    assert [row["owner"] for row in await superuser.fetch("SELECT owner FROM task_usage")] == ["bob"]
    assert await superuser.fetchval("SELECT cancel_requested_by FROM task") == "erased"
    assert {row["owner"] for row in await superuser.fetch("SELECT owner FROM owner_turn")} == {"bob"}
    assert [line for line in await logs_of(superuser, other) if "alice" in line[2]] == []


async def test_erasure_waits_for_the_end_of_all_tasks(db, superuser):
    kept = {await add_ended(superuser, 1), await add_task(superuser, state="RUNNING")}
    with pytest.raises(EraseRefused, match=r"^1 tasks of 'alice' have not ended; cancel them first$"):
        await erase.erase(db, "alice", confirmed=True)
    assert await left(superuser) == kept


async def test_erasure_waits_for_late_reports(db, superuser):
    kept = {await add_ended(superuser, 0.02), await add_ended(superuser, 1)}
    with pytest.raises(EraseRefused, match=r"^1 tasks of 'alice' ended less than an hour ago; wait an hour$"):
        await erase.erase(db, "alice", confirmed=True)
    assert await left(superuser) == kept


def test_command_logs_counts(controller_dsn, monkeypatch, capfd):
    monkeypatch.setenv("POIESIS_DSN", controller_dsn)
    assert erase.main(["carol"]) == 0
    line = json.loads(capfd.readouterr().err)
    assert (line["message"], line["owner"], line["tasks"]) == (
        "found tasks; add --confirm to erase them",
        "carol",
        0,
    )


def test_command_does_not_log_its_dsn(monkeypatch, capfd):
    monkeypatch.setenv("POIESIS_DSN", "mysql://u:secret@db")
    assert erase.main(["carol"]) == 2
    assert "secret" not in capfd.readouterr().err
