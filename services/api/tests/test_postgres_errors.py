"""Which errors of the driver mean that Postgres is unavailable."""

import ssl

import pytest

from poiesis_api.errors import StorageUnavailable
from poiesis_api.postgres import driver_errors


@pytest.mark.parametrize(
    "error", [ssl.SSLCertVerificationError("self-signed certificate"), TimeoutError(), ConnectionResetError()]
)
def test_a_connection_that_cannot_be_made_is_a_database_that_is_away(error):
    with pytest.raises(StorageUnavailable), driver_errors():
        raise error


def test_invalid_data_is_a_defect_of_ours():
    with pytest.raises(ValueError, match="out of range"), driver_errors():
        raise ValueError("out of range")
