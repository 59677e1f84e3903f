"""Alerts and dashboard of the chart: promtool accepts and evaluates them, and every metric in them exists."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from poiesis_api import metrics as api
from poiesis_gateway import metrics as gateway
from poiesis_lab.prometheus import promtool
from poiesis_tctl import metrics as tctl
from poiesis_tctl.retention import Deletions
from poiesis_tctl.totals import Totals
from poiesis_tctl.transfers import Figures

CHART = Path(__file__).parents[1] / "poiesis"
DOCS = Path(__file__).parents[3] / "docs" / "reference"
ENABLED = ("monitoring.alerts.enabled=true", "monitoring.dashboard.enabled=true")
NAMESPACE = "tes"
METRIC = re.compile(r"\bpoiesis_[a-z_]+")
SUFFIX = re.compile(r"_(bucket|sum|count)$")
SERVICES = ("api", "controller", "gateway")


class Case(NamedTuple):
    """An alert with a series per minute (promtool's notation) that makes it fire, and one that does not."""

    alert: str
    fires: dict[str, str]
    quiet: dict[str, str]
    minutes: int = 30


QUEUE = 'poiesis_queue_oldest_age_seconds{reason="%s"}'
REQUESTS = 'poiesis_api_request_seconds_count{status="%s"}'
OUTCOMES = 'poiesis_task_outcomes_total{state="%s"}'
REPORTS = 'poiesis_gateway_reports_total{outcome="%s"}'
SUBMITTED = 'poiesis_api_submissions_total{outcome="submitted"}'
FAST = 'poiesis_api_request_seconds_bucket{operation="get_task",le="1.0"}'
ALL = 'poiesis_api_request_seconds_bucket{operation="get_task",le="+Inf"}'
TEN = 'poiesis_api_request_seconds_bucket{operation="get_task",le="10.0"}'

FIRING = 'count(ALERTS{alertname="%s", alertstate="firing"}) > bool 0 or vector(0)'

CASES = [
    Case("PoiesisApiDown", {"up": "1x60"}, {"poiesis_api_connections": "0x60"}),
    Case(
        "PoiesisApiErrors",
        {REQUESTS % "5xx": "0+6x60", REQUESTS % "2xx": "0+60x60"},
        {REQUESTS % "5xx": "0+1x60", REQUESTS % "2xx": "0+60x60"},
    ),
    Case(
        "PoiesisApiSlow",
        {FAST: "0+50x60", TEN: "0+100x60", ALL: "0+100x60"},
        {FAST: "0+100x60", TEN: "0+100x60", ALL: "0+100x60"},
    ),
    Case("PoiesisNoLeader", {"poiesis_controller_leader": "0x60"}, {"poiesis_controller_leader": "1x60"}),
    Case(
        "PoiesisDatabaseUnavailable",
        {'poiesis_api_database_errors_total{cause="away"}': "0+60x60"},
        {'poiesis_api_database_errors_total{cause="busy"}': "0+60x60"},
    ),
    Case(
        "PoiesisDatabaseNotWritable",
        {'poiesis_gateway_database_errors_total{cause="full"}': "0+1x60"},
        {'poiesis_gateway_database_errors_total{cause="full"}': "7x60"},
    ),
    Case(
        "PoiesisDatabasePoolExhausted",
        {"poiesis_controller_database_waiting": "2x60"},
        {"poiesis_controller_database_waiting": "2 0 3 0x57"},
    ),
    Case(
        "PoiesisMetricsStale",
        {"poiesis_metrics_read_timestamp_seconds": "0x60"},
        {"poiesis_metrics_read_timestamp_seconds": "0+60x60"},
    ),
    Case(
        "PoiesisNamespaceNotFollowed",
        {'poiesis_namespace_synced{tasks_namespace="lab"}': "0x60"},
        {'poiesis_namespace_synced{tasks_namespace="lab"}': "1x60"},
    ),
    Case(
        "PoiesisWatchStale",
        {'poiesis_informer_age_seconds{collection="pods"}': "0+60x60"},
        {'poiesis_informer_age_seconds{collection="pods"}': "60x60"},
    ),
    Case(
        "PoiesisTasksRepaired",
        {"poiesis_controller_repaired_tasks_total": "0+1x60"},
        {"poiesis_controller_repaired_tasks_total": "0 2x59"},
    ),
    Case(
        "PoiesisControllerRetries",
        {"poiesis_controller_retries_total": "0+30x60"},
        {"poiesis_controller_retries_total": "0+1x60"},
    ),
    Case(
        "PoiesisRetentionFails",
        {"poiesis_retention_failures_total": "0+0.2x200"},
        {"poiesis_retention_failures_total": "0 3x199"},
        minutes=150,
    ),
    Case(
        "PoiesisQueueStalled",
        {QUEUE % "place": "0+60x60", SUBMITTED: "5x60"},
        {QUEUE % "place": "0+60x60", SUBMITTED: "0+1x60"},
    ),
    Case("PoiesisSubmissionsRefused", {QUEUE % "refused": "0+60x60"}, {QUEUE % "refused": "60x60"}),
    Case("PoiesisTasksWaitForPods", {QUEUE % "pod": "0+600x60"}, {QUEUE % "pod": "0+60x60"}),
    Case(
        "PoiesisSystemErrors",
        {OUTCOMES % "SYSTEM_ERROR": "0+1x60", OUTCOMES % "COMPLETE": "0+1x60"},
        {OUTCOMES % "SYSTEM_ERROR": "0+1x60", OUTCOMES % "COMPLETE": "0+100x60"},
    ),
    Case(
        "PoiesisReportsFail",
        {REPORTS % "busy": "0+6x60", REPORTS % "accepted": "0+60x60"},
        {REPORTS % "busy": "0+1x60", REPORTS % "accepted": "0+60x60"},
    ),
    Case(
        "PoiesisInvalidTokens",
        {REPORTS % "unauthorized": "0+5x60"},
        {REPORTS % "unauthorized": "0 3x59"},
    ),
]


@cache
def render(*values: str) -> list[dict[str, Any]]:
    program = os.environ.get("POIESIS_HELM") or shutil.which("helm")
    if not program:
        pytest.fail("no helm: put it on the PATH or name it in POIESIS_HELM")
    given = [part for value in values for part in ("--set", value)]
    release = ("poiesis", str(CHART), "--namespace", NAMESPACE, "--kube-version", "1.29.0")
    command = [program, "template", *release, *given]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def one(manifests: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    (found,) = [item for item in manifests if (item["kind"], item["metadata"]["name"]) == (kind, name)]
    return found


def rules(*values: str) -> dict[str, Any]:
    spec: dict[str, Any] = one(render(*ENABLED, *values), "PrometheusRule", "poiesis")["spec"]
    return spec


def alerts() -> Iterator[dict[str, Any]]:
    for group in rules()["groups"]:
        yield from group["rules"]


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        one(render(*ENABLED), "ConfigMap", "poiesis-dashboard")["data"]["poiesis.json"]
    )
    return found


def expressions() -> Iterator[str]:
    """Yield the expressions of the dashboard with values for Grafana's variables."""
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", []):
            yield target["expr"].replace("$__rate_interval", "5m").replace("$namespace", NAMESPACE)


def checked(command: list[str], directory: Path, name: str, content: object) -> None:
    (directory / name).write_text(yaml.safe_dump(content))
    done = subprocess.run(
        [str(promtool()), *command, name], cwd=directory, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def exported() -> set[str]:
    """Return the names of all metrics of the services, counters with _total."""
    leader = tctl.exposition(
        leading=True,
        figures=Figures(read_at=datetime.now(UTC), tasks={}, filers={}),
        totals=Totals(outcomes={}, phases={}, tables={}, database_bytes=0),
        deletions=Deletions(),
    )
    families = [
        *(family for one in (api, gateway) for family in one.REGISTRY.collect()),
        *text_string_to_metric_families(leader.decode()),
    ]
    return {f"{one.name}_total" if one.type == "counter" else one.name for one in families}


def used(text: str) -> set[str]:
    """Return the metrics that expressions or a page name; a pattern counts as one name for each service."""
    spelled = [
        text.replace('{__name__=~"poiesis_(api|controller|gateway)_', f'{{x="poiesis_{service}_')
        for service in SERVICES
    ]
    return {SUFFIX.sub("", name) for one in spelled for name in METRIC.findall(one)}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.alert)
def test_alert_fires_only_when_it_should(case, tmp_path):
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules()))
    tests = [
        {
            "interval": "1m",
            "input_series": [
                {"series": in_release(name), "values": values} for name, values in series.items()
            ],
            "promql_expr_test": [
                {
                    "expr": FIRING % case.alert,
                    "eval_time": f"{case.minutes}m",
                    "exp_samples": [{"labels": "{}", "value": value}],
                }
            ],
        }
        for series, value in ((case.fires, 1), (case.quiet, 0))
    ]
    checked(["test", "rules"], tmp_path, "test.yaml", {"rule_files": ["rules.yaml"], "tests": tests})


