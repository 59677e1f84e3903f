"""The lab's clusters: their names and files, and kind's configuration of them."""

import json
from dataclasses import dataclass
from pathlib import Path

from poiesis_lab import cache, ownership, versions

_ONE_NODE = """\
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
nodes:
  - role: control-plane
kubeadmConfigPatches:
  - |
    kind: KubeletConfiguration
    maxPods: 200
    serializeImagePulls: false
    volumeStatsAggPeriod: 15s
"""

# A node that is silent for 12 s is unreachable, and 10 s later its Pods are deleted. A single control plane
# needs no leader election: its parts wait for an unavailable API server instead of exiting and backing off.
_TWO_NODES = """\
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
nodes:
  - role: control-plane
    kubeadmConfigPatches:
      - |
        kind: InitConfiguration
        nodeRegistration:
          taints: []
  - role: worker
kubeadmConfigPatches:
  - |
    kind: ClusterConfiguration
    apiServer:
      extraArgs:
        default-not-ready-toleration-seconds: "10"
        default-unreachable-toleration-seconds: "10"
    controllerManager:
      extraArgs:
        leader-elect: "false"
        node-monitor-period: 2s
        node-monitor-grace-period: 12s
    scheduler:
      extraArgs:
        leader-elect: "false"
  - |
    kind: KubeletConfiguration
    maxPods: 200
    serializeImagePulls: false
    nodeLeaseDurationSeconds: 8
"""

# A control plane for thousands of Pods without processes. With the default limits of the requests of
# kube-controller-manager, a measurement would show these limits only. On a busy machine it starts slowly.
_SIMULATED = """\
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
nodes:
  - role: control-plane
kubeadmConfigPatches:
  - |
    kind: ClusterConfiguration
    apiServer:
      timeoutForControlPlane: 15m0s
    controllerManager:
      extraArgs:
        leader-elect: "false"
        kube-api-qps: "400"
        kube-api-burst: "800"
        concurrent-job-syncs: "20"
    scheduler:
      extraArgs:
        leader-elect: "false"
        kube-api-qps: "400"
        kube-api-burst: "800"
  - |
    kind: KubeletConfiguration
    serializeImagePulls: false
"""


@dataclass(frozen=True, kw_only=True)
class ClusterSpec:
    """A cluster of the lab: the suffix of its name, and its kind configuration."""

    config: str
    release: versions.KubernetesRelease = versions.RELEASE
    suffix: str = ""
    workers: int = 0  # number of workers in the configuration
    simulated: bool = False  # Pods of tests run on nodes that a program plays, without a process
    shareable: bool = False  # by checkouts with equal files

    @property
    def owned(self) -> ownership.Owned:
        """Return the name of this checkout, or the borrowed one."""
        return ownership.current() if self.shareable else ownership.own()

    @property
    def name(self) -> str:
        """Return kind's name of the cluster."""
        return versions.own_name(f"{self.owned.name}{self.suffix}", self.release)

    @property
    def control_plane(self) -> str:
        """Return the container of the first node."""
        return f"{self.name}-control-plane"

    @property
    def nodes(self) -> tuple[str, ...]:
        """Return the containers of its nodes, as kind names them."""
        numbers = ("" if number == 1 else str(number) for number in range(1, self.workers + 1))
        return self.control_plane, *(f"{self.name}-worker{number}" for number in numbers)

    @property
    def state(self) -> str:
        """Return the name of its record in the cache."""
        return f"cluster{self._files}"

    @property
    def lock(self) -> str:
        """Return the lock for its creation. Other clusters and images can be built at the same time."""
        return f"cluster{self._files}"

    @property
    def kubeconfig(self) -> Path:
        """Return the path of its kubeconfig."""
        return cache.directory() / f"kubeconfig{self._files}"

    @property
    def kind_file(self) -> Path:
        """Return the path of its kind configuration."""
        return cache.directory() / f"kind{self._files}.yaml"

    @property
    def _files(self) -> str:
        return versions.own_name(f"{self.owned.suffix}{self.suffix}", self.release)


def _specs(release: versions.KubernetesRelease) -> tuple[ClusterSpec, ClusterSpec, ClusterSpec]:
    """Return the specs of the clusters of a Kubernetes release: one node, two nodes, simulated nodes."""
    more = _of_release(release)
    return (
        ClusterSpec(config=_ONE_NODE + more, release=release, shareable=True),
        ClusterSpec(config=_TWO_NODES + more, release=release, suffix="-nodes", workers=1),
        ClusterSpec(config=_SIMULATED + more, release=release, suffix="-scale", simulated=True),
    )


def _of_release(release: versions.KubernetesRelease) -> str:
    """Return the release-specific kind configuration, starting with the rest of the KubeletConfiguration."""
    kubelet = "".join(f"    {name}: {json.dumps(value)}\n" for name, value in release.kubelet.items())
    if release.policies == "v1":
        return kubelet
    return f"""\
{kubelet}featureGates: {{ValidatingAdmissionPolicy: true}}
runtimeConfig: {{admissionregistration.k8s.io/{release.policies}: "true"}}
"""


ONE_NODE, TWO_NODES, SIMULATED = _specs(versions.RELEASE)
SPECS = (ONE_NODE, TWO_NODES, SIMULATED)
