"""As an operator I let a deployment tool apply the rendered chart repeatedly, and rotate all its secrets."""

import asyncio
import base64
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from functools import partial

import pytest
import pytest_asyncio

from poiesis_e2e import gateway_control
from poiesis_e2e.documents import assert_ended, sh, stdout
from poiesis_e2e.install import (
    STORAGE_SECRET,
    Release,
    Values,
    apply_rendered,
    chart_values,
    merged,
    service_kube_of,
    storage_secret,
    tasks_namespaces,
    uninstall,
)
from poiesis_e2e.kube import CommandError, Kube
from poiesis_e2e.storage import Endpoint
from poiesis_e2e.tes_client import TesClient, connect
from poiesis_e2e.transport import transport
from poiesis_e2e.waiting import eventually
from poiesis_lab.cluster import Cluster
from poiesis_lab.images import Images

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

_NAME = "gitops"
_VALUES: Values = {
    "config": {"volume": {"type": "emptyDir"}},
    "api": {"replicas": 1},
    "gateway": {"replicas": 1},
    "tctl": {"replicas": 1},
}
_GATEWAY = transport() == "gateway"
_MADE = tuple(
    f"{_NAME}-poiesis-{name}"
    for name in ("ca", "postgres", "postgres-tls", "recorder", *(["gateway-tls"] if _GATEWAY else []))
)
_URLS = {"postgres": ("migrations-dsn", "api-dsn"), "recorder": ("recorder-dsn",)}
_FOLLOWED_SECONDS = 180  # the kubelet updates the files of a changed Secret within about 90 s

_KINDS = (
    "configmaps,cronjobs,deployments,jobs,networkpolicies,poddisruptionbudgets,rolebindings,roles,"
    "serviceaccounts,services,statefulsets"
)
_COMPONENTS = ("api", "gateway", "tctl", "postgres", "setup", "migrations")

Apply = Callable[[Values], tuple[Release, str]]


@pytest.fixture(scope="module")
def apply(cluster: Cluster, built: Mapping[str, str], storage: Endpoint, images: Images) -> Iterator[Apply]:
    """Return a function that applies the chart with values over the common ones."""
    namespace = f"poiesis-e2e-{os.environ['POIESIS_E2E_RUN']}-{_NAME}"
    values = chart_values(built, storage, images.postgres, _VALUES)
    secrets = {STORAGE_SECRET: storage_secret(storage)}
    try:
        yield lambda over: apply_rendered(
            cluster, name=_NAME, namespace=namespace, values=merged(values, over), secrets=secrets
        )
    finally:
        uninstall(cluster, _NAME, namespace)
        for one in tasks_namespaces(namespace, values):
            cluster.kubectl("delete", "namespace", one, "--wait=false", "--ignore-not-found")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def release(cluster: Cluster, apply: Apply) -> Release:
    """Return a release that kubectl applied, all in one step."""
    release, _ = await asyncio.to_thread(apply, {})
    kube = service_kube_of(cluster, release)
    for kind, name in (
        ("statefulset", "postgres"),
        *(("deployment", one) for one in ("api", "tctl", *(["gateway"] if _GATEWAY else []))),
    ):
        await kube.run("rollout", "status", f"{kind}/{_NAME}-poiesis-{name}", "--timeout=240s")
    return release


@pytest_asyncio.fixture(loop_scope="module")
async def client(release: Release) -> AsyncIterator[TesClient]:
    async with connect(release.url, keep_alive=False) as made:
        yield made


@pytest.fixture
def kube(cluster: Cluster, release: Release) -> Kube:
    """Return kubectl for the namespace of the services."""
    return service_kube_of(cluster, release)


async def _secrets(kube: Kube) -> dict[str, dict[str, str]]:
    found = [await kube.get("secret", name) for name in _MADE]
    return {
        one["metadata"]["name"]: {key: base64.b64decode(value).decode() for key, value in one["data"].items()}
        for one in found
        if one is not None
    }


async def _state(kube: Kube) -> dict[str, tuple[str, ...]]:
    """Return what changes with the content of a Secret or of an object of the chart, or with a Pod's restart.

    A generation does not change with an object's status; kinds without it have none.
    """
    objects = await kube.find(_KINDS, f"app.kubernetes.io/instance={_NAME}")
    objects += [found for name in _MADE if (found := await kube.get("secret", name)) is not None]
    state: dict[str, tuple[str, ...]] = {}
    for one in objects:
        metadata = one["metadata"]
        version = metadata.get("generation") or metadata["resourceVersion"]
        state[f"{one['kind']}/{metadata['name']}"] = (metadata["uid"], str(version))
    for pod in await kube.of_component("pods", *_COMPONENTS):
        restarts = sum(one["restartCount"] for one in pod["status"]["containerStatuses"])
        state[f"Pod/{pod['metadata']['name']}"] = (pod["metadata"]["uid"], str(restarts))
    return state


