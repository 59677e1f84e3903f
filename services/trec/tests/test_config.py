from pathlib import Path
from uuid import UUID

import pytest

from poiesis_models.plan import PodPlan
from poiesis_trec.config import Config, ConfigError, Gateway, KubernetesApi, PodRef

PLAN = PodPlan(executors=("executor-0",), ignore_error=(False,))
ENV = {
    "POIESIS_TASK_ID": "6a0b7e6e-2b0e-4b57-8a3c-0d7c1a6b0f11",
    "POIESIS_PLAN": PLAN.to_json(),
    "POD_NAME": "poiesis-x-abcde",
    "POD_UID": "uid-1",
    "POD_NAMESPACE": "tasks",
    "NODE_NAME": "node-1",
    "POIESIS_LOG_BYTES": "1000",
    "POIESIS_GRACE_SECONDS": "60",
    "KUBERNETES_SERVICE_HOST": "10.0.0.1",
    "KUBERNETES_SERVICE_PORT_HTTPS": "6443",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    recorder = tmp_path / "poiesis/recorder"
    recorder.mkdir(parents=True)
    (recorder / "token").write_text("s3cret\n")
    (recorder / "dsn").write_text("postgresql://u:passw0rd@db/poiesis\n")
    return tmp_path


def test_configuration_from_environment_and_volume(root):
    assert Config.from_env(ENV, root=root) == Config(
        task_id=UUID(ENV["POIESIS_TASK_ID"]),
        plan=PLAN,
        pod=PodRef(name="poiesis-x-abcde", uid="uid-1", namespace="tasks", node="node-1"),
        token_file=root / "poiesis/recorder/token",
        dsn_file=root / "poiesis/recorder/dsn",
        runs=root / "poiesis/runs",
        ack_file=root / "poiesis/ack/done",
        rescue_file=root / "poiesis/ack/rescue",
        kubernetes=KubernetesApi(
            host="10.0.0.1",
            port=6443,
            token_file=root / "poiesis/recorder/kubernetes/token",
            ca_file=root / "poiesis/recorder/kubernetes/ca.crt",
        ),
        log_bytes=1000,
        grace_seconds=60,
    )


def test_recorder_of_files_only_does_not_watch_its_pod(root):
    plan = PodPlan(executors=("executor-0",), ignore_error=(False,), files_only=True)
    assert Config.from_env({**ENV, "POIESIS_PLAN": plan.to_json()}, root=root).kubernetes is None


def test_secrets_stay_out_of_repr(root):
    text = repr(Config.from_env(ENV, root=root))
    assert "s3cret" not in text
    assert "passw0rd" not in text


def test_unset_variables_have_defaults(root):
    optional = {"POIESIS_LOG_BYTES", "POIESIS_GRACE_SECONDS", "KUBERNETES_SERVICE_HOST"}
    config = Config.from_env({name: ENV[name] for name in ENV.keys() - optional}, root=root)
    assert (config.log_bytes, config.grace_seconds, config.kubernetes) == (65536, 30, None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("POIESIS_TASK_ID", None),
        ("POIESIS_TASK_ID", "7"),
        ("POIESIS_PLAN", "{}"),
        ("POIESIS_PLAN", PodPlan(executors=(), ignore_error=()).to_json()),
        ("POIESIS_PLAN", PodPlan(executors=("../x",), ignore_error=(False,)).to_json()),
        ("POD_NAME", ""),
        ("POD_UID", None),
        ("POIESIS_LOG_BYTES", "-1"),
        ("POIESIS_LOG_BYTES", "many"),
        ("POIESIS_GRACE_SECONDS", "0"),
        ("KUBERNETES_SERVICE_PORT_HTTPS", "70000"),
    ],
)
def test_missing_or_malformed_variable_is_named(root, name, value):
    env = {key: text for key, text in (ENV | {name: value}).items() if text is not None}
    with pytest.raises(ConfigError, match=name):
        Config.from_env(env, root=root)


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("https://poiesis-gateway.poiesis.svc:8443", "poiesis-gateway.poiesis.svc", 8443),
        ("https://[fd00::1]:443/", "fd00::1", 443),
    ],
)
def test_gateway_needs_no_database(root, url, host, port):
    (root / "poiesis/recorder/dsn").unlink()
    ca_file = root / "poiesis/recorder/gateway-ca.crt"
    ca_file.write_text("a certificate\n")
    config = Config.from_env(ENV | {"POIESIS_GATEWAY_URL": url}, root=root)
    assert config.gateway == Gateway(host=host, port=port, ca_file=ca_file)


@pytest.mark.parametrize(
    "url",
    [
        "http://a:80",
        "https://a",
        "https://a:0",
        "https://a:65536",
        "https://u@a:1",
        "https://a:1/x",
        "https://a b:1",
    ],
)
def test_malformed_gateway_is_rejected(root, url):
    (root / "poiesis/recorder/gateway-ca.crt").write_text("a certificate\n")
    with pytest.raises(ConfigError, match="POIESIS_GATEWAY_URL must be https://host:port"):
        Config.from_env(ENV | {"POIESIS_GATEWAY_URL": url}, root=root)


def test_missing_authority_of_the_gateway_is_named(root):
    with pytest.raises(ConfigError, match=r"gateway-ca\.crt"):
        Config.from_env(ENV | {"POIESIS_GATEWAY_URL": "https://a:1"}, root=root)


@pytest.mark.parametrize("name", ["token", "dsn"])
def test_missing_or_empty_file_is_named(root, name):
    file = root / "poiesis/recorder" / name
    file.write_text(" \n")
    with pytest.raises(ConfigError, match=name):
        Config.from_env(ENV, root=root)
    file.unlink()
    with pytest.raises(ConfigError, match=name):
        Config.from_env(ENV, root=root)
