"""Install the chart into the lab's cluster: for the stories, the demo and the benchmarks."""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, build_opener

from poiesis_e2e.kube import Kube
from poiesis_e2e.storage import Endpoint
from poiesis_e2e.transport import files_only, transport
from poiesis_lab import docker, services
from poiesis_lab.backends import S3
from poiesis_lab.cluster import NETWORK, Cluster
from poiesis_lab.shell import CommandFailed, step, wait_until

CHART = Path(__file__).resolve().parents[2] / "deployment/helm/poiesis"
SERVICES = tuple(name for name in services.SOURCES if name != "demo")
STORAGE_SECRET = "poiesis-e2e-storage"
DATABASE_SECRET = "poiesis-e2e-database"
RCLONE_SECRET = "poiesis-e2e-rclone"
SHARED_CLAIM = "shared"
SERVER_LABEL = "poiesis.io/e2e-server"  # of Pods in the release's namespace that tasks may reach

# Timeouts of the stories' releases; the chart's defaults are several times longer.
IMPATIENT = {
    "imagePullSeconds": 10,
    "configErrorSeconds": 5,
    "startSeconds": 30,
    "stalledSeconds": 15,
    "noPodSeconds": 10,
    "leftoverSeconds": 10,
}
GRACE_SECONDS = int(os.environ.get("POIESIS_E2E_GRACE_SECONDS", "10"))  # mutants.py raises it
RETRY_ATTEMPTS = 2

Values = dict[str, Any]
Secrets = Mapping[str, Mapping[str, str]]  # name, key, value


@dataclass(frozen=True, kw_only=True)
class Release:
    """An installed chart and the URL of its TES API. `tasks_namespace`: the default one of its tasks."""

    name: str
    namespace: str
    tasks_namespace: str
    url: str

    def to_json(self) -> str:
        """Return the release as JSON, for another process."""
        return json.dumps(asdict(self))


def install(
    cluster: Cluster,
    *,
    name: str,
    namespace: str,
    values: Values,
    secrets: Secrets,
    seconds: float = 180,
    chart: Sequence[str] = (str(CHART),),
) -> Release:
    """Run `helm upgrade --install`, and wait until the API responds.

    Secrets that TaskPods use are created in the namespaces of tasks, the others in the release's.
    `chart`: arguments of Helm that name the chart.
    """
    tasks = tasks_namespaces(namespace, values)
    used = set(_texts({**values.get("config", {}), "auth": None}))
    for_tasks = {key: data for key, data in secrets.items() if key in used}
    with step(f"install the chart: release {name}, namespace {namespace}"):
        for one in tasks:
            _await_deletion(cluster, one)
        create_namespace(cluster, namespace, {key: data for key, data in secrets.items() if key not in used})
        existing = [one for one in tasks if _exists(cluster, one)]
        for one in existing:
            _apply_secrets(cluster, one, for_tasks)
        with _values_file(cluster, namespace, values) as file:
            try:
                cluster.helm(
                    *("upgrade", "--install", name, *chart, "--namespace", namespace),
                    *("--values", str(file), "--wait", "--timeout", f"{seconds:.0f}s"),
                    timeout=seconds + 30,
                )
            except CommandFailed as error:
                raise NotInstalled(cluster, namespace, error) from error
        for one in tasks:  # of which the chart created some
            if one not in existing:
                _apply_secrets(cluster, one, for_tasks)
        release = Release(
            name=name,
            namespace=namespace,
            tasks_namespace=tasks[0],
            url=api_url(cluster, name, namespace),
        )
        wait_until(lambda: _answers(release.url), f"an answer from {release.url}", seconds=60)
    return release


def apply_rendered(
    cluster: Cluster, *, name: str, namespace: str, values: Values, secrets: Secrets
) -> tuple[Release, str]:
    """Apply the rendered chart without Helm, as deployment tools do; also return the output of kubectl.

    `secrets` are those of TaskPods.
    """
    tasks = tasks_namespaces(namespace, values)
    for one in (namespace, *tasks):
        if not _exists(cluster, one):
            create_namespace(cluster, one, {})
        _apply_secrets(cluster, one, secrets)
    with _values_file(cluster, namespace, values) as file:
        served = json.loads(cluster.kubectl("version", "--output=json"))["serverVersion"]["gitVersion"]
        manifests = cluster.helm(
            *("template", name, str(CHART), "--namespace", namespace, "--skip-tests", "--values", str(file)),
            *("--kube-version", served),
        )
        # As the context's namespace: the option --namespace would reject objects of other namespaces.
        kubeconfig = file.with_name("kubeconfig")
        kubeconfig.write_bytes(Path(cluster.kubeconfig).read_bytes())
        here = ("--kubeconfig", str(kubeconfig))
        cluster.kubectl("config", "set-context", "--current", f"--namespace={namespace}", *here)
        output = cluster.kubectl("apply", "--filename=-", *here, input_text=manifests)
    url = api_url(cluster, name, namespace)
    return Release(name=name, namespace=namespace, tasks_namespace=tasks[0], url=url), output


