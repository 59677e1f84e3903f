"""Kubernetes clusters: kind's, made here, or one that exists already and is named by its kubeconfig.

The lab has two of its own: ONE_NODE, which `up` brings up by itself, and TWO_NODES, made for the stories in
which a node fails. Their names are those of this checkout (`ownership.py`).
"""

import contextlib
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_kind import KindCluster

from poiesis_lab import binaries, cache, docker, images, node, ownership, prepare, prune, teardown, versions
from poiesis_lab.errors import LabError
from poiesis_lab.shell import run, say, step, succeeds, wait_until

NETWORK = "kind"
LABEL = ownership.LABEL

_API_ANSWERS_S = 20
_PROBE_POD_S = 40
_FIRST_PROBE_POD_S = 90  # in a new cluster, which still starts

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

# A node that says nothing for 12 s is lost, and 10 s later its Pods are deleted. With one control plane there
# is nobody to elect: its parts wait for an API server that is away instead of ending and backing off.
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


@dataclass(frozen=True, kw_only=True)
class ClusterSpec:
    """A cluster that the lab makes: what its name ends with, and kind's configuration of it."""

    config: str
    release: versions.KubernetesRelease = versions.RELEASE
    suffix: str = ""
    workers: int = 0  # as many as the configuration has
    shareable: bool = False  # with a checkout whose files are the same

    @property
    def owned(self) -> ownership.Owned:
        """The name of this checkout, or the one that it borrows."""
        return ownership.current() if self.shareable else ownership.own()

    @property
    def name(self) -> str:
        """kind's name for it."""
        return versions.own_name(f"{self.owned.name}{self.suffix}", self.release)

    @property
    def control_plane(self) -> str:
        """The container that is the first node."""
        return f"{self.name}-control-plane"

    @property
    def nodes(self) -> tuple[str, ...]:
        """The containers that are its nodes, as kind names them."""
        numbers = ("" if number == 1 else str(number) for number in range(1, self.workers + 1))
        return self.control_plane, *(f"{self.name}-worker{number}" for number in numbers)

    @property
    def state(self) -> str:
        """The name under which the cache records how it was made."""
        return f"cluster{self._files}"

    @property
    def lock(self) -> str:
        """Held while it is made. Other clusters can be made, and images built, at the same time."""
        return f"cluster{self._files}"

    @property
    def kubeconfig(self) -> Path:
        """Where its kubeconfig is written."""
        return cache.directory() / f"kubeconfig{self._files}"

    @property
    def kind_file(self) -> Path:
        """Where its configuration is written for kind."""
        return cache.directory() / f"kind{self._files}.yaml"

    @property
    def _files(self) -> str:
        return versions.own_name(f"{self.owned.suffix}{self.suffix}", self.release)


def _specs(release: versions.KubernetesRelease) -> tuple[ClusterSpec, ClusterSpec]:
    """One node, two nodes: of one Kubernetes, beside those of another."""
    more = _of_release(release)
    return (
        ClusterSpec(config=_ONE_NODE + more, release=release, shareable=True),
        ClusterSpec(config=_TWO_NODES + more, release=release, suffix="-nodes", workers=1),
    )


def _of_release(release: versions.KubernetesRelease) -> str:
    """What this Kubernetes needs beside: first the rest of the KubeletConfiguration."""
    kubelet = "".join(f"    {name}: {json.dumps(value)}\n" for name, value in release.kubelet.items())
    if release.policies == "v1":
        return kubelet
    return f"""\
{kubelet}featureGates: {{ValidatingAdmissionPolicy: true}}
runtimeConfig: {{admissionregistration.k8s.io/{release.policies}: "true"}}
"""


