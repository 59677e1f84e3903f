"""What the chart asks for, as one JSON document."""

import re
from collections.abc import Mapping
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

_ROTATION = r"^[A-Za-z0-9._-]{0,63}$"


class ConfigError(ValueError):
    """A variable or a field of the document is missing or invalid; the message names it."""


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme != "postgresql" or not parts.username or parts.password or not parts.hostname:
        raise ValueError("must be a URL without a password: postgresql://user@host:5432/database")
    return url


Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$")]
Url = Annotated[str, AfterValidator(_without_password)]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)


class Passwords(_Model):
    """A Secret with connection URLs of Postgres, each with a password."""

    secret: Name
    urls: Mapping[str, Url]  # by key; without the password


class Certificate(_Model):
    """A Secret with a certificate for these DNS names."""

    secret: Name
    names: Annotated[tuple[Name, ...], Field(min_length=1)]


class Required(_Model):
    """A Secret of the operator, which must have these keys. `value` of the chart names it."""

    secret: Name
    keys: tuple[str, ...]
    value: str


class Document(_Model):
    """All Secrets of a release.

    `rotation` is any text. A Secret that was made with another one gets new passwords, keys and
    certificates; empty never does.
    """

    authority: Name
    certificates: tuple[Certificate, ...] = ()
    passwords: tuple[Passwords, ...] = ()
    required: tuple[Required, ...] = ()
    rotation: Annotated[str, Field(pattern=_ROTATION)] = ""

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Self:
        """Read the variable POIESIS_SETUP. Raise ConfigError naming each invalid field."""
        text = env.get("POIESIS_SETUP")
        if not text:
            raise ConfigError("POIESIS_SETUP is not set")
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise ConfigError("; ".join(map(_message, error.errors()))) from None


def namespace_of(env: Mapping[str, str]) -> str:
    """Return the release's namespace from POD_NAMESPACE. Raise ConfigError."""
    name = env.get("POD_NAMESPACE", "")
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", name):
        raise ConfigError(f"POD_NAMESPACE must be the name of a namespace, got {name!r}")
    return name


def _message(error: object) -> str:
    assert isinstance(error, dict)  # noqa: S101 - pydantic's ErrorDetails
    where = ".".join(map(str, error["loc"])) or "document"
    rule = str(error["msg"]).removeprefix("Value error, ")
    return f"POIESIS_SETUP: {where}: {rule}, got {error['input']!r}"
