"""The command against this project's api and a real Postgres; the test reports in place of a recorder."""

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import asyncpg
import pytest

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "services/api/config.example.json"
NOWHERE = {
    "apiVersion": "v1",
    "kind": "Config",
    "clusters": [{"name": "none", "cluster": {"server": "http://127.0.0.1:9"}}],
    "contexts": [{"name": "none", "context": {"cluster": "none", "user": "none"}}],
    "users": [{"name": "none", "user": {}}],
    "current-context": "none",
}

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def api(tmp_path_factory, postgres_dsn, free_port):
    """URL of an api without Kubernetes, so that its tasks stay queued."""
    folder = tmp_path_factory.mktemp("api")
    port, metrics_port = free_port(), free_port()
    document = json.loads(CONFIG.read_text())
    document["http"] = {"host": "127.0.0.1", "port": port, "metricsPort": metrics_port, "drainSeconds": 0}
    document["recorder"] = {"transport": "postgres"}  # no gateway is running
    document["recorderPostgres"] = {"dsnFile": str(folder / "recorder-dsn")}
    (folder / "recorder-dsn").write_text(postgres_dsn)
    (folder / "config.json").write_text(json.dumps(document))
    (folder / "kubeconfig").write_text(json.dumps(NOWHERE))
    paths = os.pathsep.join(str(ROOT / path) for path in ("packages/models", "services/api"))
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": paths,
        "POIESIS_DSN": postgres_dsn,
        "POD_NAMESPACE": "tasks",
        "POIESIS_CONFIG": str(folder / "config.json"),
        "KUBECONFIG": str(folder / "kubeconfig"),
    }
    with subprocess.Popen(
        [sys.executable, "-m", "poiesis_api"], env=environment, stderr=subprocess.DEVNULL
    ) as api:
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            api.terminate()


@pytest.fixture
def real(poiesis, api):
    poiesis.env["POIESIS_SERVER"] = api
    deadline = time.monotonic() + 30
    while poiesis("info").code != 0:  # each call retries for a while
        assert time.monotonic() < deadline, "the api does not respond"
    return poiesis


@pytest.fixture
def reports(postgres_dsn):
    """`reports(task_id, **report)` reports as the task's recorder would."""

    async def record(task_id, report):
        connection = await asyncpg.connect(postgres_dsn)
        try:
            await connection.execute(
                "UPDATE task SET recorder_token_hash = sha256('token'::bytea) WHERE id = $1", task_id
            )
            pod = {"pod_uid": "u", "pod_name": "p", "node": "n"}
            await connection.fetch(
                "SELECT * FROM record_report($1, 'token', $2)", task_id, json.dumps(pod | report)
            )
        finally:
            await connection.close()

    return lambda task_id, **report: asyncio.run(record(task_id, report))


def executor(index, stdout, *, exit_code=None, stderr=""):
    now = time.time_ns()
    return {
        "index": index,
        "start_ns": now,
        "end_ns": None if exit_code is None else now,
        "exit_code": exit_code,
        "stdout": stdout,
        "stderr": stderr,
    }


