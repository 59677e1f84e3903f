import pytest
from pydantic import Field

from poiesis_server.settings import (
    ConfigError,
    Count,
    LogLevel,
    Port,
    PostgresUrl,
    Seconds,
    Settings,
    check_postgres_url,
    variables,
)


class Times(Settings):
    wait: Seconds = Field(1.5, alias="X_WAIT", description="how long")


class Config(Settings):
    dsn: PostgresUrl = Field(alias="X_DSN", description="the database")
    port: Port = Field(80, alias="X_PORT", description="to listen on")
    workers: Count | None = Field(None, alias="X_WORKERS", description="how many")
    quiet: bool = Field(False, alias="X_QUIET", description="whether")
    times: Times = Field(default_factory=Times)
    log_level: LogLevel = Field("INFO", alias="X_LOG_LEVEL", description="level")


@pytest.fixture
def read(monkeypatch):
    def read(**values: str) -> Config:
        for name, value in values.items():
            monkeypatch.setenv(f"X_{name}", value)
        return Config.from_env()

    return read


def test_variables_are_read_by_their_names(read):
    config = read(DSN="postgresql://db/x", WAIT="3", LOG_LEVEL="debug", WORKERS="")
    assert (config.dsn.get_secret_value(), config.times.wait) == ("postgresql://db/x", 3.0)
    assert (config.log_level, config.workers, config.port) == ("DEBUG", None, 80)


def test_all_faults_are_reported_at_once_without_secrets(read):
    with pytest.raises(ConfigError) as raised:
        read(DSN="mysql://u:secret@db", PORT="0", QUIET="perhaps")
    message = str(raised.value)
    assert "X_DSN must start with postgresql://;" in message
    assert "X_PORT must be greater than or equal to 1, got '0'" in message
    assert "X_QUIET must be a valid boolean, got 'perhaps'" in message
    assert "secret" not in message


def test_missing_variable_is_named(read):
    with pytest.raises(ConfigError, match=r"^X_DSN is not set$"):
        read()


def test_help_lists_every_variable_with_its_default():
    assert variables(Config).splitlines() == [
        "X_DSN        required      the database",
        "X_PORT       80            to listen on",
        "X_WORKERS    -             how many",
        "X_QUIET      false         whether",
        "X_WAIT       1.5           how long",
        "X_LOG_LEVEL  INFO          level",
    ]


@pytest.mark.parametrize("dsn", ["", "db", "http://db"])
def test_other_urls_are_no_postgres_urls(dsn):
    with pytest.raises(ValueError, match="must start with postgresql://"):
        check_postgres_url(dsn)