ONE_NODE, TWO_NODES = _specs(versions.RELEASE)
_SPECS = (ONE_NODE, TWO_NODES)


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """What tests need of a cluster. `spec` and `kind` are None for one that the lab did not make."""

    kubeconfig: Path
    kubectl_path: Path
    helm_path: Path
    spec: ClusterSpec | None = None
    kind: KindCluster | None = None

    @property
    def external(self) -> bool:
        return self.spec is None

    def kubectl(self, *arguments: str, input_text: str | None = None, timeout: float = 120) -> str:
        """What kubectl printed, or CommandFailed."""
        command = [str(self.kubectl_path), "--kubeconfig", str(self.kubeconfig), *arguments]
        return run(command, input_text=input_text, timeout=timeout)

    def helm(self, *arguments: str, timeout: float = 300) -> str:
        """What helm printed, or CommandFailed."""
        return run([self.helm_path, "--kubeconfig", self.kubeconfig, *arguments], timeout=timeout)

    def load(self, references: Iterable[str]) -> None:
        """Copy images from docker into the nodes, those they do not all have yet."""
        wanted = list(dict.fromkeys(references))
        if self.spec is None:
            raise LabError(
                "images cannot be copied into a cluster that the lab did not make: push them to a registry"
                f" that it pulls from, and name them there. These are meant: {', '.join(wanted)}"
            )
        present = set.intersection(*(_images_in_node(node) for node in self.spec.nodes))
        missing = [reference for reference in wanted if in_containerd(reference) not in present]
        if missing:
            with step(f"load {len(missing)} images into the cluster"):
                run([binaries.kind(), "load", "docker-image", "--name", self.spec.name, *missing])

    def objects(self) -> str:
        """Return the objects that may name an image, as JSON."""
        kinds = "deployments,statefulsets,daemonsets,jobs,cronjobs,pods,configmaps"
        return self.kubectl("get", kinds, "--all-namespaces", "-o", "json")

    def address(self) -> str:
        """The control plane's in docker's network: NodePorts answer there, to host and containers."""
        if self.spec is None:
            raise LabError("address() is of the lab's own clusters; use `kubectl port-forward` with this one")
        form = f'{{{{(index .NetworkSettings.Networks "{NETWORK}").IPAddress}}}}'
        return docker.docker("container", "inspect", "--format", form, self.spec.control_plane)

    def proves_itself(self, *, new: bool = False) -> bool:
        """Whether the API answers, and a Pod ends well that uses cluster DNS and, if new, a volume."""
        try:
            self._await_api()
            self._run_probe(volume=new, seconds=_FIRST_PROBE_POD_S if new else _PROBE_POD_S)
        except LabError as error:
            say(f"lab: the cluster does not work: {error}")
            return False
        return True

    def _await_api(self) -> None:
        def ready() -> bool:
            kubectl: list[str | Path] = [self.kubectl_path, "--kubeconfig", self.kubeconfig]
            return succeeds([*kubectl, "--request-timeout=3s", "get", "--raw", "/readyz"])

        wait_until(ready, "an answer from the API server", seconds=_API_ANSWERS_S)

    def _run_probe(self, *, volume: bool, seconds: float) -> None:
        """Needs the `default` ServiceAccount, scheduling, the image, the network and CoreDNS; or storage."""
        name = f"lab-probe-{time.time_ns():x}"
        objects = probe_objects(name, self._probe_image(), volume=volume)
        self.kubectl("apply", "-f", "-", input_text=json.dumps(objects))
        try:
            wait_until(
                lambda: self._phase(name) in ("Succeeded", "Failed"),
                f"the end of Pod {name}",
                seconds=seconds,
                hint=lambda: self.kubectl("describe", "pod", name),
            )
            if self._phase(name) == "Failed":
                raise LabError(f"Pod {name} failed: {self.kubectl('logs', name)}")
        finally:
            self.kubectl("delete", "pod,pvc", "-l", f"lab-probe={name}", "--wait=false")

    def _phase(self, pod: str) -> str:
        return self.kubectl("get", "pod", pod, "-o", "jsonpath={.status.phase}")

    def _probe_image(self) -> str:
        return images.PULLED["busybox"] if self.external else images.images().busybox


def probe_objects(name: str, image: str, *, volume: bool) -> dict[str, Any]:
    """A Pod that ends well when cluster DNS knows the API server; with a default volume, or none."""
    script = "until nslookup kubernetes.default.svc.cluster.local.; do sleep 0.2; done; touch /data/file"
    metadata = {"name": name, "labels": {"lab-probe": name}}
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata,
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
    }
    data = {"persistentVolumeClaim": {"claimName": name}} if volume else {"emptyDir": {}}
    container = {
        "name": "probe",
        "image": image,
        "command": ["sh", "-c", script],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "activeDeadlineSeconds": _FIRST_PROBE_POD_S,
            "automountServiceAccountToken": False,
            "securityContext": {"runAsUser": 1000, "runAsGroup": 1000},
            "containers": [container],
            "volumes": [{"name": "data", **data}],
        },
    }
    return {"apiVersion": "v1", "kind": "List", "items": [claim, pod] if volume else [pod]}


def in_containerd(reference: str) -> str:
    """The name containerd gives a docker image: with registry and repository spelled out."""
    first, slash, _ = reference.partition("/")
    if not slash:
        return f"docker.io/library/{reference}"
    return reference if "." in first or ":" in first or first == "localhost" else f"docker.io/{reference}"