def in_release(series: str) -> str:
    name, _, labels = series.partition("{")
    return f'{name}{{namespace="{NAMESPACE}",{labels or "}"}'


def test_every_alert_has_a_case_and_a_section_in_the_docs():
    alert_names = [rule["alert"] for rule in alerts()]
    assert alert_names == [case.alert for case in CASES]
    page = (DOCS / "alerts.md").read_text()
    assert alert_names == re.findall(r"^### (Poiesis\w+)$", page, re.MULTILINE)


def test_every_alert_has_a_severity_a_summary_and_a_runbook():
    for rule in alerts():
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["runbook_url"].endswith(
            f"/docs/reference/alerts.md#{rule['alert'].lower()}"
        )


def test_expressions_of_the_dashboard_are_valid(tmp_path):
    recorded = [{"record": "x:y", "expr": expression} for expression in expressions()]
    assert len(recorded) > 30
    groups = [{"name": str(number), "rules": [rule]} for number, rule in enumerate(recorded)]
    checked(["check", "rules"], tmp_path, "rules.yaml", {"groups": groups})


def test_alerts_and_dashboard_use_metrics_that_exist():
    asked = used("\n".join([*(rule["expr"] for rule in alerts()), *expressions()]))
    assert asked - exported() == set()


def test_reference_lists_every_metric():
    assert used((DOCS / "metrics.md").read_text()) == exported()


def test_without_a_gateway_its_alerts_are_left_out():
    groups = [group["name"] for group in rules("config.recorder.transport=postgres")["groups"]]
    assert groups == ["poiesis-availability", "poiesis-database", "poiesis-controller", "poiesis-tasks"]


def test_without_the_values_there_is_no_rule_and_no_dashboard():
    manifests = render()
    assert not any(item["kind"] == "PrometheusRule" for item in manifests)
    assert not any(item["metadata"]["name"].endswith("dashboard") for item in manifests)


def test_labels_of_alerts_and_dashboard_are_values():
    manifests = render(
        *ENABLED, "monitoring.alerts.labels.release=prometheus", "monitoring.dashboard.annotations.folder=TES"
    )
    assert one(manifests, "PrometheusRule", "poiesis")["metadata"]["labels"]["release"] == "prometheus"
    metadata = one(manifests, "ConfigMap", "poiesis-dashboard")["metadata"]
    assert metadata["labels"]["grafana_dashboard"] == "1"
    assert metadata["annotations"] == {"folder": "TES"}
