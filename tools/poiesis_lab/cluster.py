"""Kubernetes clusters: kind clusters of the lab, or an existing one, given by its kubeconfig.

`up` consists of `docker pull` (`registry.py`), `kind create cluster` and a test Pod (`probe.py`).

The lab has three clusters: ONE_NODE, the default of `up`; TWO_NODES, for stories about node failures; and
SIMULATED, for measurements with thousands of Pods that run no process (`bench/`). Their names belong to this
checkout (`ownership.py`).
"""

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pytest_kind import KindCluster

from poiesis_lab import binaries, cache, docker, images, ownership, probe, prune, registry, teardown
from poiesis_lab.errors import LabError
from poiesis_lab.offline.prepare import prepare
from poiesis_lab.shell import report, run, step
from poiesis_lab.specs import ONE_NODE, SIMULATED, SPECS, TWO_NODES, ClusterSpec

__all__ = [
    "NETWORK",
    "ONE_NODE",
    "SIMULATED",
    "TWO_NODES",
    "Cluster",
    "ClusterSpec",
    "clear",
    "current",
    "up",
]

NETWORK = "kind"
_REGISTRIES = "/etc/containerd/certs.d"  # containerd reads it at each pull; also in recipes/node/Dockerfile
LABEL = ownership.LABEL


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A cluster for tests. An external cluster has no `spec` and no `kind`."""

    kubeconfig: Path
    kubectl_path: Path
    helm_path: Path
    spec: ClusterSpec | None = None
    kind: KindCluster | None = None

    @property
    def external(self) -> bool:
        return self.spec is None

    def kubectl(self, *arguments: str, input_text: str | None = None, timeout: float = 120) -> str:
        """Return the output of kubectl, or raise CommandFailed."""
        command = [str(self.kubectl_path), "--kubeconfig", str(self.kubeconfig), *arguments]
        return run(command, input_text=input_text, timeout=timeout)

    def helm(self, *arguments: str, timeout: float = 300) -> str:
        """Return the output of helm, or raise CommandFailed."""
        return run([self.helm_path, "--kubeconfig", self.kubeconfig, *arguments], timeout=timeout)

    def load(self, references: Iterable[str]) -> None:
        """Copy images from docker into the nodes, unless all nodes have them."""
        # Nodes pull an image by digest themselves: `docker save` keeps only tags.
        wanted = [reference for reference in dict.fromkeys(references) if "@" not in reference]
        if self.spec is None:
            raise LabError(
                "cannot copy images into an external cluster: push them to a registry that it pulls from,"
                f" and use their names there. Images: {', '.join(wanted)}"
            )
        present = set.intersection(*(_images_in_node(node) for node in self.spec.nodes))
        missing = [reference for reference in wanted if in_containerd(reference) not in present]
        if missing:
            with step(f"load {len(missing)} images into the cluster"):
                run([binaries.kind(), "load", "docker-image", "--name", self.spec.name, *missing])

    def trust_registry(self, address: str) -> None:
        """Let the nodes pull from the registry at `address` (host:port) without TLS."""
        if self.spec is None:
            raise LabError(f"configure the nodes of the external cluster to pull from http://{address}")
        folder = f"{_REGISTRIES}/{address}"
        for node in self.spec.nodes:
            docker.docker("exec", node, "mkdir", "-p", folder)
            hosts = f'[host."http://{address}"]\n  capabilities = ["pull", "resolve"]\n'
            write = ("exec", "--interactive", node, "cp", "/dev/stdin", f"{folder}/hosts.toml")
            docker.docker(*write, input_text=hosts)

    def proves_itself(self, *, new: bool = False) -> bool:
        """Return whether the API responds and the cluster runs a Pod, unless its Pods are simulated."""
        if self.spec is not None and self.spec.simulated:
            return probe.works(self.kubectl, None)
        image = registry.BASES["busybox"] if self.external else images.images().busybox
        return probe.works(self.kubectl, image, new=new)

    def objects(self) -> str:
        """Return the objects that may name an image, as JSON."""
        kinds = "deployments,statefulsets,daemonsets,jobs,cronjobs,pods,configmaps"
        return self.kubectl("get", kinds, "--all-namespaces", "-o", "json")

    def address(self) -> str:
        """Return the control plane's address in docker's network, which serves NodePorts."""
        if self.spec is None:
            raise LabError(
                "address() is available for the lab's own clusters only; use `kubectl port-forward`"
            )
        return docker.address_in(NETWORK, self.spec.control_plane)


def in_containerd(reference: str) -> str:
    """Return containerd's name of a docker image, with registry and repository."""
    first, slash, _ = reference.partition("/")
    if not slash:
        return f"docker.io/library/{reference}"
    return reference if "." in first or ":" in first or first == "localhost" else f"docker.io/{reference}"


