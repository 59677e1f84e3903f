"""Provide kind, kubectl and helm for this machine, and the programs of images that cannot be pulled.

A tool on the PATH with a suitable version is used; everything else is compiled from its Go module, whose
checksums the Go toolchain verifies. Compiled programs stay in the cache under the hash of their build.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache as once
from pathlib import Path

from poiesis_lab import cache, host, versions
from poiesis_lab.errors import LabError
from poiesis_lab.shell import report, run, step, succeeds
from poiesis_lab.versions import Version

_GO = cache.HERE / "go"
_NO_DWARF = "all=-dwarf=false"
_VERSION_PACKAGES = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")


@dataclass(frozen=True, kw_only=True)
class GoProgram:
    """A main package. `module`: directory of a go.mod that pins it; without one, `package@version` is
    installed.

    `go install` rejects a module whose go.mod replaces others, hence our own modules. Programs of one module
    with the same flags are compiled together: shared packages are compiled once, and linking overlaps with
    compiling. `alone` excludes a program from that.
    """

    name: str
    package: str
    version: str
    module: Path | None = None
    ldflags: str = "-s -w"
    tags: tuple[str, ...] = ()
    alone: bool = False

    @property
    def file(self) -> str:
        """Return the name that the Go toolchain chooses: the package's last part that is not a version."""
        parts = [part for part in self.package.split("/") if not re.fullmatch(r"v\d+", part)]
        return parts[-1]

    @property
    def flags(self) -> list[str]:
        """Return build flags without debugging data, which takes time to write and is not used."""
        return [
            "-trimpath",
            f"-tags={','.join(self.tags)}",
            f"-gcflags={_NO_DWARF}",
            "-ldflags",
            self.ldflags,
        ]

    def key(self) -> str:
        files = cache.files_under(self.module) if self.module else []
        facts = [self.name, self.package, self.version, self.ldflags, host.architecture(), *self.tags]
        return cache.hash_of(facts, files)


def _kubernetes_ldflags(release: str) -> str:
    """Return the version stamp of a release build of Kubernetes, which kubeadm and kind read."""
    version = Version.parse(release)
    stamp = {
        "gitVersion": f"v{release}",
        "gitMajor": str(version.major),
        "gitMinor": str(version.minor),
        "gitTreeState": "clean",
        "gitCommit": f"v{release}",
        "buildDate": "1970-01-01T00:00:00Z",
    }
    flags = [f"-X {package}.{name}={value}" for package in _VERSION_PACKAGES for name, value in stamp.items()]
    return " ".join(["-s -w", *flags])


def _kubernetes(name: str) -> GoProgram:
    return GoProgram(
        name=name,
        package=f"k8s.io/kubernetes/cmd/{name}",
        version=versions.KUBERNETES,
        module=_GO / versions.RELEASE.module,
        ldflags=_kubernetes_ldflags(versions.KUBERNETES),
        tags=versions.RELEASE.tags,
    )


def _next_to_kubernetes(name: str, package: str, version: str) -> GoProgram:
    """Return a program that shares most packages with the default Kubernetes, for any release."""
    return GoProgram(
        name=name,
        package=package,
        version=version,
        module=_GO / "kubernetes",
        ldflags=_kubernetes_ldflags(versions.RELEASES[versions.DEFAULT_KUBERNETES].version),
    )


KUBERNETES_PROGRAMS = (
    "kubelet",
    "kubeadm",
    "kubectl",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
)

PROGRAMS: Mapping[str, GoProgram] = {
    program.name: program
    for program in (
        *(_kubernetes(name) for name in KUBERNETES_PROGRAMS),
        GoProgram(name="kind", package="sigs.k8s.io/kind", version=f"v{versions.KIND}"),
        _next_to_kubernetes("helm", "helm.sh/helm/v3/cmd/helm", f"v{versions.HELM}"),
        _next_to_kubernetes("etcd", "go.etcd.io/etcd/server/v3", versions.ETCD),
        _next_to_kubernetes("coredns", "./coredns", f"v{versions.COREDNS}"),
        GoProgram(
            name="local-path-provisioner",
            package="github.com/rancher/local-path-provisioner",
            version=f"v{versions.LOCAL_PATH_PROVISIONER}",
            module=_GO / "kubernetes",
            alone=True,  # it capitalizes the path of a package of the others, which Go rejects
        ),
        GoProgram(
            name="kueue",
            package="sigs.k8s.io/kueue/cmd/kueue",
            version=f"v{versions.KUEUE}",
            module=_GO / "kueue",
        ),
        GoProgram(
            name="kube-router",
            package="github.com/cloudnativelabs/kube-router/v2/cmd/kube-router",
            version=f"v{versions.KUBE_ROUTER}",
            module=_GO / "kube-router",
        ),
        GoProgram(name="kwok", package="sigs.k8s.io/kwok/cmd/kwok", version=f"v{versions.KWOK}"),
        GoProgram(name="minio", package="github.com/minio/minio", version=versions.MINIO),
        GoProgram(
            name="actionlint",
            package="github.com/rhysd/actionlint/cmd/actionlint",
            version=f"v{versions.ACTIONLINT}",
        ),
        GoProgram(
            name="crane",
            package="github.com/google/go-containerregistry/cmd/crane",
            version=f"v{versions.CRANE}",
        ),
        GoProgram(
            name="registry",
            package="./registry",
            version=f"v{versions.OCI_REGISTRY}",
            module=_GO / "distribution",
        ),
    )
}


