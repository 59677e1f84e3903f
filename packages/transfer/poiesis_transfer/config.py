"""What the environment says. Standard library only."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self, cast, get_args

from poiesis_models import paths
from poiesis_transfer.errors import Permanent

AddressingStyle = Literal["path", "virtual", "auto"]


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
    ca_bundle: str | None = None
    addressing_style: AddressingStyle = "auto"

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
            ca_bundle=env.get("AWS_CA_BUNDLE") or None,
            addressing_style=cast("AddressingStyle", style),
        )


@dataclass(frozen=True, kw_only=True)
class Config:
    """`run` takes progress.jsonl; contents of literal inputs lie beside `work_list`."""

    run: Path
    work_list: Path
    s3: S3Config

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Self:
        """Raise ConfigError."""
        return cls(
            run=Path(env.get("POIESIS_RUN") or paths.RUN),
            work_list=Path(env.get("POIESIS_WORK_LIST") or paths.WORK_LIST),
            s3=S3Config.from_env(env),
        )
