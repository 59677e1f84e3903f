"""Submission against a real Postgres and a fake Kubernetes: crashes at every step, cancels, refusals."""

import asyncio
import base64
import json
import re
from uuid import UUID

import asyncpg
import pytest
import trustme

from poiesis_api import queue_db, tasks_db
from poiesis_api.config import (
    S3,
    Database,
    Document,
    Recorder,
    RecorderFiles,
    Storage,
    TasksNamespaces,
    UserLimits,
)
from poiesis_api.identity.caller import ANONYMOUS
from poiesis_api.pace import START
from poiesis_api.postgres import open_pool
from poiesis_api.submitter import Submitter, pace_of
from poiesis_api.tasks_db import NewTask
from poiesis_models.tes import TesTaskRequest

pytestmark = pytest.mark.integration

REQUEST = {
    "executors": [{"image": "busybox", "command": ["true"]}],
    "inputs": [{"path": "/data/a", "content": "hello"}],
    "outputs": [{"path": "/data/b", "url": "s3://bucket/b"}],
}
CREATES = ["POST Job", "POST PersistentVolumeClaim", "POST Secret", "POST ServiceAccount"]
QUOTA = {"status": 403, "reason": "Forbidden", "message": 'secrets "x" is forbidden: exceeded quota: all'}


async def create(pool, owner="anonymous", request=REQUEST, credentials=(), namespace=None):
    parsed = TesTaskRequest.model_validate(request)
    new = NewTask(owner=owner, request=parsed, credentials=credentials, namespace=namespace)
    return await tasks_db.create_task(pool, new, UserLimits())


async def submit(submitter):
    """Everything that is due now, to the end."""
    await submitter._submit_due()
    await accepted_parameters(submitter)


async def accepted_parameters(submitter):
    while submitter._at_work:
        await asyncio.wait(submitter._at_work)


async def row(pool, task_id):
    return dict(await pool.fetchrow("SELECT *, state::text FROM task WHERE id = $1", task_id))


async def system_logs(pool, task_id):
    rows = await pool.fetch("SELECT message FROM system_log WHERE task_id = $1 ORDER BY id", task_id)
    return [one["message"] for one in rows]


async def expire_claims(pool):
    await pool.execute("UPDATE task SET claimed_until = now() WHERE claimed_until IS NOT NULL")


async def make_due(pool):
    await pool.execute("UPDATE task SET next_submit_at = now()")


@pytest.fixture
def submitter(pool, kubernetes, config):
    return Submitter(pool, kubernetes.client, config)


async def assert_submitted(pool, kubernetes, task_id):
    """One of everything, owned by the Job, which runs; nothing is left to do."""
    name = f"poiesis-{task_id}"
    (job,) = kubernetes.of_kind("Job")
    assert job["spec"]["suspend"] is False
    owner = [{"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": job["metadata"]["uid"]}]
    nonce = job["metadata"]["labels"]["poiesis.io/nonce"]
    names = {"ServiceAccount": name, "Secret": f"{name}-{nonce}", "PersistentVolumeClaim": name}
    for kind, its_name in names.items():
        (owned,) = kubernetes.of_kind(kind)
        assert (owned["metadata"]["name"], owned["metadata"]["ownerReferences"]) == (its_name, owner)
    sources = job["spec"]["template"]["spec"]["volumes"]
    mounted = re.findall(r'"secret": {"name": "([^"]+)"', json.dumps(sources))
    assert names["Secret"] in mounted
    task = await row(pool, task_id)
    assert task["submitted_at"] is not None
    assert (task["state"], task["claimed_until"], task["recorder_token"]) == ("QUEUED", None, None)


async def test_job_is_unsuspended_after_all_objects_exist(pool, kubernetes, submitter):
    task_id = await create(pool)
    await submit(submitter)

    assert kubernetes.calls[0] == "POST Job"
    assert sorted(kubernetes.calls[:-1]) == CREATES
    assert kubernetes.calls[-1] == "PATCH Job"
    assert kubernetes.bodies[0]["spec"]["suspend"] is True
    await assert_submitted(pool, kubernetes, task_id)


async def test_secret_has_token_whose_hash_is_stored(pool, kubernetes, submitter):
    task_id = await create(pool)
    await submit(submitter)

    (secret,) = kubernetes.of_kind("Secret")
    token = base64.b64decode(secret["data"]["token"]).decode()
    answer = await pool.fetchrow(
        "SELECT state::text FROM record_report($1, $2, $3::text::jsonb)",
        task_id,
        token,
        '{"pod_uid": "u", "pod_name": "p", "node": "n", "state": "RUNNING"}',
    )
    assert answer["state"] == "RUNNING"


