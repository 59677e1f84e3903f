"""Programs: kind, kubectl and helm for this machine, and what goes into images where none can be pulled.

A tool that is on the PATH in a version that suits is used; everything else is compiled from its Go module,
whose checksums the Go toolchain verifies. Compiled programs stay in the cache under the hash of how they
were made.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache as once
from pathlib import Path

from poiesis_lab import cache, host, versions
from poiesis_lab.errors import LabError
from poiesis_lab.shell import run, say, step, succeeds
from poiesis_lab.versions import Version

_GO = cache.HERE / "go"
_VERSION_PACKAGES = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")


@dataclass(frozen=True, kw_only=True)
class GoProgram:
    """A main package. `module` is the directory of a go.mod that pins it; without one, `package@version` is
    installed.

    `go install` refuses a module whose go.mod replaces others, hence the modules of our own.
    """

    name: str
    package: str
    version: str
    module: Path | None = None
    ldflags: str = "-s -w"
    tags: tuple[str, ...] = ()

    def key(self) -> str:
        files = cache.files_under(self.module) if self.module else []
        facts = [self.name, self.package, self.version, self.ldflags, host.architecture(), *self.tags]
        return cache.hash_of(facts, files)


def _kubernetes_ldflags() -> str:
    """What a release build of Kubernetes stamps into its programs: kubeadm and kind read it."""
    version = Version.parse(versions.KUBERNETES)
    stamp = {
        "gitVersion": f"v{versions.KUBERNETES}",
        "gitMajor": str(version.major),
        "gitMinor": str(version.minor),
        "gitTreeState": "clean",
        "gitCommit": f"v{versions.KUBERNETES}",
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
        ldflags=_kubernetes_ldflags(),
        tags=versions.RELEASE.tags,
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
        GoProgram(name="helm", package="helm.sh/helm/v3/cmd/helm", version=f"v{versions.HELM}"),
        GoProgram(
            name="etcd", package="go.etcd.io/etcd/server/v3", version=versions.ETCD, module=_GO / "etcd"
        ),
        GoProgram(name="coredns", package="github.com/coredns/coredns", version=f"v{versions.COREDNS}"),
        GoProgram(
            name="local-path-provisioner",
            package="github.com/rancher/local-path-provisioner",
            version=f"v{versions.LOCAL_PATH_PROVISIONER}",
        ),
        GoProgram(
            name="kueue",
            package="sigs.k8s.io/kueue/cmd/kueue",
            version=f"v{versions.KUEUE}",
            module=_GO / "kueue",
        ),
        GoProgram(name="minio", package="github.com/minio/minio", version=versions.MINIO),
    )
}


@once
def go() -> str:
    found = host.find("go") or ("/usr/local/go/bin/go" if Path("/usr/local/go/bin/go").exists() else None)
    if found is None:
        raise LabError(
            "Go is needed to build what cannot be downloaded here, and is not on the PATH.\n"
            "Install Go 1.24 or later (https://go.dev/dl), or put kind, kubectl and helm on the PATH."
        )
    return found


def compiled(name: str) -> Path:
    """The program `name`, compiled now if it is not in the cache; static, so it needs no base image."""
    program = PROGRAMS[name]
    target = cache.directory() / "bin" / f"{name}-{program.key()}"
    if target.exists():
        target.touch()  # `prune` removes what was not used for long
        return target
    with cache.lock(), step(f"compile {name} {program.version}"), cache.aside(target) as path:
        env = {"CGO_ENABLED": "0"}
        flags = ["-trimpath", f"-tags={','.join(program.tags)}", "-ldflags", program.ldflags]
        if program.module is not None:
            run([go(), "build", "-C", program.module, *flags, "-o", path, program.package], env=env)
        else:
            run(
                [go(), "install", *flags, f"{program.package}@{program.version}"],
                env={**env, "GOBIN": str(path.parent)},
                cwd=path.parent,
            )
            (path.parent / program.package.rsplit("/", 1)[-1]).rename(path)
    return target


def module_directory(module: str, version: str) -> Path:
    """Where the Go toolchain keeps the unpacked source of a module, downloaded now if need be."""
    answer = json.loads(run([go(), "mod", "download", "-json", f"{module}@{version}"], cwd=cache.directory()))
    return Path(answer["Dir"])


def _on_path(name: str, command: list[str], suits: Callable[[Version], bool]) -> Path | None:
    """A program of that name on the PATH, if it runs and says a version that suits."""
    path = host.find(name)
    if path is None or not succeeds([path, *command]):
        return None
    found = re.search(r"v\d+\.\d+(\.\d+)?", run([path, *command]))
    if found is None or not suits(Version.parse(found[0])):
        say(f"lab: {path} is {found[0] if found else 'of an unknown version'}, which does not suit")
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


def _tool(name: str, command: list[str], suits: Callable[[Version], bool]) -> Path:
    """Ours if already made (the exact version), else one on the PATH, else ours, made now."""
    ours = cache.directory() / "bin" / f"{name}-{PROGRAMS[name].key()}"
    found = None if ours.exists() else _on_path(name, command, suits)
    return found or compiled(name)


def link_tools() -> Path:
    """`kind`, `kubectl` and `helm` under their own names in one directory, for people and scripts."""
    folder = cache.directory() / versions.own_name("tools", versions.RELEASE)
    folder.mkdir(exist_ok=True)
    for name, path in (("kind", kind()), ("kubectl", kubectl()), ("helm", helm())):
        link = folder / name
        if link.is_symlink() and link.readlink() == path:
            continue
        with cache.aside(link) as new:
            new.symlink_to(path)
    return folder
