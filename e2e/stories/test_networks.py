"""As an operator I know which addresses an executor reaches, and that nothing connects to it."""

import json
import secrets
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import aiohttp
import pytest

from poiesis_e2e.documents import assert_ended, sh, stdout
from poiesis_e2e.install import Release, service_kube_of
from poiesis_e2e.kube import Kube, Node, run
from poiesis_e2e.storage import Bucket, Endpoint
from poiesis_e2e.tes_client import PATH, TesClient
from poiesis_e2e.transport import files_only
from poiesis_e2e.waiting import eventually
from poiesis_lab.cluster import Cluster
from poiesis_lab.images import Images

pytestmark = pytest.mark.e2e

Address = tuple[str, int]

_API_SERVER = {"api_server": ("kubernetes.default.svc", 443)}
_METADATA = "169.254.169.254"  # of cloud providers
_PUBLIC = "203.0.113.7"  # of no host (RFC 5737); to the policy it is a public address
_WEB_PORT = 8000
# `nc` starts `true` when it is connected, and ends.
_PROBE = """
probe() { if nc -w 3 "$2" "$3" -e true 2>/dev/null; then echo "$1 open"; else echo "$1 closed"; fi; }
"""


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """Another Pod of the tasks' namespace: it serves HTTP, and no policy restricts its own connections."""

    kube: Kube
    name: str
    address: Address
    node: str  # the node's address

    async def reaches(self, addresses: Mapping[str, Address]) -> dict[str, str]:
        """Return "open" or "closed" by name."""
        command = ("exec", self.name, "--", "sh", "-c", _probes(addresses))
        return _results(await self.kube.run(*command))


def _probes(addresses: Mapping[str, Address]) -> str:
    """Return a shell script that prints for each address whether it accepts a connection."""
    return _PROBE + "".join(f"probe {name} {host} {port}\n" for name, (host, port) in addresses.items())


def _results(text: str) -> dict[str, str]:
    return dict(line.split() for line in text.splitlines())


def _address(url: str) -> Address:
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


@pytest.fixture
async def neighbour(third_kube: Kube, images: Images) -> AsyncIterator[Neighbour]:
    """Return a neighbour of the tasks of the third release."""
    name = f"neighbour-{secrets.token_hex(4)}"
    serve = f"exec httpd -f -p {_WEB_PORT} -h /etc"
    container = {"name": "web", "image": images.busybox, "command": ["sh", "-c", serve]}
    spec = {
        "containers": [container],
        "terminationGracePeriodSeconds": 0,
        "automountServiceAccountToken": False,
    }
    await third_kube.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
    await third_kube.run("wait", f"pod/{name}", "--for=condition=Ready", "--timeout=60s")
    pod = await third_kube.get("pod", name)
    assert pod is not None
    status = pod["status"]
    yield Neighbour(kube=third_kube, name=name, address=(status["podIP"], _WEB_PORT), node=status["hostIP"])
    await third_kube.delete("pod", name)


@pytest.fixture
async def outside(node: Node, images: Images) -> AsyncIterator[dict[str, Address]]:
    """Serve port 80 on the node, also at the addresses of a metadata service and of a public host."""
    name = f"poiesis-e2e-web-{secrets.token_hex(4)}"
    served = (_METADATA, _PUBLIC)
    try:
        for address in served:
            await node.run("ip", "address", "replace", f"{address}/32", "dev", "lo")
        await run(
            *(node.docker, "run", "--detach", "--rm", "--name", name),
            *("--network", f"container:{node.container}", images.busybox),
            *("httpd", "-f", "-p", "80", "-h", "/etc"),
        )
        yield {"metadata": (_METADATA, 80), "public": (_PUBLIC, 80)}
    finally:
        await run(node.docker, "rm", "--force", name)
        for address in served:
            await node.run("ip", "address", "delete", f"{address}/32", "dev", "lo")


@pytest.fixture
async def services(cluster: Cluster, third: Release, neighbour: Neighbour) -> dict[str, Address]:
    """Return addresses of the third release, by name."""
    kube = service_kube_of(cluster, third)
    found: dict[str, Address] = {}
    for component, port in (("api", 8000), ("tctl", 8080), ("gateway", 8443), ("postgres", 5432)):
        for pod in (await kube.of_component("pods", component))[:1]:
            found[component] = (pod["status"]["podIP"], port)
    if "gateway" in found:
        found["gateway_metrics"] = (found["gateway"][0], 8081)
    (api,) = await kube.of_component("services", "api")
    (port,) = api["spec"]["ports"]
    where = api["metadata"]
    found["api_service"] = (f"{where['name']}.{where['namespace']}.svc", port["port"])
    found["node_port"] = (neighbour.node, port["nodePort"])
    return found


