"""The lab's pure decisions: versions, hashes, plans, names."""

import fcntl
import hashlib
import re
import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import pytest

from poiesis_lab import (
    binaries,
    cache,
    cluster,
    daemon,
    docker,
    host,
    images,
    kueue,
    ownership,
    probe,
    services,
    shell,
    specs,
    teardown,
    versions,
)
from poiesis_lab.errors import LabError
from poiesis_lab.offline import maven, node
from poiesis_lab.versions import KubernetesRelease, Version

STATUS = "Name:\tpython3\nCapInh:\t0000000000000000\nCapBnd:\t{}\nSeccomp:\t0\n"

DOCKERFILE = """\
# COPY commented/out /
ARG PYTHON_BASE=python:3.13-slim
ARG HELPER_IMAGE
FROM ${HELPER_IMAGE} AS helper
FROM --platform=$BUILDPLATFORM ${PYTHON_BASE} AS build
COPY --chmod=0755 services/tif/requirements.lock services/tif/poiesis_tif \\
     /src/
COPY ["packages/models", "/models"]
COPY migrations/*.sql /sql/
COPY --from=helper /helper /helper
RUN --mount=type=bind,source=docs,target=/docs \\
    --mount=type=secret,id=ca make
FROM scratch
COPY --from=build /app /app
"""


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use an empty cache in a process without a name; docker has no container."""
    monkeypatch.setenv("POIESIS_CACHE", str(tmp_path))
    monkeypatch.delenv(ownership.PIN, raising=False)
    for name in ("_now", "_marked"):
        monkeypatch.setattr(ownership, name, [])
    monkeypatch.setattr(docker, "answers", lambda: True)
    monkeypatch.setattr(ownership, "containers", list)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("kind v0.31.0 go1.24.0 linux/amd64", Version(0, 31, 0)),
        ("Client Version: v1.32.4-dispatcher\nKustomize Version: v5.5.0", Version(1, 32, 4)),
        ("v3.21.4+gabcdef", Version(3, 21, 4)),
        ("1.34", Version(1, 34, 0)),
    ],
)
def test_version_is_parsed_from_tool_output(text: str, version: Version) -> None:
    assert Version.parse(text) == version


def test_text_without_a_version_is_rejected() -> None:
    with pytest.raises(ValueError, match="no version number in 'unknown'"):
        Version.parse("unknown")


def test_kubectl_may_differ_by_one_minor_release() -> None:
    major, minor, _ = Version.parse(versions.KUBERNETES)
    found = [Version(major, minor + away, 9) for away in (-2, -1, 0, 1, 2)]
    assert [versions.kubectl_suits(one) for one in found] == [False, True, True, True, False]
    assert not versions.kubectl_suits(Version(major + 1, minor, 0))


def test_helm_may_be_newer_within_the_major_release() -> None:
    assert [versions.helm_suits(Version.parse(text)) for text in ("3.13.9", "3.14.0", "3.99.0", "4.0.0")] == [
        False,
        True,
        True,
        False,
    ]


def test_kind_must_match_the_node_image() -> None:
    assert [versions.kind_suits(Version.parse(text)) for text in (versions.KIND, "0.30.0")] == [True, False]


@pytest.mark.parametrize("release", versions.RELEASES.values(), ids=versions.RELEASES)
def test_go_modules_match_the_version_file(release: KubernetesRelease) -> None:
    kubernetes = (cache.HERE / "go" / release.module / "go.mod").read_text()
    assert f"k8s.io/kubernetes v{release.version}\n" in kubernetes
    staging = set(re.findall(r"=> \S+ v0\.(\S+)", kubernetes))
    # The only patch release in the module proxy.
    other_patch = {"29.15"} if release.minor == "1.29" else set()
    assert staging == {release.version.removeprefix("1."), *other_patch}
    assert f"sigs.k8s.io/kueue v{versions.KUEUE}\n" in (cache.HERE / "go/kueue/go.mod").read_text()
    firewall = (cache.HERE / "go/kube-router/go.mod").read_text()
    assert f"github.com/cloudnativelabs/kube-router/v2 v{versions.KUBE_ROUTER}\n" in firewall


def test_the_environment_chooses_the_kubernetes_of_the_cluster() -> None:
    assert versions.chosen({}) == versions.chosen({"POIESIS_KUBERNETES": ""}) == versions.RELEASES["1.34"]
    assert versions.chosen({"POIESIS_KUBERNETES": "1.29"}).version == "1.29.6"
    with pytest.raises(LabError, match=r"POIESIS_KUBERNETES must be one of 1\.29, 1\.34, 1\.37, got '1\.30'"):
        versions.chosen({"POIESIS_KUBERNETES": "1.30"})


def test_clusters_of_two_kubernetes_releases_can_coexist() -> None:
    names = [versions.own_name("poiesis", release) for release in versions.RELEASES.values()]
    assert names == ["poiesis-1-29", "poiesis", "poiesis-1-37"]


def test_hash_depends_on_values_names_contents_and_modes(tmp_path: Path) -> None:
    file = tmp_path / "recipe"
    file.write_text("one")
    first = cache.hash_of(["a"], [file], tmp_path)
    assert first == cache.hash_of(["a"], [file], tmp_path)
    changed = [cache.hash_of(["b"], [file], tmp_path)]
    file.write_text("two")
    changed.append(cache.hash_of(["a"], [file], tmp_path))
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    changed.append(cache.hash_of(["a"], [file], tmp_path))
    file = file.rename(tmp_path / "other")
    changed.append(cache.hash_of(["a"], [file], tmp_path))
    assert len({first, *changed}) == 5


def test_hash_changes_when_two_equal_files_swap(tmp_path: Path) -> None:
    for name, text in (("a", "1"), ("b", "2")):
        (tmp_path / name).write_text(text)
    first = cache.hash_of([], cache.files_under(tmp_path), tmp_path)
    (tmp_path / "a").write_text("2")
    (tmp_path / "b").write_text("1")
    assert cache.hash_of([], cache.files_under(tmp_path), tmp_path) != first


def test_caches_are_not_part_of_a_recipe(tmp_path: Path) -> None:
    for name in ("code.py", "__pycache__/code.pyc", ".venv/bin/python", "stray.pyc"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    assert cache.files_under(tmp_path) == [tmp_path / "code.py"]


def test_interrupted_step_leaves_no_result(tmp_path: Path) -> None:
    def interrupted() -> None:
        with cache.aside(tmp_path / "image.tar") as path:
            path.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []
    with cache.aside(tmp_path / "image.tar") as path:
        path.write_text("whole")
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [("image.tar", "whole")]


def test_state_is_remembered_until_it_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POIESIS_CACHE", str(tmp_path))
    cache.write_state("cluster", {"image": "node:1"})
    assert cache.read_state("cluster") == {"image": "node:1"}
    cache.forget_state("cluster")
    assert cache.read_state("cluster") == {}


def test_a_thread_may_take_the_lock_it_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POIESIS_CACHE", str(tmp_path))
    with cache.lock("test"), cache.lock("test"):
        pass
    with cache.lock("test"):
        holder = subprocess.run(["flock", "--nonblock", str(tmp_path / "test.lock"), "true"], check=False)
    assert holder.returncode == 1


def test_lock_is_never_held_on_a_removed_file(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, flock = own_cache / "x.lock", fcntl.flock

    def removed_during_the_wait(descriptor: IO[str], operation: int) -> None:
        flock(descriptor, operation)
        monkeypatch.setattr("fcntl.flock", flock)
        cache.remove_lock("x")

    monkeypatch.setattr("fcntl.flock", removed_during_the_wait)
    with cache.lock("x"):
        other = subprocess.run(["flock", "--nonblock", str(file), "true"], check=False)
    assert other.returncode == 1


@pytest.mark.parametrize(
    ("mask", "missing"), [("000001ffffffffff", False), ("000001fffeffffff", True), ("00000000a80425fb", True)]
)
def test_missing_capability_is_found_in_the_bounding_set(mask: str, missing: bool) -> None:
    assert host.lacks(host.CAP_SYS_RESOURCE, STATUS.format(mask)) is missing


@pytest.mark.parametrize(
    ("arguments", "own"),
    [
        (("dockerd", "--pidfile", "/run/docker.pid", "--label", daemon.OWN), True),
        (("dockerd", "--add-runtime", "within-bounds=/cache/bin/runc"), True),
        (("dockerd", "-H", "fd://"), False),
    ],
)
def test_daemon_that_the_lab_started_is_recognized(arguments: Sequence[str], own: bool) -> None:
    assert daemon.started_by_lab("\0".join(arguments).encode() + b"\0") is own


def test_user_without_docker_access_gets_instructions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setattr(docker, "answers", lambda: False)
    monkeypatch.setattr(daemon, "SOCKET", tmp_path)
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(LabError, match=r"not writable(.|\n)*usermod -aG docker"):
        daemon.ensure()


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("exit 0", "pulled from a registry"),
        ("echo too many requests >&2; exit 1", "failed: too many requests"),
    ],
)
def test_attempt_to_pull_decides_where_images_come_from(
    own_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    words: str,
) -> None:
    client = own_cache / "docker"
    client.write_text(f"#!/bin/sh\n{command}\n")
    client.chmod(0o755)
    monkeypatch.delenv("POIESIS_REGISTRY", raising=False)
    monkeypatch.setattr(docker, "binary", lambda: str(client))
    found = [docker.registry_answers.__wrapped__() for _ in range(2)]
    assert found == [command == "exit 0"] * 2
    assert capsys.readouterr().err.count(words) == 1


def test_only_packages_of_missing_programs_are_installed() -> None:
    programs = {"dockerd": ("docker.io", "iptables"), "mmdebstrap": ("mmdebstrap", "iptables")}
    assert host.apt_plan(programs, lambda name: name == "dockerd") == ["mmdebstrap", "iptables"]
    assert host.apt_plan(programs, lambda _: False) == ["docker.io", "iptables", "mmdebstrap"]
    assert host.apt_plan(programs, lambda _: True) == []


def test_nothing_is_installed_if_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POIESIS_BOOTSTRAP", "never")
    monkeypatch.setattr(host, "find", lambda _: None)
    with pytest.raises(LabError, match=r"POIESIS_BOOTSTRAP=never(.|\n)*apt-get install .* mmdebstrap"):
        host.need_programs("mmdebstrap")


def test_installed_browser_is_preferred_to_debians(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there = {"google-chrome": "/opt/google-chrome"}
    monkeypatch.setattr(host, "find", there.get)
    assert host.browser() == "/opt/google-chrome"
    there.clear()
    monkeypatch.setattr(host, "need_programs", lambda name: there.update({name: f"/usr/bin/{name}"}))
    assert host.browser() == "/usr/bin/chromium"


def test_only_the_pinned_maven_artifact_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def mvn(command: Sequence[str], *, cwd: Path, timeout: float) -> None:
        asked.append(next(one for one in command if one.startswith("-Dartifact=")))
        (cwd / "tool-1.0.zip").write_text("the file")

    monkeypatch.setenv("POIESIS_CACHE", str(tmp_path))
    monkeypatch.setattr(maven, "run", mvn)
    monkeypatch.setattr(host, "find", lambda name: f"/usr/bin/{name}")
    with pytest.raises(LabError, match=r"org\.example:tool:1\.0:zip: sha256 \w+ does not match"):
        maven.artifact("org.example", "tool", "1.0", "zip", "0" * 64)
    assert list((tmp_path / "maven").iterdir()) == []

    right = hashlib.sha256(b"the file").hexdigest()
    found = [maven.artifact("org.example", "tool", "1.0", "zip", right) for _ in range(2)]
    assert found == [tmp_path / "maven" / f"{right[:12]}-tool-1.0.zip"] * 2
    assert found[0].read_text() == "the file"
    assert asked == ["-Dartifact=org.example:tool:1.0:zip"] * 2, "the third time it is there"


def test_name_of_compiled_program_depends_on_its_build() -> None:
    program = binaries.PROGRAMS["kind"]
    other = binaries.GoProgram(name=program.name, package=program.package, version="v0.30.0")
    assert program.key() == binaries.PROGRAMS["kind"].key() != other.key()


def test_control_plane_images_are_mapped_by_component() -> None:
    listing = (
        "example.org/kube-apiserver:v1.34.4\n"
        "example.org:5000/coredns/coredns:v1.12.1\n"
        "example.org/etcd:3.6.5-0\n"
    )
    assert node.by_component(listing) == {
        "kube-apiserver": "example.org/kube-apiserver:v1.34.4",
        "coredns": "example.org:5000/coredns/coredns:v1.12.1",
        "etcd": "example.org/etcd:3.6.5-0",
    }


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("busybox:1.37", "docker.io/library/busybox:1.37"),
        ("poiesis/api:abc", "docker.io/poiesis/api:abc"),
        ("localhost/api:abc", "localhost/api:abc"),
        ("example.org:5000/a/b:c", "example.org:5000/a/b:c"),
    ],
)
def test_containerd_names_include_registry_and_repository(reference: str, name: str) -> None:
    assert cluster.in_containerd(reference) == name


def test_one_and_two_node_clusters_share_no_file(own_cache: Path) -> None:
    one, two = cluster.ONE_NODE, cluster.TWO_NODES
    assert one.nodes == ("poiesis-control-plane",)
    assert two.nodes == ("poiesis-nodes-control-plane", "poiesis-nodes-worker")
    assert [spec.config.count("role: worker") for spec in (one, two)] == [one.workers, two.workers]
    assert [spec.kubeconfig for spec in (one, two)] == [
        own_cache / "kubeconfig",
        own_cache / "kubeconfig-nodes",
    ]
    assert [spec.kind_file.name for spec in (one, two)] == ["kind.yaml", "kind-nodes.yaml"]
    assert [(spec.state, spec.lock) for spec in (one, two)] == [("cluster",) * 2, ("cluster-nodes",) * 2]


def test_another_checkout_shares_no_name_and_no_file(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ownership.PIN, "poiesis-0a1b2c3d")
    one, two = cluster.ONE_NODE, cluster.TWO_NODES
    assert one.control_plane == "poiesis-0a1b2c3d-control-plane"
    assert two.nodes == ("poiesis-0a1b2c3d-nodes-control-plane", "poiesis-0a1b2c3d-nodes-worker")
    assert [spec.state for spec in (one, two)] == ["cluster-0a1b2c3d", "cluster-0a1b2c3d-nodes"]
    assert one.kubeconfig == own_cache / "kubeconfig-0a1b2c3d"
    assert set(teardown.suffixes(one.owned)) >= {"-0a1b2c3d", "-0a1b2c3d-nodes", "-0a1b2c3d-nodes-1-29"}


def test_every_cluster_has_names_of_its_own(own_cache: Path) -> None:
    assert cluster.SIMULATED.nodes == ("poiesis-scale-control-plane",)
    for fact in ("name", "state", "lock", "kubeconfig", "kind_file"):
        assert len({getattr(spec, fact) for spec in specs.SPECS}) == len(specs.SPECS) == 3


def test_down_removes_the_files_of_every_cluster(own_cache: Path) -> None:
    assert {f"cluster{suffix}" for suffix in teardown.suffixes(cluster.ONE_NODE.owned)} >= {
        spec.state for spec in specs.SPECS
    }


def test_simulated_cluster_gets_neither_firewall_nor_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "firewall", lambda: "firewall:1")
    assert cluster._addons(cluster.SIMULATED) == cluster._in_pods(cluster.SIMULATED) == []


def test_second_and_later_workers_are_numbered(own_cache: Path) -> None:
    three = cluster.ClusterSpec(suffix="-c", config="", workers=3)
    expected = ("control-plane", "worker", "worker2", "worker3")
    assert three.nodes == tuple(f"poiesis-c-{name}" for name in expected)


def test_image_files_are_those_its_dockerfile_copies() -> None:
    assert services.copied(DOCKERFILE) == [
        "services/tif/requirements.lock",
        "services/tif/poiesis_tif",
        "packages/models",
        "migrations/*.sql",
        "docs",
    ]


def test_only_declared_build_arguments_are_given() -> None:
    assert services.declared_arguments(DOCKERFILE) == {"PYTHON_BASE", "HELPER_IMAGE"}


def test_image_base_is_that_of_its_last_stage() -> None:
    assert services.last_base(DOCKERFILE) == "scratch"
    assert services.last_base("FROM --platform=linux/arm64 a AS b\n") == "a"


def test_copy_with_a_variable_is_rejected() -> None:
    with pytest.raises(LabError, match="write the paths out"):
        services.copied("COPY ${SERVICE}/src /src\n")


@pytest.mark.parametrize(
    ("path", "taken"),
    [
        ("packages/models/poiesis_models/tes.py", True),
        ("migrations/0001_task.sql", True),
        ("migrations/old/0001_task.sql", False),
        ("services/tif/requirements.lock", True),
        ("services/tof/requirements.lock", False),
    ],
)
def test_image_contains_files_and_directories_of_copy(path: str, taken: bool) -> None:
    assert services.is_copied(Path(path), services.copied(DOCKERFILE)) is taken


def test_probe_has_a_volume_only_if_asked() -> None:
    kinds = [
        [item["kind"] for item in probe.probe_objects("probe", "busybox", volume=volume)["items"]]
        for volume in (True, False)
    ]
    assert kinds == [["PersistentVolumeClaim", "Pod"], ["Pod"]]


def test_timeout_names_condition_and_hint() -> None:
    with pytest.raises(LabError, match=r"the Pod: not within 0 s\nthe reason"):
        shell.wait_until(lambda: False, "the Pod", seconds=0, hint=lambda: "the reason", every=0)


def test_failed_command_shows_its_last_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POIESIS_CACHE", str(tmp_path))
    with pytest.raises(shell.CommandFailed, match=r"ended with 3(.|\n)*to stderr") as caught:
        shell.run(["sh", "-c", "echo to stderr >&2; exit 3"])
    assert caught.value.code == 3


def test_a_missing_program_is_named() -> None:
    with pytest.raises(LabError, match="no-such-program is not installed"):
        shell.run(["no-such-program"])


def test_kueue_webhooks_apply_to_labelled_namespaces_only() -> None:
    hook = {"name": "mjob.kb.io", "namespaceSelector": {"matchExpressions": []}}
    container = {"name": "manager", "image": "controller", "imagePullPolicy": "Always", "resources": {"a": 1}}
    deployment = {"kind": "Deployment", "spec": {"template": {"spec": {"containers": [container]}}}}
    given: list[kueue.Manifest] = [
        {"kind": "ValidatingWebhookConfiguration", "webhooks": [hook, {"name": "vjob.kb.io"}]},
        deployment,
        {"kind": "APIService"},
        {"kind": "Namespace"},
    ]
    hooks, manager, namespace = kueue.adapted(given, "kueue:1")
    selectors = [one["namespaceSelector"] for one in hooks["webhooks"]]
    assert selectors == [{"matchLabels": {"poiesis.lab/kueue": "true"}}] * 2
    (changed,) = manager["spec"]["template"]["spec"]["containers"]
    assert (changed["image"], changed["imagePullPolicy"]) == ("kueue:1", "IfNotPresent")
    assert namespace == {"kind": "Namespace"}
    assert container["image"] == "controller"


def test_nodes_are_given_the_address_of_a_registry(monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> None:
    calls: list[tuple[tuple[str, ...], str | None]] = []
    monkeypatch.setattr(
        docker, "docker", lambda *arguments, input_text=None: calls.append((arguments, input_text))
    )
    made = cluster.Cluster(
        kubeconfig=own_cache, kubectl_path=own_cache, helm_path=own_cache, spec=cluster.TWO_NODES
    )

    made.trust_registry("172.18.0.9:5000")

    written = [(arguments[2], arguments[-1], text) for arguments, text in calls if text]
    hosts = '[host."http://172.18.0.9:5000"]\n  capabilities = ["pull", "resolve"]\n'
    path = "/etc/containerd/certs.d/172.18.0.9:5000/hosts.toml"
    assert written == [(node, path, hosts) for node in cluster.TWO_NODES.nodes]
