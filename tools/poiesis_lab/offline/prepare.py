"""Build the images of a run concurrently, where no image registry responds and few of them exist.

Each image is also built on demand, so only the duration of the first run depends on this module. Compilers
need the processors; packages of Debian and PyPI need the network.
"""

from collections.abc import Callable

from poiesis_lab import binaries, cache, daemon, docker, images
from poiesis_lab.offline import node
from poiesis_lab.offline.parallel import run_all

_OF_A_CLUSTER = (*binaries.KUBERNETES_PROGRAMS, "helm", "etcd", "coredns", "local-path-provisioner")


def prepare(*, services: bool = False, minio: bool = False) -> None:
    """Build the cluster's images, and on request the images of our services and MinIO."""
    with cache.lock():
        daemon.ensure()
        if not docker.registry_answers() and not (images.are_remembered() and node.is_remembered()):
            run_all(lanes(services=services, minio=minio))


def lanes(*, services: bool, minio: bool) -> list[Callable[[], None]]:
    """Return the concurrent lanes; each lane runs its steps in order."""

    def kubernetes() -> None:
        binaries.compile_all(_OF_A_CLUSTER)

    def packages() -> None:
        images.images()
        if services:
            from poiesis_lab import services as ours  # imported late: the cluster imports this module

            ours.build()
        node.root_file_systems()

    def others() -> None:
        binaries.compile_all(["kind", "kube-router"])
        node.pause_program()
        if minio:
            binaries.compile_all(["minio"])

    return [kubernetes, packages, others]
