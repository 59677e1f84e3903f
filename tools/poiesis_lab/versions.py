"""Every version the lab pins. A change rebuilds the images that depend on it.

POIESIS_KUBERNETES chooses the Kubernetes of the lab's cluster: a minor release of `RELEASES`.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

from poiesis_lab.errors import LabError


@dataclass(frozen=True, kw_only=True)
class KubernetesRelease:
    """One Kubernetes release, and how to start it.

    `image`: the node image where a registry responds; kind publishes only some patch releases. Elsewhere
    `version` is compiled from the Go module `module` (a directory below go/) with the build `tags`; kubeadm
    lists the images that it needs. `kubelet`: KubeletConfiguration for this release only. `policies`: the
    API version of ValidatingAdmissionPolicy; a beta version is enabled.
    """

    version: str
    kind: str
    image: str
    module: str
    tags: tuple[str, ...] = ()
    kubelet: Mapping[str, Any] = field(default_factory=dict)
    policies: str = "v1"

    @property
    def minor(self) -> str:
        return self.version.rpartition(".")[0]


RELEASES: Mapping[str, KubernetesRelease] = {
    release.minor: release
    for release in (
        KubernetesRelease(
            version="1.29.6",
            kind="0.31.0",
            image="kindest/node:v1.29.14@sha256:"
            "8703bd94ee24e51b778d5556ae310c6c0fa67d761fae6379c8e0bb480e6fea29",
            module="kubernetes-1.29",
            tags=("providerless",),
            policies="v1beta1",
        ),
        KubernetesRelease(
            version="1.34.4",
            kind="0.31.0",
            image="kindest/node:v1.34.3@sha256:"
            "08497ee19eace7b4b5348db5c6a1591d7752b164530a36f855cb0f2bdcbadd48",
            module="kubernetes",
        ),
        KubernetesRelease(
            version="1.37.2",
            kind="0.33.0",  # kubeadm 1.37 no longer reads the v1beta3 that kind 0.31 writes
            image="kindest/node:v1.37.0@sha256:"
            "a1ed56cfb0e7b93589bdf97c8cd566405a265939e3620fc4f5de89adff580ae5",
            module="kubernetes-1.37",
            kubelet={
                "failCgroupV1": False,  # true by default since 1.35
                # Otherwise a copied image is pulled again after a registry returned the same image under
                # another name.
                "imagePullCredentialsVerificationPolicy": "NeverVerify",
            },
        ),
    )
}
DEFAULT_KUBERNETES = "1.34"


def chosen(environment: Mapping[str, str]) -> KubernetesRelease:
    """Return the release of POIESIS_KUBERNETES (a minor release); raise LabError for an unknown one."""
    minor = environment.get("POIESIS_KUBERNETES") or DEFAULT_KUBERNETES
    if minor not in RELEASES:
        raise LabError(f"POIESIS_KUBERNETES must be one of {', '.join(RELEASES)}, got {minor!r}")
    return RELEASES[minor]


def own_name(name: str, release: KubernetesRelease) -> str:
    """Return `name` for the default Kubernetes, and a distinct name for another release."""
    return name if release.minor == DEFAULT_KUBERNETES else f"{name}-{release.minor.replace('.', '-')}"


RELEASE = chosen(os.environ)
KUBERNETES = RELEASE.version
KIND = RELEASE.kind
KIND_NODE_IMAGE = RELEASE.image
ETCD = "3.6.5"  # this and the next two, and HELM, also in go/kubernetes/go.mod; a test compares them
COREDNS = "1.12.4"
LOCAL_PATH_PROVISIONER = "0.0.30"
KUEUE = "0.14.8"  # also in go/kueue/go.mod
KUBE_ROUTER = "2.1.0"  # also in go/kube-router/go.mod
KWOK = "0.8.0"  # plays the kubelet of simulated nodes in bench/
HELM = "3.19.5"  # uses the cluster's Kubernetes libraries, which are compiled once
MINIO = (
    "v0.0.0-20260212201848-7aac2a2c5b7c"  # a Go pseudo-version: MinIO's releases are not semantic versions
)
KEYCLOAK = "26.0.8"
# Of keycloak-quarkus-dist-<version>.zip.
KEYCLOAK_SHA256 = "d82a52098db41f036bcfe8f2ebfd9251781c8af5959af8714e8aa9b311081786"
JAVA = "21"  # of Debian; Keycloak's own image has the same
OCI_REGISTRY = "3.0.0"  # also in go/distribution/go.mod
MAVEN_DEPENDENCY_PLUGIN = "3.6.1"
PYTHON = "3.13"
POSTGRES = "17"
DEBIAN = "trixie"
NODE_DEBIAN = "bookworm"  # systemd there still boots on cgroup v1

# Images where a registry responds.
# The base of all services, for all platforms; docs/development/releasing.md describes how to renew it.
PYTHON_IMAGE = f"python:{PYTHON}-slim@sha256:7c61056e61ac89e852de05f3dc6fa51a6dd2181797bceed46aa725dd7cb2cd3b"
DEBIAN_IMAGE = f"debian:{DEBIAN}-slim"
POSTGRES_IMAGE = f"postgres:{POSTGRES}"
MINIO_IMAGE = "minio/minio:RELEASE.2025-09-07T16-13-09Z"
BUSYBOX_IMAGE = "busybox:1.37"
KEYCLOAK_IMAGE = f"quay.io/keycloak/keycloak:{KEYCLOAK}"
OCI_REGISTRY_IMAGE = f"registry:{OCI_REGISTRY}"
KUEUE_IMAGE = f"registry.k8s.io/kueue/kueue:v{KUEUE}"

# Minimum versions of tools on the PATH (kubectl: within one minor release of the cluster).
HELM_MINIMUM = "3.14.0"
ACTIONLINT = "1.7.12"
CRANE = "0.20.6"


class Version(NamedTuple):
    major: int
    minor: int
    patch: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse the first `X.Y` or `X.Y.Z` in `text`, such as a tool's output; else raise ValueError."""
        found = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
        if found is None:
            raise ValueError(f"no version number in {text!r}")
        return cls(int(found[1]), int(found[2]), int(found[3] or 0))


def kubectl_suits(found: Version) -> bool:
    """Return whether Kubernetes supports this kubectl: within one minor release of the API server."""
    wanted = Version.parse(KUBERNETES)
    return found.major == wanted.major and abs(found.minor - wanted.minor) <= 1


def helm_suits(found: Version) -> bool:
    return found.major == 3 and found >= Version.parse(HELM_MINIMUM)


def kind_suits(found: Version) -> bool:
    """Return whether this is our release of kind, which the node image requires."""
    return found == Version.parse(KIND)
