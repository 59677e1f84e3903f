import os
from collections.abc import Callable, Mapping

import pytest

from poiesis_models.states import TesState
from poiesis_server.settings import ConfigError, variables
from poiesis_tctl.config import Config, LeaseTimes, Limits, Retention

NEEDED = {"POIESIS_DSN": "postgresql://u:secret@db/p", "POD_NAME": "tctl-0", "POD_NAMESPACE": "tes"}


@pytest.fixture
def env(monkeypatch) -> Callable[..., Config]:
    """Read the settings with these variables and no others."""
    for name in list(os.environ):
        if name.startswith(("POIESIS_", "POD_")) or name == "KUBECONFIG":
            monkeypatch.delenv(name)

    def read(variables: Mapping[str, str]) -> Config:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return Config.from_env()

    return read


def test_defaults(env):
    assert env(NEEDED) == Config(
        dsn="postgresql://u:secret@db/p",
        pod_name="tctl-0",
        namespace="tes",
        lease=LeaseTimes(),
        limits=Limits(),
    )


def test_everything_can_be_set(env):
    variables = {
        "KUBECONFIG": "/kube",
        "POIESIS_LEASE_NAME": "l",
        "POIESIS_LEASE_SECONDS": "5",
        "POIESIS_RENEW_SECONDS": "3.5",
        "POIESIS_RETRY_SECONDS": "0.5",
        "POIESIS_IMAGE_PULL_SECONDS": "1",
        "POIESIS_CONFIG_ERROR_SECONDS": "2",
        "POIESIS_START_SECONDS": "3",
        "POIESIS_STALLED_SECONDS": "4",
        "POIESIS_NO_POD_SECONDS": "5",
        "POIESIS_UNSCHEDULABLE_SECONDS": "5.5",
        "POIESIS_NODE_LOST_SECONDS": "6",
        "POIESIS_LEFTOVER_SECONDS": "7",
        "POIESIS_RETENTION_DAYS": "0",
        "POIESIS_RETENTION_DAYS_BY_STATE": "COMPLETE=30, CANCELED=0.5",
        "POIESIS_RETENTION_LOG_DAYS": "7",
        "POIESIS_RETENTION_ARCHIVE": "s3://archive/tes",
        "POIESIS_RECONCILE_SECONDS": "8",
        "POIESIS_KUEUE": "true",
        "POIESIS_WORKERS": "9",
        "POIESIS_HEALTH_PORT": "10",
        "POIESIS_LOG_LEVEL": "debug",
    }
    assert env({**NEEDED, **variables}) == Config(
        dsn="postgresql://u:secret@db/p",
        pod_name="tctl-0",
        namespace="tes",
        kubeconfig="/kube",
        lease_name="l",
        lease=LeaseTimes(lease=5, renew=3.5, retry=0.5),
        limits=Limits(
            image_pull=1,
            config_error=2,
            start=3,
            stalled=4,
            no_pod=5,
            unschedulable=5.5,
            node_lost=6,
            leftover=7,
        ),
        retention=Retention(
            days=0,
            days_by_state={TesState.COMPLETE: 30, TesState.CANCELED: 0.5},
            log_days=7,
            archive="s3://archive/tes",
        ),
        reconcile_seconds=8,
        kueue=True,
        workers=9,
        health_port=10,
        log_level="DEBUG",
    )


@pytest.mark.parametrize("name", NEEDED)
@pytest.mark.parametrize("value", [None, ""])
def test_missing_variable_is_named(env, name, value):
    others = {key: text for key, text in NEEDED.items() if key != name}
    with pytest.raises(ConfigError, match=f"^{name} is not set$"):
        env(others | ({} if value is None else {name: value}))


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("POIESIS_IMAGE_PULL_SECONDS", "soon", "must be a valid number, got"),
        ("POIESIS_IMAGE_PULL_SECONDS", "0", "must be greater than 0"),
        ("POIESIS_CONFIG_ERROR_SECONDS", "-1", "must be greater than 0"),
        ("POIESIS_UNSCHEDULABLE_SECONDS", "-1", "must be greater than or equal to 0"),
        ("POIESIS_UNSCHEDULABLE_SECONDS", "never", "must be a valid number"),
        ("POIESIS_RETENTION_DAYS", "-1", r"must be 0 or at least 0.042 \(an hour\)"),
        ("POIESIS_RETENTION_LOG_DAYS", "0.01", "must be 0 or at least 0.042"),
        ("POIESIS_RETENTION_DAYS", "inf", "must be a finite number"),
        (
            "POIESIS_RETENTION_DAYS_BY_STATE",
            "RUNNING=3",
            "must be pairs STATE=DAYS, .* for CANCELED,",
        ),
        ("POIESIS_RETENTION_DAYS_BY_STATE", "COMPLETE", "must be pairs STATE=DAYS"),
        (
            "POIESIS_RETENTION_DAYS_BY_STATE",
            "COMPLETE=0.01",
            "must be pairs STATE=DAYS, with 0 or at",
        ),
        ("POIESIS_RECONCILE_SECONDS", "nan", "must be a finite number"),
        ("POIESIS_RECONCILE_SECONDS", "inf", "must be a finite number"),
        ("POIESIS_WORKERS", "1.5", "must be a valid integer"),
        ("POIESIS_LEASE_SECONDS", "2.5", "must be a valid integer"),
        ("POIESIS_HEALTH_PORT", "65536", "must be less than or equal to 65535"),
        ("POIESIS_KUEUE", "maybe", "must be a valid boolean"),
        ("POIESIS_LOG_LEVEL", "CHATTY", "must be 'DEBUG', 'INFO', 'WARNING' or 'ERROR'"),
        ("POIESIS_RENEW_SECONDS", "15", r"must be less than POIESIS_LEASE_SECONDS \(15\)"),
        ("POIESIS_RETRY_SECONDS", "5", r"must be less than half of POIESIS_RENEW_SECONDS \(10\)"),
    ],
)
def test_invalid_variable_is_named_with_its_limit(env, name, value, rule):
    with pytest.raises(ConfigError, match=f"^{name} {rule}.*'?{value}'?$") as error:
        env({**NEEDED, name: value})
    assert "\n" not in str(error.value)


def test_only_unschedulable_may_be_zero(env):
    assert env({**NEEDED, "POIESIS_UNSCHEDULABLE_SECONDS": "0"}).limits.unschedulable == 0


def test_dsn_is_never_shown(env):
    assert "secret" not in repr(env(NEEDED))
    with pytest.raises(ConfigError, match="POIESIS_DSN must start with postgresql://") as error:
        env({**NEEDED, "POIESIS_DSN": "mysql://u:secret@db", "POIESIS_WORKERS": "0"})
    assert "secret" not in str(error.value)
    assert "POIESIS_WORKERS" in str(error.value)


def test_every_variable_is_documented():
    table = variables(Config)
    for name in (
        "POIESIS_DSN",
        "POD_NAME",
        "KUBECONFIG",
        "POIESIS_LEASE_SECONDS",
        "POIESIS_LEFTOVER_SECONDS",
    ):
        (row,) = [line for line in table.splitlines() if line.startswith(f"{name} ")]
        assert len(row.split(maxsplit=2)) == 3