async def test_second_apply_changes_nothing(
    client: TesClient, kube: Kube, apply: Apply, images: Images
) -> None:
    assert_ended(await client.run({"executors": [sh(images.busybox, "true")]}), "COMPLETE")
    before = await _state(kube)

    await asyncio.to_thread(apply, {})

    assert await _state(kube) == before
    assert {f"Secret/{name}" for name in _MADE} <= before.keys()
    assert_ended(await client.run({"executors": [sh(images.busybox, "true")]}), "COMPLETE")


async def test_database_owner_is_no_superuser(kube: Kube, release: Release) -> None:
    roles = await kube.sql("SELECT rolname, rolsuper FROM pg_roles WHERE rolname !~ '^pg_' ORDER BY 1")
    assert roles.splitlines() == ["poiesis|f", "poiesis_api|f", "poiesis_recorder|f", "postgres|t"]


async def test_rotation_of_all_secrets_leaves_tasks_running(
    *, client: TesClient, kube: Kube, apply: Apply, images: Images
) -> None:
    before = await _secrets(kube)
    running = await client.create({"executors": [sh(images.busybox, "echo begun; sleep 150; echo done")]})
    await client.wait(running, until={"RUNNING"})

    await asyncio.to_thread(apply, {"setup": {"rotation": "2026-12"}})
    await kube.run(
        *("wait", "--for=condition=complete", "job", "--timeout=120s"),
        "--selector=app.kubernetes.io/component=setup",
    )
    services = [f"deployment/{_NAME}-poiesis-{name}" for name in ("api", "tctl")]
    await kube.run("rollout", "restart", *services)
    after = await _secrets(kube)

    assert [
        (name, key) for name in before for key, value in before[name].items() if after[name][key] == value
    ] == []
    for name, keys in _URLS.items():
        secret = f"{_NAME}-poiesis-{name}"
        for key in keys:
            await _until_rejected(kube, before[secret][key])
            assert await _log_in(kube, after[secret][key], after[f"{_NAME}-poiesis-ca"]["ca.crt"]) == "1"
    for name in services:
        await kube.run("rollout", "status", name, "--timeout=180s")
    if _GATEWAY:
        await eventually(
            partial(gateway_control.presents, kube, await gateway_control.certificate(kube)),
            "the new certificate at the gateway",
            seconds=_FOLLOWED_SECONDS,
        )
    assert (await client.get(running, "MINIMAL"))["state"] == "RUNNING"

    assert_ended(await client.run({"executors": [sh(images.busybox, "true")]}), "COMPLETE")
    await client.wait(running)
    task = await client.get(running, "FULL")
    assert_ended(task, "COMPLETE")
    if _GATEWAY:  # otherwise the recorder of a running task keeps the former password
        assert stdout(task) == "begun\ndone\n"


async def _log_in(kube: Kube, url: str, authority: str) -> str:
    """Log in by TCP, with only this authority trusted. Raise CommandError."""
    (pod,) = await kube.of_component("pods", "postgres")
    connect_with = f"{url}&hostaddr=127.0.0.1&sslrootcert=/tmp/authority&connect_timeout=10"
    script = 'cat >/tmp/authority; exec psql --no-psqlrc -qAt --command="SELECT 1" "$1"'
    arguments = (
        "exec",
        "--stdin",
        pod["metadata"]["name"],
        "--container=postgres",
        "--",
        "sh",
        "-c",
        script,
        "sh",
    )
    return (await kube.run(*arguments, connect_with, input_text=authority)).strip()


async def _until_rejected(kube: Kube, url: str) -> None:
    """Wait until Postgres rejects the password of a URL."""
    (pod,) = await kube.of_component("pods", "postgres")
    unverified = url.replace("verify-full", "require") + "&hostaddr=127.0.0.1"

    async def rejected() -> bool:
        try:
            await kube.run(
                *("exec", pod["metadata"]["name"], "--container=postgres", "--", "psql", "--no-psqlrc"),
                *("--command=SELECT 1", unverified),
            )
        except CommandError as error:
            return "password authentication failed" in error.output
        return False

    await eventually(rejected, "a rejection of the former password", seconds=_FOLLOWED_SECONDS)