async def test_secret_has_current_gateway_authority(pool, kubernetes, config, tmp_path):
    authority = tmp_path / "ca.crt"
    gateway = config.gateway.model_copy(update={"ca_file": str(authority)})
    submitter = Submitter(pool, kubernetes.client, config.model_copy(update={"gateway": gateway}))
    for _ in range(2):
        trustme.CA().cert_pem.write_to_path(authority)
        task_id = await create(pool)
        await submit(submitter)
        secrets = {one["metadata"]["labels"]["poiesis.io/task"]: one for one in kubernetes.of_kind("Secret")}
        copied = base64.b64decode(secrets[str(task_id)]["data"]["gateway-ca"])
        assert copied == authority.read_bytes()


async def test_task_waits_for_an_unreadable_gateway_authority(pool, kubernetes, config, tmp_path, caplog):
    authority = tmp_path / "ca.crt"
    gateway = config.gateway.model_copy(update={"ca_file": str(authority)})
    submitter = Submitter(pool, kubernetes.client, config.model_copy(update={"gateway": gateway}))
    task_id = await create(pool)
    await submit(submitter)
    assert kubernetes.calls == []
    (record,) = (one for one in caplog.records if one.message == "work failed, retrying later")
    assert f"gateway.caFile: cannot use {authority}" in record.error

    trustme.CA().cert_pem.write_to_path(authority)
    await expire_claims(pool)
    await submit(submitter)
    await assert_submitted(pool, kubernetes, task_id)


@pytest.mark.parametrize("call", [*CREATES, "PATCH Job"])
@pytest.mark.parametrize("moment", ["before", "after"])
async def test_task_of_dead_replica_is_continued(pool, kubernetes, config, call, moment):
    task_id = await create(pool)
    first = Submitter(pool, kubernetes.client, config)

    async def die(request):
        if request == call:
            setattr(kubernetes, moment, None)
            for task in first._at_work:
                task.cancel()

    setattr(kubernetes, moment, die)
    await submit(first)
    await expire_claims(pool)
    second = Submitter(pool, kubernetes.client, config)
    await submit(second)
    await second._tidy()

    await assert_submitted(pool, kubernetes, task_id)


async def test_leased_task_is_skipped_until_lease_expires(pool, kubernetes, submitter):
    await create(pool)
    await queue_db.lease_tasks(pool, most=8, max_active=10, seconds=60)
    await submit(submitter)
    assert kubernetes.calls == []
    await expire_claims(pool)
    await submit(submitter)
    assert kubernetes.calls[-1] == "PATCH Job"


@pytest.mark.parametrize("call", CREATES)
async def test_a_cancel_that_comes_during_submission_wins(pool, kubernetes, submitter, call):
    task_id = await create(pool)

    async def cancel(request):
        if request == call:
            outcome = await tasks_db.cancel_task(pool, ANONYMOUS, task_id)
            assert outcome is tasks_db.Cancel.CANCELING

    kubernetes.after = cancel
    await submit(submitter)

    assert (await row(pool, task_id))["state"] == "CANCELED"
    assert kubernetes.objects == {}
    assert "PATCH Job" not in kubernetes.calls


async def test_cancel_between_submission_and_start_leaves_controller(pool, kubernetes, submitter):
    task_id = await create(pool)

    async def cancel(request):
        if request == "PATCH Job":
            kubernetes.before = None
            assert await tasks_db.cancel_task(pool, ANONYMOUS, task_id) is tasks_db.Cancel.CANCELING
            await submitter._delete_canceled(task_id)

    kubernetes.before = cancel
    await submit(submitter)

    task = await row(pool, task_id)
    assert (task["state"], task["claimed_until"]) == ("CANCELING", None)
    assert kubernetes.objects == {}


async def test_failed_job_deletion_is_repeated(pool, kubernetes, submitter, caplog):
    task_id = await create(pool)
    await submit(submitter)
    assert await tasks_db.cancel_task(pool, ANONYMOUS, task_id) is tasks_db.Cancel.CANCELING
    kubernetes.fail("DELETE Job", status=500, reason="InternalError")
    submitter.cancel_soon(task_id)
    await accepted_parameters(submitter)
    assert len(kubernetes.of_kind("Job")) == 1

    await submitter._tidy()
    assert len(kubernetes.of_kind("Job")) == 1, "too soon"
    await pool.execute("UPDATE task SET cancel_requested_at = now() - interval '10 s'")
    await submitter._tidy()
    await accepted_parameters(submitter)
    assert kubernetes.objects == {}
    assert (await row(pool, task_id))["state"] == "CANCELING", "only the controller sees the Pod go"