@once
def go() -> str:
    found = host.find("go") or ("/usr/local/go/bin/go" if Path("/usr/local/go/bin/go").exists() else None)
    if found is None:
        raise LabError(
            "Go is required to build programs that cannot be downloaded, and is not on the PATH.\n"
            "Install Go 1.24 or later (https://go.dev/dl), or put kind, kubectl and helm on the PATH."
        )
    return found


def compiled(name: str) -> Path:
    """Return the static program `name`; compile it if it is not in the cache."""
    return compile_all([name])[name]


def compile_all(names: Iterable[str]) -> dict[str, Path]:
    """Return programs by name; compile missing ones, those of one module together."""
    programs = [PROGRAMS[name] for name in names]
    for group in groups(program for program in programs if not _target(program).exists()):
        with cache.lock():
            _compile([program for program in group if not _target(program).exists()])
    for program in programs:
        _target(program).touch()  # `prune` removes programs that were not used for long
    return {program.name: _target(program) for program in programs}


def _target(program: GoProgram) -> Path:
    return cache.directory() / "bin" / f"{program.name}-{program.key()}"


def groups(programs: Iterable[GoProgram]) -> list[list[GoProgram]]:
    """Group the programs that one `go build` can compile together."""
    found: dict[object, list[GoProgram]] = {}
    for program in programs:
        together = program.module is not None and not program.alone
        found.setdefault((program.module, *program.flags) if together else program.name, []).append(program)
    return list(found.values())


def _compile(programs: Sequence[GoProgram]) -> None:
    if not programs:
        return
    first, env = programs[0], {"CGO_ENABLED": "0"}
    with step(f"compile {', '.join(program.name for program in programs)}"), cache.workspace() as work:
        if first.module is not None:
            packages = [program.package for program in programs]
            run([go(), "build", "-C", first.module, *first.flags, "-o", f"{work}/", *packages], env=env)
        else:
            target = f"{first.package}@{first.version}"
            run([go(), "install", *first.flags, target], env={**env, "GOBIN": str(work)}, cwd=work)
        for program in programs:
            with cache.aside(_target(program)) as path:
                (work / program.file).rename(path)


def module_directory(module: str, version: str) -> Path:
    """Return the directory of a module's unpacked source; download it if it is missing."""
    answer = json.loads(run([go(), "mod", "download", "-json", f"{module}@{version}"], cwd=cache.directory()))
    return Path(answer["Dir"])


def _on_path(name: str, command: list[str], suits: Callable[[Version], bool]) -> Path | None:
    """Return a program on the PATH if it runs and has a suitable version."""
    path = host.find(name)
    if path is None or not succeeds([path, *command]):
        return None
    found = re.search(r"v\d+\.\d+(\.\d+)?", run([path, *command]))
    if found is None or not suits(Version.parse(found[0])):
        report(f"lab: ignoring {path}: unsuitable version ({found[0] if found else 'unknown'})")
        return None
    return Path(path)


@once
def kind() -> Path:
    return _tool("kind", ["version"], versions.kind_suits)


@once
def kubectl() -> Path:
    return _tool("kubectl", ["version", "--client"], versions.kubectl_suits)


@once
def helm() -> Path:
    return _tool("helm", ["version", "--short"], versions.helm_suits)


@once
def actionlint() -> Path:
    """Return the linter of GitHub workflows: the one on the PATH, else ours."""
    found = host.find("actionlint")
    return Path(found) if found else compiled("actionlint")


@once
def crane() -> Path:
    """Return the program that pushes image layouts to registries: the one on the PATH, else ours."""
    found = host.find("crane")
    return Path(found) if found else compiled("crane")


def _tool(name: str, command: list[str], suits: Callable[[Version], bool]) -> Path:
    """Return our build if it exists (the exact version), else one on the PATH, else a new build."""
    found = None if _target(PROGRAMS[name]).exists() else _on_path(name, command, suits)
    return found or compiled(name)


def link_tools() -> Path:
    """Link `kind`, `kubectl` and `helm` in one directory, for users and scripts."""
    folder = cache.directory() / versions.own_name("tools", versions.RELEASE)
    folder.mkdir(exist_ok=True)
    for name, path in (("kind", kind()), ("kubectl", kubectl()), ("helm", helm())):
        link = folder / name
        if link.is_symlink() and link.readlink() == path:
            continue
        with cache.aside(link) as new:
            new.symlink_to(path)
    return folder
