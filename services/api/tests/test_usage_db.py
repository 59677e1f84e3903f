"""Reports of usage over HTTP, added up by Postgres."""

import csv
import io
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from poiesis_api.openapi import USAGE_PATH

pytestmark = pytest.mark.integration

_ADD = """
INSERT INTO task_usage VALUES ($1, $2, 'anonymous', $3, $4, 3600, 7200, 0, 0, $5, $6::jsonb)
"""
NOVEMBER = {"since": "2026-11-01", "until": "2026-12-01"}


@pytest.fixture
async def add(pool):
    """Add the account of a task that ended on a day of November 2026."""
    await pool.execute("DELETE FROM task_usage")

    async def one(day, state="COMPLETE", *, group=None, used=None, tags=None, hour=23):
        ended = datetime(2026, 11, day, hour, 59, tzinfo=UTC)
        await pool.execute(_ADD, uuid4(), ended, group, state, used, tags)

    return one


async def usage(client, **parameters):
    response = await client.get(USAGE_PATH, params=NOVEMBER | parameters)
    assert response.status == 200, await response.text()
    return await response.json()


def groups(report, *names):
    return [(*(row.get(name) for name in names), row["tasks"]) for row in report["rows"]]


async def test_report_adds_up_all_tasks_of_the_period(client, add):
    await add(1, hour=0)
    await add(30, "EXECUTOR_ERROR", used=1800.0)
    await add(2, "CANCELED")
    report = await usage(client)
    assert report == {
        **NOVEMBER,
        "truncated": False,
        "rows": [
            {
                "tasks": 3,
                "failures": 1,
                "cpu_hours": 3.0,
                "cpu_hours_used": 0.5,
                "ram_gb_hours": 6.0,
                "disk_gb_hours": 0.0,
                "gpu_hours": 0.0,
            }
        ],
    }
    assert groups(await usage(client, since="2026-11-02", until="2026-11-30")) == [(1,)]


async def test_empty_report_has_a_row_of_zeros_or_no_group(client, add):
    assert groups(await usage(client)) == [(0,)]
    assert groups(await usage(client, group_by="owner")) == []


async def test_tasks_are_grouped(client, add):
    await add(1, group="lab", tags='{"project": "a"}')
    await add(1, tags='{"project": "b"}')
    await add(2, group="lab", tags='{"other": "a"}')
    assert groups(await usage(client, group_by="month"), "month") == [("2026-11", 3)]
    assert groups(await usage(client, group_by="day"), "day") == [("2026-11-01", 2), ("2026-11-02", 1)]
    assert groups(await usage(client, group_by="owner"), "owner") == [("anonymous", 3)]
    assert groups(await usage(client, group_by="group"), "group") == [("lab", 2), (None, 1)]
    by_tag = await usage(client, group_by="tag", tag_key="project")
    assert groups(by_tag, "tag") == [("a", 1), ("b", 1), (None, 1)]
    both = await client.get(
        USAGE_PATH, params=[*NOVEMBER.items(), ("group_by", "day"), ("group_by", "group")]
    )
    assert groups(await both.json(), "day", "group") == [
        ("2026-11-01", "lab", 1),
        ("2026-11-01", None, 1),
        ("2026-11-02", "lab", 1),
    ]


async def test_csv_has_the_same_rows(client, add):
    await add(1, tags='{"k": "a,b"}')
    response = await client.get(
        USAGE_PATH, params=NOVEMBER | {"group_by": "tag", "tag_key": "k", "format": "csv"}
    )
    assert response.content_type == "text/csv"
    (row,) = csv.DictReader(io.StringIO(await response.text()))
    assert (row["tag"], row["tasks"], row["cpu_hours"]) == ("a,b", "1", "1.0")


async def test_invalid_parameter_is_rejected(client, add):
    response = await client.get(USAGE_PATH, params={"group_by": "x"})
    assert (response.status, (await response.json())["field"]) == (400, "group_by")
