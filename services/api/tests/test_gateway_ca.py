"""The certificates of the gateway's authorities, as each submission reads them."""

import pytest
import trustme

from poiesis_api.config import ConfigError, Recorder
from poiesis_api.gateway_ca import MOST_BYTES, gateway_ca


@pytest.fixture
def authority(tmp_path):
    return tmp_path / "ca.crt"


@pytest.fixture
def document(config, authority):
    gateway = config.gateway.model_copy(update={"ca_file": str(authority)})
    return config.model_copy(update={"gateway": gateway})


def test_several_authorities_are_returned_unchanged(document, authority):
    both = b"".join(trustme.CA().cert_pem.bytes() for _ in range(2))
    authority.write_bytes(both)
    assert gateway_ca(document) == both.decode()


def test_transport_postgres_reads_no_file(document):
    postgres = document.model_copy(update={"recorder": Recorder(transport="postgres")})
    assert gateway_ca(postgres) == ""


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file or directory"),
        (b"", "the file is empty"),
        (b"no certificate", "cadata does not contain a certificate"),
        ("\u00e9".encode(), "'ascii' codec"),
        (b"#" * (MOST_BYTES + 1), f"the file has more than {MOST_BYTES} bytes"),
    ],
)
def test_unusable_file_is_named_with_the_reason(document, authority, content, reason):
    if content is not None:
        authority.write_bytes(content)
    with pytest.raises(ConfigError) as raised:
        gateway_ca(document)
    assert f"gateway.caFile: cannot use {authority}: " in str(raised.value)
    assert reason in str(raised.value)
