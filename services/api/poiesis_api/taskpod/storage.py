"""What the filers get to reach storage: environment, S3 credentials, Secrets and shared volumes."""

from collections.abc import Iterable, Iterator, Sequence

from poiesis_api.config import S3, Filer, SharedVolume, StorageCredentials, TaskPodConfig
from poiesis_api.taskpod.filer_runs import FilerRun
from poiesis_api.taskpod.manifest import Manifest, volume_mount
from poiesis_api.taskpod.secrets import secret_source
from poiesis_models import paths, s3credentials, shared
from poiesis_models.s3credentials import S3Credentials

CA_DIRECTORY = "/poiesis/storage-ca"
WEB_IDENTITY_TOKEN_SECONDS = 3600
S3_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


def storage_env(run: FilerRun, config: TaskPodConfig, session: str) -> dict[str, str]:
    """Return a filer's environment for the storage that it may use.

    `session`: the name under which the store logs the requests of a web identity.
    """
    filer = run.filer
    credentials = [filer_credentials(entry) for entry in run.credentials]
    optional = {
        **(_object_storage_env(config.storage.s3, session) if filer.object_storage else {}),
        "POIESIS_HTTP_ALLOW": " ".join(config.storage.http.allow) or None,
        "POIESIS_HTTP_DENY": " ".join(config.storage.http.deny) or None,
        "POIESIS_S3_CREDENTIALS": s3credentials.to_json(credentials) if credentials else None,
        "POIESIS_SECRET": paths.SECRET if filer.secret_name else None,
        "POIESIS_SHARED": shared.to_json(filer.shared) if filer.shared_volumes else None,
    }
    return {name: value for name, value in optional.items() if value is not None}


def storage_mounts(run: FilerRun, config: TaskPodConfig) -> Iterator[Manifest]:
    """Yield a filer's mounts of `storage_volumes`. No other container has them."""
    filer = run.filer
    for entry in run.credentials:
        if _has_files(entry):
            yield volume_mount(_credentials_volume(entry), _credentials_directory(entry), read_only=True)
    if filer.object_storage and config.storage.s3.ca_secret is not None:
        yield volume_mount("storage-ca", CA_DIRECTORY, read_only=True)
    if filer.object_storage and config.storage.s3.web_identity is not None:
        yield volume_mount("web-identity", paths.WEB_IDENTITY, read_only=True)
    if filer.secret_name is not None:
        yield volume_mount(_secret_volume(filer, config), paths.SECRET, read_only=True)
    for one in filer.shared_volumes:
        path = f"{paths.SHARED}{one.prefix}"
        name = _shared_volume(one, config)
        yield volume_mount(name, path, sub_path=one.sub_path, read_only=not one.writable)


def storage_volumes(runs: Sequence[FilerRun], config: TaskPodConfig) -> Iterator[Manifest]:
    """Yield the Pod's volumes for the filers' access to storage."""
    credentials = {entry.name: entry for run in runs for entry in run.credentials if _has_files(entry)}
    for entry in credentials.values():
        yield {"name": _credentials_volume(entry), "projected": {"sources": _credentials_sources(entry)}}
    filers = {run.filer.name: run.filer for run in runs}
    yield from _filer_volumes(filers.values(), config)
    if any(filer.object_storage for filer in filers.values()):
        yield from _object_storage_volumes(config.storage.s3)


def filer_credentials(entry: StorageCredentials) -> S3Credentials:
    """Return configured S3 credentials in the form that filers read (`POIESIS_S3_CREDENTIALS`)."""
    directory = _credentials_directory(entry)
    return S3Credentials(
        name=entry.name,
        urls=tuple(entry.urls),
        secret=entry.secret_name,
        directory=directory if entry.secret_name else None,
        anonymous=entry.anonymous,
        requester_pays=entry.requester_pays,
        endpoint=entry.endpoint,
        region=entry.region,
        addressing_style=entry.addressing_style,
        ca_file=f"{directory}/ca.crt" if entry.ca_secret else None,
    )


