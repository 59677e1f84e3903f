"""Which errors of the driver mean that Postgres is unavailable."""

import ssl

import asyncpg
import pytest

from poiesis_api.errors import StorageUnavailable
from poiesis_api.outages import FORGOTTEN_AFTER_SECONDS, WriteHealth
from poiesis_api.postgres import driver_errors
from poiesis_models.outages import Outage, outage


@pytest.mark.parametrize(
    "error",
    [
        ssl.SSLCertVerificationError("self-signed certificate"),
        TimeoutError(),
        ConnectionResetError(),
        asyncpg.InterfaceError("connection is closed"),
        asyncpg.InternalClientError("got result for unknown protocol state"),
    ],
)
def test_failed_connection_is_an_outage(error):
    with pytest.raises(StorageUnavailable) as raised, driver_errors():
        raise error
    assert raised.value.outage is Outage.AWAY


def test_invalid_data_is_a_defect_of_ours():
    with pytest.raises(ValueError, match="out of range"), driver_errors():
        raise ValueError("out of range")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (asyncpg.ConnectionDoesNotExistError, Outage.AWAY),
        (asyncpg.ReadOnlySQLTransactionError, Outage.READ_ONLY),
        (asyncpg.IdleInTransactionSessionTimeoutError, Outage.AWAY),
        (asyncpg.InvalidPasswordError, Outage.AWAY),
        (asyncpg.InvalidCatalogNameError, Outage.AWAY),
        (asyncpg.UndefinedTableError, Outage.AWAY),
        (asyncpg.UndefinedColumnError, Outage.AWAY),
        (asyncpg.UndefinedFunctionError, Outage.AWAY),
        (asyncpg.InvalidCachedStatementError, Outage.BUSY),
        (asyncpg.DeadlockDetectedError, Outage.BUSY),
        (asyncpg.SerializationError, Outage.BUSY),
        (asyncpg.DiskFullError, Outage.FULL),
        (asyncpg.OutOfMemoryError, Outage.AWAY),
        (asyncpg.TooManyConnectionsError, Outage.AWAY),
        (asyncpg.ConfigurationLimitExceededError, Outage.AWAY),
        (asyncpg.LockNotAvailableError, Outage.BUSY),
        (asyncpg.QueryCanceledError, Outage.BUSY),
        (asyncpg.AdminShutdownError, Outage.AWAY),
        (asyncpg.CrashShutdownError, Outage.AWAY),
        (asyncpg.CannotConnectNowError, Outage.AWAY),
        (asyncpg.PostgresIOError, Outage.AWAY),
        (asyncpg.DataCorruptedError, Outage.AWAY),
        (asyncpg.IndexCorruptedError, Outage.AWAY),
        (asyncpg.InternalServerError, Outage.AWAY),
    ],
)
def test_an_error_that_may_pass_is_an_outage(error, expected):
    with pytest.raises(StorageUnavailable) as raised, driver_errors():
        raise error("x")
    assert raised.value.outage is expected
    assert raised.value.headers == {"Retry-After": "5"}


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.UniqueViolationError,
        asyncpg.CheckViolationError,
        asyncpg.NumericValueOutOfRangeError,
        asyncpg.PostgresSyntaxError,
        asyncpg.InsufficientPrivilegeError,
        asyncpg.ProgramLimitExceededError,
    ],
)
def test_permanent_error_is_a_defect_without_row(error):
    made = error("x")
    made.detail = "Failing row contains (https://bucket?signature=secret)."
    with pytest.raises(error) as raised, driver_errors():
        raise made
    assert raised.value.detail is None


@pytest.mark.parametrize(
    ("sqlstate", "expected"), [(None, None), ("", None), ("08P01", Outage.AWAY), ("58000", Outage.AWAY)]
)
def test_codes_of_a_class_share_its_row(sqlstate, expected):
    assert outage(sqlstate) is expected


def test_note_ends_after_write_or_a_minute():
    now = [0.0]
    health = WriteHealth(lambda: now[0])
    health.failed(Outage.AWAY)
    assert health.note() is None  # readiness itself shows that
    health.failed(Outage.FULL)
    assert health.note() == Outage.FULL.value
    health.wrote()
    assert health.note() is None
    health.failed(Outage.READ_ONLY)
    now[0] = FORGOTTEN_AFTER_SECONDS + 1
    assert health.note() is None