def _images_in_node(node: str) -> set[str]:
    return set(docker.docker("exec", node, "ctr", "--namespace", "k8s.io", "images", "ls", "-q").splitlines())


def up(kubeconfig: Path | None = None, spec: ClusterSpec = ONE_NODE) -> Cluster:
    """A cluster that is proven to work: the running one, else a new one; or the one that `kubeconfig` names.

    Safe to call from several processes at once: the others wait for the first.
    """
    if kubeconfig is not None:
        with cache.lock():
            return _adopt(kubeconfig)
    prepare.prepare()
    with cache.lock():
        ownership.take()
        binaries.link_tools()
        node.image()
        in_pods = _in_pods(spec)
    cluster = _running(spec)
    if cluster is None and spec.owned.borrowed:
        ownership.leave()  # it does not work, and only its owner may replace it
    if cluster is None:
        ownership.take_own()
        with cache.lock(spec.lock):
            cluster = _reusable(spec) or _create(spec)
    cluster.load(in_pods)
    teardown.remove_abandoned()
    prune.everything()
    if not spec.owned.borrowed:
        prune.nodes(spec.nodes, cluster.objects)
    return cluster


def _running(spec: ClusterSpec) -> Cluster | None:
    with cache.lock(spec.lock):
        return _reusable(spec)


def current() -> Cluster:
    """The cluster of the last `up`, unproven; LabError if there is none."""
    ownership.take()
    state = cache.read_state(ONE_NODE.state)
    if not state:
        raise LabError("no cluster: run `python -m poiesis_lab up` first")
    if isinstance(state.get("external"), str):
        return _external(Path(str(state["external"])))
    return _own(ONE_NODE)


def _adopt(kubeconfig: Path) -> Cluster:
    cluster = _external(kubeconfig.resolve())
    cluster.kubectl("--request-timeout=10s", "get", "--raw", "/readyz")
    if ownership.take().borrowed:
        ownership.leave()
    cache.write_state(ONE_NODE.state, {"external": str(cluster.kubeconfig)})
    say(
        f"lab: using the cluster of {cluster.kubeconfig}; no image is copied to it:\n"
        "     push the service images (`python -m poiesis_lab images`) to a registry that it pulls from"
    )
    return cluster


def _external(kubeconfig: Path) -> Cluster:
    if not kubeconfig.is_file():
        raise LabError(f"there is no kubeconfig at {kubeconfig}")
    return Cluster(kubeconfig=kubeconfig, kubectl_path=binaries.kubectl(), helm_path=binaries.helm())


def _own(spec: ClusterSpec) -> Cluster:
    kubectl = binaries.kubectl()
    with contextlib.chdir(cache.directory()):  # KindCluster makes a directory where it stands
        kind = KindCluster(
            spec.name, kubeconfig=spec.kubeconfig, kind_path=binaries.kind(), kubectl_path=kubectl
        )
    return Cluster(
        kubeconfig=spec.kubeconfig, kubectl_path=kubectl, helm_path=binaries.helm(), spec=spec, kind=kind
    )


def _recipe(spec: ClusterSpec, image: str) -> dict[str, object]:
    return {"image": image, "config": cache.hash_of([spec.config, *_addons(spec)])}


def _addons(spec: ClusterSpec) -> list[str]:
    """Manifests beyond kind's own: the node image built here has the network of one node only."""
    if not spec.workers or docker.registry_answers():
        return []
    return [(cache.RECIPES / "pod-network.yaml").read_text().replace("@IMAGE@", images.built_busybox())]


def _in_pods(spec: ClusterSpec) -> list[str]:
    """What its Pods run; to copy more takes time on every node."""
    return [images.images().busybox] if spec.workers else images.images().in_pods()


def _reusable(spec: ClusterSpec) -> Cluster | None:
    """The running cluster if it is what would be made now and works; else it is removed, unless borrowed."""
    if not exists(spec):
        return None
    wanted, state = _recipe(spec, node.image()), cache.read_state(spec.state)
    if {name: state.get(name) for name in wanted} != wanted or not spec.kubeconfig.exists():
        say(f"lab: the running cluster {spec.name} was made otherwise than it would be now")
    elif not _runs(spec):
        say(f"lab: a node of the cluster {spec.name} is stopped")
    else:
        cluster = _own(spec)
        if cluster.proves_itself():
            if not spec.owned.borrowed:
                cache.write_state(spec.state, {**wanted, "lab": cache.lab_key()})
            return cluster
    if not spec.owned.borrowed:
        _delete_cluster(spec)
    return None


def exists(spec: ClusterSpec = ONE_NODE) -> bool:
    """Whether docker has a node of it, running or not."""
    return any(docker.container_facts(name) is not None for name in spec.nodes)


