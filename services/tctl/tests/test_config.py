import pytest

from poiesis_tctl.config import Config, ConfigError, LeaseTimes, Limits

NEEDED = {"POIESIS_DSN": "postgresql://u:secret@db/p", "POD_NAME": "tctl-0", "POD_NAMESPACE": "tes"}


def test_defaults():
    assert Config.from_env(NEEDED) == Config(
        dsn="postgresql://u:secret@db/p",
        pod_name="tctl-0",
        namespace="tes",
        lease=LeaseTimes(),
        limits=Limits(),
    )


def test_everything_can_be_set():
    env = {
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
        "POIESIS_RECONCILE_SECONDS": "8",
        "POIESIS_KUEUE": "true",
        "POIESIS_WORKERS": "9",
        "POIESIS_HEALTH_PORT": "10",
        "POIESIS_LOG_LEVEL": "debug",
    }
    assert Config.from_env({**NEEDED, **env}) == Config(
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
        reconcile_seconds=8,
        kueue=True,
        workers=9,
        health_port=10,
        log_level="DEBUG",
    )


@pytest.mark.parametrize("name", NEEDED)
@pytest.mark.parametrize("value", [None, ""])
def test_what_is_missing_is_named(name, value):
    env = {key: text for key, text in NEEDED.items() if key != name} | (
        {} if value is None else {name: value}
    )
    with pytest.raises(ConfigError, match=name):
        Config.from_env(env)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("POIESIS_DSN", "db.example"),
        ("POIESIS_IMAGE_PULL_SECONDS", "soon"),
        ("POIESIS_IMAGE_PULL_SECONDS", "0"),
        ("POIESIS_CONFIG_ERROR_SECONDS", "-1"),
        ("POIESIS_UNSCHEDULABLE_SECONDS", "-1"),
        ("POIESIS_UNSCHEDULABLE_SECONDS", "never"),
        ("POIESIS_RECONCILE_SECONDS", "nan"),
        ("POIESIS_RECONCILE_SECONDS", "inf"),
        ("POIESIS_WORKERS", "1.5"),
        ("POIESIS_LEASE_SECONDS", "2.5"),
        ("POIESIS_HEALTH_PORT", "65536"),
        ("POIESIS_LOG_LEVEL", "chatty"),
        ("POIESIS_RENEW_SECONDS", "15"),
        ("POIESIS_RETRY_SECONDS", "5"),
    ],
)
def test_what_is_malformed_is_named(name, value):
    with pytest.raises(ConfigError, match=name):
        Config.from_env({**NEEDED, name: value})


def test_only_the_wait_for_a_node_may_last_for_ever():
    assert Config.from_env({**NEEDED, "POIESIS_UNSCHEDULABLE_SECONDS": "0"}).limits.unschedulable == 0


def test_the_secret_is_told_by_nobody():
    assert "secret" not in repr(Config.from_env(NEEDED))
    with pytest.raises(ConfigError) as error:
        Config.from_env({**NEEDED, "POIESIS_DSN": "mysql://u:secret@db"})
    assert "secret" not in str(error.value)