def _object_storage_env(s3: S3, session: str) -> dict[str, str | None]:
    role = s3.web_identity
    return {
        "POIESIS_S3_ADDRESSING_STYLE": s3.addressing_style,
        "POIESIS_S3_OUTPUT_KEYS": None if s3.output_keys == "literal" else s3.output_keys,
        "AWS_ENDPOINT_URL_S3": s3.endpoint,
        "AWS_REGION": s3.region,
        "AWS_CA_BUNDLE": f"{CA_DIRECTORY}/ca.crt" if s3.ca_secret else None,
        "AWS_ROLE_ARN": role.role_arn if role else None,
        "AWS_ROLE_SESSION_NAME": session if role else None,
        "AWS_WEB_IDENTITY_TOKEN_FILE": f"{paths.WEB_IDENTITY}/token" if role else None,
        "AWS_ENDPOINT_URL_STS": role.sts_endpoint if role else None,
    }


def _object_storage_volumes(s3: S3) -> Iterator[Manifest]:
    if s3.ca_secret is not None:
        items = [{"key": s3.ca_secret.key, "path": "ca.crt"}]
        secret = {"secretName": s3.ca_secret.name, "items": items, "optional": True}
        yield {"name": "storage-ca", "secret": secret}
    if s3.web_identity is not None:
        token = {
            "audience": s3.web_identity.audience,
            "path": "token",
            "expirationSeconds": WEB_IDENTITY_TOKEN_SECONDS,
        }
        yield {"name": "web-identity", "projected": {"sources": [{"serviceAccountToken": token}]}}


def _has_files(entry: StorageCredentials) -> bool:
    return entry.secret_name is not None or entry.ca_secret is not None


def _credentials_volume(entry: StorageCredentials) -> str:
    return f"credentials-{entry.name}"


def _credentials_directory(entry: StorageCredentials) -> str:
    return f"{paths.CREDENTIALS}/{entry.name}"


def _credentials_sources(entry: StorageCredentials) -> list[Manifest]:
    """Return the projected sources of one entry's Secrets.

    They are optional: the kubelet would let the Pod wait indefinitely for a missing Secret, while a filer
    fails and names it.
    """
    sources = []
    if entry.secret_name is not None:
        sources.append(secret_source(entry.secret_name, {key: key for key in S3_KEYS}))
    if entry.ca_secret is not None:
        sources.append(secret_source(entry.ca_secret.name, {entry.ca_secret.key: "ca.crt"}))
    for source in sources:
        source["secret"]["optional"] = True
    return sources


def _filer_volumes(filers: Iterable[Filer], config: TaskPodConfig) -> Iterator[Manifest]:
    sources: dict[str, list[SharedVolume]] = {}
    for filer in filers:
        if filer.secret_name is not None:
            name = _secret_volume(filer, config)
            yield {"name": name, "secret": _filer_secret(filer.secret_name)}
        for one in filer.shared_volumes:
            sources.setdefault(_shared_volume(one, config), []).append(one)
    for name, uses in sources.items():
        yield {"name": name, **_shared_source(uses)}


def _filer_secret(name: str) -> Manifest:
    """Return the volume source of a filer's Secret, optional for the reason in `_credentials_sources`."""
    return {"secretName": name, "optional": True}


def _secret_volume(filer: Filer, config: TaskPodConfig) -> str:
    return f"secret-{config.filers.index(filer)}"


def _shared_volume(shared_volume: SharedVolume, config: TaskPodConfig) -> str:
    """Return the volume's name in the Pod, the same for all uses of one source.

    A Pod that has the same PersistentVolumeClaim under two names waits for its volumes indefinitely.
    """
    sources = [one.volume for filer in config.filers for one in filer.shared_volumes]
    return f"shared-{sources.index(shared_volume.volume)}"


def _shared_source(uses: Sequence[SharedVolume]) -> Manifest:
    """Return the volume source, read-only if no use writes.

    Kubernetes may change the group of all files in a writable volume to the Pod's fsGroup.
    """
    source = uses[0].volume
    claim = source.get("persistentVolumeClaim")
    if claim is None or any(one.writable for one in uses):
        return source
    return {"persistentVolumeClaim": {**claim, "readOnly": True}}
