"""Reports of usage: their parameters, prices, and the response as JSON or CSV. Pure."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum
from typing import Any

from multidict import MultiMapping
from pydantic import BaseModel, Field

from poiesis_api.config import Prices
from poiesis_api.errors import InvalidQuery, shown
from poiesis_api.queries import choice, choices, clean_text

DEFAULT_DAYS = 30
MAX_DAYS = 366
ROWS = 10_000
TEXT_CHARACTERS = 256  # of a tag's value; longer values with the same start are one group
_SECONDS = 3600  # per hour
_HOURS_DIGITS = 6
_COST_DIGITS = 4
# A spreadsheet evaluates a cell that begins with one of these, and users choose the values of tags.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


class GroupBy(StrEnum):
    """What the rows of a report are for, in the order of the columns."""

    MONTH = "month"
    DAY = "day"
    OWNER = "owner"
    GROUP = "group"
    TAG = "tag"


class Format(StrEnum):
    """Media types of a report."""

    JSON = "json"
    CSV = "csv"


@dataclass(frozen=True, kw_only=True)
class UsageQuery:
    """A report of the tasks that ended from `since` to the day before `until`, in UTC."""

    since: date
    until: date
    group_by: tuple[GroupBy, ...] = ()
    tag_key: str = ""
    format: Format = Format.JSON


class UsageRow(BaseModel):
    """The usage of the tasks of one group. Hours are what the tasks reserved, for the time of their Pods."""

    month: str | None = Field(
        default=None, description="Month in which the tasks ended", examples=["2026-11"]
    )
    day: str | None = Field(default=None, description="Day on which they ended", examples=["2026-11-29"])
    owner: str | None = Field(default=None, description="User who created the tasks")
    group: str | None = Field(default=None, description="Group with which they are shared; absent: none")
    tag: str | None = Field(default=None, description="Value of the tag; absent: tasks without the tag")
    tasks: int = Field(description="Tasks that ended")
    failures: int = Field(description="Those of them that ended as EXECUTOR_ERROR or SYSTEM_ERROR")
    cpu_hours: float = Field(description="CPU cores times hours")
    cpu_hours_used: float = Field(description="CPU time that the executors used, in hours")
    ram_gb_hours: float = Field(description="Memory in GB times hours")
    disk_gb_hours: float = Field(description="Disk in GB times hours")
    gpu_hours: float = Field(description="GPUs times hours")
    cost: float | None = Field(default=None, description="By the server's prices; absent without prices")


_MEASURES = [name for name in UsageRow.model_fields if name not in {*GroupBy, "cost"}]


class UsageReport(BaseModel):
    """The response of GetUsage."""

    since: str = Field(description="First day of the period, in UTC")
    until: str = Field(description="Day after the last day of the period")
    currency: str | None = Field(default=None, description="Of `cost`")
    rows: list[UsageRow] = Field(description=f"At most {ROWS}, ordered by their groups")
    truncated: bool = Field(description="Whether rows are missing; request a shorter period or fewer groups")


def parse_usage_query(query: MultiMapping[str], today: date) -> UsageQuery:
    """Return the parameters of a report. Raise InvalidQuery naming the parameter."""
    until = _day(query, "until") or today + timedelta(days=1)
    since = _day(query, "since") or until - timedelta(days=min(DEFAULT_DAYS, (until - date.min).days))
    if not 0 < (until - since).days <= MAX_DAYS:
        raise InvalidQuery(
            "since must be 1 to {limit} days before until, got {since} and {until}",
            "since",
            limit=MAX_DAYS,
            since=since.isoformat(),
            until=until.isoformat(),
        )
    group_by = choices(GroupBy, query, "group_by")
    tag_key = clean_text("tag_key", query.get("tag_key", ""))
    if (GroupBy.TAG in group_by) != bool(tag_key):
        raise InvalidQuery("{field} and group_by=tag must be given together", "tag_key")
    return UsageQuery(
        since=since,
        until=until,
        group_by=tuple(one for one in GroupBy if one in group_by),
        tag_key=tag_key,
        format=choice(Format, query, "format") or Format.JSON,
    )


def usage_report(query: UsageQuery, found: Sequence[Mapping[str, Any]], prices: Prices) -> UsageReport:
    """Return the report of rows of `usage_db.read_usage`; one more than ROWS shows that some are missing."""
    rows = [_row(one, prices) for one in found[:ROWS]]
    return UsageReport(
        since=query.since.isoformat(),
        until=query.until.isoformat(),
        currency=prices.currency if _with_cost(rows) else None,
        rows=rows,
        truncated=len(found) > ROWS,
    )


def report_csv(query: UsageQuery, report: UsageReport) -> str:
    """Return the rows as RFC 4180, with a header. `cost` is a column if the server has prices."""
    file = io.StringIO(newline="")
    columns = [*query.group_by, *_MEASURES, *(["cost"] if _with_cost(report.rows) else [])]
    writer = csv.writer(file)
    writer.writerow(columns)
    writer.writerows([_cell(getattr(row, name)) for name in columns] for row in report.rows)
    return file.getvalue()


def _with_cost(rows: Sequence[UsageRow]) -> bool:
    return any(row.cost is not None for row in rows)


def _cell(value: str | float | None) -> str | float:
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return "" if value is None else value


def _row(found: Mapping[str, Any], prices: Prices) -> UsageRow:
    hours = {
        name.removesuffix("_seconds") + "_hours": found[name] / _SECONDS
        for name in ("cpu_seconds", "ram_gb_seconds", "disk_gb_seconds", "gpu_seconds")
    }
    cost = _cost(hours, prices)
    return UsageRow(
        **{name.value: found[name] for name in GroupBy if name in found},
        tasks=found["tasks"],
        failures=found["failures"],
        cpu_hours_used=round(found["used_cpu_seconds"] / _SECONDS, _HOURS_DIGITS),
        **{name: round(value, _HOURS_DIGITS) for name, value in hours.items()},
        cost=None if cost is None else round(cost, _COST_DIGITS),
    )


def _cost(hours: Mapping[str, float], prices: Prices) -> float | None:
    """Return the cost of these hours; None without any price."""
    known = {
        "cpu_hours": prices.cpu_hour,
        "ram_gb_hours": prices.ram_gb_hour,
        "disk_gb_hours": prices.disk_gb_hour,
        "gpu_hours": prices.gpu_hour,
    }
    costs = [hours[name] * price for name, price in known.items() if price is not None]
    return sum(costs) if costs else None


def _day(query: MultiMapping[str], name: str) -> date | None:
    text = query.get(name)
    if not text:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise InvalidQuery(
            "{field} must be a date such as 2026-11-29, got {text}", name, text=shown(text)
        ) from error