def _images_in_node(node: str) -> set[str]:
    return set(docker.docker("exec", node, "ctr", "--namespace", "k8s.io", "images", "ls", "-q").splitlines())


def up(kubeconfig: Path | None = None, spec: ClusterSpec = ONE_NODE) -> Cluster:
    """Return a cluster that works: the running one, a new one, or that of `kubeconfig`.

    Safe to call from several processes at once: the others wait for the first.
    """
    if kubeconfig is not None:
        with cache.lock():
            return _adopt(kubeconfig)
    prepare()
    with cache.lock():
        ownership.take()
        binaries.link_tools()
        images.node()
        in_pods = _in_pods(spec)
    cluster = _running(spec)
    if cluster is None and spec.owned.borrowed:
        ownership.leave()  # it is broken, and only its owner may replace it
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
    """Return the cluster of the last `up` without a check that it works. Raise LabError without one."""
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
    report(
        f"lab: using the cluster of {cluster.kubeconfig}; no image is copied to it:\n"
        "     push the service images (`python -m poiesis_lab images`) to a registry that it pulls from"
    )
    return cluster


def _external(kubeconfig: Path) -> Cluster:
    if not kubeconfig.is_file():
        raise LabError(f"no such kubeconfig: {kubeconfig}")
    return Cluster(kubeconfig=kubeconfig, kubectl_path=binaries.kubectl(), helm_path=binaries.helm())


def _own(spec: ClusterSpec) -> Cluster:
    kubectl = binaries.kubectl()
    with contextlib.chdir(cache.directory()):  # KindCluster creates a directory in the working directory
        kind = KindCluster(
            spec.name, kubeconfig=spec.kubeconfig, kind_path=binaries.kind(), kubectl_path=kubectl
        )
    return Cluster(
        kubeconfig=spec.kubeconfig, kubectl_path=kubectl, helm_path=binaries.helm(), spec=spec, kind=kind
    )


def _recipe(spec: ClusterSpec, image: str) -> dict[str, object]:
    return {"image": image, "config": cache.hash_of([spec.config, *_addons(spec)])}


def _addons(spec: ClusterSpec) -> list[str]:
    """Return manifests in addition to kind's.

    Our node image has the network of one node only, and no program that enforces NetworkPolicies, which
    simulated Pods do not need.
    """
    firewall = None if spec.simulated else images.firewall()
    if firewall is None:
        return []
    made = [_manifest("firewall.yaml", firewall)]
    if spec.workers:
        made.append(_manifest("pod-network.yaml", images.images().busybox))
    return made


def _manifest(recipe: str, image: str) -> str:
    return (cache.RECIPES / recipe).read_text().replace("@IMAGE@", image)


def _in_pods(spec: ClusterSpec) -> list[str]:
    """Return the images that its Pods run; copying more would take time on every node."""
    if spec.simulated:
        return []
    firewall = images.firewall()
    system = [] if firewall is None else [firewall]
    return system + ([images.images().busybox] if spec.workers else images.images().in_pods())


