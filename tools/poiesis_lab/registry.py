"""What the lab pulls where an image registry answers: all that `kind create cluster` and the tests need.

`offline.images` builds the same where none answers, by functions of the same names.
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
    """Return the images that services and Pods start from, by what they are for."""
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
    """Return Keycloak as it is distributed."""
    return _pulled(versions.KEYCLOAK_IMAGE)


def kueue() -> str:
    """Return Kueue's manager."""
    return _pulled(versions.KUEUE_IMAGE)


def _pulled(image: str) -> str:
    docker.pull(image)
    return image
