"""Clauses of TES 1.1 (docs/development/conformance.md) that no other test makes sure of."""

import json
import re
from datetime import datetime
from uuid import UUID

import pytest

from poiesis_api.config import Document
from poiesis_api.handlers import service_info_document
from poiesis_api.parameters import supported_keys
from poiesis_api.taskpod import Task, task_objects
from poiesis_models.states import TesState
from poiesis_models.tes import TesTaskRequest

BASE = "/ga4gh/tes/v1"
EXECUTOR = {"image": "busybox", "command": ["true"]}
REPORT = "SELECT state::text FROM record_report($1, 't', $2::text::jsonb)"
SECOND = 1_000_000_000
TASK_ID = UUID("01234567-89ab-cdef-0123-456789abcdef")


async def create(client, **fields):
    response = await client.post(f"{BASE}/tasks", json={"executors": [EXECUTOR], **fields})
    assert response.status == 200, await response.text()
    return (await response.json())["id"]


async def full(client, task_id):
    return await (await client.get(f"{BASE}/tasks/{task_id}", params={"view": "FULL"})).json()


async def listed(client, **params):
    response = await client.get(f"{BASE}/tasks", params=params)
    assert response.status == 200
    return await response.json()


async def report(pool, task_id, **fields):
    """As the recorder does."""
    await pool.execute("UPDATE task SET recorder_token_hash = sha256('t') WHERE id = $1", task_id)
    return await pool.fetchval(
        REPORT, task_id, json.dumps({"pod_uid": "u", "pod_name": "pod", "node": "node", **fields})
    )


def changed(config, **sections):
    document = config.model_dump(by_alias=True)
    return Document.model_validate({**document, **sections})


# GetServiceInfo


def test_service_info_has_only_configured_fields(config):
    needed = {"id", "name", "type", "organization", "version", "storage", "tesResources_backend_parameters"}
    by_default = service_info_document(changed(config, serviceInfo={}).service_info, [])
    assert set(by_default) == needed | {"description", "documentationUrl"}
    fields = {
        "description": "d",
        "contactUrl": "https://example.org/c",
        "documentationUrl": "https://example.org/d",
        "createdAt": "2026-01-01T00:00:00Z",
        "updatedAt": "2026-01-02T00:00:00Z",
        "environment": "test",
    }
    document = service_info_document(changed(config, serviceInfo=fields).service_info, [])
    assert {key: value for key, value in document.items() if key not in needed} == fields


def test_service_info_lists_supported_backend_parameters(config):
    allowed = changed(config, backendParameters={"queue": ["fast"], "wallTimeSeconds": 60})
    document = service_info_document(allowed.service_info, supported_keys(allowed.backend_parameters))
    assert sorted(document["tesResources_backend_parameters"]) == ["queue", "wall_time_seconds"]


# CreateTask

ODD = ["A (2)", "'f' kind-f/instance-7q v1", "file:///x", "\u2603", "x" * 2000, "a\nb", "$(HOME)", ""]


@pytest.mark.parametrize("text", ODD)
def test_names_and_tags_are_not_in_kubernetes_objects(config, text):
    def objects(**fields):
        request = TesTaskRequest.model_validate({"executors": [EXECUTOR], **fields})
        return task_objects(Task(id=TASK_ID, request=request, nonce="n", recorder_token="t"), config)

    assert objects(name=text, description=text, tags={"file:///x": text}) == objects()


@pytest.mark.integration
async def test_missing_path_prefix_is_noted_in_system_logs(client):
    output = {"url": "s3://bucket/out", "path": "/out/*.txt"}
    task = await full(client, await create(client, outputs=[output]))
    assert task["outputs"] == [output]
    ((line,),) = [log["system_logs"] for log in task["logs"]]
    assert line.endswith("using '/out'")


@pytest.mark.integration
async def test_unsupported_backend_parameter_is_noted_in_system_logs(client):
    resources = {"backend_parameters": {"VmSize": "big"}, "backend_parameters_strict": False}
    task = await full(client, await create(client, resources=resources))
    assert task["resources"] == {"backend_parameters_strict": False}
    ((line,),) = [log["system_logs"] for log in task["logs"]]
    assert line.endswith("'VmSize' is not supported (supported: none); it has been ignored")


# ListTasks


_SUBMITTED = """
UPDATE task SET submit_attempts = 1, submitted_at = now(), recorder_token = NULL WHERE id = $1
"""