@pytest.fixture
def private(
    neighbour: Neighbour, outside: dict[str, Address], services: dict[str, Address], web_url: str
) -> dict[str, Address]:
    """Return addresses that no executor may reach, by name."""
    reported_to = "gateway" if "gateway" in services else "postgres"
    return {
        **{name: address for name, address in services.items() if name != reported_to},
        "kubelet": (neighbour.node, 10250),
        "node": (neighbour.node, 80),
        "neighbour": neighbour.address,
        "metadata": outside["metadata"],
        "unlisted_server": _address(web_url),
        **(_API_SERVER if files_only() else {}),
    }


@pytest.fixture
def public(
    outside: dict[str, Address], services: dict[str, Address], storage: Endpoint
) -> dict[str, Address]:
    """Return addresses that every executor reaches, by name: the rest of its Pod needs all but the first."""
    reported_to = "gateway" if "gateway" in services else "postgres"
    return {
        "public": outside["public"],
        "storage": _address(storage.pod_url),
        **({} if files_only() else _API_SERVER),
        reported_to: services[reported_to],
    }


@pytest.mark.core
async def test_executor_reaches_public_addresses_and_storage_only(
    third_client: TesClient,
    private: dict[str, Address],
    public: dict[str, Address],
    neighbour: Neighbour,
    images: Images,
) -> None:
    everything = {**private, **public}
    # Postgres and the gateway accept no other Pod; all else is there.
    guarded = everything.keys() & {"postgres", "gateway"}
    assert await neighbour.reaches(everything) == {
        name: "closed" if name in guarded else "open" for name in everything
    }

    host, port = neighbour.address  # the firewall knows a new Pod after a moment
    applied = f"for i in $(seq 20); do nc -w 3 {host} {port} -e true 2>/dev/null || break; sleep 1; done\n"
    task = await third_client.run({"executors": [sh(images.busybox, applied + _probes(everything))]})

    assert_ended(task, "COMPLETE")
    assert _results(stdout(task)) == {**dict.fromkeys(private, "closed"), **dict.fromkeys(public, "open")}


@pytest.mark.core
async def test_filers_work_under_the_policy(third_client: TesClient, images: Images, bucket: Bucket) -> None:
    task = await third_client.run(
        {
            "executors": [sh(images.busybox, "cp /in/word /out/word")],
            "inputs": [{"path": "/in/word", "url": await bucket.put("word", b"staged\n")}],
            "outputs": [{"path": "/out/word", "url": bucket.url("copy")}],
            "volumes": ["/out"],
        }
    )

    assert_ended(task, "COMPLETE")
    assert await bucket.get("copy") == b"staged\n"


@pytest.mark.core
async def test_task_accepts_no_connection(
    third_client: TesClient, third_kube: Kube, neighbour: Neighbour, images: Images
) -> None:
    serve = f"httpd -p {_WEB_PORT} -h /etc && nc -w 3 127.0.0.1 {_WEB_PORT} -e true && echo serves; sleep 600"
    task_id = await third_client.create({"executors": [sh(images.busybox, serve)]})

    async def serves() -> bool:
        return "serves\\n" in json.dumps(await third_client.get(task_id, view="FULL"))

    await eventually(serves, "an executor that accepts connections")
    address = (await third_kube.pod(task_id))["status"]["podIP"]

    async def refused() -> bool:
        return await neighbour.reaches({"task": (address, _WEB_PORT)}) == {"task": "closed"}

    await eventually(refused, "a refused connection to the TaskPod", seconds=20)
    await third_client.cancel(task_id)


async def test_helm_test_reports_that_policies_are_enforced(cluster: Cluster, third: Release) -> None:
    log = await run(
        *(str(cluster.helm_path), "--kubeconfig", str(cluster.kubeconfig), "test", third.name),
        *("--namespace", third.namespace, "--logs", "--timeout", "120s"),
    )
    assert "NetworkPolicies are enforced: no connection to the api" in log


@pytest.mark.core
async def test_request_to_a_foreign_host_name_is_rejected(third: Release) -> None:
    async with aiohttp.ClientSession() as http:
        for name, status in (("evil.example", 421), ("localhost:8080", 200)):
            async with http.get(f"{third.url}{PATH}/tasks", headers={"Host": name}) as response:
                assert response.status == status
