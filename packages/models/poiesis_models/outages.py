"""Which failures of Postgres a client may retry, decided by SQLSTATE in one table. Pure.

The classes are those of the PostgreSQL manual, appendix A. Any other SQLSTATE is a defect of this service,
such as a value that a column does not accept or an invalid statement.
"""

from collections.abc import Mapping
from enum import Enum


class Outage(Enum):
    """Why Postgres did not execute a statement; the value is the message for clients."""

    AWAY = "the database does not answer; try again"
    BUSY = "the database did not complete the request because of load or a conflict; try again"
    READ_ONLY = "the database is read-only; reads still work, try again later"
    FULL = "the database has no free disk space; reads still work, try again later"


# A code takes precedence over its class.
_CODES: Mapping[str, Outage] = {
    "0A000": Outage.BUSY,  # a cached plan from before a migration; the driver prepares the statement again
    "25006": Outage.READ_ONLY,  # read_only_sql_transaction: a standby before its promotion
    "3D000": Outage.AWAY,  # invalid_catalog_name
    "42P01": Outage.AWAY,  # undefined_table, _column, _function: not migrated to this release yet
    "42703": Outage.AWAY,
    "42883": Outage.AWAY,
    "53100": Outage.FULL,  # disk_full
    "57014": Outage.BUSY,  # query_canceled: statement_timeout
}
_CLASSES: Mapping[str, Outage] = {
    "08": Outage.AWAY,  # connection exception
    "25": Outage.AWAY,  # invalid transaction state: idle_in_transaction_session_timeout
    "28": Outage.AWAY,  # invalid authorization: a password that is being replaced
    "40": Outage.BUSY,  # transaction rollback: deadlock, serialization failure
    "53": Outage.AWAY,  # insufficient resources: connections, memory
    "55": Outage.BUSY,  # object not in prerequisite state: lock_timeout
    "57": Outage.AWAY,  # operator intervention: shutdown, crash, recovery
    "58": Outage.AWAY,  # system error: I/O
    "XX": Outage.AWAY,  # internal error: corrupted data or index
}


def outage(sqlstate: str | None) -> Outage | None:
    """Return what kind of outage an error with this SQLSTATE is; None for a defect of this service."""
    if not sqlstate:
        return None
    return _CODES.get(sqlstate) or _CLASSES.get(sqlstate[:2])
