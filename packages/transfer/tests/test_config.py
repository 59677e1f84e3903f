from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from poiesis_models.s3credentials import S3Credentials
from poiesis_transfer.addresses import Allowed
from poiesis_transfer.config import Config, ConfigError, S3Config


def test_without_variables_the_contracts_paths_hold():
    assert Config.from_env({}) == Config(
        run=Path("/poiesis/run"), work_list=Path("/poiesis/spec/work.json"), s3=S3Config()
    )


def test_every_variable_is_read_without_showing_secrets():
    env = {
        "AWS_ENDPOINT_URL_S3": "https://s3.example",
        "AWS_REGION": "eu-1",
        "AWS_ACCESS_KEY_ID": "the-id",
        "AWS_SECRET_ACCESS_KEY": "the-secret",
        "AWS_SESSION_TOKEN": "the-token",
        "AWS_CA_BUNDLE": "/ca.crt",
        "POIESIS_S3_ADDRESSING_STYLE": "virtual",
        "POIESIS_S3_ANONYMOUS": "true",
        "POIESIS_S3_REQUESTER_PAYS": "yes",
        "POIESIS_S3_CHECKSUMS": "false",
        "POIESIS_S3_ETAGS_ARE_MD5": "0",
        "POIESIS_S3_CREDENTIALS": '[{"name": "a", "urls": ["s3://b"], "anonymous": true}]',
        "POIESIS_HTTP_ALLOW": "10.1.0.0/16, files.example",
        "POIESIS_HTTP_DENY": "131.1.0.0/16 blocked.example",
        "POIESIS_S3_OUTPUT_KEYS": "decoded",
        "POIESIS_DISK_BYTES": "5000",
        "POIESIS_RUN": "/r",
        "POIESIS_WORK_LIST": "/w/work.json",
    }
    config = Config.from_env(env)
    assert config == Config(
        run=Path("/r"),
        work_list=Path("/w/work.json"),
        s3=S3Config(
            endpoint_url="https://s3.example",
            region="eu-1",
            access_key_id="the-id",
            secret_access_key="the-secret",
            session_token="the-token",
            ca_bundle="/ca.crt",
            addressing_style="virtual",
            anonymous=True,
            requester_pays=True,
            checksums=False,
            etags_are_md5=False,
        ),
        credentials=(S3Credentials(name="a", urls=("s3://b",), anonymous=True),),
        allowed=Allowed.parse(["10.1.0.0/16", "files.example"], ["131.1.0.0/16", "blocked.example"]),
        output_keys="decoded",
        disk_bytes=5000,
    )
    assert not any(secret in repr(config) for secret in ("the-id", "the-secret", "the-token"))


@pytest.mark.parametrize(
    ("env", "name"),
    [
        ({"POIESIS_S3_ADDRESSING_STYLE": "dns"}, "POIESIS_S3_ADDRESSING_STYLE"),
        ({"AWS_ENDPOINT_URL_S3": "minio:9000"}, "AWS_ENDPOINT_URL_S3"),
        ({"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": ""}, "AWS_SECRET_ACCESS_KEY"),
        ({"POIESIS_S3_ANONYMOUS": "perhaps"}, "POIESIS_S3_ANONYMOUS"),
        ({"POIESIS_DISK_BYTES": "5 GB"}, "POIESIS_DISK_BYTES"),
        (
            {"POIESIS_S3_OUTPUT_KEYS": "encoded"},
            "POIESIS_S3_OUTPUT_KEYS must be one of literal, decoded, got 'encoded'",
        ),
        ({"POIESIS_S3_CREDENTIALS": "{"}, "POIESIS_S3_CREDENTIALS"),
    ],
)
def test_a_malformed_variable_is_named(env: dict[str, str], name: str):
    with pytest.raises(ConfigError, match=name):
        Config.from_env(env)


DEPLOYMENT = S3Config(
    endpoint_url="https://s3.example",
    region="eu-1",
    access_key_id="the-id",
    secret_access_key="the-secret",
    session_token="the-token",
    requester_pays=True,
    ca_bundle="/ca.crt",
    addressing_style="path",
    checksums=False,
    etags_are_md5=False,
)
ANONYMOUS = replace(DEPLOYMENT, name="lab", access_key_id=None, secret_access_key=None, session_token=None)


def entry(**fields: Any) -> S3Credentials:
    return S3Credentials(name="lab", urls=("s3://lab",), **fields)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A Secret as it is mounted."""
    (tmp_path / "AWS_ACCESS_KEY_ID").write_text("own-id")
    (tmp_path / "AWS_SECRET_ACCESS_KEY").write_text("own-secret\n")
    return tmp_path


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (entry(), ANONYMOUS),
        (entry(anonymous=True), replace(ANONYMOUS, anonymous=True)),
        (entry(requester_pays=False), replace(ANONYMOUS, requester_pays=False)),
        (
            entry(region="eu-2", addressing_style="virtual", ca_file="/lab/ca.crt"),
            replace(ANONYMOUS, region="eu-2", addressing_style="virtual", ca_bundle="/lab/ca.crt"),
        ),
        (  # nothing that describes the deployment's endpoint holds at another
            entry(endpoint="http://other"),
            replace(
                ANONYMOUS,
                endpoint_url="http://other",
                region="us-east-1",
                addressing_style="auto",
                ca_bundle=None,
            ),
        ),
    ],
)
def test_an_entry_overrides_the_deployments_settings(given: S3Credentials, expected: S3Config):
    assert DEPLOYMENT.for_entry(given) == expected


def test_an_entrys_keys_come_from_its_secret(keys: Path):
    given = entry(secret="lab-keys", directory=str(keys))
    config = DEPLOYMENT.for_entry(given)
    assert config == replace(ANONYMOUS, access_key_id="own-id", secret_access_key="own-secret")
    (keys / "AWS_SESSION_TOKEN").write_text("own-token")
    config = DEPLOYMENT.for_entry(given)
    assert config.session_token == "own-token"
    assert "own-" not in repr(config)


@pytest.mark.parametrize("missing", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
@pytest.mark.parametrize("empty", [True, False])
def test_a_secret_without_a_key_is_named(keys: Path, missing: str, empty: bool):
    (keys / missing).write_text("") if empty else (keys / missing).unlink()
    with pytest.raises(ConfigError) as failure:
        DEPLOYMENT.for_entry(entry(secret="lab-keys", directory=str(keys)))
    expected = f"credentials lab: the Secret lab-keys does not exist or has no {missing}"
    assert str(failure.value) == expected


def test_a_binary_key_is_named_but_not_shown(keys: Path):
    (keys / "AWS_SECRET_ACCESS_KEY").write_bytes(b"secret\xff")
    with pytest.raises(ConfigError) as failure:
        DEPLOYMENT.for_entry(entry(secret="lab-keys", directory=str(keys)))
    assert str(failure.value) == "credentials lab: cannot read AWS_SECRET_ACCESS_KEY: UnicodeDecodeError"


@pytest.mark.parametrize("wrong", [{"endpoint": "minio:9000"}, {"addressing_style": "dns"}])
def test_an_entry_that_makes_no_sense_is_named(wrong: dict[str, str]):
    with pytest.raises(ConfigError, match="credentials lab: the"):
        DEPLOYMENT.for_entry(entry(**wrong))
