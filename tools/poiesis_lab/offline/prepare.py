"""Build side by side what a run needs, where no image registry answers and little of it is there yet.

The code that uses a thing makes it when it is missing, so nothing depends on this module but the time of a
first run. Compilers want the processors, and packages of Debian and PyPI the network.
"""

from collections.abc import Callable

from poiesis_lab import binaries, cache, daemon, docker, images
from poiesis_lab.offline import node
from poiesis_lab.offline.parallel import run_all

_OF_A_CLUSTER = (*binaries.KUBERNETES_PROGRAMS, "helm", "etcd", "coredns", "local-path-provisioner")


def prepare(*, services: bool = False, minio: bool = False) -> None:
    """Build the cluster's parts, and if asked for the images of our services, and MinIO."""
    with cache.lock():
        daemon.ensure()
        if not docker.registry_answers() and not (images.are_remembered() and node.is_remembered()):
            run_all(lanes(services=services, minio=minio))


def lanes(*, services: bool, minio: bool) -> list[Callable[[], None]]:
    """Return what goes side by side; each lane does one thing after the other."""

    def kubernetes() -> None:
        binaries.compile_all(_OF_A_CLUSTER)

    def packages() -> None:
        images.images()
        if services:
            from poiesis_lab import services as ours  # late: it imports the cluster, which imports this

            ours.build()
        node.root_file_systems()

    def others() -> None:
        binaries.compile_all(["kind"])
        node.pause_program()
        if minio:
            binaries.compile_all(["minio"])

    return [kubernetes, packages, others]