async def test_cancels_delete_few_jobs_at_a_time(pool, kubernetes, submitter):
    ids = [await create(pool) for _ in range(30)]
    while await pool.fetchval("SELECT count(*) FROM task WHERE submitted_at IS NULL"):
        await submit(submitter)
    waiting, most, go = 0, 0, asyncio.Event()

    async def slow(request):
        nonlocal waiting, most
        if request == "DELETE Job":
            waiting += 1
            most = max(most, waiting)
            await go.wait()
            waiting -= 1

    kubernetes.before = slow
    for task_id in ids:  # each is answered although no Job has gone
        assert await tasks_db.cancel_task(pool, ANONYMOUS, task_id) is tasks_db.Cancel.CANCELING
        submitter.cancel_soon(task_id)
        submitter.cancel_soon(task_id)
    go.set()
    await accepted_parameters(submitter)

    assert 1 <= most <= 4
    assert kubernetes.objects == {}
    assert kubernetes.calls.count("DELETE Job") <= 34


async def test_canceled_task_of_dead_replica_ends(pool, kubernetes, submitter):
    task_id = await create(pool)
    await queue_db.lease_tasks(pool, most=8, max_active=10, seconds=60)
    assert await tasks_db.cancel_task(pool, ANONYMOUS, task_id) is tasks_db.Cancel.CANCELING
    await pool.execute("UPDATE task SET cancel_requested_at = now() - interval '10 s'")

    await submitter._tidy()
    await accepted_parameters(submitter)
    assert (await row(pool, task_id))["state"] == "CANCELING", "its replica may still be at it"
    await expire_claims(pool)
    await submitter._tidy()
    await accepted_parameters(submitter)
    assert (await row(pool, task_id))["state"] == "CANCELED"


PASSING = [
    QUOTA,
    {
        "status": 403,
        "reason": "Forbidden",
        "message": 'jobs.batch is forbidden: User "x" cannot create resource',
    },
    {"status": 401, "reason": "Unauthorized"},
    {"status": 409, "reason": "Conflict", "message": "the object has been modified"},
    {"status": 429, "reason": "TooManyRequests"},
    {"status": 500, "reason": "InternalError", "message": 'failed calling webhook "x": connection refused'},
    {"status": 503, "reason": "ServiceUnavailable"},
    {"status": None, "times": 2},
    {"status": None, "times": 2, "after": True},
]


@pytest.mark.parametrize(
    "trouble", PASSING, ids=lambda trouble: f"{trouble['status']}-{trouble.get('reason')}"
)
@pytest.mark.parametrize("call", ["POST Job", "POST Secret"])
async def test_retryable_rejection_keeps_task_queued(pool, kubernetes, submitter, call, trouble):
    task_id = await create(pool)
    kubernetes.fail(call, **trouble)
    await submit(submitter)
    task = await row(pool, task_id)
    assert (task["state"], task["submitted_at"], task["claimed_until"]) == ("QUEUED", None, None)
    assert await pool.fetchval("SELECT next_submit_at >= created_at + interval '0.5 s' FROM task")
    (line,) = await system_logs(pool, task_id)
    assert line.startswith("Kubernetes rejected the task, retrying: ")

    await make_due(pool)
    await submit(submitter)
    await assert_submitted(pool, kubernetes, task_id)


def paced(pool, kubernetes, config, **bounds):
    """A submitter that adapts to the answers of the fake API server, and its pace."""
    queue = config.queue.model_copy(update=bounds)
    pace = pace_of(queue)
    kubernetes.observers.append(pace.observe)
    config = config.model_copy(update={"queue": queue})
    return Submitter(pool, kubernetes.client, config, pace=pace), pace


@pytest.mark.parametrize("call", ["POST Job", "POST Secret"])
async def test_retry_after_delays_task_and_queue(pool, kubernetes, config, call):
    submitter, pace = paced(pool, kubernetes, config)
    task_id = await create(pool)
    kubernetes.fail(call, status=429, reason="TooManyRequests", retry_after=30)
    await submit(submitter)
    assert await pool.fetchval("SELECT next_submit_at > now() + interval '25 s' FROM task")
    later = await create(pool)
    await submit(submitter)
    assert (await row(pool, later))["submit_attempts"] == 0, "nothing is leased meanwhile"
    assert (pace.to_lease(), submitter.note()) == (0, None)
    assert (await row(pool, task_id))["state"] == "QUEUED"


async def test_retry_after_delays_the_unsuspension(pool, kubernetes, config):
    submitter, _ = paced(pool, kubernetes, config)
    task_id = await create(pool)
    kubernetes.fail("PATCH Job", status=429, reason="TooManyRequests", retry_after=30)
    await submit(submitter)
    task = await row(pool, task_id)
    assert task["submitted_at"] is not None
    assert await pool.fetchval("SELECT claimed_until > now() + interval '25 s' FROM task")
    await expire_claims(pool)
    await submitter._tidy()
    await assert_submitted(pool, kubernetes, task_id)


