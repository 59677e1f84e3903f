"""Servers that tests need in addition to the cluster: object storage, a database, file servers, an issuer.

These containers join docker's network of the cluster, so Pods reach them by address. A running container of
the same image and network is reused; `python -m poiesis_lab down` removes it.
"""

import base64
import hashlib
import json
import os
import socket
import tarfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO

# The image of Ryuk may be unavailable; `down` does the same.
os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")

from testcontainers.community.postgres import PostgresContainer
from testcontainers.core.container import DockerContainer

from poiesis_lab import cache, cluster, docker, images, keycloak, ownership
from poiesis_lab.shell import CommandFailed, step, succeeds, wait_until

_READY_S = 60
_REMOTE_PORT = 8080
_REMOTE_USER, _REMOTE_PASSWORD = "lab", "lab-remote-password"
_KEYCLOAK_READY_S = 180  # a large program, perhaps on a busy machine


@dataclass(frozen=True, kw_only=True)
class Backend:
    """A running container, with its addresses for the host and for Pods."""

    container: str  # docker's name for it
    host: str
    port: int  # on `host`
    pod_host: str
    pod_port: int


@dataclass(frozen=True, kw_only=True)
class HttpServer(Backend):
    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def pod_url(self) -> str:
        return f"http://{self.pod_host}:{self.pod_port}"


@dataclass(frozen=True, kw_only=True)
class S3(HttpServer):
    access_key: str
    secret_key: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Postgres(Backend):
    user: str
    password: str = field(repr=False)
    database: str

    @property
    def dsn(self) -> str:
        return f"postgresql://{self.user}:{self.password}@{self.host}:{self.port}/{self.database}"

    @property
    def pod_dsn(self) -> str:
        return f"postgresql://{self.user}:{self.password}@{self.pod_host}:{self.pod_port}/{self.database}"


@dataclass(frozen=True, kw_only=True)
class Keycloak(HttpServer):
    """An OpenID Provider with its administrator. Each of its addresses is a separate issuer."""

    administrator: str
    password: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Remote(Backend):
    """A file server; URL paths are relative to /data in its container."""

    user: str
    password: str = field(repr=False)

    @property
    def pod_address(self) -> str:
        """Return host and port for Pods."""
        return f"{self.pod_host}:{self.pod_port}"

    def put(self, files: Mapping[str, bytes]) -> None:
        """Store files by path."""
        _put(self.container, files, below="/data")

    def get(self, path: str) -> bytes | None:
        """Return a file's content; None if it does not exist."""
        try:
            archive = docker.output("cp", f"{self.container}:/data/{path}", "-")
        except CommandFailed as error:
            if "Could not find the file" in error.output or "No such container:path" in error.output:
                return None
            raise
        with tarfile.open(fileobj=BytesIO(archive)) as tar:
            content = tar.extractfile(tar.getmembers()[0])
            return None if content is None else content.read()


def start_minio(
    name: str = "poiesis-minio", also: Callable[[DockerContainer], DockerContainer] = lambda made: made
) -> S3:
    """Start MinIO; buckets of earlier tests remain. `also`: further settings of a new container."""
    access_key, secret_key = "lab-access-key", "lab-secret-key"

    def make(image: str) -> DockerContainer:
        return also(
            DockerContainer(image)
            .with_env("MINIO_ROOT_USER", access_key)
            .with_env("MINIO_ROOT_PASSWORD", secret_key)
            .with_command("server /data")
        )

    with _lock():
        found = _start(name, images.minio(), 9000, make)
        minio = S3(**vars(found), access_key=access_key, secret_key=secret_key)
        wait_until(lambda: _get(f"{minio.url}/minio/health/ready") == 200, "MinIO", seconds=_READY_S)
        return minio


def start_minio_for_tokens(issuer: str, ca: str, audience: str, name: str = "poiesis-minio-tokens") -> S3:
    """Start a separate MinIO; its STS returns keys to all buckets for tokens of `issuer` for `audience`.

    `ca` (PEM) signed the issuer's certificate. The role is `minio_role(audience)`.
    """
    settings = {
        "CONFIG_URL": f"{issuer}/.well-known/openid-configuration",
        "CLIENT_ID": audience,
        "ROLE_POLICY": "readwrite",
    }

    def with_issuer(container: DockerContainer) -> DockerContainer:
        for key, value in settings.items():
            container.with_env(f"MINIO_IDENTITY_OPENID_{key}", value)
        return container.with_copy_into_container(ca.encode(), "/root/.minio/certs/CAs/issuer.crt")

    with _lock():
        remove(name)  # an earlier container may trust another cluster
        return start_minio(name, with_issuer)


