"""What workflow engines send, and whether they can read the answers: Sprocket, Toil and Galaxy's Pulsar.

The requests are those of the engines' versions in docs/how-to/clients. The answers are read by types as
strict as theirs: Sprocket decodes JSON in Rust (crate tes), where a required field that is missing, a
number of another size or an unknown state ends the workflow. Galaxy and Toil have models of their own
(pydantic-tes, py-tes).
"""

import json
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, create_model

from poiesis_api import tasks_db
from poiesis_models.states import TaskOutcome, TesState

pytestmark = pytest.mark.integration

BASE = "/ga4gh/tes/v1"
Time = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z$")]  # RFC 3339
Int32 = Annotated[int, Field(ge=-(2**31), lt=2**31)]
Int64Text = Annotated[str, Field(pattern=r"^-?\d{1,19}$")]  # TES has 64-bit integers as text
FileType = Literal["FILE", "DIRECTORY"]
State = Literal[
    *("UNKNOWN", "QUEUED", "INITIALIZING", "RUNNING", "PAUSED", "COMPLETE", "EXECUTOR_ERROR", "SYSTEM_ERROR"),
    *("CANCELED", "CANCELING", "PREEMPTED"),
]
OldState = Literal[  # all that py-tes 0.4 and pydantic-tes 0.4 know
    *("UNKNOWN", "QUEUED", "INITIALIZING", "RUNNING", "COMPLETE", "EXECUTOR_ERROR", "SYSTEM_ERROR"),
    "CANCELED",
]


class Strict(BaseModel):
    """No coercion: text is not a number. Unknown fields are ignored, as the engines do."""

    model_config = ConfigDict(strict=True)


class Input(Strict):
    """Without a type it cannot be read."""

    name: str | None = None
    description: str | None = None
    url: str | None = None
    path: str
    type: FileType
    content: str | None = None
    streamable: bool | None = None


class Output(Strict):
    """The type is required here, too."""

    name: str | None = None
    description: str | None = None
    url: str
    path: str
    path_prefix: str | None = None
    type: FileType


class Resources(Strict):
    """GB, not GiB."""

    cpu_cores: Int32 | None = None
    preemptible: bool | None = None
    ram_gb: float | None = None
    disk_gb: float | None = None
    zones: list[str] | None = None
    backend_parameters: dict[str, JsonValue] | None = None
    backend_parameters_strict: bool | None = None


class Executor(Strict):
    """One command."""

    image: str
    command: list[str]
    workdir: str | None = None
    stdin: str | None = None
    stdout: str | None = None
    stderr: str | None = None
    env: dict[str, str] | None = None
    ignore_error: bool | None = None


class ExecutorLog(Strict):
    """An executor without an exit code cannot be read."""

    start_time: Time | None = None
    end_time: Time | None = None
    stdout: str | None = None
    stderr: str | None = None
    exit_code: Int32


class OutputLog(Strict):
    """One stored file."""

    url: str
    path: str
    size_bytes: Int64Text


class TaskLog(Strict):
    """Both lists are required, also where they are empty."""

    logs: list[ExecutorLog]
    metadata: dict[str, str] | None = None
    start_time: Time | None = None
    end_time: Time | None = None
    outputs: list[OutputLog]
    system_logs: list[str] | None = None


class Task(Strict):
    """The FULL view."""

    id: str
    state: State
    name: str | None = None
    description: str | None = None
    inputs: list[Input] | None = None
    outputs: list[Output] | None = None
    resources: Resources | None = None
    executors: list[Executor]
    volumes: list[str] | None = None
    tags: dict[str, str] | None = None
    logs: list[TaskLog] | None = None
    creation_time: Time | None = None


class MinimalTask(Strict):
    """Id and state alone."""

    model_config = ConfigDict(strict=True, extra="forbid")
    id: str
    state: State


class Page(Strict):
    """One answer to a list request."""

    tasks: list[MinimalTask]
    next_page_token: str | None = None


class ServiceType(Strict):
    """What the service implements."""

    group: str
    artifact: Literal["tes"]
    version: str


class Organization(Strict):
    """Both fields are required."""

    name: str
    url: Annotated[str, Field(pattern=r"^https?://[^/]+")]


