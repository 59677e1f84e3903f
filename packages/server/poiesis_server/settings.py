"""Settings from environment variables: their base class, types, error messages and table for --help."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict


class ConfigError(Exception):
    """A variable is missing or invalid; the message names it."""


def check_postgres_url(dsn: str) -> None:
    """Raise ValueError if `dsn` is not a URL of Postgres. The message does not contain it."""
    if not dsn.startswith(("postgres://", "postgresql://")):
        raise ValueError("must start with postgresql://")


def _postgres_url(dsn: SecretStr) -> SecretStr:
    check_postgres_url(dsn.get_secret_value())
    return dsn


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
SecondsOrNever = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(gt=0)]
Port = Annotated[int, Field(ge=1, le=65535)]
PostgresUrl = Annotated[SecretStr, AfterValidator(_postgres_url)]
LogLevel = Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(_upper)]


class Settings(BaseSettings):
    """Fields are set by the variable that is their alias, or by name. An empty variable counts as not set."""

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", populate_by_name=True, env_ignore_empty=True, case_sensitive=True
    )

    @classmethod
    def from_env(cls) -> Self:
        """Read the environment. Raise ConfigError naming each invalid variable, its value and the limit."""
        try:
            return cls()
        except ValidationError as error:
            secret = set(_secrets(cls))
            raise ConfigError("; ".join(_message(one, secret) for one in error.errors())) from None


def variables(settings: type[Settings]) -> str:
    """Return a table of all variables for --help."""
    rows = list(_rows(settings))
    width = max(len(name) for name, _, _ in rows)
    return "\n".join(f"{name:{width}}  {default:12}  {text}" for name, default, text in rows)


def _rows(settings: type[BaseSettings]) -> Iterator[tuple[str, str, str]]:
    for field in settings.model_fields.values():
        if field.alias is None:  # a group
            yield from _rows(field.default_factory)  # type: ignore[arg-type]
            continue
        default = "required" if field.is_required() else _shown(field.default)
        yield field.alias, default, field.description or ""


def _secrets(settings: type[BaseSettings]) -> Iterator[str]:
    """Yield the variables whose values must not appear in a message."""
    for field in settings.model_fields.values():
        if field.alias is None:
            yield from _secrets(field.default_factory)  # type: ignore[arg-type]
        elif field.annotation is SecretStr:
            yield field.alias


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(value) or "-"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _message(error: ErrorDetails, secret: set[str]) -> str:
    """Describe one error: the variable, what it must be, and its value unless it is secret."""
    if not error["loc"]:  # of two variables together
        return error["msg"].removeprefix("Value error, ")
    name = str(error["loc"][-1])
    if error["type"] == "missing":
        return f"{name} is not set"
    rule = error["msg"].removeprefix("Value error, ").removeprefix("Input should be ").split(", unable")[0]
    rule = rule if rule.startswith("must ") else f"must be {rule}"
    return f"{name} {rule}" if name in secret else f"{name} {rule}, got {error['input']!r}"