@contextmanager
def _values_file(cluster: Cluster, namespace: str, values: Values) -> Iterator[Path]:
    """Write the values, with the network policy of the lab, to a file in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "values.json"
        file.write_text(json.dumps(merged(_network_policy(cluster, namespace), values)))
        yield file


def create_namespace(cluster: Cluster, namespace: str, secrets: Secrets) -> None:
    """Create a namespace with these Secrets."""
    _await_deletion(cluster, namespace)
    _apply(cluster, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    _apply_secrets(cluster, namespace, secrets)


def tasks_namespaces(namespace: str, values: Values) -> list[str]:
    """Return the namespaces of the tasks of a release in `namespace`; the first is the default one."""
    tasks = values.get("tasks", {})
    names = [
        tasks.get("namespace") or f"{namespace}-tasks",
        *(one["name"] for one in tasks.get("namespaces", ())),
    ]
    return list(dict.fromkeys(names))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(item)


def _apply_secrets(cluster: Cluster, namespace: str, secrets: Secrets) -> None:
    for name, data in secrets.items():
        metadata = {"name": name, "namespace": namespace}
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": dict(data)}
        _apply(cluster, secret)


def _exists(cluster: Cluster, namespace: str) -> bool:
    return bool(cluster.kubectl("get", "namespace", namespace, "--ignore-not-found", "-o", "name"))


def _await_deletion(cluster: Cluster, namespace: str) -> None:
    """Wait until a namespace that is being deleted is gone: it accepts no new objects."""
    phase = ("get", "namespace", namespace, "--ignore-not-found", "-o", "jsonpath={.status.phase}")
    if cluster.kubectl(*phase) == "Terminating":
        cluster.kubectl("wait", "--for=delete", f"namespace/{namespace}", "--timeout=120s")


def uninstall(cluster: Cluster, name: str, namespace: str) -> None:
    """Remove the release, complete or not, and its namespaces with all their objects."""
    with step(f"remove release {name}, namespace {namespace}"):
        tasks = _created_namespaces(cluster, namespace)
        for one in (namespace, *tasks):
            cluster.kubectl("delete", "jobs", "--all", "--namespace", one, "--wait=false")
        cluster.helm("uninstall", name, "--namespace", namespace, "--ignore-not-found", "--wait")
        for one in (namespace, *tasks):
            cluster.kubectl("delete", "namespace", one, "--wait=false", "--ignore-not-found")


def _created_namespaces(cluster: Cluster, namespace: str) -> list[str]:
    """Return the namespaces that the chart has created for the release in `namespace`."""
    selector = "--selector=app.kubernetes.io/part-of=poiesis"
    listed = json.loads(cluster.kubectl("get", "namespaces", selector, "-o", "json"))["items"]
    return [
        one["metadata"]["name"]
        for one in listed
        if one["metadata"].get("annotations", {}).get("meta.helm.sh/release-namespace") == namespace
    ]


class NotInstalled(RuntimeError):
    """Helm failed; the text describes the namespace."""

    def __init__(self, cluster: Cluster, namespace: str, cause: Exception) -> None:
        where = ("--namespace", namespace)
        looks = [
            cluster.kubectl("get", "pods", "-o", "wide", *where),
            cluster.kubectl("get", "events", "--sort-by=.lastTimestamp", *where)[-2000:],
        ]
        for component in ("api", "tctl", "gateway", "setup", "migrations", "postgres"):
            selector = f"--selector=app.kubernetes.io/component={component}"
            output = cluster.kubectl("logs", *where, selector, "--tail=15", "--prefix", "--ignore-errors")
            looks.append(output)
        super().__init__("\n".join([f"the chart could not be installed: {cause}", *looks]))


def api_url(cluster: Cluster, name: str, namespace: str) -> str:
    """Return the URL of the Service's NodePort: unlike a port-forward it survives the Pods behind it."""
    listed = cluster.kubectl(
        *("get", "services", "--namespace", namespace, "-o", "json"),
        *("--selector", f"app.kubernetes.io/instance={name},app.kubernetes.io/component=api"),
    )
    (service,) = json.loads(listed)["items"]
    (port,) = (port["nodePort"] for port in service["spec"]["ports"] if port["name"] == "http")
    return f"http://{_node_address(cluster)}:{port}"


def kube_of(cluster: Cluster, release: Release) -> Kube:
    """Return kubectl for the namespace of the release's tasks."""
    return Kube(
        kubectl=cluster.kubectl_path,
        kubeconfig=cluster.kubeconfig,
        namespace=release.tasks_namespace,
        service_namespace=release.namespace,
    )


def service_kube_of(cluster: Cluster, release: Release) -> Kube:
    """Return kubectl for the namespace of the release's services."""
    return kube_of(cluster, release).service