async def test_quick_answers_raise_the_number_of_submissions(pool, kubernetes, config):
    submitter, pace = paced(pool, kubernetes, config, max_submissions=32, slow_answer_seconds=60)
    for _ in range(3 * START):
        await create(pool)
    while await pool.fetchval("SELECT count(*) FROM task WHERE submitted_at IS NULL"):
        await submit(submitter)
    assert START < pace.limit <= 32


async def test_slow_answers_lower_the_number_of_submissions(pool, kubernetes, config):
    submitter, pace = paced(pool, kubernetes, config, slow_answer_seconds=0.1)

    async def slow(_):
        await asyncio.sleep(0.11)

    kubernetes.before = slow
    for _ in range(START):
        await create(pool)
    await submit(submitter)
    assert pace.limit < START
    assert await pool.fetchval("SELECT count(*) FROM task WHERE submitted_at IS NULL") == 0


NO_FILES = {"executors": [{"image": "busybox", "command": ["true"]}]}
BASIC_CALLS = ["PATCH Job", "POST Job", "POST Secret", "POST ServiceAccount"]
CLAIM_CALLS = [*BASIC_CALLS[:2], "POST PersistentVolumeClaim", *BASIC_CALLS[2:]]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        pytest.param({"volume": {"type": "pvc"}}, [BASIC_CALLS, CLAIM_CALLS], id="claim"),
        pytest.param({"volume": {"type": "emptyDir"}}, [BASIC_CALLS, BASIC_CALLS], id="emptyDir"),
        pytest.param({"volume": {"type": "ephemeral"}}, [BASIC_CALLS, BASIC_CALLS], id="ephemeral"),
        pytest.param(
            {"volume": {"type": "emptyDir"}, "queue": {"kueue_queue_name": "batch"}},
            [BASIC_CALLS[1:], BASIC_CALLS[1:]],
            id="kueue",
        ),
    ],
)
async def test_calls_per_task(pool, kubernetes, config, settings, expected):
    """Of a task without files, and of one with inputs and outputs: each call costs every task."""
    sections = {name: getattr(config, name).model_copy(update=values) for name, values in settings.items()}
    submitter = Submitter(pool, kubernetes.client, config.model_copy(update=sections))
    for document, calls in zip((NO_FILES, REQUEST), expected, strict=True):
        kubernetes.calls.clear()
        await create(pool, request=document)
        await submit(submitter)
        assert sorted(kubernetes.calls) == calls


async def test_cancel_is_one_call(pool, kubernetes, submitter):
    """The controller deletes the Pod, so the api needs no right to read or delete Pods."""
    task_id = await create(pool)
    await submit(submitter)
    before = len(kubernetes.calls)
    assert await tasks_db.cancel_task(pool, ANONYMOUS, task_id) is tasks_db.Cancel.CANCELING
    submitter.cancel_soon(task_id)
    await accepted_parameters(submitter)
    assert kubernetes.calls[before:] == ["DELETE Job"]
    submitter.cancel_soon(task_id)  # repeated until the task has ended
    await accepted_parameters(submitter)
    assert (await row(pool, task_id))["state"] == "CANCELING"


async def test_the_same_refusal_is_told_once(pool, kubernetes, submitter):
    task_id = await create(pool)
    kubernetes.fail("POST Job", **QUOTA, times=3)
    for _ in range(3):
        await make_due(pool)
        await submit(submitter)
    assert len(await system_logs(pool, task_id)) == 1


FINAL = [
    {"status": 400, "reason": "BadRequest", "message": "no"},
    {"status": 422, "reason": "Invalid", "message": "spec.template: Invalid value"},
    {"status": 403, "reason": "Forbidden", "message": "violates PodSecurity"},
    {"status": 500, "reason": "InternalError", "message": "etcdserver: request is too large"},
]


@pytest.mark.parametrize("trouble", FINAL, ids=lambda trouble: trouble["reason"])
@pytest.mark.parametrize("call", ["POST Job", "POST Secret", "PATCH Job"])
async def test_permanent_rejection_ends_task_with_kubernetes_message(
    pool, kubernetes, submitter, call, trouble
):
    task_id = await create(pool)
    kubernetes.fail(call, **trouble)
    await submit(submitter)
    task = await row(pool, task_id)
    assert (task["state"], task["reason"], task["message"]) == (
        "SYSTEM_ERROR",
        trouble["reason"],
        f"Kubernetes rejected the task: {trouble['message']}",
    )
    assert kubernetes.objects == {}


