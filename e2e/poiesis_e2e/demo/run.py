"""Run the whole demo."""

import json
import shlex
import time
from dataclasses import dataclass
from datetime import datetime

from poiesis_e2e.demo import data, show, task
from poiesis_e2e.demo.data import ExampleFiles
from poiesis_e2e.install import STORAGE_SECRET, Release, chart_values, endpoint_of, install, storage_secret
from poiesis_e2e.storage import Bucket, Endpoint, make_bucket
from poiesis_e2e.tes_client import TERMINAL, StillWaiting, Task, TesError, connect
from poiesis_lab import backends, cluster, images, services
from poiesis_lab.cluster import Cluster
from poiesis_lab.offline.prepare import prepare

NAME = "poiesis"
BUCKET = "poiesis-demo"
_TASK_SECONDS = 600


class DemoFailed(Exception):
    """The demo did not give the expected results; the text names the difference."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """The running parts that the task needs."""

    cluster: Cluster
    release: Release
    endpoint: Endpoint
    bucket: Bucket
    web_url: str
    tools_image: str
    busybox_image: str
    files: ExampleFiles


async def run() -> None:
    """Set everything up, run the task and show its results. Raise DemoFailed if they are not as expected."""
    started = time.monotonic()
    stage = set_up()
    try:
        finished = await align(stage)
        results = await task.verify(finished, stage.bucket)
    except (StillWaiting, TesError, task.WrongResult) as error:
        raise DemoFailed(str(error)) from error
    _show_results(finished, results)
    _show_way_on(stage, finished["id"])
    show.line(f"\nDone: all results are as expected, after {time.monotonic() - started:.0f} s.")


def set_up() -> Stage:
    """Start the cluster, object storage and file server, build images, install the chart."""
    show.heading("Everything a task needs")
    with show.step("a Kubernetes cluster (minutes the first time, seconds later)"):
        prepare(services=True, minio=True)
        running = cluster.up()
    with show.step("the images of Poiesis and of the demo's tools"):
        built = services.build_and_load()
    with show.step("the example data of Debian's bowtie2, a web server, and object storage"):
        files = data.example_files()
        web = backends.start_file_server(task.served(files))
        minio = backends.start_minio()
        endpoint = endpoint_of(minio)
        bucket = make_bucket(endpoint, BUCKET)
    with show.step("Poiesis, by its chart, with the Postgres that comes with it"):
        bases = images.images()
        release = install(
            running,
            name=NAME,
            namespace=NAME,
            values=chart_values(
                built,
                endpoint,
                bases.postgres,
                {
                    "config": {
                        "executors": {"defaultResources": {"cpu": "500m"}},
                        "serviceInfo": {"name": "Poiesis demo"},
                    }
                },
            ),
            secrets={STORAGE_SECRET: storage_secret(endpoint)},
        )
    return Stage(
        cluster=running,
        release=release,
        endpoint=endpoint,
        bucket=bucket,
        web_url=web.pod_url,
        tools_image=built["demo"],
        busybox_image=bases.busybox,
        files=files,
    )


async def align(stage: Stage) -> Task:
    """Create the task and follow it until it ends."""
    await stage.bucket.clear()
    await task.upload_reads(stage.files, stage.bucket)
    document = task.document(stage.tools_image, stage.web_url, stage.bucket)
    show.heading("The task: align the reads of phage lambda to its genome")
    show.quoted("\n".join(f"{one['url']}  →  {one['path']}" for one in document.get("inputs", ())))
    show.quoted("\n".join("$ " + shlex.join(one["command"]) for one in document["executors"]))
    show.quoted("\n".join(f"{one['path']}  →  {one['url']}" for one in document.get("outputs", ())))
    async with connect(stage.release.url) as client:
        created = time.time()
        task_id = await client.create(document)
        show.line(f"\n  POST {client.base}/tasks  →  {task_id}")
        await client.wait(
            task_id,
            until=TERMINAL,
            timeout=_TASK_SECONDS,
            on_change=lambda seen: show.state(seen.state, seen.at - created),
        )
        return await client.get(task_id, "FULL")


def _show_results(finished: Task, results: task.Results) -> None:
    log = finished["logs"][0]
    show.heading("Events in the task's log")
    for line in log.get("system_logs", ()):
        show.quoted(line)
    for executor, ended in zip(finished["executors"], log["logs"], strict=True):
        seconds = _unix(ended["end_time"]) - _unix(ended["start_time"])
        show.line(f"    {executor['command'][0]:14} {seconds:6.2f} s  exit code {ended['exit_code']}")
    show.heading("Output of samtools flagstat")
    show.quoted(results.flagstat)
    show.heading("Output of bowtie2")
    show.quoted(results.logs["align.log"].splitlines()[-1])
    show.heading("Objects sent to object storage")
    for sent in log["outputs"]:
        show.line(f"    {sent['url']:48} {int(sent['size_bytes']):>9} bytes")


def _unix(rfc3339: str) -> float:
    return datetime.fromisoformat(rfc3339).timestamp()


def _show_way_on(stage: Stage, task_id: str) -> None:
    tes, namespace = f"{stage.release.url}/ga4gh/tes/v1", stage.release.tasks_namespace
    kubectl = shlex.join([str(stage.cluster.kubectl_path), "--kubeconfig", str(stage.cluster.kubeconfig)])
    own = {"executors": [{"image": stage.busybox_image, "command": ["echo", "hello"]}]}
    keys = f"AWS_ACCESS_KEY_ID={stage.endpoint.access_key} AWS_SECRET_ACCESS_KEY={stage.endpoint.secret_key}"
    show.heading("Try next")
    for what, command in (
        ("the full task", f"curl '{tes}/tasks/{task_id}?view=FULL'"),
        (
            "your own task",
            f"curl {tes}/tasks -H 'Content-Type: application/json' -d {shlex.quote(json.dumps(own))}",
        ),
        (
            "the results",
            f"{keys} aws --endpoint-url {stage.endpoint.url} s3 ls --recursive s3://{BUCKET}/results/",
        ),
        (
            "its objects",
            f"{kubectl} --namespace {namespace} get jobs,pods,pvc,secrets -l poiesis.io/task={task_id}",
        ),
        ("with a client", f"point Nextflow, Snakemake, cwl-tes or py-tes at {stage.release.url}/ga4gh/tes"),
        ("remove everything", "make down"),
    ):
        show.line(f"  {what}:\n    {command}")
