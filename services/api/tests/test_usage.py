"""Parameters of reports of usage, their cost, and CSV."""

from datetime import date

import pytest
from multidict import MultiDict

from poiesis_api.config import Prices
from poiesis_api.errors import InvalidQuery
from poiesis_api.usage import (
    ROWS,
    Format,
    GroupBy,
    UsageQuery,
    parse_usage_query,
    report_csv,
    usage_report,
)

TODAY = date(2026, 11, 29)
NOVEMBER = UsageQuery(since=date(2026, 11, 1), until=date(2026, 12, 1))
MEASURES = {
    "tasks": 3,
    "failures": 1,
    "cpu_seconds": 7200.0,
    "ram_gb_seconds": 3600.0,
    "disk_gb_seconds": 36_000.0,
    "gpu_seconds": 0.0,
    "used_cpu_seconds": 1.0,
}


@pytest.mark.parametrize(
    ("text", "since", "until"),
    [
        ({}, date(2026, 10, 31), date(2026, 11, 30)),
        ({"since": "2026-11-01"}, date(2026, 11, 1), date(2026, 11, 30)),
        ({"until": "2026-01-31"}, date(2026, 1, 1), date(2026, 1, 31)),
        ({"since": "2025-01-01", "until": "2026-01-02"}, date(2025, 1, 1), date(2026, 1, 2)),
    ],
)
def test_period_has_defaults(text, since, until):
    assert parse_usage_query(MultiDict(text), TODAY) == UsageQuery(since=since, until=until)


def test_groups_are_in_the_order_of_the_columns():
    given = MultiDict([("group_by", "tag"), ("group_by", "day"), ("tag_key", "project"), ("format", "csv")])
    query = parse_usage_query(given, TODAY)
    assert query.group_by == (GroupBy.DAY, GroupBy.TAG)
    assert (query.tag_key, query.format) == ("project", Format.CSV)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ({"since": "yesterday"}, "since must be a date such as 2026-11-29, got 'yesterday'"),
        ({"until": "2026-13-01"}, "until must be a date such as 2026-11-29, got '2026-13-01'"),
        ({"until": "0001-01-01"}, "since must be 1 to 366 days before until"),
        ({"since": "2026-11-30"}, "since must be 1 to 366 days before until, got 2026-11-30 and 2026-11-30"),
        ({"since": "2025-01-01", "until": "2026-01-03"}, "since must be 1 to 366 days before until"),
        ({"group_by": "user"}, "group_by must be one of month, day, owner, group, tag, got 'user'"),
        ({"group_by": "tag"}, "tag_key and group_by=tag must be given together"),
        ({"tag_key": "x"}, "tag_key and group_by=tag must be given together"),
        ({"group_by": "tag", "tag_key": "\0"}, "tag_key must not contain NUL"),
        ({"format": "xml"}, "format must be one of json, csv, got 'xml'"),
    ],
)
def test_invalid_parameters_are_named(text, message):
    with pytest.raises(InvalidQuery) as error:
        parse_usage_query(MultiDict(text), TODAY)
    assert str(error.value).startswith(message)


def test_report_is_in_hours():
    (row,) = usage_report(NOVEMBER, [MEASURES], Prices()).rows
    assert row.model_dump(exclude_none=True) == {
        "tasks": 3,
        "failures": 1,
        "cpu_hours": 2.0,
        "cpu_hours_used": 0.000278,
        "ram_gb_hours": 1.0,
        "disk_gb_hours": 10.0,
        "gpu_hours": 0.0,
    }


@pytest.mark.parametrize(
    ("prices", "cost"),
    [
        ({}, None),
        ({"cpu_hour": 0}, 0),
        ({"cpu_hour": 0.05}, 0.1),
        ({"cpu_hour": 0.05, "ram_gb_hour": 0.01, "disk_gb_hour": 0.001, "gpu_hour": 9}, 0.12),
    ],
)
def test_cost_is_hours_times_prices(prices, cost):
    report = usage_report(NOVEMBER, [MEASURES], Prices(currency="EUR", **prices))
    assert (report.rows[0].cost, report.currency) == (cost, None if cost is None else "EUR")


def test_missing_rows_are_marked():
    assert usage_report(NOVEMBER, [MEASURES] * ROWS, Prices()).truncated is False
    report = usage_report(NOVEMBER, [MEASURES] * (ROWS + 1), Prices())
    assert (report.truncated, len(report.rows)) == (True, ROWS)


def csv_of(rows, prices=None, **fields):
    query = UsageQuery(since=NOVEMBER.since, until=NOVEMBER.until, **fields)
    return report_csv(query, usage_report(query, rows, prices or Prices())).splitlines()


def test_csv_has_a_column_per_group_and_measure():
    rows = [MEASURES | {"day": "2026-11-02", "owner": None}]
    assert csv_of(rows, group_by=(GroupBy.DAY, GroupBy.OWNER)) == [
        "day,owner,tasks,failures,cpu_hours,cpu_hours_used,ram_gb_hours,disk_gb_hours,gpu_hours",
        "2026-11-02,,3,1,2.0,0.000278,1.0,10.0,0.0",
    ]


def test_csv_has_the_cost_if_there_are_prices():
    header, row = csv_of([MEASURES], Prices(cpu_hour=1))
    assert header.endswith(",gpu_hours,cost")
    assert row.endswith(",0.0,2.0")


@pytest.mark.parametrize("text", ["=HYPERLINK(1)", "+1", "-1", "@x", "\tx"])
def test_csv_has_no_formula(text):
    _, row = csv_of([MEASURES | {"tag": text}], group_by=(GroupBy.TAG,), tag_key="k")
    assert row.startswith(f"'{text},")