async def test_a_cancel_wins_over_a_refusal(pool, kubernetes, submitter):
    task_id = await create(pool)

    async def cancel(request):
        if request == "POST Job":
            await tasks_db.cancel_task(pool, ANONYMOUS, task_id)

    kubernetes.before = cancel
    kubernetes.fail("POST Job", status=422, reason="Invalid")
    await submit(submitter)
    assert (await row(pool, task_id))["state"] == "CANCELED"


async def test_task_rejected_for_too_long_ends(pool, kubernetes, config):
    limited = config.model_copy(update={"queue": config.queue.model_copy(update={"give_up_seconds": 60})})
    submitter = Submitter(pool, kubernetes.client, limited)
    task_id = await create(pool)
    await pool.execute("UPDATE task SET created_at = now() - interval '61 s'")
    kubernetes.fail("POST Job", **QUOTA)
    await submit(submitter)
    assert (await row(pool, task_id))["state"] == "SYSTEM_ERROR"


async def test_a_webhook_that_strips_the_sidecar_is_seen(pool, kubernetes, submitter):
    def strip(manifest):
        for container in (
            manifest.get("spec", {}).get("template", {}).get("spec", {}).get("initContainers", [])
        ):
            container.pop("restartPolicy", None)
        return manifest

    kubernetes.store = strip
    task_id = await create(pool)
    await submit(submitter)
    task = await row(pool, task_id)
    assert (task["state"], task["reason"]) == ("SYSTEM_ERROR", "RecorderNotASidecar")
    assert kubernetes.objects == {}


async def test_objects_of_a_former_job_are_waited_out(pool, kubernetes, submitter):
    task_id = await create(pool)
    await submit(submitter)
    del kubernetes.objects["Job", f"poiesis-{task_id}"]
    await pool.execute("UPDATE task SET submitted_at = NULL, recorder_token = 'again'")
    await submit(submitter)
    assert (await row(pool, task_id))["submitted_at"] is None
    (line,) = await system_logs(pool, task_id)
    assert line.endswith("of a former Job is still being deleted")


async def test_existing_secret_is_not_read(pool, kubernetes, submitter):
    task_id = await create(pool)
    kubernetes.fail("POST Secret", after=True)  # created, and the response is lost
    await submit(submitter)
    await make_due(pool)
    await expire_claims(pool)
    await submit(submitter)
    await assert_submitted(pool, kubernetes, task_id)
    assert "GET Secret" not in kubernetes.calls


async def test_each_job_has_secrets_of_its_own(pool, kubernetes, submitter):
    task_id = await create(pool)
    kubernetes.fail("POST ServiceAccount", status=503, reason="ServiceUnavailable")
    await submit(submitter)
    (first,) = kubernetes.of_kind("Secret")
    del kubernetes.objects["Job", f"poiesis-{task_id}"]  # its Secret is not collected yet
    await make_due(pool)
    await pool.execute("UPDATE task SET claimed_until = NULL")
    await submit(submitter)
    (job,) = kubernetes.of_kind("Job")
    assert job["metadata"]["labels"]["poiesis.io/nonce"] not in first["metadata"]["name"]


async def test_half_created_job_of_earlier_release_is_replaced(pool, kubernetes, submitter):
    def without_nonce(manifest):
        manifest["metadata"]["labels"].pop("poiesis.io/nonce", None)
        return manifest

    task_id = await create(pool)
    kubernetes.store = without_nonce
    await submit(submitter)
    assert kubernetes.of_kind("Job") == []
    kubernetes.store = lambda manifest: manifest
    await make_due(pool)
    await submit(submitter)
    await assert_submitted(pool, kubernetes, task_id)


async def test_objects_are_created_in_the_tasks_namespace(pool, kubernetes, submitter):
    task_id = await create(pool, namespace="lab-a")
    await submit(submitter)
    await assert_submitted(pool, kubernetes, task_id)
    assert set(kubernetes.namespaces) == {"lab-a"}


async def test_canceled_job_is_deleted_in_its_namespace(pool, kubernetes, submitter):
    task_id = await create(pool, namespace="lab-a")
    await submit(submitter)
    assert await tasks_db.cancel_task(pool, ANONYMOUS, task_id) is tasks_db.Cancel.CANCELING
    submitter.cancel_soon(task_id)
    await accepted_parameters(submitter)
    assert (kubernetes.calls[-1], kubernetes.namespaces[-1]) == ("DELETE Job", "lab-a")
    assert kubernetes.objects == {}


