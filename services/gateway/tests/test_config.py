import pytest

from poiesis_gateway.config import Config
from poiesis_server.settings import ConfigError

NEEDED = {
    "POIESIS_GATEWAY_DSN_FILE": "/dsn",
    "POIESIS_GATEWAY_CERTIFICATE_FILE": "/tls.crt",
    "POIESIS_GATEWAY_KEY_FILE": "/tls.key",
}


def read(monkeypatch, **variables):
    for name, value in {**NEEDED, **variables}.items():
        monkeypatch.setenv(name, value)
    return Config.from_env()


def test_only_files_are_required(monkeypatch):
    config = read(monkeypatch)
    assert (config.port, config.health_port, config.body_bytes) == (8443, 8081, 4 * 1024 * 1024)


def test_all_invalid_variables_are_reported_at_once(monkeypatch):
    with pytest.raises(ConfigError) as raised:
        read(
            monkeypatch,
            POIESIS_GATEWAY_PORT="70000",
            POIESIS_GATEWAY_WAITING="0",
            POIESIS_GATEWAY_LOG_LEVEL="loud",
        )
    assert str(raised.value) == (
        "POIESIS_GATEWAY_PORT must be less than or equal to 65535, got '70000'; "
        "POIESIS_GATEWAY_WAITING must be greater than 0, got '0'; "
        "POIESIS_GATEWAY_LOG_LEVEL must be 'DEBUG', 'INFO', 'WARNING' or 'ERROR', got 'LOUD'"
    )


def test_missing_files_are_named():
    with pytest.raises(ConfigError, match="POIESIS_GATEWAY_DSN_FILE is not set"):
        Config.from_env()


def test_one_body_fits_into_the_budget_of_all(monkeypatch):
    with pytest.raises(ConfigError) as raised:
        read(monkeypatch, POIESIS_GATEWAY_INCOMING_BYTES="1000")
    assert str(raised.value) == (
        "POIESIS_GATEWAY_INCOMING_BYTES must be at least POIESIS_GATEWAY_BODY_BYTES (4194304), got 1000"
    )
