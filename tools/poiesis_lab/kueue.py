"""Kueue in the lab's cluster: its own manifests, and an image that is pulled or built.

Its webhooks fail closed, so they apply only to namespaces with the label MANAGED and do not affect other
users of the cluster. Several runs may use it at once: each is recorded on Kueue's namespace, and the last one
removes it.
"""

import copy
import json
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from poiesis_lab import binaries, cache, images, ownership, versions
from poiesis_lab.cluster import Cluster
from poiesis_lab.errors import LabError
from poiesis_lab.shell import step, wait_until

Manifest = dict[str, Any]

NAMESPACE = "kueue-system"
MANAGED = "poiesis.lab/kueue"
API = "kueue.x-k8s.io/v1beta1"
PREEMPTS = "poiesis-e2e-high"  # a WorkloadPriorityClass above the default

_USER = "user.poiesis.lab/"  # followed by the name of a run: a label of Kueue's namespace
_ANSWERS_S = 300  # it creates its certificate itself, and a kubelet takes up to two minutes to mount it
_RESOURCES = {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}}


def image() -> str:
    """Return the manager's image; pull or build it if it is missing."""
    found: str = images.source().kueue()
    return found


def install(cluster: Cluster, user: str) -> None:
    """Return when Kueue responds. `user`: the run that needs it, until `uninstall` with the same name."""
    with cache.lock(f"kueue{ownership.current().suffix}"):
        name = versions.KUEUE_IMAGE if cluster.external else image()
        if not cluster.external:
            cluster.load([name])
        source = binaries.module_directory("sigs.k8s.io/kueue", f"v{versions.KUEUE}")
        text = cluster.kubectl("kustomize", str(source / "config/default"))
        manifests = adapted(yaml.safe_load_all(text), name)
        with step(f"install Kueue {versions.KUEUE}"):
            _apply(cluster, manifests)
            cluster.kubectl("label", "namespace", NAMESPACE, "--overwrite", f"{_USER}{user}=true")
            where = ("--namespace", NAMESPACE)
            cluster.kubectl(
                *("rollout", "status", "deployment/kueue-controller-manager", *where),
                f"--timeout={_ANSWERS_S}s",
                timeout=_ANSWERS_S + 10,
            )
            flavor = json.dumps(_flavor("probe"))
            ask = ["create", "--dry-run=server", "-f", "-"]
            wait_until(
                lambda: _takes(cluster, ask, flavor), "an answer from Kueue's webhook", seconds=_ANSWERS_S
            )


def _takes(cluster: Cluster, command: list[str], text: str) -> bool:
    try:
        cluster.kubectl(*command, input_text=text)
    except LabError:
        return False
    return True


def uninstall(cluster: Cluster, user: str) -> None:
    """Remove the objects of `user`, and with the last user Kueue, which must still run (finalizers)."""
    with cache.lock(f"kueue{ownership.current().suffix}"):
        found = cluster.kubectl("get", "namespace", NAMESPACE, "--ignore-not-found", "-o", "json")
        if not found.strip():
            return
        labels = json.loads(found)["metadata"]["labels"]
        users = {name for name in labels if name.startswith(_USER)}
        cluster.kubectl("delete", "clusterqueue,resourceflavor", user, "--ignore-not-found", "--timeout=60s")
        if users - {_USER + user}:
            cluster.kubectl("label", "namespace", NAMESPACE, f"{_USER}{user}-")
            return
        with step("remove Kueue"):
            everywhere = ("--all", "--all-namespaces", "--timeout=60s")
            cluster.kubectl("delete", "workloads.kueue.x-k8s.io,localqueues.kueue.x-k8s.io", *everywhere)
            source = binaries.module_directory("sigs.k8s.io/kueue", f"v{versions.KUEUE}")
            text = cluster.kubectl("kustomize", str(source / "config/default"))
            every = {"apiVersion": "v1", "kind": "List", "items": adapted(yaml.safe_load_all(text), "none")}
            cluster.kubectl(
                *("delete", "-f", "-", "--ignore-not-found", "--timeout=120s"),
                input_text=json.dumps(every),
                timeout=150,
            )


def adapted(manifests: Iterable[Manifest], image_name: str) -> list[Manifest]:
    """Adapt Kueue's manifests to a shared cluster: webhooks for labelled namespaces, no aggregated API.

    An unavailable aggregated API prevents the deletion of every namespace of the cluster.
    """
    result = [copy.deepcopy(one) for one in manifests if one["kind"] != "APIService"]
    for one in result:
        if one["kind"].endswith("WebhookConfiguration"):
            for hook in one["webhooks"]:
                hook["namespaceSelector"] = {"matchLabels": {MANAGED: "true"}}
        elif one["kind"] == "Deployment":
            (manager,) = one["spec"]["template"]["spec"]["containers"]
            manager |= {"image": image_name, "imagePullPolicy": "IfNotPresent", "resources": _RESOURCES}
    return result


def add_queue(cluster: Cluster, user: str, namespace: str, quota: Mapping[str, str]) -> None:
    """Create the LocalQueue `queue` with a quota (resource -> quantity) and preemption by priority."""
    flavor = {
        "name": user,
        "resources": [{"name": name, "nominalQuota": quantity} for name, quantity in quota.items()],
    }
    spec = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "preemption": {"withinClusterQueue": "LowerPriority"},
        "resourceGroups": [{"coveredResources": list(quota), "flavors": [flavor]}],
    }
    cluster.kubectl("label", "namespace", namespace, "--overwrite", f"{MANAGED}=true")
    _apply(
        cluster,
        [
            _flavor(user),
            {"apiVersion": API, "kind": "ClusterQueue", "metadata": {"name": user}, "spec": spec},
            {
                "apiVersion": API,
                "kind": "LocalQueue",
                "metadata": {"name": "queue", "namespace": namespace},
                "spec": {"clusterQueue": user},
            },
            {
                "apiVersion": API,
                "kind": "WorkloadPriorityClass",
                "metadata": {"name": PREEMPTS},
                "value": 1000,
            },
        ],
    )


def _flavor(name: str) -> Manifest:
    return {"apiVersion": API, "kind": "ResourceFlavor", "metadata": {"name": name}}


def _apply(cluster: Cluster, manifests: list[Manifest]) -> None:
    every = json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests})
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", input_text=every)