def endpoint_of(store: S3) -> Endpoint:
    """Return one of the lab's S3 services as an endpoint."""
    return Endpoint(
        url=store.url, pod_url=store.pod_url, access_key=store.access_key, secret_key=store.secret_key
    )


def _network_policy(cluster: Cluster, namespace: str) -> Values:
    """Return values with which tasks reach the lab's servers in docker's network, the Pods with SERVER_LABEL
    in the release's namespace, and of the nodes only the API server."""
    if cluster.spec is None:
        return {}
    servers = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "podSelector": {"matchLabels": {SERVER_LABEL: "true"}},
    }
    nodes = [f"{docker.address_in(NETWORK, node)}/32" for node in cluster.spec.nodes]
    allow = [{"cidr": subnet, "except": nodes} for subnet in docker.ipv4_subnets(NETWORK)]
    return {"networkPolicy": {"tasks": {"allow": [*allow, servers]}, "apiServer": {"cidrs": nodes[:1]}}}


def _node_address(cluster: Cluster) -> str:
    if not cluster.external:
        return cluster.address()
    (node, *_) = json.loads(cluster.kubectl("get", "nodes", "-o", "json"))["items"]
    addresses = {address["type"]: address["address"] for address in node["status"]["addresses"]}
    found: str = addresses.get("ExternalIP") or addresses["InternalIP"]
    return found


def _apply(cluster: Cluster, manifest: Mapping[str, Any]) -> None:
    cluster.kubectl("apply", "-f", "-", input_text=json.dumps(manifest))


def _answers(url: str) -> bool:
    opener = build_opener(ProxyHandler({}))  # the node is local, not behind the machine's proxy
    try:
        with opener.open(f"{url}/ga4gh/tes/v1/service-info", timeout=5) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


def chart_values(
    images: Mapping[str, str], storage: Endpoint, database_image: str, overrides: Values | None = None
) -> Values:
    """Return values for a small machine: our images, this object storage, small requests; then `overrides`.

    `images`: references by service; empty for an external cluster, whose nodes have the chart's images.
    """
    ours = {name: images[name] for name in SERVICES if name in images}
    values: Values = {
        "images": {"registry": "", **ours},
        "postgresql": {
            "image": database_image,
            "persistence": {"size": "1Gi"},
            "resources": {"requests": {"cpu": "10m", "memory": "96Mi"}},
        },
        "config": {
            "storage": {
                "s3": {
                    "endpoint": storage.pod_url,
                    "region": storage.region,
                    "addressingStyle": "path",
                    "secretName": STORAGE_SECRET,
                },
                "http": {"allow": ["10.0.0.0/8", "172.16.0.0/12"]},  # the lab's own web servers
            },
            "volume": {"defaultSizeGb": 1},
            "executors": {"defaultResources": {"cpu": "50m", "memory": "64Mi"}},
            "resources": {
                "trec": {"requests": {"cpu": "5m"}},
                "filer": {
                    "requests": {"cpu": "10m", "memory": "64Mi"},
                    "limits": {"cpu": "1", "memory": "512Mi"},
                },
            },
            "filerRetryAttempts": RETRY_ATTEMPTS,
            "terminationGracePeriodSeconds": GRACE_SECONDS,
            "serviceInfo": {"environment": "test"},
            "auth": {"allowAnonymous": True},  # only this machine reaches the NodePort
        },
        "api": {
            "resources": {"requests": {"cpu": "10m", "memory": "96Mi"}},
            "service": {"type": "NodePort"},
        },
        "gateway": {"resources": {"requests": {"cpu": "10m", "memory": "64Mi"}}},
        "tctl": {"resources": {"requests": {"cpu": "10m", "memory": "64Mi"}}, "thresholds": IMPATIENT},
    }
    values["config"]["recorder"] = {"transport": transport(), "filesOnly": files_only()}
    return merged(values, overrides or {})


def merged(base: Values, over: Values) -> Values:
    """Return `base` overridden by `over` as in helm: dicts are merged, null removes, all else replaces."""
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        if value is None and below is not None:
            del result[key]
            continue
        result[key] = merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return result


def storage_secret(endpoint: Endpoint) -> dict[str, str]:
    """Return the Secret that becomes the filers' environment."""
    return {"AWS_ACCESS_KEY_ID": endpoint.access_key, "AWS_SECRET_ACCESS_KEY": endpoint.secret_key}


def database_secret(pod_dsn: str) -> dict[str, str]:
    """Return the DSNs of the three roles for the owner's `pod_dsn`; the migrations set these passwords."""
    owner = urlsplit(pod_dsn)

    def dsn(role: str) -> str:
        address = f"{owner.hostname}:{owner.port}"
        return owner._replace(netloc=f"{role}:{role}-lab-password@{address}").geturl()

    return {
        "migrations-dsn": pod_dsn,
        "api-dsn": dsn("poiesis_api"),
        "recorder-dsn": dsn("poiesis_recorder"),
    }