Url = Annotated[str, Field(pattern=r"^https?://[^/]+")]
_SERVICE_INFO: dict[str, Any] = {  # empty texts are neither URLs nor times: such fields have to be left out
    **dict.fromkeys(("id", "name", "version"), (str, ...)),
    **dict.fromkeys(("description", "contactUrl", "environment"), (str | None, None)),
    **dict.fromkeys(("createdAt", "updatedAt"), (Time | None, None)),
    "documentationUrl": (Url | None, None),
    "type": (ServiceType, ...),
    "organization": (Organization, ...),
    "storage": (list[str] | None, None),
}
ServiceInfo = create_model("ServiceInfo", __base__=Strict, **_SERVICE_INFO)
_OLD_SERVICE_INFO: dict[str, Any] = {"name": (str, ...), "doc": (str, ...), "storage": (list[str], ...)}
OldServiceInfo = create_model(  # TES 0.4's; py-tes 0.4 accepts no other field
    "OldServiceInfo", __config__=ConfigDict(strict=True, extra="forbid"), **_OLD_SERVICE_INFO
)


SPROCKET = {  # one call of a WDL task
    "name": "align-0-0",
    "inputs": [
        {"path": "/mnt/task/command", "type": "FILE", "content": "set -euo pipefail\nwc -c 'a b.txt'\n"},
        {"path": "/mnt/task/inputs/0/a b.txt", "type": "FILE", "url": "s3://lab/inputs/a%20b.txt"},
        {"path": "/mnt/task/inputs/1", "type": "DIRECTORY", "url": "s3://lab/inputs/sha256-0a/"},
    ],
    "outputs": [
        {"url": "s3://lab/outputs/align-20261128/work", "path": "/mnt/task/work", "type": "DIRECTORY"},
        {"url": "s3://lab/outputs/align-20261128/stdout", "path": "/mnt/task/stdout", "type": "FILE"},
        {"url": "s3://lab/outputs/align-20261128/stderr", "path": "/mnt/task/stderr", "type": "FILE"},
    ],
    "resources": {
        "cpu_cores": 1,
        "preemptible": False,
        "ram_gb": 2.147483648,
        "disk_gb": 1.073741824,
    },
    "executors": [
        {
            "image": "ubuntu:latest",
            "command": ["bash", "/mnt/task/command"],
            "workdir": "/mnt/task/work",
            "stdout": "/mnt/task/stdout",
            "stderr": "/mnt/task/stderr",
            "env": {"SAMPLE": "a b"},
            "ignore_error": True,
        }
    ],
    "volumes": ["/mnt/data"],
    "tags": {"crankshaft-task-group": "x7f3-1764357000-0"},
}
TOIL = {  # one job; py-tes 0.4 leaves out what is not set, but not an empty list
    "name": "'CWLJob' main kind-CWLJob/instance-1 v1",
    "inputs": [],
    "resources": {"cpu_cores": 1, "ram_gb": 2.0, "disk_gb": 3.0, "preemptible": False},
    "executors": [
        {
            "image": "registry.example.org/toil:9.6.0",
            "command": ["_toil_contained_executor", "gASVJQAAAAAAAAB9lCiMB2NvbW1hbmQ="],
            "env": {"TOIL_WORKDIR": "/tmp", "AWS_ENDPOINT_URL_S3": "https://s3.example.org"},
        }
    ],
}
UNSET_EXECUTOR = {"stdin": None, "stdout": None, "stderr": None, "env": None}
PULSAR = {  # pydantic-tes sends every field that is not set as null
    **dict.fromkeys(("id", "state", "description", "inputs", "outputs", "tags", "logs", "creation_time")),
    "name": "pulsar-galaxy-3f2a-42",
    "resources": {
        **dict.fromkeys(("preemptible", "disk_gb", "zones", "backend_parameters")),
        "backend_parameters_strict": False,
        "cpu_cores": 2,
        "ram_gb": 4.0,
    },
    "volumes": ["/pulsar_staging/"],
    "executors": [
        {"image": image, "command": command, "workdir": "/", **UNSET_EXECUTOR}
        for image, command in (
            ("pulsar-staging:0.16.0", ["pulsar-submit", "--no-wait", "--base64", "e30=" * 5000]),
            (
                "quay.io/biocontainers/samtools:1.21",
                ["sh", "-c", "\npath='/pulsar_staging/42/command_line';\nsh $path;\necho 'ran script'"],
            ),
            ("pulsar-staging:0.16.0", ["pulsar-finish", "--base64", "e30=" * 5000]),
        )
    ],
}
JSON_TYPE = {"Content-Type": "application/json"}
ANONYMOUS_BASIC = {**JSON_TYPE, "Authorization": "Basic Tm9uZTpOb25l"}  # py-tes 0.4 without a user: None:None