def _reusable(spec: ClusterSpec) -> Cluster | None:
    """Return the running cluster if it is current and works; otherwise remove it, unless it is borrowed."""
    if not exists(spec):
        return None
    wanted, state = _recipe(spec, images.node()), cache.read_state(spec.state)
    if {name: state.get(name) for name in wanted} != wanted or not spec.kubeconfig.exists():
        report(f"lab: the running cluster {spec.name} is outdated")
    elif not _runs(spec):
        report(f"lab: a node of the cluster {spec.name} is stopped")
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
    """Return whether docker has a node of the cluster, running or not."""
    return any(docker.container_facts(name) is not None for name in spec.nodes)


def is_own_running() -> bool:
    """Return whether the node of the last `up`'s own cluster runs."""
    return "image" in cache.read_state(ONE_NODE.state) and _runs(ONE_NODE)


def _runs(spec: ClusterSpec) -> bool:
    return all(_is_running(docker.container_facts(name)) for name in spec.nodes)


def _is_running(facts: dict[str, object] | None) -> bool:
    """Return whether a container runs; a paused one does not."""
    state = (facts or {}).get("State")
    return isinstance(state, dict) and state.get("Running") is True and state.get("Paused") is not True


def _create(spec: ClusterSpec) -> Cluster:
    image = images.node()
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
    cluster.load(in_pods)
    for manifest in _addons(spec):
        cluster.kubectl("apply", "-f", "-", input_text=manifest)
    cache.write_state(spec.state, {**_recipe(spec, image), "lab": cache.lab_key()})
    with step("check the cluster: run a Pod with a volume"):
        if spec.workers:
            cluster.kubectl("wait", "nodes", "--all", "--for=condition=Ready", "--timeout=60s")
        cluster.kubectl("rollout", "status", "daemonset", "--namespace=kube-system", "--timeout=60s")
        if not cluster.proves_itself(new=True):
            hint = f"docker exec -it {spec.control_plane} bash"
            raise LabError(f"the new cluster {spec.name} does not work; inspect it with `{hint}`")
    return cluster


def _delete_cluster(spec: ClusterSpec) -> None:
    """Delete the cluster, including node containers that kind no longer recognizes."""
    there = [one.name for one in ownership.containers() if one.cluster == spec.name or one.name in spec.nodes]
    if not there:
        return
    if ownership.used_by_others(spec.owned.name):
        raise LabError(
            f"the cluster {spec.name} must be replaced, but a process of another checkout uses it;"
            f" wait until it ends, or use another cluster: {ownership.PIN}=<name>"
        )
    with step(f"delete the cluster {spec.name}"):
        docker.remove(*there)


def remove(spec: ClusterSpec) -> None:
    """Remove this cluster alone; other containers stay."""
    with cache.lock(spec.lock):
        _delete_cluster(spec)
        cache.forget_state(spec.state)
        for path in (spec.kubeconfig, spec.kind_file):
            path.unlink(missing_ok=True)


def clear() -> None:
    """Remove this checkout's clusters of this Kubernetes; with the last one also the containers next to it.

    `teardown.down` removes everything.
    """
    for spec in SPECS:
        if not spec.owned.borrowed:
            remove(spec)
    owned = ownership.current()
    rest = ownership.of_name(ownership.containers(), owned.name)
    if not owned.borrowed and not any(one.cluster for one in rest):
        docker.remove(*(one.name for one in rest))


def status() -> str:
    """Describe the running parts as text."""
    owned = ownership.current()
    whose = f"borrowed from {ownership.owner(owned.name)}" if owned.borrowed else str(ownership.CHECKOUT)
    lines = [f"cache       {cache.directory()}", f"name        {owned.name}, {whose}"]
    state = cache.read_state(ONE_NODE.state)
    if isinstance(state.get("external"), str):
        lines.append(f"cluster     external, {state['external']}")
    if not docker.answers():
        return "\n".join([*lines, "docker      no daemon answers"])
    lines.append(f"docker      {docker.docker('version', '--format', '{{.Server.Version}}')} answers")
    made = [spec for spec in SPECS if exists(spec)]
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
