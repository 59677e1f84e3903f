"""Fixtures of the stories: one cluster and one release for the whole run, however many workers share them.

The first worker that needs a resource creates it, under a lock, and records it; the process that started the
run removes everything at the end. POIESIS_E2E_KEEP=1 (or --keep-cluster) keeps it, and the next run upgrades
it in place. --kubeconfig or POIESIS_KUBECONFIG names a cluster to use instead of the lab's.
"""

import asyncio
import fcntl
import gc
import json
import os
import shutil
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import asdict
from functools import cache as memoized
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from filelock import FileLock
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from poiesis_e2e.failures.case import World
from poiesis_e2e.failures.node_disturbances import repair
from poiesis_e2e.install import (
    DATABASE_SECRET,
    RCLONE_SECRET,
    SERVICES,
    SHARED_CLAIM,
    STORAGE_SECRET,
    Release,
    Secrets,
    Values,
    chart_values,
    database_secret,
    endpoint_of,
    install,
    kube_of,
    merged,
    storage_secret,
    uninstall,
)
from poiesis_e2e.kube import COMPONENT_LABEL, TASK_LABEL, Kube, Node
from poiesis_e2e.machine import Machine
from poiesis_e2e.storage import Bucket, Endpoint, make_bucket
from poiesis_e2e.tes_client import Document, Task, TesClient, connect
from poiesis_e2e.waiting import eventually
from poiesis_lab import backends, cache, clients, docker, ownership, services, versions
from poiesis_lab import cluster as lab_cluster
from poiesis_lab import images as lab_images
from poiesis_lab import kueue as lab_kueue
from poiesis_lab.cluster import Cluster
from poiesis_lab.errors import LabError
from poiesis_lab.images import Images
from poiesis_lab.shell import report
from poiesis_tools.testing import RELEASE_LOGS

_RUN = "POIESIS_E2E_RUN"  # name of this run
_OWNER = "POIESIS_E2E_OWNER"  # process that removes its resources
_RELEASES = ("first", "second", "third", "queued", "users", "external")
_DATABASES = ("postgres", "tls-postgres")  # servers of this run
_SCOPES = {  # by a part of the test id: tests that share something exclusive run one after the other
    "the cluster of two nodes": ("on_failing_nodes",),
    "the second release": ("test_postgres.py", "test_outages.py", "test_bounds_", "test_attacks.py"),
    "the third release": ("test_controller.py", "test_submission.py"),
    "the queue": ("table_with_kueue",),
    "the release with users": ("test_identity_", "test_hardening.py"),
    "the release with a Postgres that has a certificate": ("test_external_postgres.py",),
    "the release that kubectl applies": ("test_gitops.py",),
    "the published release": ("test_release.py",),
}
_CREATED = pytest.StashKey[list[str]]()
_NAMESPACE = pytest.StashKey[str]()
_CLUSTER = pytest.StashKey[Cluster]()
_PASSING = pytest.StashKey[bool]()  # whether this process removes the two-node cluster when it ends
_SHORT = {  # named on the page
    "unschedulableSeconds": 20,
    "nodeLostSeconds": 10,
    "stalledSeconds": 15,
    "configErrorSeconds": 90,  # while the API server is away, a kubelet cannot get Secrets
}
_FILER = Path(__file__).parent / "filers"


# --- one run, many workers -----------------------------------------------------------------------------


def pytest_configure(config: pytest.Config) -> None:
    """Name the run; workers inherit the name by the environment."""
    config.addinivalue_line("markers", "disruptive: takes parts of its release away, so has it alone")
    if not hasattr(config, "workerinput"):
        os.environ.setdefault(_RUN, "kept" if _keep(config) else uuid.uuid4().hex[:6])
        os.environ[_OWNER] = str(os.getpid())