async def create(client: Any, task: dict[str, Any], headers: dict[str, str] = JSON_TYPE) -> str:
    response = await client.post(f"{BASE}/tasks", data=json.dumps(task), headers=headers)
    assert response.status == 200, await response.text()
    body = TypeAdapter(dict[str, str]).validate_json(await response.text(), strict=True)
    assert set(body) == {"id"}
    return body["id"]


async def full(client: Any, task_id: str) -> Task:
    response = await client.get(f"{BASE}/tasks/{task_id}?view=FULL")
    assert response.status == 200, await response.text()
    return Task.model_validate_json(await response.text())


async def report(pool: Any, task_id: str, **fields: Any) -> None:
    """As the recorder does."""
    await pool.execute("UPDATE task SET recorder_token_hash = sha256('t')")
    document = {"pod_uid": "u", "pod_name": "pod", "node": "node", **fields}
    await pool.execute(
        "SELECT state::text FROM record_report($1, 't', $2::text::jsonb)", task_id, json.dumps(document)
    )


def ran(index: int, exit_code: int | None = 0, **fields: Any) -> dict[str, Any]:
    """An executor's part of a report; without an exit code its end is not known."""
    start = 1_764_357_000_123_456_789 + index
    known = {} if exit_code is None else {"end_ns": start + 10**9, "exit_code": exit_code}
    return {"index": index, "start_ns": start, "stdout": "o", "stderr": "e", **known, **fields}


async def poll(client: Any, tag: str) -> dict[str, str]:
    """States by id, as Sprocket asks for them at every interval."""
    states: dict[str, str] = {}
    token = ""
    while True:
        query = f"tag_key=crankshaft-task-group&tag_value={tag}&page_size=2047{token}&view=MINIMAL"
        response = await client.get(f"{BASE}/tasks?{query}")
        assert response.status == 200, await response.text()
        page = Page.model_validate_json(await response.text())
        states |= {task.id: task.state for task in page.tasks}
        if not page.next_page_token:
            return states
        token = f"&page_token={page.next_page_token}"


@pytest.mark.parametrize(
    ("path", "kind"), [("service-info", ServiceInfo), ("tasks/service-info", OldServiceInfo)]
)
async def test_service_info_is_read_by_strict_types(client: Any, path: str, kind: type[BaseModel]) -> None:
    response = await client.get(f"{BASE}/{path}")
    assert response.status == 200
    kind.model_validate_json(await response.text())


async def test_sprocket_task_is_returned_as_sent(client: Any) -> None:
    task_id = await create(client, SPROCKET)
    task = (await full(client, task_id)).model_dump(exclude_none=True)
    assert {key: task[key] for key in SPROCKET} == SPROCKET
    assert await poll(client, "x7f3-1764357000-0") == {task_id: "QUEUED"}
    assert await poll(client, "another") == {}


async def test_one_list_follows_all_tasks_of_a_run(client: Any) -> None:
    created = {await create(client, SPROCKET) for _ in range(5)}
    await create(client, {**SPROCKET, "tags": {"crankshaft-task-group": "of-another-run"}})
    assert set(await poll(client, "x7f3-1764357000-0")) == created


STORED = [{"path": "/mnt/task/stdout", "url": "s3://lab/outputs/align-20261128/stdout", "size_bytes": 2**40}]
LOST = {"state": "SYSTEM_ERROR", "reason": "NodeLost", "message": "node n is gone"}
NO_MEMORY = {"state": "EXECUTOR_ERROR", "reason": "OOMKilled", "message": "executor 0 ran out of memory"}


