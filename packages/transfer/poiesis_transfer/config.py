"""The configuration of a filer, from its environment. Standard library only."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Self, cast, get_args

from poiesis_models import paths, s3credentials
from poiesis_models.s3credentials import MalformedCredentials, S3Credentials
from poiesis_transfer.addresses import Allowed
from poiesis_transfer.errors import Permanent

AddressingStyle = Literal["path", "virtual", "auto"]
OutputKeys = Literal["literal", "decoded"]
_YES, _NO = ("true", "1", "yes"), ("false", "0", "no", "")


class ConfigError(Permanent):
    """A variable is malformed."""


@dataclass(frozen=True, kw_only=True)
class S3Config:
    """An S3 endpoint and its credentials. Without keys, AWS' default chain is used (web identity, role).

    `name`: the name of the credentials entry; None for the deployment's own credentials.
    """

    name: str | None = None
    endpoint_url: str | None = None
    region: str = "us-east-1"
    access_key_id: str | None = field(default=None, repr=False)
    secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    anonymous: bool = False  # requests are not signed; for public buckets
    requester_pays: bool = False
    ca_bundle: str | None = None
    addressing_style: AddressingStyle = "auto"
    checksums: bool = True  # send CRC64NVME with uploads; a few stores reject unknown headers
    etags_are_md5: bool = True  # a few stores have ETags that look like MD5 sums and are not

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Self:
        """Read the environment. Raise ConfigError. An empty variable counts as unset."""
        access_key, secret_key = (
            env.get("AWS_ACCESS_KEY_ID") or None,
            env.get("AWS_SECRET_ACCESS_KEY") or None,
        )
        if (access_key is None) != (secret_key is None):
            raise ConfigError("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY must be set together")
        return cls(
            endpoint_url=_endpoint("AWS_ENDPOINT_URL_S3", env.get("AWS_ENDPOINT_URL_S3") or None),
            region=env.get("AWS_REGION") or cls.region,
            access_key_id=access_key,
            secret_access_key=secret_key,
            session_token=env.get("AWS_SESSION_TOKEN") or None,
            anonymous=_flag(env, "POIESIS_S3_ANONYMOUS", default=False),
            requester_pays=_flag(env, "POIESIS_S3_REQUESTER_PAYS", default=False),
            ca_bundle=env.get("AWS_CA_BUNDLE") or None,
            addressing_style=_style(
                "POIESIS_S3_ADDRESSING_STYLE", env.get("POIESIS_S3_ADDRESSING_STYLE") or "auto"
            ),
            checksums=_flag(env, "POIESIS_S3_CHECKSUMS", default=True),
            etags_are_md5=_flag(env, "POIESIS_S3_ETAGS_ARE_MD5", default=True),
        )

    def for_entry(self, entry: S3Credentials) -> "S3Config":
        """Return the configuration for a credentials entry, whose keys are read now.

        Raise ConfigError with the name of the entry, never with a key.
        """
        whose = f"credentials {entry.name}"
        there = self if entry.endpoint is None else self._elsewhere(_endpoint(whose, entry.endpoint))
        access_key, secret_key, token = _keys(entry)
        return replace(
            there,
            name=entry.name,
            access_key_id=access_key,
            secret_access_key=secret_key,
            session_token=token,
            anonymous=entry.anonymous,
            requester_pays=self.requester_pays if entry.requester_pays is None else entry.requester_pays,
            region=entry.region or there.region,
            addressing_style=_style(whose, entry.addressing_style or there.addressing_style),
            ca_bundle=entry.ca_file or there.ca_bundle,
        )

    def _elsewhere(self, endpoint: str | None) -> "S3Config":
        """Return the configuration for another endpoint, without the settings that describe this one."""
        return S3Config(endpoint_url=endpoint, checksums=self.checksums, etags_are_md5=self.etags_are_md5)


@dataclass(frozen=True, kw_only=True)
class Config:
    """The configuration of a filer. `run` is the directory of progress.jsonl.

    The contents of literal inputs are in the directory of `work_list`.
    """

    run: Path
    work_list: Path
    s3: S3Config  # for URLs that match no entry of `credentials`
    credentials: tuple[S3Credentials, ...] = ()
    allowed: Allowed = field(default_factory=Allowed)  # the addresses that users' URLs may lead to
    output_keys: OutputKeys = "literal"  # how keys in output URLs are read
    disk_bytes: int | None = None  # the size of the task's volume

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Self:
        """Read the environment. Raise ConfigError, or Permanent for an invalid address."""
        disk = env.get("POIESIS_DISK_BYTES") or None
        if disk is not None and not (disk.isascii() and disk.isdigit()):
            raise ConfigError(f"POIESIS_DISK_BYTES must be a number of bytes, got {disk!r}")
        return cls(
            run=Path(env.get("POIESIS_RUN") or paths.RUN),
            work_list=Path(env.get("POIESIS_WORK_LIST") or paths.WORK_LIST),
            s3=S3Config.from_env(env),
            credentials=_credentials(env.get("POIESIS_S3_CREDENTIALS") or "[]"),
            allowed=Allowed.parse(_entries(env, "POIESIS_HTTP_ALLOW"), _entries(env, "POIESIS_HTTP_DENY")),
            output_keys=_output_keys(env.get("POIESIS_S3_OUTPUT_KEYS") or "literal"),
            disk_bytes=int(disk) if disk else None,
        )


def _entries(env: Mapping[str, str], name: str) -> list[str]:
    return env.get(name, "").replace(",", " ").split()


def _credentials(text: str) -> tuple[S3Credentials, ...]:
    try:
        return s3credentials.from_json(text)
    except MalformedCredentials as error:
        raise ConfigError(f"POIESIS_S3_CREDENTIALS is {error}") from error


def _keys(entry: S3Credentials) -> tuple[str | None, str | None, str | None]:
    """Return access key, secret key and session token of an entry."""
    if entry.directory is None:
        return None, None, None
    access_key, secret_key, token = (
        _key(entry, name) for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    )
    if access_key is None or secret_key is None:
        missing = "AWS_ACCESS_KEY_ID" if access_key is None else "AWS_SECRET_ACCESS_KEY"
        raise ConfigError(
            f"credentials {entry.name}: the Secret {entry.secret} does not exist or has no {missing}"
        )
    return access_key, secret_key, token


def _key(entry: S3Credentials, name: str) -> str | None:
    """Return a key from the Secret without a trailing newline; None if it is missing or empty."""
    try:
        return (Path(entry.directory or "") / name).read_text(encoding="ascii").strip() or None
    except FileNotFoundError:
        return None
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"credentials {entry.name}: cannot read {name}: {type(error).__name__}") from error


def _endpoint(whose: str, url: str | None) -> str | None:
    if url is not None and not url.startswith(("http://", "https://")):
        raise ConfigError(f"{whose}: the endpoint must start with http:// or https://")
    return url


def _style(whose: str, style: str) -> AddressingStyle:
    if style not in get_args(AddressingStyle):
        styles = ", ".join(get_args(AddressingStyle))
        raise ConfigError(f"{whose}: the addressing style must be one of {styles}, got {style!r}")
    return cast("AddressingStyle", style)


def _output_keys(keys: str) -> OutputKeys:
    if keys not in get_args(OutputKeys):
        raise ConfigError(
            f"POIESIS_S3_OUTPUT_KEYS must be one of {', '.join(get_args(OutputKeys))}, got {keys!r}"
        )
    return cast("OutputKeys", keys)


def _flag(env: Mapping[str, str], name: str, *, default: bool) -> bool:
    value = env.get(name, "").lower()
    if value not in (*_YES, *_NO):
        raise ConfigError(f"{name} must be true or false, got {value!r}")
    return value in _YES if value else default
