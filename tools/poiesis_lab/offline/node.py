"""The image of a kind node, made of Debian and Go packages."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from poiesis_lab import binaries, cache, docker, hashed, prune, versions
from poiesis_lab.cache import RECIPES
from poiesis_lab.errors import LabError
from poiesis_lab.offline import images, rootfs
from poiesis_lab.offline.rootfs import RootFs
from poiesis_lab.shell import run, step

_FILES = RECIPES / "node"

NODE_ROOTFS = RootFs(
    name="node-rootfs",
    suite=versions.NODE_DEBIAN,
    variant="minbase",
    packages=(
        *("systemd", "dbus", "containerd", "runc", "containernetworking-plugins"),
        *("conntrack", "iptables", "nftables", "iproute2", "ethtool", "mount", "kmod", "socat"),
        *("ca-certificates", "curl", "jq", "procps"),
    ),
    customize_hooks=("slim.sh",),
)
KUBE_PROXY_ROOTFS = RootFs(
    name="kube-proxy-rootfs",
    suite=versions.NODE_DEBIAN,
    variant="extract",
    packages=("iptables", "conntrack", "kmod"),
    trim="kube_proxy_trim.py",
)


def image() -> str:
    """Return the node image; build it if it is missing."""
    name = versions.own_name("_node", versions.RELEASE)
    made = hashed.remembered(name, lambda: {"node": _built()})["node"]
    prune.note({name: made})
    return made


def is_remembered() -> bool:
    """Return whether `image` would return at once."""
    return hashed.recall(versions.own_name("_node", versions.RELEASE)) is not None


def root_file_systems() -> None:
    """Build the root file systems of the node image."""
    for recipe in (NODE_ROOTFS, KUBE_PROXY_ROOTFS):
        rootfs.ensure(recipe)


def pause_program() -> Path:
    """Return the pause program, which holds a Pod's namespaces; compile it if it is missing."""
    return hashed.static_program(RECIPES / "pause.c")


def by_component(listing: str) -> Mapping[str, str]:
    """Parse `kubeadm config images list` to component -> reference; a component is the bare image name."""
    references = listing.split()
    return {reference.rsplit("/", 1)[-1].rpartition(":")[0]: reference for reference in references}


def _control_plane() -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Return the images of kubeadm by component: under kubeadm's names, and under ours."""
    kubeadm = binaries.compiled("kubeadm")
    wanted = by_component(
        run([kubeadm, "config", "images", "list", "--kubernetes-version", f"v{versions.KUBERNETES}"])
    )
    made = {
        name: _of_one_program(name)
        for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd", "coredns")
    }
    made["kube-proxy"] = hashed.from_dockerfile(
        "kube-proxy",
        f"FROM {rootfs.ensure(KUBE_PROXY_ROOTFS)}\n"
        "COPY --chmod=0755 kube-proxy /usr/local/bin/kube-proxy\n"
        "ENV PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n",
        {"kube-proxy": binaries.compiled("kube-proxy")},
    )
    made["pause"] = hashed.from_dockerfile(
        "pause",
        'FROM scratch\nCOPY pause /pause\nUSER 65535:65535\nENTRYPOINT ["/pause"]\n',
        {"pause": pause_program()},
    )
    if unknown := wanted.keys() - made.keys():
        raise LabError(f"kubeadm {versions.KUBERNETES} requires unknown images: {', '.join(sorted(unknown))}")
    for component, reference in wanted.items():
        docker.docker("tag", made[component], reference)
    return wanted, made


def _of_one_program(name: str) -> str:
    return hashed.from_dockerfile(
        name,
        f"FROM scratch\nCOPY --chmod=0755 {name} /usr/local/bin/{name}\nENV PATH=/usr/local/bin\n"
        f'ENTRYPOINT ["/usr/local/bin/{name}"]\n',
        {name: binaries.compiled(name)},
    )


def _built() -> str:
    """Build the node image. Each part is cached, so an interrupted build continues."""
    base = rootfs.ensure(NODE_ROOTFS)
    control_plane, made = _control_plane()
    provisioner = _of_one_program("local-path-provisioner")
    busybox = images.busybox()
    carried = [*control_plane.values(), provisioner, busybox]
    programs = [binaries.PROGRAMS[name].key() for name in ("kubelet", "kubeadm", "kubectl", "kind")]
    facts = [base, *sorted(made.values()), *sorted(carried), *programs]
    tag = f"poiesis-lab/node:{cache.hash_of(facts, cache.files_under(_FILES))}"
    if docker.has_image(tag):
        return tag

    kubelet, kubeadm, kubectl = (binaries.compiled(name) for name in ("kubelet", "kubeadm", "kubectl"))
    kind_source = binaries.module_directory("sigs.k8s.io/kind", f"v{versions.KIND}")
    with step("build the node image"), cache.workspace() as context:
        for path in cache.files_under(_FILES):
            text = path.read_text()
            text = text.replace("@PROVISIONER_IMAGE@", provisioner).replace("@HELPER_IMAGE@", busybox)
            (context / path.name).write_text(text)
        (context / "version").write_text(f"v{versions.KUBERNETES}")
        for name, program in (("kubelet", kubelet), ("kubeadm", kubeadm), ("kubectl", kubectl)):
            shutil.copy(program, context / name)
        shutil.copytree(kind_source / "images/base/files", context / "kind")
        docker.docker("save", "-o", context / "images.tar", *carried)
        docker.build(context, tag, arguments={"ROOTFS": base, "SANDBOX_IMAGE": control_plane["pause"]})
    return tag
