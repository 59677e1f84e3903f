"""Pull the images of `kind create cluster` and the tests, where an image registry responds.

`offline.images` builds the same images elsewhere, with functions of the same names.
"""

from collections.abc import Mapping

from poiesis_lab import docker, versions

BASES: Mapping[str, str] = {
    "python_base": versions.PYTHON_IMAGE,
    "python_build_base": versions.PYTHON_IMAGE,
    "debian_base": versions.DEBIAN_IMAGE,
    "postgres": versions.POSTGRES_IMAGE,
    "busybox": versions.BUSYBOX_IMAGE,
}


def bases() -> dict[str, str]:
    """Return the base images of services and Pods, by purpose."""
    for image in dict.fromkeys(BASES.values()):
        docker.pull(image)
    return dict(BASES)


def node() -> str:
    """Return the image of kind's nodes."""
    return _pulled(versions.KIND_NODE_IMAGE)


def minio() -> str:
    """Return MinIO, an S3."""
    return _pulled(versions.MINIO_IMAGE)


def keycloak() -> str:
    """Return Keycloak's own image."""
    return _pulled(versions.KEYCLOAK_IMAGE)


def oci_registry() -> str:
    """Return the image registry of the CNCF project Distribution."""
    return _pulled(versions.OCI_REGISTRY_IMAGE)


def kueue() -> str:
    """Return Kueue's manager."""
    return _pulled(versions.KUEUE_IMAGE)


def _pulled(image: str) -> str:
    docker.pull(image)
    return image