@pytest.mark.integration
async def test_state_filter_finds_each_state(client, pool):
    reached = {TesState.QUEUED: await create(client)}
    for state in (TesState.INITIALIZING, TesState.RUNNING):
        reached[state] = await create(client)
        await report(pool, reached[state], state=state)
    for state in (
        TesState.COMPLETE,
        TesState.EXECUTOR_ERROR,
        TesState.SYSTEM_ERROR,
        TesState.PREEMPTED,
    ):
        reached[state] = await create(client)
        await report(pool, reached[state], ending={"state": state})
    for state in (TesState.CANCELING, TesState.CANCELED):
        reached[state] = await create(client)
        await pool.execute(_SUBMITTED, reached[state])
        await client.post(f"{BASE}/tasks/{reached[state]}:cancel")
    await report(pool, reached[TesState.CANCELED], ending={"state": TesState.CANCELED}, cancel_seen=True)

    everything = (await listed(client))["tasks"]
    assert {task["state"]: task["id"] for task in everything} == reached
    for state, task_id in reached.items():
        assert (await listed(client, state=state))["tasks"] == [{"id": task_id, "state": state}]


@pytest.mark.integration
async def test_default_page_has_256_tasks(client, pool):
    await create(client)
    await pool.execute(
        "INSERT INTO task (id, owner, has_resources, recorder_token, recorder_token_hash)"
        " SELECT gen_random_uuid(), owner, has_resources, recorder_token, recorder_token_hash"
        " FROM task, generate_series(1, 2050)"
    )
    assert len((await listed(client))["tasks"]) == 256
    assert len((await listed(client, page_size=2047))["tasks"]) == 2047


@pytest.mark.integration
async def test_filters_pages_and_views_combine(client):
    wanted = []
    for number in range(5):
        wanted.append(await create(client, name=f"run-{number}", tags={"a": "1", "b": str(number)}))
        await create(client, name="other", tags={"a": "1"})
        await create(client, name="run-x", tags={"a": "2"})
    filters = {"name_prefix": "run", "state": "QUEUED", "tag_key": "a", "tag_value": "1", "view": "BASIC"}
    seen, token = [], ""
    while True:
        page = await listed(client, page_size=2, page_token=token, **filters)
        seen += page["tasks"]
        token = page.get("next_page_token", "")
        if not token:
            break
    assert [task["id"] for task in seen] == wanted[::-1]
    assert [task["tags"]["b"] for task in seen] == ["4", "3", "2", "1", "0"]


# Logs


@pytest.mark.integration
async def test_times_are_rfc_3339_and_in_order(client, pool):
    task_id = await create(client)
    created = datetime.fromisoformat((await full(client, task_id))["creation_time"])
    start = int(created.timestamp() + 60) * SECOND
    ran = {"index": 0, "start_ns": start, "end_ns": start + 2 * SECOND, "exit_code": 0}
    await report(pool, task_id, state="RUNNING", executors=[ran], ending={"state": "COMPLETE"})
    task = await full(client, task_id)
    (log,) = task["logs"]
    (executor,) = log["logs"]
    for text in (task["creation_time"], log["start_time"], log["end_time"], *_times(executor)):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", text)
    first, last = (datetime.fromisoformat(text) for text in _times(executor))
    assert (last - first).total_seconds() == 2
    assert created <= datetime.fromisoformat(log["start_time"]) <= datetime.fromisoformat(log["end_time"])


def _times(log):
    return log["start_time"], log["end_time"]


@pytest.mark.integration
async def test_an_ignored_error_is_recorded(client, pool):
    executors = [{**EXECUTOR, "ignore_error": True}, EXECUTOR]
    task_id = await create(client, executors=executors)
    ran = [
        {"index": index, "start_ns": SECOND, "end_ns": SECOND, "exit_code": code}
        for index, code in enumerate((3, 0))
    ]
    await report(pool, task_id, executors=ran, ending={"state": "COMPLETE"})
    task = await full(client, task_id)
    assert task["state"] == "COMPLETE"
    assert [log["exit_code"] for log in task["logs"][0]["logs"]] == [3, 0]


# Executors


def test_without_a_workdir_the_images_own_is_left(config):
    request = TesTaskRequest.model_validate({"executors": [EXECUTOR]})
    objects = task_objects(Task(id=TASK_ID, request=request, nonce="n", recorder_token="t"), config)
    containers = objects.job["spec"]["template"]["spec"]["initContainers"]
    (executor,) = [one for one in containers if one["name"] == "executor-0"]
    assert "workingDir" not in executor