class _OneAtATime(LoadScopeScheduling):  # type: ignore[misc]
    """Assign each test to the next free worker; run tests that exclude each other on one worker, and first.

    This applies to the two-node cluster, which its tests create and use one at a time, and to stories that
    stop parts of a release. xdist's own groups do not work: pytest 9.2 keeps node ids where xdist 3.8 does
    not look for groups.
    """

    def _split_scope(self, nodeid: str) -> str:
        return next(
            (scope for scope, names in _SCOPES.items() if any(one in nodeid for one in names)), nodeid
        )


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> _OneAtATime:
    """Use this scheduler for every --dist: most of these tests share resources."""
    return _OneAtATime(config, log)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Remove the run's resources; only in the process that started it, after all workers."""
    made = any(cache.directory().glob(f"e2e*/{os.environ[_RUN]}"))  # otherwise docker is not needed
    if os.environ[_OWNER] != str(os.getpid()) or not made or not _folder().exists():
        return
    folder = _folder()
    try:
        if not _keep(session.config):
            _take_down(folder)
        shutil.rmtree(folder)
    except LabError as error:
        report(f"cannot remove the run's releases, the next run retries: {error}")


def _keep(config: pytest.Config) -> bool:
    return os.environ.get("POIESIS_E2E_KEEP") == "1" or bool(config.getoption("keep_cluster", default=False))


def _folder() -> Path:
    """Return the folder of this run's records; one per Kubernetes release."""
    name = versions.own_name(f"e2e{ownership.current().suffix}", versions.RELEASE)
    return cache.directory() / name / os.environ[_RUN]


def _namespace(release: str, run: str) -> str:
    return f"poiesis-e2e-{run}-{release}"


def _kueue_user(run: str) -> str:
    return f"poiesis-e2e-{run}"


def _take_down_dead_runs() -> None:
    """Remove the resources of runs whose process was killed."""
    for folder in _folder().parent.iterdir():
        owner = (folder / "owner").read_text() if (folder / "owner").exists() else "0"
        if folder.name != "kept" and not Path("/proc", owner).exists():
            _take_down(folder)
            shutil.rmtree(folder)


def _take_down(folder: Path) -> None:
    made = {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}
    if "cluster" not in made:
        return
    cluster = lab_cluster.current()
    for name in _RELEASES:
        uninstall(cluster, name, _namespace(name, folder.name))
    if (folder / "kueue.json").exists() or (folder / "kueue.failed").exists():
        lab_kueue.uninstall(cluster, _kueue_user(folder.name))
    for database in (made[name]["container"] for name in _DATABASES if name in made):
        if docker.container_facts(database) is not None:
            docker.docker("rm", "--force", "--volumes", database)
    if made["cluster"]["made"] and folder == _folder():
        lab_cluster.clear()


