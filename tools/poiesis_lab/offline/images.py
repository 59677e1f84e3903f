"""The images of `poiesis_lab.registry`, built from packages."""

from poiesis_lab import binaries, versions
from poiesis_lab.cache import RECIPES
from poiesis_lab.hashed import from_dockerfile
from poiesis_lab.offline import maven, rootfs
from poiesis_lab.offline.rootfs import RootFs

_KEYCLOAK_HOME = "/opt/keycloak"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

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
_JAVA_ROOTFS = RootFs(
    name="java",
    suite=versions.DEBIAN,
    variant="minbase",
    packages=(f"openjdk-{versions.JAVA}-jre-headless", "ca-certificates"),
    customize_hooks=("slim.sh",),
)
_FIREWALL_ROOTFS = RootFs(
    name="firewall-rootfs",
    suite=versions.NODE_DEBIAN,  # as kube-proxy: both write rules of the nftables variant of iptables
    variant="extract",
    packages=("iptables", "ipset"),
    trim="kube_proxy_trim.py",
)
_BUSYBOX_ROOTFS = RootFs(
    name="busybox-rootfs", suite=versions.DEBIAN, variant="extract", packages=("busybox-static",)
)


def bases() -> dict[str, str]:
    """Return the base images of services and Pods, by purpose."""
    return {
        "python_base": rootfs.ensure(PYTHON_BASE),
        "python_build_base": rootfs.ensure(PYTHON_BUILD_BASE),
        "debian_base": rootfs.ensure(DEBIAN_BASE),
        "postgres": _postgres(),
        "busybox": busybox(),
    }


def node() -> str:
    """Return the image of kind's nodes."""
    from poiesis_lab.offline import node as built  # imported late: it needs this module's busybox

    return built.image()


def keycloak() -> str:
    """Return Keycloak's distribution on a JRE of Debian."""
    archive = maven.artifact(
        "org.keycloak", "keycloak-quarkus-dist", versions.KEYCLOAK, "zip", versions.KEYCLOAK_SHA256
    )
    return from_dockerfile(
        "keycloak-distribution",
        f"""\
FROM {rootfs.ensure(PYTHON_BUILD_BASE)} AS unpacked
COPY keycloak.zip /
RUN python3 -m zipfile -e /keycloak.zip / && mv /keycloak-{versions.KEYCLOAK} {_KEYCLOAK_HOME} \\
 && chmod +x {_KEYCLOAK_HOME}/bin/*.sh && mkdir {_KEYCLOAK_HOME}/data && chown -R 1000:0 {_KEYCLOAK_HOME}
FROM {rootfs.ensure(_JAVA_ROOTFS)}
COPY --from=unpacked {_KEYCLOAK_HOME} {_KEYCLOAK_HOME}
USER 1000:0
""",
        {"keycloak.zip": archive},
    )


def oci_registry() -> str:
    """Return the image registry of the CNCF project Distribution, with the paths of its own image."""
    return from_dockerfile(
        "registry",
        f"""\
FROM {busybox()}
COPY --chmod=0755 registry /bin/registry
COPY config.yml /etc/distribution/config.yml
EXPOSE 5000
VOLUME /var/lib/registry
ENTRYPOINT ["/bin/registry"]
CMD ["serve", "/etc/distribution/config.yml"]
""",
        {"registry": binaries.compiled("registry"), "config.yml": RECIPES / "registry.yml"},
    )


def kueue() -> str:
    """Return Kueue's manager."""
    return from_dockerfile(
        "kueue",
        'FROM scratch\nCOPY --chmod=0755 manager /manager\nUSER 65532:65532\nENTRYPOINT ["/manager"]\n',
        {"manager": binaries.compiled("kueue")},
    )


def firewall() -> str:
    """Return kube-router with the programs that it calls; it enforces NetworkPolicies on the nodes."""
    return from_dockerfile(
        "kube-router",
        f"FROM {rootfs.ensure(_FIREWALL_ROOTFS)}\n"
        "COPY --chmod=0755 kube-router /usr/local/bin/kube-router\n"
        f"ENV PATH={_PATH}\n"
        'ENTRYPOINT ["/usr/local/bin/kube-router"]\n',
        {"kube-router": binaries.compiled("kube-router")},
    )


def busybox() -> str:
    """Return Debian's static busybox, with the users that tests name."""
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
    """Return MinIO, an S3."""
    return from_dockerfile(
        "minio",
        f"""\
FROM {busybox()}
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
