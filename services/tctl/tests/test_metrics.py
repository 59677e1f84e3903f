"""The response to a scrape, parsed as Prometheus does."""

import subprocess
import sys
from datetime import UTC, datetime

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from poiesis_models.states import TesState
from poiesis_server import health
from poiesis_tctl import metrics
from poiesis_tctl.informer import WatchState
from poiesis_tctl.retention import Deletions
from poiesis_tctl.totals import Bucket, Outcome, Table, Totals
from poiesis_tctl.transfers import Figures, FilerFigures, Moved, Place

FIGURES = Figures(
    read_at=datetime(2025, 11, 23, 6, tzinfo=UTC),
    tasks={Place("tes-tasks", TesState.QUEUED): 0, Place("lab-a", TesState.RUNNING): 7},
    filers={
        "tif": FilerFigures(moving=2, bytes_per_second=5_000_000, moved=Moved(3, 2**40)),
        "stream": FilerFigures(moving=0, bytes_per_second=0, moved=Moved(0, 0)),
    },
)

DELETIONS = Deletions(deleted={"tasks": 5, "logs": 4}, failures=1)
TOTALS = Totals(
    outcomes={Outcome(TesState.COMPLETE, ""): 5, Outcome(TesState.EXECUTOR_ERROR, "Error"): 2},
    phases={"queued": [Bucket(2.0, 3, 4.5), Bucket(60.0, 1, 40.0)]},
    tables={"task": Table(7, 8192)},
    database_bytes=2**30,
)
WATCHES = [
    WatchState(namespace="lab-a", collection="pods", age_seconds=1.5, lists=2, failures=1),
    WatchState(namespace="lab-a", collection="jobs", age_seconds=None, lists=0, failures=3),
]
LES = ("1.0", "2.0", "30.0", "60.0", "+Inf")
OF_EACH_REPLICA = (
    "poiesis_controller_database",
    "poiesis_controller_actions",
    "poiesis_controller_retries",
    "poiesis_controller_repaired",
    "poiesis_controller_task",
)
SYNCED = {"tes-tasks": True, "lab-a": False}


def samples(text: str) -> dict[str, float]:
    """Return name and labels in PromQL of the metrics that depend on leadership."""
    return {
        one.name + "".join(f'{{{key}="{value}"}}' for key, value in one.labels.items()): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
        if not one.name.startswith(OF_EACH_REPLICA)
    }


def test_leader_exports_all_metrics():
    text = metrics.exposition(leading=True, figures=FIGURES, deletions=DELETIONS, synced=SYNCED).decode()
    assert samples(text) == {
        'poiesis_namespace_synced{tasks_namespace="tes-tasks"}': 1,
        'poiesis_namespace_synced{tasks_namespace="lab-a"}': 0,
        "poiesis_controller_leader": 1,
        "poiesis_metrics_read_timestamp_seconds": 1763877600,
        'poiesis_tasks{state="QUEUED"}{tasks_namespace="tes-tasks"}': 0,
        'poiesis_tasks{state="RUNNING"}{tasks_namespace="lab-a"}': 7,
        'poiesis_filers{filer="tif"}': 2,
        'poiesis_filers{filer="stream"}': 0,
        'poiesis_filer_bytes_per_second{filer="tif"}': 5_000_000,
        'poiesis_filer_bytes_per_second{filer="stream"}': 0,
        'poiesis_filer_bytes_total{filer="tif"}': 2**40,
        'poiesis_filer_bytes_total{filer="stream"}': 0,
        'poiesis_filer_files_total{filer="tif"}': 3,
        'poiesis_filer_files_total{filer="stream"}': 0,
        'poiesis_retention_deleted_total{kind="tasks"}': 5,
        'poiesis_retention_deleted_total{kind="logs"}': 4,
        "poiesis_retention_failures_total": 1,
    }


def test_other_replicas_export_only_leadership():
    """A former leader is included, so that sums over replicas are correct."""
    for figures in (None, FIGURES):
        text = metrics.exposition(leading=False, figures=figures, deletions=DELETIONS, synced=SYNCED).decode()
        assert samples(text) == {"poiesis_controller_leader": 0}


def test_new_leader_exports_only_leadership():
    text = metrics.exposition(leading=True, figures=None).decode()
    assert samples(text) == {"poiesis_controller_leader": 1}


def test_totals_are_counters():
    text = metrics.exposition(leading=True, figures=FIGURES, deletions=DELETIONS, synced=SYNCED).decode()
    types = {
        family.name: family.type
        for family in text_string_to_metric_families(text)
        if not family.name.startswith(OF_EACH_REPLICA)
    }
    assert types == {
        "poiesis_controller_leader": "gauge",
        "poiesis_metrics_read_timestamp_seconds": "gauge",
        "poiesis_namespace_synced": "gauge",
        "poiesis_informer_age_seconds": "gauge",
        "poiesis_informer_lists": "counter",
        "poiesis_informer_failures": "counter",
        "poiesis_tasks": "gauge",
        "poiesis_filers": "gauge",
        "poiesis_filer_bytes_per_second": "gauge",
        "poiesis_filer_bytes": "counter",
        "poiesis_filer_files": "counter",
        "poiesis_retention_deleted": "counter",
        "poiesis_retention_failures": "counter",
    }


def test_leader_exports_totals_and_watches():
    text = metrics.exposition(leading=True, totals=TOTALS, watches=WATCHES).decode()
    found = samples(text)
    assert found['poiesis_task_outcomes_total{reason=""}{state="COMPLETE"}'] == 5
    assert found['poiesis_task_outcomes_total{reason="Error"}{state="EXECUTOR_ERROR"}'] == 2
    assert found["poiesis_database_bytes"] == 2**30
    assert found['poiesis_table_rows{table="task"}'] == 7
    assert found['poiesis_informer_age_seconds{collection="pods"}{tasks_namespace="lab-a"}'] == 1.5
    assert 'poiesis_informer_age_seconds{collection="jobs"}{tasks_namespace="lab-a"}' not in found
    assert found['poiesis_informer_failures_total{collection="jobs"}{tasks_namespace="lab-a"}'] == 3


def test_histogram_of_a_phase_is_cumulative():
    found = samples(metrics.exposition(leading=True, totals=TOTALS).decode())
    buckets = {le: found[f'poiesis_task_phase_seconds_bucket{{le="{le}"}}{{phase="queued"}}'] for le in LES}
    assert buckets == {"1.0": 0, "2.0": 3, "30.0": 3, "60.0": 4, "+Inf": 4}
    assert found['poiesis_task_phase_seconds_sum{phase="queued"}'] == 44.5
    assert found['poiesis_task_phase_seconds_count{phase="queued"}'] == 4


async def test_scrapes_are_served_beside_health(free_port):
    state = {"leading": False}
    port = free_port()
    async with (
        health.serve(
            port,
            healthy=lambda: False,
            ready=lambda: False,
            metrics=lambda: metrics.exposition(leading=state["leading"], figures=FIGURES),
        ),
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
    ):
        for leading in (False, True):
            state["leading"] = leading
            async with session.get("/metrics") as response:
                assert response.status == 200
                assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
                assert samples(await response.text())["poiesis_controller_leader"] == leading


def test_import_starts_no_thread_and_no_server():
    program = (
        "import socket, threading; socket.socket.listen = None; import poiesis_tctl.metrics;"
        " print(threading.active_count())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "1\n"