def once(name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the result of `make`, called only in the first worker."""
    folder = _folder()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "owner").write_text(os.environ[_OWNER])
    path, failure = folder / f"{name}.json", folder / f"{name}.failed"
    with FileLock(folder / f"{name}.lock"):
        if failure.exists():
            pytest.fail(f"{name} could not be had: {failure.read_text()}", pytrace=False)
        if not path.exists():
            _write(path, failure, make)
        found: dict[str, Any] = json.loads(path.read_text())
        return found


def _write(path: Path, failure: Path, make: Callable[[], dict[str, Any]]) -> None:
    try:
        facts = make()
    except Exception as error:
        failure.write_text(str(error))  # other workers fail without another attempt
        raise
    with cache.aside(path) as new:
        new.write_text(json.dumps(facts))


@memoized
def _machine() -> Machine:
    return Machine(_folder())


@pytest.fixture
def machine() -> Machine:
    """Return the locks for exclusive use in timed stories."""
    return _machine()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Share the machine during the call of a story, but not while its fixtures wait."""
    with _machine().shared() if item.get_closest_marker("e2e") else nullcontext():
        yield


@pytest.fixture(autouse=True)
def _nothing_left_open(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a story that leaves a connection open, not the next one."""
    yield
    if request.node.get_closest_marker("e2e"):
        gc.collect()


# --- the cluster and the servers next to it ------------------------------------------------------------


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Cluster:
    """Return a working cluster, or fail the test with the reason."""
    named = request.config.getoption("kubeconfig") or os.environ.get("POIESIS_KUBECONFIG")

    def up() -> dict[str, Any]:
        before = docker.answers() and lab_cluster.exists()
        lab_cluster.up(Path(named) if named else None)
        _take_down_dead_runs()
        return {"made": not before and not named}

    once("cluster", up)
    return lab_cluster.current()


@pytest.fixture(scope="session")
def images(cluster: Cluster) -> Images:
    """Return the images that stories run, loaded into the cluster."""

    def make() -> dict[str, Any]:
        made = lab_images.for_stories()
        if not cluster.external:
            cluster.load([made.noshell, made.foreign, made.python_base])
        return asdict(made)

    return Images(**once("images", make))


@pytest.fixture(scope="session")
def built(cluster: Cluster) -> dict[str, str]:
    """Return our own images by service, built and loaded; empty for an external cluster."""
    return {} if cluster.external else once("built", services.build_and_load)


@pytest.fixture(scope="session")
def demo_image(built: dict[str, str]) -> str:
    """Return the image of the demo's tools."""
    return built["demo"]


@pytest.fixture(scope="session")
def storage(cluster: Cluster) -> Endpoint:
    """Return the endpoint of MinIO."""
    minio = backends.S3(**once("minio", lambda: asdict(backends.start_minio())))
    return endpoint_of(minio)


def _database(name: str) -> backends.Postgres:
    container = versions.own_name(f"poiesis-e2e-{name}-{os.environ[_RUN]}", versions.RELEASE)
    return backends.Postgres(**once(name, lambda: asdict(backends.start_postgres(container))))


@pytest.fixture(scope="session")
def postgres(cluster: Cluster) -> backends.Postgres:
    """Return a Postgres server of this run."""
    return _database("postgres")


@pytest.fixture(scope="session")
def tls_postgres(cluster: Cluster) -> backends.Postgres:
    """Return another Postgres server, whose certificate a story chooses."""
    return _database("tls-postgres")


@pytest.fixture(scope="session")
def web_url(cluster: Cluster) -> str:
    """Return the HTTP server's URL for Pods."""
    server = backends.HttpServer(**once("web", lambda: asdict(backends.start_file_server({}))))
    return server.pod_url


@pytest.fixture
def serve(web_url: str) -> Callable[[str, bytes], str]:
    """Return a function that serves a file by HTTP, from name and content to URL."""
    folder = f"e2e/{uuid.uuid4().hex}"

    def put(name: str, content: bytes) -> str:
        backends.start_file_server({f"{folder}/{name}": content})
        return f"{web_url}/{folder}/{name}"

    return put


@pytest.fixture
def bucket(storage: Endpoint) -> Iterator[Bucket]:
    """Return a bucket for this test."""
    made = make_bucket(storage)
    yield made
    made.remove()


# --- the releases --------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def installed(
    cluster: Cluster, built: dict[str, str], storage: Endpoint, images: Images
) -> Callable[[str, Values, Secrets], Release]:
    """Return a function that installs or upgrades a release with values over the common ones, and Secrets."""

    def make(name: str, overrides: Values, secrets: Secrets) -> Release:
        return install(
            cluster,
            name=name,
            namespace=_namespace(name, os.environ[_RUN]),
            values=chart_values(built, storage, images.postgres, overrides),
            secrets={STORAGE_SECRET: storage_secret(storage), **secrets},
        )

    return make


@pytest.fixture(scope="session")
def released(installed: Callable[[str, Values, Secrets], Release]) -> Callable[..., Release]:
    """Return a function that installs a release once per run."""

    def have(name: str, overrides: Values, secrets: Secrets) -> Release:
        return Release(**once(name, lambda: asdict(installed(name, overrides, secrets))))

    return have


@pytest.fixture(scope="session")
def release(released: Callable[..., Release], postgres: backends.Postgres) -> Release:
    """Return a release like that of most sites: external Postgres and object storage, claims for disks."""
    overrides: Values = {
        "postgresql": {"embedded": False, "existingSecret": DATABASE_SECRET},
        "tctl": {"reconcileSeconds": 15},
    }
    return released("first", overrides, {DATABASE_SECRET: database_secret(postgres.pod_dsn)})


def _image(
    cluster: Cluster, name: str, dockerfile: Path, base: tuple[str, str], files: Mapping[str, Path]
) -> str:
    """Build and load an image of the stories. `base`: the FROM of its Dockerfile, and the replacement."""

    def make() -> dict[str, Any]:
        image = lab_images.from_dockerfile(name, dockerfile.read_text().replace(*base), files)
        cluster.load([image])
        return {"image": image}

    image: str = once(name, make)["image"]
    return image


@pytest.fixture(scope="session")
def filer_image(cluster: Cluster, images: Images) -> str:
    """Return the image of a custom filer."""
    base = ("debian:bookworm-slim", images.debian_base)
    return _image(cluster, "filer", _FILER / "Dockerfile", base, {"filer.sh": _FILER / "filer.sh"})


@pytest.fixture(scope="session")
def app_image(cluster: Cluster, images: Images) -> str:
    """Return an image with a program in /app that prints the configuration next to it."""
    app = _FILER.parent / "app"
    return _image(
        cluster, "app", app / "Dockerfile", ("busybox:1.37", images.busybox), {"run.sh": app / "run.sh"}
    )


@pytest.fixture(scope="session")
def attackers(cluster: Cluster, images: Images) -> dict[str, str]:
    """Return images with Python, by the user that they run as."""

    def make() -> dict[str, Any]:
        plain = f"FROM {images.python_base}\nUSER 1000:1000\n"
        made = {"root": images.python_base, "1000": lab_images.from_dockerfile("python-1000", plain)}
        cluster.load([made["1000"]])
        return made

    return once("attackers", make)


@pytest.fixture(scope="session")
def remotes(cluster: Cluster) -> dict[str, backends.Remote]:
    """Return an SSH server and a WebDAV server, by URL scheme."""

    def make() -> dict[str, Any]:
        webdav = backends.start_webdav(services.build(["rclone"])["rclone"])
        return {"sftp": asdict(backends.start_sftp()), "webdav": asdict(webdav)}

    return {scheme: backends.Remote(**facts) for scheme, facts in once("remotes", make).items()}


@pytest.fixture(scope="session")
def other_s3(cluster: Cluster) -> Endpoint:
    """Return SeaweedFS, an S3 service in addition to the configured one."""
    return endpoint_of(backends.S3(**once("seaweedfs", lambda: asdict(backends.start_seaweedfs()))))


@pytest.fixture
def weed(other_s3: Endpoint) -> Iterator[Bucket]:
    """Return a bucket in SeaweedFS for this test."""
    made = make_bucket(other_s3)
    yield made
    made.remove()


@pytest.fixture(scope="session")
def rclone_conf(remotes: dict[str, backends.Remote], built: dict[str, str], other_s3: Endpoint) -> str:
    """Return an rclone.conf for sftp://, webdav:// and weed://."""
    sftp, webdav = remotes["sftp"], remotes["webdav"]
    sftp_pass, webdav_pass = (backends.obscured(one.password, built["rclone"]) for one in (sftp, webdav))
    return f"""
[sftp]
type = sftp
host = {sftp.pod_host}
port = {sftp.pod_port}
user = {sftp.user}
pass = {sftp_pass}
shell_type = none
[webdav]
type = webdav
url = http://{webdav.pod_address}
user = {webdav.user}
pass = {webdav_pass}
[weed]
type = s3
provider = SeaweedFS
endpoint = {other_s3.pod_url}
access_key_id = {other_s3.access_key}
secret_access_key = {other_s3.secret_key}
"""


@pytest.fixture(scope="session")
def ftp_filer_image(cluster: Cluster, images: Images) -> str:
    """Return the image of the filer for ftp://, which cwl-tes uses."""
    base = ("python:3.13-slim", images.python_base)
    return _image(cluster, "ftp-filer", _FILER / "Dockerfile.ftp", base, {"ftp.py": _FILER / "ftp.py"})


@pytest.fixture(scope="session")
def snakemake_image(cluster: Cluster, images: Images) -> str:
    """Return the image of Snakemake's jobs: Snakemake from the same lock as its client."""
    base = ("python:3.13-slim", images.python_build_base)
    lock = clients.LOCKS / "snakemake-9.lock"
    dockerfile = clients.LOCKS / "Dockerfile.snakemake"
    return _image(cluster, "snakemake", dockerfile, base, {"snakemake.lock": lock})


@pytest.fixture(scope="session")
def second_release(
    released: Callable[..., Release], filer_image: str, ftp_filer_image: str, rclone_conf: str
) -> Release:
    """Return a release with the embedded Postgres, disks on the node, and every kind of filer."""
    side = {"image": filer_image, "command": ["/filer"]}
    shared = {"persistentVolumeClaim": {"claimName": SHARED_CLAIM}}
    ftp = {"schemes": ["ftp"], "image": ftp_filer_image, "command": ["python3", "/ftp.py"]}
    config: Values = {
        "volume": {"type": "emptyDir"},
        "executors": {"rootDiskGb": 0.05},
        "filers": [
            {
                "name": "default",
                "inputs": {"schemes": ["s3"], "command": ["python3", "-m", "poiesis_tif"]},
                "outputs": {"schemes": ["s3"], "command": ["python3", "-m", "poiesis_tof"]},
            },
            {
                "name": "shell",
                "inputs": {"schemes": ["http", "mem"], **side},
                "outputs": {"schemes": ["mem"], **side},
            },
            {"name": "ftp", "inputs": ftp, "outputs": ftp},
        ],
        "storage": {
            "rclone": {"schemes": ["sftp", "webdav", "weed"], "secretName": RCLONE_SECRET},
            "sharedVolumes": [
                {"prefix": "/lab/read", "volume": shared},
                {"prefix": "/lab/write", "volume": shared, "writable": True},
            ],
        },
    }
    return released("second", {"config": config}, {RCLONE_SECRET: {"rclone.conf": rclone_conf}})


@pytest.fixture(scope="session")
def third_release(released: Callable[..., Release]) -> Release:
    """Return a release with the embedded Postgres, few Jobs at a time, and streaming, for stories that stop
    its services. Its tasks reach no server of the lab but MinIO, and those that run in a test's process."""
    config: Values = {
        "queue": {"maxActiveTasks": 4, "leaseSeconds": 10},
        "storage": {"streaming": True},
    }
    allow = [{"cidr": f"{address}/32"} for address in docker.ipv4_gateways(lab_cluster.NETWORK)]
    return released("third", {"config": config, "networkPolicy": {"tasks": {"allow": allow}}}, {})


@pytest.fixture(scope="session")
def queued_release(cluster: Cluster, released: Callable[..., Release]) -> Release:
    """Return a release whose Jobs Kueue admits, to a queue with a fifth of a CPU."""
    run = os.environ[_RUN]

    def install_kueue() -> dict[str, Any]:
        lab_kueue.install(cluster, _kueue_user(run))
        return {}

    def add_queue() -> dict[str, Any]:
        quota = {"cpu": "200m", "memory": "4Gi"}
        lab_kueue.add_queue(cluster, _kueue_user(run), f"{_namespace('queued', run)}-tasks", quota)
        return {}

    once("kueue", install_kueue)
    config: Values = {"volume": {"type": "ephemeral"}, "queue": {"kueueQueueName": "queue"}}
    release = released("queued", {"config": config}, {})
    once("queue", add_queue)
    return release


@pytest.fixture(scope="session")
def with_users(
    cluster: Cluster, installed: Callable[[str, Values, Secrets], Release]
) -> Callable[[Values, Secrets], Release]:
    """Return a function that upgrades the release with authentication to these values and waits until no api
    with earlier values is left."""

    def have(overrides: Values, secrets: Secrets) -> Release:
        release = installed(
            "users", merged({"gateway": {"replicas": 1}, "tctl": {"replicas": 1}}, overrides), secrets
        )
        kube = kube_of(cluster, release)

        async def alone() -> bool:
            (deployment,) = await kube.of_component("deployments", "api")
            return len(await kube.of_component("pods", "api")) == deployment["spec"]["replicas"]

        asyncio.run(eventually(alone, "the end of the former apis", seconds=90))
        return release

    return have


@pytest.fixture(scope="session")
def keycloak(cluster: Cluster) -> backends.Keycloak:
    """Return Keycloak; each test creates its own realm."""
    return backends.Keycloak(**once("keycloak", lambda: asdict(backends.start_keycloak())))


@pytest.fixture
def queued(queued_release: Release) -> Iterator[Release]:
    """Return the release with a queue, used by this test alone."""
    with _turn(queued_release, alone=True):
        yield queued_release


@pytest.fixture
def second(request: pytest.FixtureRequest, second_release: Release) -> Iterator[Release]:
    """Return the second release: shared, or exclusive with the marker `disruptive`."""
    with _turn(second_release, alone=_is_disruptive(request)):
        yield second_release


@pytest.fixture
def third(request: pytest.FixtureRequest, third_release: Release) -> Iterator[Release]:
    """Return the third release: shared, or exclusive with the marker `disruptive`."""
    with _turn(third_release, alone=_is_disruptive(request)):
        yield third_release


def _is_disruptive(request: pytest.FixtureRequest) -> bool:
    return request.node.get_closest_marker("disruptive") is not None


@contextmanager
def _turn(release: Release, *, alone: bool) -> Iterator[None]:
    """Lock a release, shared or exclusive: many tests may use it at once unless one is disruptive."""
    with (_folder() / f"{release.name}.turn").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield


# --- the two-node cluster -------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def two_nodes(request: pytest.FixtureRequest, cluster: Cluster) -> Iterator[Cluster]:
    """Return the cluster whose nodes fail, for this process alone; remove it afterwards if it is new."""
    assert not cluster.external, "this story takes nodes away: run it on the lab's own cluster"
    with cache.lock(f"e2e{ownership.current().suffix}-nodes"):
        passing = not lab_cluster.exists(lab_cluster.TWO_NODES) and not _keep(request.config)
        request.config.stash[_PASSING] = passing
        yield lab_cluster.up(spec=lab_cluster.TWO_NODES)
        if passing:
            lab_cluster.remove(lab_cluster.TWO_NODES)


@pytest.fixture(scope="session")
def nodes_release(
    request: pytest.FixtureRequest, two_nodes: Cluster, storage: Endpoint, images: Images
) -> Iterator[Release]:
    """Return a release on two nodes: TaskPods on the worker, everything else on the control plane.

    Its timeouts are short. Its name and its Postgres do not depend on the run, so that leftovers of a killed
    run are upgraded.
    """
    assert two_nodes.spec is not None
    built = services.build(SERVICES)
    two_nodes.load(built.values())
    postgres = backends.start_postgres("poiesis-e2e-postgres-nodes")
    above: Values = {"nodeSelector": {"node-role.kubernetes.io/control-plane": ""}}
    missing = {"configMap": {"name": "missing"}}  # a volume that no node can mount
    overrides: Values = {
        "postgresql": {"embedded": False, "existingSecret": DATABASE_SECRET},
        "api": above,
        "gateway": above,
        "tctl": {**above, "thresholds": _SHORT},
        "migrations": above,
        "config": {
            "terminationGracePeriodSeconds": 10,
            "pod": {"nodeSelector": {"kubernetes.io/hostname": two_nodes.spec.nodes[-1]}},
            "storage": {"sharedVolumes": [{"prefix": "/lab/missing", "volume": missing}]},
        },
    }
    release = install(
        two_nodes,
        name="nodes",
        namespace="poiesis-e2e-nodes",
        values=chart_values(built, storage, images.postgres, overrides),
        secrets={
            STORAGE_SECRET: storage_secret(storage),
            DATABASE_SECRET: database_secret(postgres.pod_dsn),
        },
    )
    yield release
    if not _keep(request.config):
        if not request.config.stash[_PASSING]:
            uninstall(two_nodes, release.name, release.namespace)
        docker.docker("rm", "--force", "--volumes", postgres.container)


@pytest.fixture
async def nodes_client(
    request: pytest.FixtureRequest, two_nodes: Cluster, nodes_release: Release
) -> AsyncIterator[TesClient]:
    """Return a TES client of the release on two nodes."""
    request.node.stash[_CLUSTER] = two_nodes
    async with _client(request, nodes_release) as made:
        yield made


@pytest.fixture
def nodes_kube(two_nodes: Cluster, nodes_release: Release) -> Kube:
    """Return kubectl for the namespace of the release on two nodes."""
    return kube_of(two_nodes, nodes_release)


@pytest.fixture
async def worker(two_nodes: Cluster, nodes_kube: Kube, nodes_client: TesClient) -> Node:
    """Return the node that runs TaskPods, repaired after earlier disturbances."""
    assert two_nodes.spec is not None
    node = Node(docker=docker.binary(), container=two_nodes.spec.nodes[-1])
    await repair(nodes_kube, node)
    await eventually(nodes_client.answers, "an answer of TES on two nodes")
    return node


# --- clients of the tests ------------------------------------------------------------------------------


@asynccontextmanager
async def _client(
    request: pytest.FixtureRequest, release: Release, *, keep_alive: bool = True
) -> AsyncIterator[TesClient]:
    """Return a TES client; record the tasks that it creates, for the test's report."""
    async with connect(release.url, keep_alive=keep_alive) as made:
        request.node.stash[_CREATED] = made.created
        request.node.stash[_NAMESPACE] = release.namespace
        yield made


@pytest.fixture
async def client(request: pytest.FixtureRequest, release: Release) -> AsyncIterator[TesClient]:
    """Return a TES client of the first release."""
    async with _client(request, release) as made:
        yield made


@pytest.fixture
async def alice(release: Release) -> AsyncIterator[TesClient]:
    """TES of the module's release, as the user alice of `users_secret`."""
    async with connect(release.url, user=("alice", "alice-password")) as made:
        yield made


@pytest.fixture
async def bob(release: Release) -> AsyncIterator[TesClient]:
    """TES of the module's release, as the user bob of `users_secret`."""
    async with connect(release.url, user=("bob", "bob-password")) as made:
        yield made


@pytest.fixture
async def second_client(request: pytest.FixtureRequest, second: Release) -> AsyncIterator[TesClient]:
    """Return a TES client of the second release."""
    async with _client(request, second) as made:
        yield made


@pytest.fixture
async def third_client(request: pytest.FixtureRequest, third: Release) -> AsyncIterator[TesClient]:
    """Return a TES client of the third release."""
    async with _client(request, third, keep_alive=False) as made:
        yield made


@pytest.fixture
async def queued_client(request: pytest.FixtureRequest, queued: Release) -> AsyncIterator[TesClient]:
    """Return a TES client of the release with a queue."""
    async with _client(request, queued) as made:
        yield made


@pytest.fixture
def run_task(client: TesClient) -> Callable[[Document], Awaitable[Task]]:
    """Return a function that runs a task and returns it in the FULL view."""
    return client.run


@pytest.fixture
def kube(cluster: Cluster, release: Release) -> Kube:
    """Return kubectl for the first release's namespace."""
    return kube_of(cluster, release)


@pytest.fixture
def second_kube(cluster: Cluster, second: Release) -> Kube:
    """Return kubectl for the second release's namespace."""
    return kube_of(cluster, second)


@pytest.fixture
def third_kube(cluster: Cluster, third: Release) -> Kube:
    """Return kubectl for the third release's namespace."""
    return kube_of(cluster, third)


@pytest.fixture
def queued_kube(cluster: Cluster, queued: Release) -> Kube:
    """Return kubectl for the namespace of the release with a queue."""
    return kube_of(cluster, queued)


@pytest.fixture(scope="session")
def node(cluster: Cluster) -> Node:
    """Return the node that Pods run on."""
    assert not cluster.external, "this story has to reach into the node: run it on the lab's own cluster"
    return Node(docker=docker.binary(), container=lab_cluster.ONE_NODE.control_plane)


@pytest.fixture
def world_for(images: Images, bucket: Bucket, storage: Endpoint, web_url: str) -> Callable[..., World]:
    """Return a function that creates a world; the caller adds what belongs to its release."""
    return partial(World, images=images, bucket=bucket, storage=storage, web_url=web_url)


@pytest.fixture
async def database(postgres: backends.Postgres, release: Release) -> AsyncIterator[asyncpg.Connection]:
    """Connect to the release's database as its owner."""
    connection = await asyncpg.connect(postgres.dsn)
    yield connection
    await connection.close()


# --- reports of failures -------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the Pods of the test's tasks and the last logs of the release to the report of a failure."""
    report = yield
    created = item.stash.get(_CREATED, [])
    if report.when == "call" and report.failed and created:
        cluster = item.stash.get(_CLUSTER, None)
        for task_id in created[:3]:
            report.sections.append((f"Kubernetes on task {task_id}", _looks(task_id, cluster)))
        item.user_properties.append((RELEASE_LOGS, _release_logs(item.stash[_NAMESPACE], cluster)))
    return report


def _release_logs(namespace: str, cluster: Cluster | None) -> str:
    """Return the holder of the Lease and the last log lines of the services."""
    where = ("--namespace", namespace, f"--selector={COMPONENT_LABEL} in (api,gateway,tctl)")
    try:
        cluster = cluster or lab_cluster.current()
        return "\n".join(
            [
                cluster.kubectl("get", "leases", "--namespace", namespace),
                cluster.kubectl("get", "pods", *where),
                cluster.kubectl("logs", *where, "--tail=6", "--prefix", "--ignore-errors"),
            ]
        )
    except LabError as error:
        return f"cannot look: {error}"


def _looks(task_id: str, cluster: Cluster | None) -> str:
    selector = f"--selector={TASK_LABEL}={task_id}"
    try:
        cluster = cluster or lab_cluster.current()
        looks = [
            cluster.kubectl("get", "jobs,pods", "--all-namespaces", "-o", "wide", selector),
            cluster.kubectl("describe", "pods", "--all-namespaces", selector)[-6000:],
        ]
        listed = cluster.kubectl("get", "pods", "--all-namespaces", "-o", "json", selector)
        for pod in json.loads(listed)["items"]:
            metadata = pod["metadata"]
            where = ("--namespace", metadata["namespace"], metadata["name"])
            looks.append(cluster.kubectl("logs", *where, "--container=trec", "--tail=40"))
    except LabError as error:
        return f"cannot look: {error}"
    return "\n".join(looks)