def is_own_running() -> bool:
    """Whether the last `up` made a cluster here whose node runs."""
    return "image" in cache.read_state(ONE_NODE.state) and _runs(ONE_NODE)


def _runs(spec: ClusterSpec) -> bool:
    return all(_is_running(docker.container_facts(name)) for name in spec.nodes)


def _is_running(facts: dict[str, object] | None) -> bool:
    """A paused container is none that runs."""
    state = (facts or {}).get("State")
    return isinstance(state, dict) and state.get("Running") is True and state.get("Paused") is not True


def _create(spec: ClusterSpec) -> Cluster:
    image = node.image()
    in_pods = _in_pods(spec)
    _delete_cluster(spec)
    cluster = _own(spec)
    spec.kind_file.write_text(spec.config)
    with step(f"create the cluster {spec.name}"):
        command: list[str | Path] = [
            *(binaries.kind(), "create", "cluster", "--name", spec.name, "--config", spec.kind_file),
            *("--image", image, "--kubeconfig", spec.kubeconfig, "--retain", "--wait", "120s"),
        ]
        run(command)
    for manifest in _addons(spec):
        cluster.kubectl("apply", "-f", "-", input_text=manifest)
    cache.write_state(spec.state, {**_recipe(spec, image), "lab": cache.lab_key()})
    cluster.load(in_pods)
    with step("prove it: run a Pod with a volume"):
        if spec.workers:
            cluster.kubectl("wait", "nodes", "--all", "--for=condition=Ready", "--timeout=60s")
            cluster.kubectl("rollout", "status", "daemonset", "--namespace=kube-system", "--timeout=60s")
        if not cluster.proves_itself(new=True):
            hint = f"docker exec -it {spec.control_plane} bash"
            raise LabError(f"the new cluster {spec.name} does not work; look at it with `{hint}`")
    return cluster


def _delete_cluster(spec: ClusterSpec) -> None:
    """Also half-dead node containers that kind no longer counts as a cluster."""
    there = [one.name for one in ownership.containers() if one.cluster == spec.name or one.name in spec.nodes]
    if not there:
        return
    if ownership.used_by_others(spec.owned.name):
        raise LabError(
            f"the cluster {spec.name} has to be replaced, and a process of another checkout uses it;"
            f" wait for that, or name another cluster: {ownership.PIN}=<name>"
        )
    with step(f"delete the cluster {spec.name}"):
        docker.remove(*there)


def remove(spec: ClusterSpec) -> None:
    """This cluster alone; what stands beside the clusters stays."""
    with cache.lock(spec.lock):
        _delete_cluster(spec)
        cache.forget_state(spec.state)
        for path in (spec.kubeconfig, spec.kind_file):
            path.unlink(missing_ok=True)


def clear() -> None:
    """Remove this checkout's clusters of this Kubernetes; with the last one also the containers next to it.

    `teardown.down` removes everything.
    """
    for spec in _SPECS:
        if not spec.owned.borrowed:
            remove(spec)
    owned = ownership.current()
    rest = ownership.of_name(ownership.containers(), owned.name)
    if not owned.borrowed and not any(one.cluster for one in rest):
        docker.remove(*(one.name for one in rest))


def status() -> str:
    """What runs, for people."""
    owned = ownership.current()
    whose = f"borrowed from {ownership.owner(owned.name)}" if owned.borrowed else str(ownership.CHECKOUT)
    lines = [f"cache       {cache.directory()}", f"name        {owned.name}, {whose}"]
    state = cache.read_state(ONE_NODE.state)
    if isinstance(state.get("external"), str):
        lines.append(f"cluster     external, {state['external']}")
    if not docker.answers():
        return "\n".join([*lines, "docker      no daemon answers"])
    lines.append(f"docker      {docker.docker('version', '--format', '{{.Server.Version}}')} answers")
    made = [spec for spec in _SPECS if exists(spec)]
    for spec in made:
        runs, image = "running" if _runs(spec) else "stopped", cache.read_state(spec.state).get("image", "?")
        lines.append(f"kind        {spec.name}: {runs}, {image}")
        lines.append(f"kubeconfig  {spec.kubeconfig}")
    if made:
        lines.append(f"tools       {binaries.link_tools()} (kind, kubectl, helm)")
    else:
        lines.append("kind        no cluster")
    beside = [one for one in ownership.of_name(ownership.containers(), owned.name) if not one.cluster]
    lines += [f"container   {one.name}: {'running' if one.running else 'stopped'}" for one in beside]
    return "\n".join(lines)
