"""A run builds only what it needs, compiles programs of one module together, and builds concurrently."""

import inspect
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from poiesis_lab import binaries, cache, daemon, docker, images, registry, services, shell, versions
from poiesis_lab.errors import LabError
from poiesis_lab.offline import images as built_images
from poiesis_lab.offline import node, parallel, prepare


def test_programs_of_one_module_are_compiled_together() -> None:
    names = ["kind", "kubectl", "local-path-provisioner", "kube-proxy", "helm", "coredns", "etcd", "minio"]
    groups = binaries.groups(binaries.PROGRAMS[name] for name in names)
    assert [[program.name for program in group] for group in groups] == [
        ["kind"],
        ["kubectl", "kube-proxy", "helm", "coredns", "etcd"],
        ["local-path-provisioner"],
        ["minio"],
    ]


@pytest.mark.parametrize(
    ("package", "file"),
    [
        ("go.etcd.io/etcd/server/v3", "server"),
        ("./coredns", "coredns"),
        ("helm.sh/helm/v3/cmd/helm", "helm"),
        ("github.com/minio/minio", "minio"),
    ],
)
def test_go_names_a_program_after_its_package(package: str, file: str) -> None:
    assert binaries.GoProgram(name="any", package=package, version="1").file == file


def test_kwok_is_installed_from_its_pinned_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POIESIS_CACHE", str(tmp_path))
    monkeypatch.setattr(binaries, "go", lambda: "go")

    def run(command: Sequence[str | Path], *, env: Mapping[str, str], **_: object) -> str:
        (Path(env["GOBIN"]) / "kwok").write_text(str(command[-1]))
        return ""

    monkeypatch.setattr(binaries, "run", run)
    assert binaries.compiled("kwok").read_text() == f"sigs.k8s.io/kwok/cmd/kwok@v{versions.KWOK}"


def test_missing_programs_are_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POIESIS_CACHE", str(tmp_path))
    monkeypatch.setattr(binaries, "go", lambda: "go")
    commands: list[Sequence[str | Path]] = []

    def run(command: Sequence[str | Path], **_: object) -> str:
        commands.append(command)
        folder = Path(command[command.index("-o") + 1])
        for package in command[command.index("-o") + 2 :]:
            (folder / Path(package).name).write_text(str(package))
        return ""

    monkeypatch.setattr(binaries, "run", run)
    names = ["kubeadm", "kubelet"]
    made = [binaries.compile_all(names), binaries.compile_all([*names, "kubectl"])]
    assert {name: path.read_text() for name, path in made[1].items()} == {
        name: f"k8s.io/kubernetes/cmd/{name}" for name in (*names, "kubectl")
    }
    assert made[0].items() <= made[1].items()
    assert [len(command) - command.index("-o") - 2 for command in commands] == [2, 1]


def test_kubernetes_modules_match_the_version_file() -> None:
    pinned = (cache.HERE / "go/kubernetes/go.mod").read_text()
    for module, version in (
        ("helm.sh/helm/v3", versions.HELM),
        ("go.etcd.io/etcd/server/v3", versions.ETCD),
        ("github.com/coredns/coredns", versions.COREDNS),
        ("github.com/rancher/local-path-provisioner", versions.LOCAL_PATH_PROVISIONER),
    ):
        assert f"{module} v{version}\n" in pinned


def test_registry_module_matches_the_version_file() -> None:
    pinned = (cache.HERE / "go/distribution/go.mod").read_text()
    assert f"github.com/distribution/distribution/v3 v{versions.OCI_REGISTRY}\n" in pinned


def test_foreign_program_differs_in_its_machine_alone() -> None:
    program = bytes(range(64))
    changed = images.for_itanium(program)
    assert [at for at, byte in enumerate(changed) if byte != program[at]] == [18, 19]
    assert changed[18:20] == b"\x32\x00"


def test_missing_story_images_are_not_loaded() -> None:
    bases = {name: name for name in ("python_base", "python_build_base", "debian_base")}
    made = images.Images(**bases, postgres="p", busybox="b", busybox_nonroot="n")
    assert made.in_pods() == ["p", "b", "n"]


def test_pulled_and_built_images_have_the_same_functions() -> None:
    names = [name for name, _ in inspect.getmembers(registry, inspect.isfunction) if not name.startswith("_")]
    assert names == ["bases", "keycloak", "kueue", "minio", "node", "oci_registry"]
    for name in names:
        functions = [getattr(module, name) for module in (registry, built_images)]
        assert functions[0].__annotations__ == functions[1].__annotations__


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of built and compiled parts, starting from an empty cache."""
    done: list[str] = []
    monkeypatch.setattr(binaries, "compile_all", done.extend)
    for module, name in ((images, "images"), (services, "build"), (node, "root_file_systems")):
        monkeypatch.setattr(module, name, lambda name=name: done.append(name))
    monkeypatch.setattr(node, "pause_program", lambda: done.append("pause"))
    return done


@pytest.mark.parametrize(
    ("asked", "more"),
    [({}, set()), ({"services": True}, {"build"}), ({"services": True, "minio": True}, {"build", "minio"})],
)
def test_only_what_a_run_needs_is_built(built: list[str], asked: dict[str, bool], more: set[str]) -> None:
    wanted = {"services": False, "minio": False, **asked}
    for lane in prepare.lanes(**wanted):
        lane()
    cluster = {
        "helm",
        "etcd",
        "coredns",
        "local-path-provisioner",
        "kind",
        "kube-router",
        "pause",
        *binaries.KUBERNETES_PROGRAMS,
    }
    assert set(built) == {*cluster, "images", "root_file_systems"} | more
    assert len(built) == len(set(built))


def test_nothing_is_prepared_where_a_registry_answers(
    built: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POIESIS_CACHE", str(tmp_path))
    monkeypatch.setattr(daemon, "ensure", lambda: None)
    monkeypatch.setattr(docker, "registry_answers", lambda: True)
    prepare.prepare(services=True, minio=True)
    assert built == []


def test_lanes_run_concurrently_with_their_callers_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POIESIS_CACHE", str(tmp_path))
    together = threading.Barrier(2, timeout=10)

    def lane() -> None:
        together.wait()
        with cache.lock("test"):
            pass

    with cache.lock("test"):
        parallel.run_all([lane, lane])


def test_failure_of_a_lane_is_raised() -> None:
    def fails() -> None:
        raise LabError("no such package")

    with pytest.raises(LabError, match="no such package"):
        parallel.run_all([lambda: None, fails])


def test_steps_of_several_threads_have_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    with shell.step("alone"):
        pass
    with shell.step("first"), shell.step("second"):
        pass
    lines = [line.rpartition(" 0.")[0] for line in capsys.readouterr().err.splitlines()]
    assert lines == ["  alone ...", "", "  second ...", "  first:"]
