"""The chart renders the complete values files of docs/examples. Needs helm, as test_chart.py does."""

import json
import os
import shutil
import subprocess
from typing import Any

import pytest
import yaml

from poiesis_tools import values

EXAMPLES = values.ROOT / "docs/examples"
FLOOR = "1.29.0"


def rendered(file: str) -> list[dict[str, Any]]:
    """Return the objects of a release named tes in the namespace tes."""
    program = os.environ.get("POIESIS_HELM") or shutil.which("helm")
    if not program:
        pytest.fail("no helm: put it on the PATH or name it in POIESIS_HELM")
    release = ("tes", str(values.CHART), "--namespace", "tes", "--kube-version", FLOOR)
    done = subprocess.run(
        [program, "template", *release, "--values", str(EXAMPLES / file)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


@pytest.fixture(scope="module")
def multi_tenant() -> list[dict[str, Any]]:
    """Return the objects of the guide for a site with several groups."""
    return rendered("multi-tenant-values.yaml")


def configuration(manifests: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the configuration document of the api."""
    (text,) = (
        one["data"]["config.json"]
        for one in manifests
        if one["kind"] == "ConfigMap" and "config.json" in one["data"]
    )
    document: dict[str, Any] = json.loads(text)
    return document


def test_multi_tenant_site_needs_users_and_bounds_them(multi_tenant: list[dict[str, Any]]) -> None:
    config = configuration(multi_tenant)

    assert config["auth"]["mode"] == "oidc"
    limits = config["userLimits"]
    assert limits["active"]["tasks"] > 0
    assert all(limits[name] > 0 for name in ("queuedTasks", "cpuCores", "ramGb", "diskGb"))
    assert config["executors"]["rootDiskGb"] > 0
    assert config["pod"]["activeDeadlineSeconds"] > 0


def test_multi_tenant_site_is_published_with_tls(multi_tenant: list[dict[str, Any]]) -> None:
    (ingress,) = (one for one in multi_tenant if one["kind"] == "Ingress")

    assert ingress["spec"]["tls"] == [{"hosts": ["tes.example.org"], "secretName": "tes-tls"}]


def test_multi_tenant_site_restricts_executors(multi_tenant: list[dict[str, Any]]) -> None:
    config = configuration(multi_tenant)

    assert config["executors"]["profile"] == "restricted"
    assert config["executors"]["images"]
    assert config["pod"]["hostUsers"] is False


def test_multi_tenant_site_confines_tasks_to_named_networks(multi_tenant: list[dict[str, Any]]) -> None:
    policies = [one["spec"] for one in multi_tenant if one["kind"] == "NetworkPolicy"]
    open_to_all = [
        rule
        for spec in policies
        for rule in spec.get("egress", [])
        for peer in rule.get("to", [{}])
        if peer.get("ipBlock", {}).get("cidr") == "0.0.0.0/0" and not peer["ipBlock"].get("except")
    ]

    assert policies
    assert open_to_all == []


def test_multi_tenant_site_separates_the_tasks_of_groups(multi_tenant: list[dict[str, Any]]) -> None:
    confined = {
        one["metadata"].get("namespace", "tes") for one in multi_tenant if one["kind"] == "NetworkPolicy"
    }

    assert {"tes", "tes-tasks", "tes-genomics", "tes-imaging"} <= confined
    assert [one for one in multi_tenant if one["kind"].startswith("ClusterRole")] == []


def test_multi_tenant_site_holds_no_password_in_its_values(multi_tenant: list[dict[str, Any]]) -> None:
    secrets = [one for one in multi_tenant if one["kind"] == "Secret"]
    keys = {key for one in secrets for key in (one.get("stringData") or {}) | (one.get("data") or {})}

    assert keys <= {"tls.crt", "tls.key", "ca.crt"}
