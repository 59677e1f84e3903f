"""The parts that a run of the chaos test does not share: two releases of the chart, their Postgres, a bucket.

The run kills them. Only the cluster and MinIO are shared.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from poiesis_e2e.chaos.plan import SITES
from poiesis_e2e.chaos.shapes import SiteName
from poiesis_e2e.install import (
    DATABASE_SECRET,
    STORAGE_SECRET,
    Values,
    chart_values,
    database_secret,
    install,
    kube_of,
    service_kube_of,
    storage_secret,
    uninstall,
)
from poiesis_e2e.kube import Kube, Node
from poiesis_e2e.storage import Bucket, Endpoint, make_bucket
from poiesis_lab import backends, docker
from poiesis_lab import cluster as lab_cluster
from poiesis_lab.cluster import Cluster
from poiesis_lab.images import Images

_PREFIX = "poiesis-chaos"  # followed by the process id of the run
_VOLUMES: Mapping[SiteName, str] = {"claims": "pvc", "disks": "emptyDir"}


@dataclass(frozen=True, kw_only=True)
class Site:
    """One release. `url`: of its TES API; `kube`: for its tasks; `services`: for its own Pods."""

    name: SiteName
    url: str
    kube: Kube
    services: Kube


@dataclass(frozen=True, kw_only=True)
class Stage:
    """`run`: prefix of names. `dsn`: Postgres, as its owner. `ttl`: the sites' ttlSecondsAfterFinished."""

    run: str
    sites: Mapping[SiteName, Site]
    node: Node
    dsn: str
    bucket: Bucket
    busybox: str
    ttl: int


@contextmanager
def stage(
    cluster: Cluster, built: Mapping[str, str], storage: Endpoint, images: Images, *, ttl: int
) -> Iterator[Stage]:
    """Set up the stage and remove it afterwards, also leftovers of killed runs."""
    assert not cluster.external, "the chaos test has to reach into the node: run it on the lab's own cluster"
    for process in _dead(cluster):
        _take_down(cluster, process)
    process = str(os.getpid())
    bucket = make_bucket(storage)
    try:
        postgres = backends.start_postgres(_postgres(process))
        sites = {}
        for name in SITES:
            dsn = _create_database(postgres, name)
            release = install(
                cluster,
                name=name,
                namespace=_namespace(process, name),
                values=chart_values(built, storage, images.postgres, _values(name, ttl)),
                secrets={STORAGE_SECRET: storage_secret(storage), DATABASE_SECRET: database_secret(dsn)},
            )
            sites[name] = Site(
                name=name,
                url=release.url,
                kube=kube_of(cluster, release),
                services=service_kube_of(cluster, release),
            )
        yield Stage(
            run=f"chaos-{process}",
            sites=sites,
            node=Node(docker=docker.binary(), container=lab_cluster.ONE_NODE.control_plane),
            dsn=postgres.dsn,
            bucket=bucket,
            busybox=images.busybox,
            ttl=ttl,
        )
    finally:
        _take_down(cluster, process)
        bucket.remove()


def _values(site: SiteName, ttl: int) -> Values:
    return {
        "postgresql": {"embedded": False, "existingSecret": DATABASE_SECRET},
        "config": {"volume": {"type": _VOLUMES[site]}, "ttlSecondsAfterFinished": ttl},
    }


def _create_database(postgres: backends.Postgres, name: str) -> str:
    """Create a database and return its owner's DSN for Pods. Both sites share one server: their connections
    are cut together."""
    docker.docker(
        *("exec", "-e", f"PGPASSWORD={postgres.password}", postgres.container, "createdb"),
        *("--host=127.0.0.1", f"--username={postgres.user}", name),
    )
    return urlsplit(postgres.pod_dsn)._replace(path=f"/{name}").geturl()


def _dead(cluster: Cluster) -> set[str]:
    """Return the processes that have ended but whose namespaces still exist."""
    listed = json.loads(cluster.kubectl("get", "namespaces", "-o", "json"))["items"]
    names = [str(one["metadata"]["name"]) for one in listed]
    ours = {name.split("-")[2] for name in names if name.startswith(f"{_PREFIX}-")}
    return {process for process in ours if not Path("/proc", process).exists()}


def _take_down(cluster: Cluster, process: str) -> None:
    for site in SITES:
        uninstall(cluster, site, _namespace(process, site))
    backends.remove(_postgres(process))


def _postgres(process: str) -> str:
    return f"{_PREFIX}-{process}-postgres"


def _namespace(process: str, site: SiteName) -> str:
    return f"{_PREFIX}-{process}-{site}"