def minio_role(audience: str) -> str:
    """Return the ARN that MinIO generates for tokens for `audience`."""
    digest = hashlib.sha1(audience.encode(), usedforsecurity=False).digest()
    return f"arn:minio:iam:::role/{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


def start_postgres(name: str = "poiesis-postgres") -> Postgres:
    """Start Postgres with one database and its superuser; data of earlier tests remains."""
    user, password, database = "poiesis", "lab-password", "poiesis"

    def make(image: str) -> DockerContainer:
        return PostgresContainer(image, username=user, password=password, dbname=database)

    with _lock():
        found = _start(name, images.images().postgres, 5432, make)
        ask = [
            *(docker.binary(), "exec", "-e", f"PGPASSWORD={password}", found.container, "psql"),
            *("-h", "127.0.0.1", "-U", user, "-d", database, "-c", "SELECT 1"),
        ]
        wait_until(lambda: succeeds(ask), "Postgres", seconds=_READY_S)
        return Postgres(**vars(found), user=user, password=password, database=database)


def start_keycloak(name: str = "poiesis-keycloak") -> Keycloak:
    """Start Keycloak; realms of earlier tests remain."""
    with _lock():
        found = _start(name, keycloak.image(), keycloak.PORT, DockerContainer)
        server = Keycloak(**vars(found), administrator=keycloak.ADMINISTRATOR, password=keycloak.PASSWORD)
        with step(f"wait for {name}"):
            own_realm = f"{server.url}/realms/master"
            wait_until(lambda: _get(own_realm) == 200, "Keycloak", seconds=_KEYCLOAK_READY_S)
        return server


def start_file_server(files: Mapping[str, bytes], name: str = "poiesis-files") -> HttpServer:
    """Start an HTTP server of static files; add `files` (path -> content)."""

    def make(image: str) -> DockerContainer:
        return DockerContainer(image).with_command("httpd -f -p 80 -h /var/www")

    with _lock():
        found = _start(name, images.images().busybox, 80, make)
        server = HttpServer(**vars(found))
        _put(found.container, files)
        wait_until(lambda: _get(server.url) is not None, "the file server", seconds=_READY_S)
        return server


def start_registry(name: str = "poiesis-registry") -> HttpServer:
    """Start an empty image registry without TLS and without users."""
    with _lock():
        remove(name)  # with what an earlier run pushed
        server = HttpServer(**vars(_start(name, images.oci_registry(), 5000, DockerContainer)))
        wait_until(lambda: _get(f"{server.url}/v2/") == 200, "the image registry", seconds=_READY_S)
        return server


def start_webdav(image: str, *, to_everyone: bool = False) -> Remote:
    """Start `rclone serve webdav` of the directory /data, with our rclone image `image`."""

    def make(image: str) -> DockerContainer:
        # Short, for files of `put`; with 0 rclone loops forever after a directory listing.
        serve = f"serve webdav /data --addr :{_REMOTE_PORT} --dir-cache-time 100ms"
        if not to_everyone:
            serve += f" --user {_REMOTE_USER} --pass {_REMOTE_PASSWORD}"
        return DockerContainer(image).with_command(serve).with_copy_into_container(b"", "/data/ready")

    name = f"poiesis-webdav{'-open' if to_everyone else ''}"
    return _start_remote(name, image, make, entrypoint="rclone", user="0")


def start_sftp() -> Remote:
    """Start an SFTP server (AsyncSSH: rclone's server loses files that are renamed during a listing)."""

    def make(image: str) -> DockerContainer:
        return DockerContainer(image).with_command([str(_REMOTE_PORT), _REMOTE_USER, _REMOTE_PASSWORD])

    return _start_remote("poiesis-sftp", images.sftp_server(), make)


def obscured(password: str, image: str) -> str:
    """Return a password in rclone.conf's obscured form, computed by the rclone of `image`."""
    return docker.docker("run", "--rm", "--network=none", "--entrypoint=rclone", image, "obscure", password)