async def test_half_submitted_job_is_unsuspended_in_its_namespace(pool, kubernetes, submitter):
    task_id = await create(pool, namespace="lab-a")
    kubernetes.fail("PATCH Job", status=503, reason="ServiceUnavailable")
    await submit(submitter)
    await expire_claims(pool)
    await submitter._tidy()
    await assert_submitted(pool, kubernetes, task_id)
    assert set(kubernetes.namespaces) == {"lab-a"}


async def test_rejected_job_is_deleted_in_its_namespace(pool, kubernetes, submitter):
    await create(pool, namespace="lab-a")
    kubernetes.fail("PATCH Job", status=422, reason="Invalid")
    await submit(submitter)
    assert kubernetes.objects == {}


async def test_queued_task_of_earlier_release_gets_the_default_namespace(pool, kubernetes, config):
    tasks = TasksNamespaces(namespace="tes-tasks")
    submitter = Submitter(pool, kubernetes.client, config.model_copy(update={"tasks": tasks}))
    fresh = await create(pool)
    await submit(submitter)
    assert (await row(pool, fresh))["namespace"] == "tes-tasks"
    assert set(kubernetes.namespaces) == {"tes-tasks"}


async def test_tried_task_of_earlier_release_stays_in_its_namespace(pool, kubernetes, config):
    tasks = TasksNamespaces(namespace="tes-tasks")
    submitter = Submitter(pool, kubernetes.client, config.model_copy(update={"tasks": tasks}))
    await create(pool)
    await pool.execute("UPDATE task SET submit_attempts = 1")
    await submit(submitter)
    assert set(kubernetes.namespaces) == {kubernetes.client.home}


def with_postgres(config, dsn_file):
    files = RecorderFiles(dsn_file=str(dsn_file))
    return config.model_copy(update={"recorder": Recorder(transport="postgres"), "recorder_postgres": files})


async def test_recorder_gets_the_current_dsn(pool, kubernetes, config, tmp_path):
    file = tmp_path / "recorder-dsn"
    changed = with_postgres(config, file)
    submitter = Submitter(pool, kubernetes.client, changed)
    for password in ("first", "second"):
        file.write_text(f"postgresql://poiesis_recorder:{password}@db/poiesis")
        task_id = await create(pool)
        await submit(submitter)
        (secret,) = (one for one in kubernetes.of_kind("Secret") if str(task_id) in one["metadata"]["name"])
        assert password in base64.b64decode(secret["data"]["recorder-dsn"]).decode()


async def test_task_waits_while_the_recorders_dsn_cannot_be_read(pool, kubernetes, config, tmp_path, caplog):
    file = tmp_path / "recorder-dsn"
    changed = with_postgres(config, file)
    submitter = Submitter(pool, kubernetes.client, changed)
    task_id = await create(pool)
    await submit(submitter)
    assert f"recorderPostgres.dsnFile: cannot read {file}" in str([vars(one) for one in caplog.records])
    file.write_text("postgresql://db")
    await expire_claims(pool)
    await submit(submitter)
    await assert_submitted(pool, kubernetes, task_id)


async def test_a_filer_that_is_gone_ends_the_task(pool, kubernetes, config):
    task_id = await create(pool)
    filers = [config.filers[0].model_copy(update={"outputs": None})]
    submitter = Submitter(pool, kubernetes.client, config.model_copy(update={"configured_filers": filers}))
    await submit(submitter)
    task = await row(pool, task_id)
    assert (task["state"], task["reason"]) == ("SYSTEM_ERROR", "NoFiler")


async def test_filer_gets_current_configuration_of_granted_credentials(pool, kubernetes, config):
    """Whichever replica submits, and however often; not what it has no more."""
    request = {**REQUEST, "outputs": [{"path": "/data/b", "url": "s3://lab-a/b"}]}
    task_id = await create(pool, request=request, credentials=["lab-a", "gone"])
    kubernetes.fail("POST Secret", status=503, reason="ServiceUnavailable")
    await submit(Submitter(pool, kubernetes.client, config))
    await make_due(pool)
    await submit(Submitter(pool, kubernetes.client, config))
    await assert_submitted(pool, kubernetes, task_id)
    assert "lab-a-keys" in json.dumps(kubernetes.of_kind("Job"))

    await pool.execute("DELETE FROM task")
    kubernetes.objects.clear()
    await create(pool, request=request, credentials=["lab-a"])
    none = Storage(s3=S3())
    await submit(Submitter(pool, kubernetes.client, config.model_copy(update={"storage": none})))
    assert "lab-a-keys" not in json.dumps(kubernetes.of_kind("Job"))


