"""The configuration of a migration run, from the environment."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import SplitResult, unquote, urlsplit

_SCHEMES = ("postgres", "postgresql")


class ConfigError(ValueError):
    """A variable is missing or malformed; the message names it."""


@dataclass(frozen=True, kw_only=True)
class Dsn:
    """A Postgres connection URL."""

    url: str = field(repr=False)  # carries the password
    user: str
    password: str | None = field(repr=False)

    @classmethod
    def parse(cls, name: str, text: str) -> Self:
        """Raise ConfigError, which names the variable `name` and never repeats the text."""
        parts = _split(name, text)
        if parts.scheme not in _SCHEMES:
            raise ConfigError(f"{name} must be a URL: postgresql://user:password@host:5432/database")
        if not parts.username:
            raise ConfigError(f"{name} names no user")
        if parts.path in ("", "/"):
            raise ConfigError(f"{name} names no database")
        return cls(
            url=parts.geturl(),
            user=unquote(parts.username),
            password=unquote(parts.password) if parts.password else None,
        )


def _split(name: str, text: str) -> SplitResult:
    try:
        return urlsplit(text.strip())
    except ValueError as error:
        raise ConfigError(f"{name} is not a URL; is the password percent-encoded?") from error


@dataclass(frozen=True, kw_only=True)
class Config:
    owner: Dsn  # owns the schema
    api: Dsn
    recorder: Dsn
    directory: Path  # of the SQL files
    wait_seconds: int  # for a database that does not answer yet
    recorder_connections: int = 0  # of all recorders together; 0: the rest after the services
    service_connections: int = 0  # of all replicas of api and controller together

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Self:
        """Raise ConfigError naming the variable if one is missing or malformed."""
        return cls(
            owner=_dsn(env, "POIESIS_MIGRATIONS_DSN"),
            api=_dsn(env, "POIESIS_API_DSN"),
            recorder=_dsn(env, "POIESIS_RECORDER_DSN"),
            directory=Path(env.get("POIESIS_MIGRATIONS_DIRECTORY", "/app/migrations")),
            wait_seconds=_number(env, "POIESIS_MIGRATIONS_WAIT_SECONDS", 120, 1, 3600),
            recorder_connections=_number(env, "POIESIS_RECORDER_CONNECTIONS", 0, 0, 100_000),
            service_connections=_number(env, "POIESIS_SERVICE_CONNECTIONS", 0, 0, 100_000),
        )


def _number(env: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    value = env.get(name, str(default))
    if not value.isdecimal() or not low <= int(value) <= high:
        raise ConfigError(f"{name} must be between {low} and {high}, got {value!r}")
    return int(value)


def _dsn(env: Mapping[str, str], name: str) -> Dsn:
    text = env.get(name)
    if not text:
        raise ConfigError(f"{name} is not set")
    return Dsn.parse(name, text)