def _start_remote(name: str, image: str, make: Callable[[str], DockerContainer], **settings: str) -> Remote:
    with _lock():
        found = _start(name, image, _REMOTE_PORT, make, **settings)
        wait_until(lambda: _greets(found.host, found.port), name, seconds=_READY_S)
        return Remote(**vars(found), user=_REMOTE_USER, password=_REMOTE_PASSWORD)


def start_seaweedfs() -> S3:
    """Start SeaweedFS, an S3 implementation other than Amazon's and MinIO."""
    access_key, secret_key = "weed-access-key", "weed-secret-key"
    identity = {
        "name": "lab",
        "credentials": [{"accessKey": access_key, "secretKey": secret_key}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }

    def make(image: str) -> DockerContainer:
        container = DockerContainer(image).with_command(
            "server -dir=/data -s3 -s3.port=8333 -s3.config=/etc/s3.json -master.volumeSizeLimitMB=64"
            " -volume.max=20 -ip=127.0.0.1 -ip.bind=0.0.0.0"
        )
        document = json.dumps({"identities": [identity]}).encode()
        return container.with_copy_into_container(document, "/etc/s3.json")

    with _lock():
        found = _start("poiesis-seaweedfs", images.seaweedfs(), 8333, make)
        store = S3(**vars(found), access_key=access_key, secret_key=secret_key)
        wait_until(lambda: _get(store.url) is not None, "SeaweedFS", seconds=_READY_S)
        return store


@contextmanager
def _lock() -> Iterator[None]:
    """Allow one process of this checkout at a time to start a container."""
    with cache.lock(f"backends{ownership.current().suffix}"):
        yield


def remove(name: str) -> None:
    """Remove a container of this module, by the name of its start function, if it exists."""
    name = ownership.current().named(name)
    if docker.container_facts(name) is not None:
        docker.remove(name)


def _start(
    name: str,
    image: str,
    port: int,
    make: Callable[[str], DockerContainer],
    **settings: str,
) -> Backend:
    """Start or reuse a container; `name` gets this checkout's prefix. `settings`: for docker's create."""
    name = ownership.take().named(name)
    network = cluster.NETWORK if docker.has_network(cluster.NETWORK) else "bridge"
    mark = f"{image} on {network}"
    facts = docker.container_facts(name)
    if facts is not None and not _is(facts, mark):
        docker.remove(name)
        facts = None
    if facts is None:
        with step(f"start {name}"):
            container = make(image).with_exposed_ports(port).with_name(name)
            container.with_kwargs(**settings, network=network, labels={cluster.LABEL: mark})
            container.start()
    return _address(name, network, port)


def _is(facts: Mapping[str, object], mark: str) -> bool:
    config, state = facts.get("Config"), facts.get("State")
    return (
        isinstance(config, dict)
        and isinstance(state, dict)
        and config.get("Labels", {}).get(cluster.LABEL) == mark
        and state.get("Running") is True
    )


def _address(name: str, network: str, port: int) -> Backend:
    published = docker.docker("port", name, f"{port}/tcp").splitlines()[0]
    return Backend(
        container=name,
        host="127.0.0.1",
        port=int(published.rpartition(":")[2]),
        pod_host=docker.address_in(network, name),
        pod_port=port,
    )


def _put(name: str, files: Mapping[str, bytes], below: str = "/var/www") -> None:
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, content in files.items():
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.size, entry.mode = len(content), 0o644
            tar.addfile(entry, BytesIO(content))
    with cache.workspace() as work:
        archive = work / "files.tar"
        archive.write_bytes(buffer.getvalue())
        with archive.open("rb") as stream:
            docker.feed("cp", "-", f"{name}:{below}", stream=stream)


def _greets(host: str, port: int) -> bool:
    """Return whether a server responds: with a greeting (SSH), or to an incomplete request (HTTP)."""
    try:
        with socket.create_connection((host, port), timeout=2) as connection:
            connection.sendall(b"OPTIONS / HTTP/1.0\r\n\r\n")
            return connection.recv(1) != b""
    except OSError:
        return False


def _get(url: str) -> int | None:
    """Return the status of a GET; None without a response."""
    try:
        with urllib.request.urlopen(url, timeout=2) as response:  # noqa: S310
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None
