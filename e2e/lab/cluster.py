"""One Kubernetes cluster: kind's, made here, or one that exists already and is named by its kubeconfig."""

import contextlib
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_kind import KindCluster

from lab import binaries, cache, daemon, docker, images, node, versions
from lab.errors import LabError
from lab.shell import run, say, step, succeeds, wait_until

NAME = versions.own_name("poiesis", versions.RELEASE)
NODE = f"{NAME}-control-plane"
NETWORK = "kind"
LABEL = "poiesis.lab"  # on every container the lab starts beside the cluster

_STATE = versions.own_name("cluster", versions.RELEASE)
_API_ANSWERS_S = 20
_PROBE_POD_S = 40
_FIRST_PROBE_POD_S = 90  # in a new cluster, which still starts

CONFIG = """\
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
CONFIG += "".join(f"    {name}: {json.dumps(value)}\n" for name, value in versions.RELEASE.kubelet.items())
if versions.RELEASE.policies != "v1":
    CONFIG += f"""\
featureGates: {{ValidatingAdmissionPolicy: true}}
runtimeConfig: {{admissionregistration.k8s.io/{versions.RELEASE.policies}: "true"}}
"""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """What tests need of a cluster. `kind` is None for one that the lab did not make."""

    kubeconfig: Path
    kubectl_path: Path
    helm_path: Path
    kind: KindCluster | None

    @property
    def external(self) -> bool:
        return self.kind is None

    def kubectl(self, *arguments: str, input_text: str | None = None, timeout: float = 120) -> str:
        """What kubectl printed, or CommandFailed."""
        command = [str(self.kubectl_path), "--kubeconfig", str(self.kubeconfig), *arguments]
        return run(command, input_text=input_text, timeout=timeout)

    def helm(self, *arguments: str, timeout: float = 300) -> str:
        """What helm printed, or CommandFailed."""
        return run([self.helm_path, "--kubeconfig", self.kubeconfig, *arguments], timeout=timeout)

    def load(self, references: Iterable[str]) -> None:
        """Copy images from docker into the node, those it does not have yet."""
        wanted = list(dict.fromkeys(references))
        if self.kind is None:
            raise LabError(
                "images cannot be copied into a cluster that the lab did not make: push them to a registry"
                f" that it pulls from, and name them there. These are meant: {', '.join(wanted)}"
            )
        present = _images_in_node()
        missing = [reference for reference in wanted if in_containerd(reference) not in present]
        if missing:
            with step(f"load {len(missing)} images into the cluster"):
                run([binaries.kind(), "load", "docker-image", "--name", NAME, *missing])

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


def _images_in_node() -> set[str]:
    return set(docker.docker("exec", NODE, "ctr", "--namespace", "k8s.io", "images", "ls", "-q").splitlines())


def kubeconfig_path() -> Path:
    """Where the kubeconfig of the lab's own cluster is written."""
    return cache.directory() / versions.own_name("kubeconfig", versions.RELEASE)


def up(kubeconfig: Path | None = None) -> Cluster:
    """A cluster that is proven to work: the running one, else a new one; or the one that `kubeconfig` names.

    Safe to call from several processes at once: the others wait for the first.
    """
    with cache.lock():
        if kubeconfig is not None:
            return _adopt(kubeconfig)
        daemon.ensure()
        binaries.link_tools()
        cluster = _reusable() or _create()
        cluster.load(images.images().in_pods())
        return cluster


def current() -> Cluster:
    """The cluster of the last `up`, unproven; LabError if there is none."""
    state = cache.read_state(_STATE)
    if not state:
        raise LabError("no cluster: run `python -m lab up` first")
    if isinstance(state.get("external"), str):
        return _external(Path(str(state["external"])))
    return _own(str(state["image"]))


def _adopt(kubeconfig: Path) -> Cluster:
    cluster = _external(kubeconfig.resolve())
    cluster.kubectl("--request-timeout=10s", "get", "--raw", "/readyz")
    cache.write_state(_STATE, {"external": str(cluster.kubeconfig)})
    say(
        f"lab: using the cluster of {cluster.kubeconfig}; no image is copied to it:\n"
        "     push the service images (`python -m lab images`) to a registry that it pulls from"
    )
    return cluster


def _external(kubeconfig: Path) -> Cluster:
    if not kubeconfig.is_file():
        raise LabError(f"there is no kubeconfig at {kubeconfig}")
    return Cluster(
        kubeconfig=kubeconfig, kubectl_path=binaries.kubectl(), helm_path=binaries.helm(), kind=None
    )


def _own(image: str) -> Cluster:
    with contextlib.chdir(cache.directory()):  # KindCluster makes a directory where it stands
        kind = KindCluster(
            NAME,
            kubeconfig=kubeconfig_path(),
            image=image,
            kind_path=binaries.kind(),
            kubectl_path=binaries.kubectl(),
        )
    return Cluster(
        kubeconfig=kubeconfig_path(), kubectl_path=binaries.kubectl(), helm_path=binaries.helm(), kind=kind
    )


def _recipe(image: str) -> dict[str, object]:
    return {"image": image, "config": cache.hash_of([CONFIG])}