async def test_no_signed_url_of_a_task_is_logged(pool, kubernetes, config, caplog):
    caplog.set_level("DEBUG")
    signed = "https://h/x?X-Amz-Signature=secret"
    inputs = [{"path": "/data/a", "url": signed}]
    with pytest.raises(asyncpg.CheckViolationError) as violation:
        await create(pool, request={**REQUEST, "description": signed, "inputs": inputs}, credentials=[None])
    task_id = await create(pool, request={**REQUEST, "inputs": inputs})
    await pool.execute("UPDATE input SET path = '/data/../a' WHERE task_id = $1", task_id)
    await submit(Submitter(pool, kubernetes.client, config))

    broken = await row(pool, task_id)
    assert (broken["reason"], "inputs[0].path (value_error)" in broken["message"]) == ("InvalidTask", True)
    assert "submission failed" in caplog.text
    text = "".join(
        [str(violation.value), broken["message"], *(str(vars(record)) for record in caplog.records)]
    )
    assert "Signature" not in text


async def test_only_kueue_unsuspends_its_jobs(pool, kubernetes, config):
    queue = config.queue.model_copy(update={"kueue_queue_name": "batch"})
    submitter = Submitter(pool, kubernetes.client, config.model_copy(update={"queue": queue}))
    task_id = await create(pool)
    await submit(submitter)
    (job,) = kubernetes.of_kind("Job")
    assert job["spec"]["suspend"] is True
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "batch"
    task = await row(pool, task_id)
    assert (task["submitted_at"] is not None, task["claimed_until"]) == (True, None)


async def test_job_in_kueue_queue_is_not_unsuspended(pool, kubernetes, submitter):
    def put_into_default_queue(manifest):
        if manifest["kind"] == "Job":
            manifest["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = "default"
        return manifest

    kubernetes.store = put_into_default_queue
    task_id = await create(pool)
    await submit(submitter)
    (job,) = kubernetes.of_kind("Job")
    assert job["spec"]["suspend"] is True
    assert (await row(pool, task_id))["claimed_until"] is None


async def test_no_more_tasks_are_active_than_allowed(pool, kubernetes, config):
    queue = config.queue.model_copy(update={"max_active_tasks": 3, "max_submissions": 2})
    submitter = Submitter(pool, kubernetes.client, config.model_copy(update={"queue": queue}))
    for _ in range(5):
        await create(pool)
    for _ in range(3):
        await submit(submitter)
    assert len(kubernetes.of_kind("Job")) == 3
    ended = UUID(kubernetes.of_kind("Job")[0]["metadata"]["labels"]["poiesis.io/task"])
    await tasks_db.finish_task(
        pool, ended, tasks_db.TaskOutcome(state=tasks_db.TesState.COMPLETE), cancel_seen=True
    )
    await submit(submitter)
    assert len(kubernetes.of_kind("Job")) == 4


async def test_concurrent_leases_respect_the_limit(pool):
    for _ in range(20):
        await create(pool)
    claims = await asyncio.gather(
        *(queue_db.lease_tasks(pool, most=4, max_active=6, seconds=60) for _ in range(5))
    )
    ids = [claim.id for part in claims for claim in part]
    assert (len(ids), len(set(ids))) == (6, 6)


async def test_owners_take_turns(pool):
    many = [await create(pool, owner="many") for _ in range(10)]
    one = await create(pool, owner="one")
    claims = await queue_db.lease_tasks(pool, most=3, max_active=100, seconds=60)
    assert {claim.id for claim in claims} == {many[0], one, many[1]}
    late = await create(pool, owner="late")
    claims = await queue_db.lease_tasks(pool, most=1, max_active=100, seconds=60)
    assert [claim.id for claim in claims] == [late], "who has the fewest comes first"


async def claimed(pool, **how):
    return [
        claim.id
        for claim in await queue_db.lease_tasks(pool, **{"most": 8, "max_active": 5, "seconds": 60} | how)
    ]


async def stall(pool, ids):
    """Submitted long ago, and no node has taken their Pods."""
    for task_id in ids:
        await queue_db.mark_submitted(pool, task_id, keep_lease=False)
    await pool.execute(
        "UPDATE task SET submitted_at = now() - interval '2 min' WHERE submitted_at IS NOT NULL"
    )


async def test_stalled_tasks_leave_places_to_others(pool):
    impossible = [await create(pool, owner="alice") for _ in range(6)]
    first = await claimed(pool, stalled_seconds=60)
    assert first == impossible[:5]
    await stall(pool, first)
    possible = [await create(pool, owner="bob") for _ in range(5)]

    assert await claimed(pool) == [], "without a limit they count in full"
    assert await claimed(pool, stalled_seconds=60) == possible[:3], (
        "and none of alice's: half of the places stall"
    )
    assert await claimed(pool, stalled_seconds=600) == []


async def test_owner_without_stalled_tasks_gets_places_again(pool):
    tasks = [await create(pool, owner="alice") for _ in range(7)]
    await stall(pool, await claimed(pool, stalled_seconds=60))
    assert await claimed(pool, stalled_seconds=60) == []
    await pool.execute("UPDATE task SET state = 'RUNNING' WHERE id = ANY($1)", tasks[:4])
    assert await claimed(pool, stalled_seconds=60) == []
    await pool.execute(
        "UPDATE task SET state = 'CANCELED', cancel_requested_at = now(), cancel_requested_by = 'me',"
        " ended_at = now(), reported_by = 'api' WHERE id = ANY($1)",
        tasks[:4],
    )
    assert await claimed(pool, stalled_seconds=60) == tasks[5:]


async def test_a_single_place_is_not_blocked_either(pool):
    await create(pool, owner="alice")
    await stall(pool, await claimed(pool, max_active=1, stalled_seconds=60))
    (task,) = [await create(pool, owner="bob")]
    assert await claimed(pool, max_active=1, stalled_seconds=60) == [task]


async def test_replica_lost_while_leasing_does_not_block_queue(pool, postgres_dsn, monkeypatch):
    monkeypatch.setattr("poiesis_api.postgres._IDLE_SECONDS", 0.5)
    await create(pool)
    async with open_pool(postgres_dsn, Database()) as other, other.acquire() as vanished:
        await vanished.execute("BEGIN")
        await vanished.fetchval(queue_db._LEASE_LOCK)  # and never continues
        assert len(await claimed(pool)) == 1
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)):
            await vanished.execute("COMMIT")


