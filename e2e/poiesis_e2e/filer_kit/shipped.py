"""The filers that Poiesis ships and the shell filer, each with a store of the lab."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache as once
from pathlib import Path

from poiesis_e2e.filer_kit.container import Subject
from poiesis_e2e.filer_kit.stores import S3Bucket, Server, SharedDirectory, Store
from poiesis_e2e.install import endpoint_of
from poiesis_e2e.storage import make_bucket
from poiesis_lab import backends, cluster, docker, images, services

_SHELL_DIRECTORY = Path(__file__).parents[2] / "filers"
_PREFIX = "/nfs/kit"


Made = tuple[Subject, Store]


@dataclass(frozen=True)
class Filer:
    """`make` takes an empty directory. `abilities`: the kit's tests that apply to it."""

    make: Callable[[Path], Made]
    abilities: frozenset[str]


def network() -> str:
    """Return the docker network of the lab's stores."""
    return cluster.NETWORK if docker.has_network(cluster.NETWORK) else "bridge"


@once
def _all_built() -> Mapping[str, str]:
    return services.build(["helper", "tif", "tof", "rclone", "file"])


def built(name: str) -> str:
    """Return the image of one of our services."""
    return _all_built()[name]


def shell_image() -> str:
    """Return the image of e2e/filers: curl and jq."""
    text = (
        (_SHELL_DIRECTORY / "Dockerfile")
        .read_text()
        .replace("debian:bookworm-slim", images.images().debian_base)
    )
    return images.from_dockerfile("filer", text, {"filer.sh": _SHELL_DIRECTORY / "filer.sh"})


def _s3(name: str) -> Made:
    endpoint = endpoint_of(backends.start_minio())
    env = {
        "AWS_ENDPOINT_URL_S3": endpoint.pod_url,
        "AWS_REGION": endpoint.region,
        "AWS_ACCESS_KEY_ID": endpoint.access_key,
        "AWS_SECRET_ACCESS_KEY": endpoint.secret_key,
        "POIESIS_S3_ADDRESSING_STYLE": "path",
    }
    subject = Subject(
        image=built(name),
        command=("python3", "-m", f"poiesis_{name}"),
        network=network(),
        env=env,
        secrets=(endpoint.secret_key,),
    )
    return subject, S3Bucket(endpoint, make_bucket(endpoint, "filer-kit").name)


def _http() -> Made:
    remote = backends.start_webdav(built("rclone"), to_everyone=True)
    subject = Subject(
        image=built("tif"),
        command=("python3", "-m", "poiesis_tif"),
        network=network(),
        env={"POIESIS_HTTP_ALLOW": remote.pod_host},
    )
    return subject, Server("http", remote)


def _shell() -> Made:
    remote = backends.start_webdav(built("rclone"))
    netrc = f"machine {remote.pod_host} login {remote.user} password {remote.password}\n"
    subject = Subject(
        image=shell_image(),
        command=("/filer",),
        network=network(),
        secret={"netrc": netrc},
        secrets=(remote.password,),
    )
    return subject, Server("http", remote)


def _webdav() -> Made:
    remote = backends.start_webdav(built("rclone"))
    conf = f"[webdav]\ntype = webdav\nurl = http://{remote.pod_address}\nuser = {remote.user}\n"
    return _rclone("webdav", remote, conf)


def _sftp() -> Made:
    remote = backends.start_sftp()
    host = f"host = {remote.pod_host}\nport = {remote.pod_port}\nuser = {remote.user}\n"
    return _rclone("sftp", remote, f"[sftp]\ntype = sftp\n{host}shell_type = none\n")


def _rclone(scheme: str, remote: backends.Remote, conf: str) -> Made:
    obscured = backends.obscured(remote.password, built("rclone"))
    subject = Subject(
        image=built("rclone"),
        command=("python3", "-m", "poiesis_rclone"),
        network=network(),
        secret={"rclone.conf": f"{conf}pass = {obscured}\n"},
        secrets=(remote.password, obscured),
    )
    return subject, Server(scheme, remote)


def _file(folder: Path) -> Made:
    folder.chmod(0o777)
    subject = Subject(
        image=built("file"),
        command=("python3", "-m", "poiesis_file"),
        network="none",
        env={"POIESIS_SHARED": f'[{{"prefix":"{_PREFIX}","writable":true}}]'},
        shared={_PREFIX: folder},
    )
    return subject, SharedDirectory(folder, _PREFIX)


_BOTH = frozenset({"inputs", "outputs"})
_TREES = frozenset({"directories"})
_REMOTE = frozenset({"network"})
_TYPES = frozenset({"types"})

FILERS: Mapping[str, Filer] = {
    "tif": Filer(lambda _: _s3("tif"), frozenset({"inputs"}) | _TREES | _REMOTE | _TYPES),
    "tif-http": Filer(lambda _: _http(), frozenset({"inputs", "http"}) | _REMOTE | _TYPES),
    "tof": Filer(lambda _: _s3("tof"), frozenset({"outputs"}) | _TREES | _REMOTE),
    "shell": Filer(lambda _: _shell(), _BOTH | _REMOTE | {"http"}),
    "rclone-webdav": Filer(lambda _: _webdav(), _BOTH | _TREES | _REMOTE | _TYPES),
    "rclone-sftp": Filer(lambda _: _sftp(), _BOTH | _TREES | _REMOTE | _TYPES),
    "file": Filer(_file, _BOTH | _TREES | _TYPES),
}
