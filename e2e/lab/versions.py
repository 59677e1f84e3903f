"""Every version the lab pins. Change one here and the images that depend on it are made anew."""

import re
from typing import NamedTuple, Self

KUBERNETES = "1.34.4"
KIND = "0.31.0"
ETCD = "3.6.5"  # also in go/etcd/go.mod; a test compares the two
COREDNS = "1.12.1"
LOCAL_PATH_PROVISIONER = "0.0.30"
HELM = "3.21.4"
MINIO = (
    "v0.0.0-20260212201848-7aac2a2c5b7c"  # a Go pseudo-version: MinIO's releases are not semantic versions
)
PYTHON = "3.13"
POSTGRES = "17"
DEBIAN = "trixie"
NODE_DEBIAN = "bookworm"  # systemd there still boots on cgroup v1

# Where an image registry answers. kind publishes node images for some patch releases only.
KIND_NODE_IMAGE = (
    "kindest/node:v1.34.3@sha256:08497ee19eace7b4b5348db5c6a1591d7752b164530a36f855cb0f2bdcbadd48"
)
PYTHON_IMAGE = f"python:{PYTHON}-slim"
DEBIAN_IMAGE = f"debian:{DEBIAN}-slim"
POSTGRES_IMAGE = f"postgres:{POSTGRES}"
MINIO_IMAGE = "minio/minio:RELEASE.2025-09-07T16-13-09Z"
BUSYBOX_IMAGE = "busybox:1.37"

# Tools found on the PATH are used if they are as new as this (kubectl: within one minor release of the
# cluster).
HELM_MINIMUM = "3.14.0"


class Version(NamedTuple):
    major: int
    minor: int
    patch: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """The first `X.Y` or `X.Y.Z` in `text`, perhaps a tool's whole answer; ValueError without one."""
        found = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
        if found is None:
            raise ValueError(f"no version number in {text!r}")
        return cls(int(found[1]), int(found[2]), int(found[3] or 0))


def kubectl_suits(found: Version) -> bool:
    """Kubernetes supports a kubectl one minor release either side of the API server."""
    wanted = Version.parse(KUBERNETES)
    return found.major == wanted.major and abs(found.minor - wanted.minor) <= 1


def helm_suits(found: Version) -> bool:
    return found.major == 3 and found >= Version.parse(HELM_MINIMUM)


def kind_suits(found: Version) -> bool:
    """Exactly ours: a node image is made for one release of kind."""
    return found == Version.parse(KIND)