async def test_other_database_roles_cannot_block_queue(pool, postgres_dsn):
    await create(pool)
    stranger = await asyncpg.connect(postgres_dsn)
    await stranger.execute("SET ROLE poiesis_recorder; SELECT pg_advisory_lock(7053477)")
    for table in ("claim_turn", "owner_turn"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await stranger.execute(f"SELECT FROM {table} FOR UPDATE")
    assert len(await claimed(pool)) == 1
    await stranger.close()


async def test_wake_submits_immediately_and_stop_ends_run(pool, kubernetes, config):
    queue = config.queue.model_copy(update={"poll_seconds": 600})
    submitter = Submitter(pool, kubernetes.client, config.model_copy(update={"queue": queue}))
    stop = asyncio.Event()
    running = asyncio.create_task(submitter.run(stop))
    task_id = await create(pool)
    submitter.wake()
    await kubernetes.until("PATCH Job")
    stop.set()
    async with asyncio.timeout(60):
        await running
    await assert_submitted(pool, kubernetes, task_id)


class Failing:
    """A pool of which nothing can be had for a while."""

    def __init__(self, pool, errors):
        self.pool = pool
        self.errors = list(errors)

    def acquire(self, **how):
        if self.errors:
            raise self.errors.pop()
        return self.pool.acquire(**how)


@pytest.mark.parametrize("error", [asyncpg.DiskFullError("disk full"), RuntimeError("a defect")])
async def test_the_queue_survives_any_error(pool, kubernetes, config, caplog, error):
    failing = Failing(pool, [error] * 4)
    submitter = Submitter(failing, kubernetes.client, config)
    task_id = await create(pool)
    stop = asyncio.Event()
    running = asyncio.create_task(submitter.run(stop))
    async with asyncio.timeout(30):
        while (await row(pool, task_id))["submitted_at"] is None:
            assert not running.done()
            await asyncio.sleep(0.02)
    stop.set()
    await running

    assert len([one for one in caplog.records if one.message.endswith("retrying")]) == 4


async def test_one_wake_submits_all_due_tasks(pool, kubernetes, config):
    queue = config.queue.model_copy(update={"poll_seconds": 600, "max_submissions": 2})
    submitter = Submitter(pool, kubernetes.client, config.model_copy(update={"queue": queue}))
    for _ in range(7):
        await create(pool)
    stop = asyncio.Event()
    running = asyncio.create_task(submitter.run(stop))
    async with asyncio.timeout(60), kubernetes.changed:
        await kubernetes.changed.wait_for(lambda: kubernetes.calls.count("PATCH Job") == 7)
    stop.set()
    await running


async def test_failure_of_one_task_does_not_stop_others(pool, kubernetes, submitter, monkeypatch, caplog):
    bad = await create(pool)
    good = await create(pool)
    objects = submitter._objects

    def fail(claim, nonce):
        if claim.id == bad:
            raise RuntimeError("a bug")
        return objects(claim, nonce)

    monkeypatch.setattr(submitter, "_objects", fail)
    await submit(submitter)
    await assert_submitted(pool, kubernetes, good)
    assert "a bug" in caplog.text


def test_the_configuration_of_the_tests_is_the_example(config):
    assert isinstance(config, Document)
