from pathlib import Path

import pytest

from poiesis_transfer.addresses import Allowed
from poiesis_transfer.config import Config, ConfigError, S3Config


def test_without_variables_the_contracts_paths_hold():
    assert Config.from_env({}) == Config(
        run=Path("/poiesis/run"), work_list=Path("/poiesis/spec/work.json"), s3=S3Config()
    )


def test_every_variable_is_read_and_no_secret_is_shown():
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
        "POIESIS_HTTP_ALLOW": "10.1.0.0/16, files.example",
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
        allowed=Allowed.parse(["10.1.0.0/16", "files.example"]),
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
    ],
)
def test_a_malformed_variable_is_named(env: dict[str, str], name: str):
    with pytest.raises(ConfigError, match=name):
        Config.from_env(env)