def test_task_is_created_found_and_canceled(real, tmp_path):
    (tmp_path / "x.sh").write_text("true\n")
    ended = real(
        "run", "--detach", "-i", f"{tmp_path}/x.sh:/w/x.sh", "-i", "s3://b/k/:/data/k", "-o", "/out/*.txt:s3://b/o",
        "--tag", "k=v", "--name", "cli-1", "--cpu", "1", "busybox", "--", "sh", "/w/x.sh",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    task_id = ended.out.strip()
    for words in (["--tag", "k=v"], ["--tag", "k"], ["--name-prefix", "cli-"]):
        found = json.loads(real("list", *words, "--output", "json").out)["tasks"]
        assert [one["id"] for one in found] == [task_id]
    assert json.loads(real("list", "--tag", "k=v", "--state", "RUNNING", "--output", "json").out) == {
        "tasks": []
    }
    got = json.loads(real("get", task_id).out)
    assert got["inputs"][1] == {"url": "s3://b/k/", "path": "/data/k", "type": "DIRECTORY"}
    assert got["outputs"][0]["path_prefix"] == "/out"
    assert real("cancel", task_id).out == f"{task_id}\n"
    assert json.loads(real("get", task_id, "--view", "MINIMAL").out)["state"] in {"CANCELING", "CANCELED"}


def test_list_of_several_pages_is_complete(real):
    document = json.dumps({"executors": [{"image": "i", "command": ["x"]}], "tags": {"many": "yes"}}).encode()
    ids = [real("create", "-", stdin=document).out.strip() for _ in range(5)]
    shown = json.loads(real("list", "--tag", "many=yes", "--limit", "0", "--output", "json").out)["tasks"]
    assert [one["id"] for one in shown] == ids[::-1]


def test_rejection_names_the_field(real):
    ended = real("run", "--workdir", "relative", "busybox", "--", "x")
    assert ended.code == 65
    assert "executors[0].workdir" in ended.err or "executors.0.workdir" in ended.err


def test_task_is_followed_to_its_end(real, reports):
    task_id = real("run", "--detach", "busybox", "--", "x").out.strip()

    def life():
        lines = [f"line {number}\n" for number in range(9)]
        for count in (1, 4, 7):
            reports(task_id, state="RUNNING", executors=[executor(0, "".join(lines[:count]))])
            time.sleep(0.1)  # the client sees some of these
        ending = {"state": "EXECUTOR_ERROR", "reason": "Error", "message": "executor 0 exited with code 3"}
        last = executor(0, "".join(lines), exit_code=3, stderr="oops\n")
        reports(task_id, executors=[last], ending=ending)

    recorder = threading.Thread(target=life)
    recorder.start()
    logs = real("logs", "-f", task_id)
    recorder.join()
    assert (logs.code, logs.out, logs.err) == (
        0,
        "".join(f"line {number}\n" for number in range(9)),
        "oops\n",
    )
    waited = real("wait", task_id)
    assert waited.code == 3
    assert waited.err.splitlines()[1:] == [
        "  Error: executor 0 exited with code 3",
        "  oops",
        f"  output: poiesis logs {task_id}",
    ]


def filer(container, **fields):
    now = time.time_ns()
    counts = {"files": 3, "bytes": 2_455_495, "bytes_per_second": 245_549}
    return {"container": container, "start_ns": now, **counts, **fields}


def test_wait_shows_staging_progress(real, reports):
    task_id = real("run", "--detach", "busybox", "--", "x").out.strip()
    reports(task_id, state="INITIALIZING", filers=[filer("tif-0")])
    ended = real("wait", task_id, "--timeout", "3")
    assert ended.code == 124
    assert "INITIALIZING   staging: 3 files, 2.5 MB so far, 245.5 kB/s" in ended.err


def test_wait_shows_executor_and_staged_files(real, reports):
    task_id = real("run", "--detach", "busybox", "--", "x").out.strip()
    staged = filer("tif-0", end_ns=time.time_ns())
    reports(task_id, state="RUNNING", filers=[staged], executors=[executor(0, None)])
    ended = real("wait", task_id, "--timeout", "3")
    assert ended.code == 124
    assert "RUNNING        executor 0 (1 of 1): x; staged 3 files, 2.5 MB" in ended.err


def test_wait_shows_the_waiting_reason(real, reports):
    task_id = real("run", "--detach", "busybox", "--", "x").out.strip()
    pull = {
        "key": "executor-0/waiting-pull",
        "at_ns": time.time_ns() + 10**11,  # after the messages of the api, which has no Kubernetes
        "message": "executor-0: ErrImagePull: no",
    }
    reports(task_id, state="INITIALIZING", system_logs=[pull])
    ended = real("wait", task_id, "--timeout", "3")
    assert "INITIALIZING   executor-0: ErrImagePull: no" in ended.err


def test_usage_of_an_ended_task_is_shown_and_reported(real, reports):
    task_id = real("run", "--detach", "--cpu", "2", "--tag", "usage=shown", "busybox", "--", "x").out.strip()
    used = {"user_us": 1_500_000, "sys_us": 500_000, "peak_memory_bytes": 200_000_000}
    ended = executor(0, "", exit_code=0) | {"usage": used}
    reports(task_id, state="RUNNING", executors=[ended], ending={"state": "COMPLETE"})

    lines = real("get", task_id, "--output", "table").out.splitlines()
    assert lines[-2].split("  ")[0] == "EXECUTOR"
    assert "200.0 MB" in lines[-1]
    report = json.loads(real("usage", "--by", "tag:usage").out)
    (row,) = [row for row in report["rows"] if row.get("tag") == "shown"]
    assert (row["tasks"], row["cpu_hours_used"]) == (1, 0.000556)
    assert "shown,1,0," in real("usage", "--by", "tag:usage", "--csv").out