def _reusable() -> Cluster | None:
    """The running cluster if it is what would be made now and works; what does not is removed."""
    facts = docker.container_facts(NODE)
    state = cache.read_state(_STATE)
    if facts is None:
        return None
    wanted = _recipe(node.image())
    if {name: state.get(name) for name in wanted} != wanted or not kubeconfig_path().exists():
        say("lab: the running cluster was made otherwise than it would be now; making it anew")
    elif not _running(facts):
        say("lab: the cluster's node is stopped; making the cluster anew")
    else:
        cluster = _own(str(wanted["image"]))
        if cluster.proves_itself():
            return cluster
    _delete_cluster()
    return None


def is_own_running() -> bool:
    """Whether the last `up` made a cluster here whose node runs."""
    facts = docker.container_facts(NODE)
    return "image" in cache.read_state(_STATE) and facts is not None and _running(facts)


def _running(facts: dict[str, object]) -> bool:
    state = facts.get("State")
    return isinstance(state, dict) and state.get("Running") is True


def _create() -> Cluster:
    image = node.image()
    in_pods = images.images().in_pods()
    _delete_cluster()
    made_network = not docker.has_network(NETWORK)
    cluster = _own(image)
    kind = cluster.kind
    assert kind is not None
    config = cache.directory() / f"{versions.own_name('kind', versions.RELEASE)}.yaml"
    config.write_text(CONFIG)
    with step("create the cluster"):
        command = [str(binaries.kind()), "create", "cluster", "--name", NAME, "--image", image, "--retain"]
        run([*command, "--kubeconfig", cluster.kubeconfig, "--config", config, "--wait", "120s"])
    cache.write_state(_STATE, {**_recipe(image), "made_network": made_network})
    cluster.load(in_pods)
    with step("prove it: run a Pod with a volume"):
        if not cluster.proves_itself(new=True):
            raise LabError(f"the new cluster does not work; look at it with `docker exec -it {NODE} bash`")
    return cluster


def _delete_cluster() -> None:
    """Also half-dead node containers that kind no longer counts as a cluster."""
    if docker.container_facts(NODE) is None:
        return
    with step("delete the cluster"):
        run([binaries.kind(), "delete", "cluster", "--name", NAME, "--kubeconfig", kubeconfig_path()])
        if docker.container_facts(NODE) is not None:
            docker.docker("rm", "--force", "--volumes", NODE)


def node_ip() -> str:
    """The node's address in docker's network: NodePorts answer there, from the host and from containers."""
    if current().external:
        raise LabError("node_ip() is of the lab's own cluster; use `kubectl port-forward` with this one")
    form = f"{{{{(index .NetworkSettings.Networks {NETWORK!r}).IPAddress}}}}".replace("'", '"')
    return docker.docker("container", "inspect", "--format", form, NODE)


def down() -> None:
    """Remove cluster, containers and networks that the lab made; caches and the docker daemon stay.

    Containers stay while another cluster of the lab, of another Kubernetes, may need them.
    """
    with cache.lock():
        state = cache.read_state(_STATE)
        if not docker.answers():
            say("lab: no docker daemon answers, so nothing of the lab runs")
        else:
            ours = docker.docker("ps", "--all", "--quiet", "--filter", f"label={LABEL}").split()
            if ours and not _others_running():
                with step(f"remove {len(ours)} containers"):
                    docker.docker("rm", "--force", "--volumes", *ours)
            _delete_cluster()
            if state.get("made_network") is True and docker.has_network(NETWORK):
                _remove_network()
        cache.forget_state(_STATE)
        kubeconfig_path().unlink(missing_ok=True)


def _others_running() -> bool:
    """Whether there is a cluster of the lab of another Kubernetes."""
    names = {versions.own_name("poiesis", release) for release in versions.RELEASES.values()} - {NAME}
    return any(docker.container_facts(f"{name}-control-plane") is not None for name in names)


def _remove_network() -> None:
    users = docker.docker("network", "inspect", "--format", "{{len .Containers}}", NETWORK)
    if users == "0":
        docker.docker("network", "rm", NETWORK)
    else:
        say(f"lab: docker network {NETWORK} is kept: {users} other containers use it")


def status() -> str:
    """What runs, for people."""
    lines = [f"cache       {cache.directory()}"]
    state = cache.read_state(_STATE)
    if isinstance(state.get("external"), str):
        lines.append(f"cluster     external, {state['external']}")
    if not docker.answers():
        return "\n".join([*lines, "docker      no daemon answers"])
    lines.append(f"docker      {docker.docker('version', '--format', '{{.Server.Version}}')} answers")
    facts = docker.container_facts(NODE)
    if facts is None:
        lines.append("kind        no cluster")
    else:
        lines.append(
            f"kind        {NAME}: {'running' if _running(facts) else 'stopped'}, {state.get('image', '?')}"
        )
        lines.append(f"kubeconfig  {kubeconfig_path()}")
        lines.append(f"tools       {binaries.link_tools()} (kind, kubectl, helm)")
    form = "{{.Names}}\t{{.Status}}\t{{.Image}}"
    others = docker.docker("ps", "--all", "--filter", f"label={LABEL}", "--format", form).splitlines()
    lines += [f"container   {line.expandtabs(4)}" for line in others]
    return "\n".join(lines)
