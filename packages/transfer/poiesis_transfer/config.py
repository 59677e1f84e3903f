"""What the environment says. Standard library only."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self, cast, get_args

from poiesis_models import paths
from poiesis_transfer.addresses import Allowed
from poiesis_transfer.errors import Permanent

AddressingStyle = Literal["path", "virtual", "auto"]
_YES, _NO = ("true", "1", "yes"), ("false", "0", "no", "")


class ConfigError(Permanent):
    """A variable is malformed."""


@dataclass(frozen=True, kw_only=True)
class S3Config:
    """Where S3 is and who we are there. Unset keys leave botocore its own ways (a web identity, for one)."""

    endpoint_url: str | None = None
    region: str = "us-east-1"
    access_key_id: str | None = field(default=None, repr=False)
    secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    anonymous: bool = False  # nothing is signed: public buckets
    requester_pays: bool = False
    ca_bundle: str | None = None
    addressing_style: AddressingStyle = "auto"
    checksums: bool = True  # CRC64NVME is sent with uploads; a few stores refuse what they do not know
    etags_are_md5: bool = True  # where S3 says so; a few stores have others of the same form

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Self:
        """Raise ConfigError. An empty variable is an unset one."""
        style = env.get("POIESIS_S3_ADDRESSING_STYLE") or "auto"
        if style not in get_args(AddressingStyle):
            raise ConfigError(
                f"POIESIS_S3_ADDRESSING_STYLE is {style!r}, not one of {', '.join(get_args(AddressingStyle))}"
            )
        endpoint = env.get("AWS_ENDPOINT_URL_S3") or None
        if endpoint is not None and not endpoint.startswith(("http://", "https://")):
            raise ConfigError("AWS_ENDPOINT_URL_S3 is not a URL that starts with http:// or https://")
        access_key, secret_key = (
            env.get("AWS_ACCESS_KEY_ID") or None,
            env.get("AWS_SECRET_ACCESS_KEY") or None,
        )
        if (access_key is None) != (secret_key is None):
            raise ConfigError("of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY only one is set")
        return cls(
            endpoint_url=endpoint,
            region=env.get("AWS_REGION") or cls.region,
            access_key_id=access_key,
            secret_access_key=secret_key,
            session_token=env.get("AWS_SESSION_TOKEN") or None,
            anonymous=_flag(env, "POIESIS_S3_ANONYMOUS", default=False),
            requester_pays=_flag(env, "POIESIS_S3_REQUESTER_PAYS", default=False),
            ca_bundle=env.get("AWS_CA_BUNDLE") or None,
            addressing_style=cast("AddressingStyle", style),
            checksums=_flag(env, "POIESIS_S3_CHECKSUMS", default=True),
            etags_are_md5=_flag(env, "POIESIS_S3_ETAGS_ARE_MD5", default=True),
        )


@dataclass(frozen=True, kw_only=True)
class Config:
    """`run` takes progress.jsonl; contents of literal inputs lie beside `work_list`."""

    run: Path
    work_list: Path
    s3: S3Config
    allowed: Allowed = field(default_factory=Allowed)  # where users' URLs may lead besides public addresses
    disk_bytes: int | None = None  # what the task's volume is meant to hold

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Self:
        """Raise ConfigError, or Permanent for an address that is none."""
        disk = env.get("POIESIS_DISK_BYTES") or None
        if disk is not None and not (disk.isascii() and disk.isdigit()):
            raise ConfigError(f"POIESIS_DISK_BYTES is {disk!r}, not a number of bytes")
        return cls(
            run=Path(env.get("POIESIS_RUN") or paths.RUN),
            work_list=Path(env.get("POIESIS_WORK_LIST") or paths.WORK_LIST),
            s3=S3Config.from_env(env),
            allowed=Allowed.parse(env.get("POIESIS_HTTP_ALLOW", "").replace(",", " ").split()),
            disk_bytes=int(disk) if disk else None,
        )


def _flag(env: Mapping[str, str], name: str, *, default: bool) -> bool:
    value = env.get(name, "").lower()
    if value not in (*_YES, *_NO):
        raise ConfigError(f"{name} is {value!r}, neither true nor false")
    return value in _YES if value else default