@pytest.mark.parametrize(
    ("executors", "ending", "codes"),
    [
        pytest.param([ran(0)], {"state": "COMPLETE"}, [0], id="a task"),
        pytest.param([ran(0, 3)], {"state": "COMPLETE"}, [3], id="a WDL task that failed"),
        pytest.param([ran(0, 137)], NO_MEMORY, [137], id="out of memory"),
        pytest.param([], LOST, [], id="lost before it began"),
        pytest.param([ran(0, None)], LOST, [], id="lost while it ran"),
        pytest.param([ran(0, 255)], {"state": "PREEMPTED", "reason": "Preempted"}, [255], id="preempted"),
    ],
)
async def test_every_outcome_is_read_by_strict_types(
    client: Any, pool: Any, executors: list[dict[str, Any]], ending: dict[str, str], codes: list[int]
) -> None:
    task_id = await create(client, SPROCKET)
    lines = [{"key": "k", "at_ns": 1_764_357_000_000_000_000, "message": "scheduled"}]
    await report(pool, task_id, state="RUNNING", executors=executors, system_logs=lines)
    running = await full(client, task_id)  # an executor that runs has no exit code, so no log yet
    assert (running.state, len(running.logs or [])) == ("RUNNING", 1)
    await report(pool, task_id, executors=executors, outputs=STORED, ending=ending)
    assert await poll(client, "x7f3-1764357000-0") == {task_id: ending["state"]}
    task = await full(client, task_id)
    assert task.state == ending["state"]
    last = (task.logs or [])[-1]  # the attempt that counts
    assert [log.exit_code for log in last.logs] == codes
    assert [(log.path, log.size_bytes) for log in last.outputs] == [("/mnt/task/stdout", str(2**40))]
    assert (last.system_logs or [])[-1].split(" ", 1)[1].startswith(ending["state"])


async def test_task_without_pod_has_an_explaining_log(client: Any, pool: Any) -> None:
    task_id = await create(client, SPROCKET)
    ending = TaskOutcome(state=TesState.SYSTEM_ERROR, reason="Invalid", message="no")
    await tasks_db.finish_task(pool, task_id, ending, cancel_seen=False)
    (log,) = (await full(client, task_id)).logs or []
    assert (log.logs, log.outputs, len(log.system_logs or [])) == ([], [], 1)


async def test_a_canceled_task_is_read_by_strict_types(client: Any) -> None:
    task_id = await create(client, SPROCKET)
    response = await client.post(f"{BASE}/tasks/{task_id}:cancel", headers=JSON_TYPE)
    assert (response.status, await response.json()) == (200, {})
    assert (await full(client, task_id)).state == "CANCELED"


class OldMinimal(Strict):
    """As py-tes 0.4 reads it."""

    id: str
    state: OldState


async def test_toil_works_with_py_tes_0_4(client: Any, pool: Any) -> None:
    task_id = await create(client, TOIL, ANONYMOUS_BASIC)
    for view in ("MINIMAL", "BASIC", "FULL"):
        response = await client.get(f"{BASE}/tasks/{task_id}", params={"view": view}, headers=ANONYMOUS_BASIC)
        assert OldMinimal.model_validate_json(await response.text()).state == "QUEUED"
    task = (await full(client, task_id)).model_dump(exclude_none=True)
    assert {key: task.get(key, []) for key in TOIL} == TOIL

    failed = {"state": "EXECUTOR_ERROR", "reason": "Error", "message": "executor 0 exited with 1"}
    await report(pool, task_id, executors=[ran(0, None)])
    await report(pool, task_id, executors=[ran(0, 1, stderr="Traceback")], ending=failed)
    (log,) = (await full(client, task_id)).logs or []
    assert [(one.exit_code, one.stderr) for one in log.logs] == [(1, "Traceback")]
    assert (log.start_time or "") < (log.end_time or "")  # Toil computes the job's run time from these
    cancel = await client.post(f"{BASE}/tasks/{task_id}:cancel", headers=ANONYMOUS_BASIC)
    assert cancel.status in {200, 409}  # of a task that has ended, which Toil ignores


async def test_pulsar_shares_a_volume_between_three_executors(client: Any, pool: Any) -> None:
    task_id = await create(client, PULSAR)
    task = await full(client, task_id)
    assert [one.workdir for one in task.executors] == ["/"] * 3
    assert [one.command for one in task.executors] == [one["command"] for one in PULSAR["executors"]]
    assert task.volumes == ["/pulsar_staging/"]
    assert (task.inputs, task.outputs, task.tags) == (None, None, None)
    document = await (await client.get(f"{BASE}/tasks/{task_id}?view=FULL")).text()
    assert "null" not in document

    ended = [ran(0), ran(1), ran(2)]
    await report(pool, task_id, executors=ended, ending={"state": "COMPLETE"})
    (log,) = (await full(client, task_id)).logs or []
    assert ([one.exit_code for one in log.logs], log.outputs) == ([0, 0, 0], [])
