"""Used and requested resources of a task, from Poiesis and other servers, and reports of usage."""

import pytest
from tes_for_tests import attempt, task

from poiesis_cli.errors import BadUsage, NotTes
from poiesis_cli.tes import read_task
from poiesis_cli.usage import UsageRow, read_report, usage_params, usage_rows

TIMES = {"start_time": "2026-01-01T00:00:00Z", "end_time": "2026-01-01T00:00:10Z"}
MEASURED = {"cpu_time_ms": "5000", "peak_memory_bytes": "1000", "disk_used_bytes": "0"}


def rows(metadata, **fields):
    return usage_rows(read_task(task(logs=[attempt(0, metadata=metadata, **TIMES)], **fields)))


def test_totals_are_one_row():
    resources = {"cpu_cores": 1, "ram_gb": 2, "disk_gb": 1.5}
    assert rows(MEASURED, resources=resources) == [
        UsageRow(executor="all", cpu_cores="0.50 of 1", memory="1.0 kB of 2 GB", disk="0 bytes of 1.5 GB")
    ]


def test_executors_replace_the_totals():
    per_executor = {f"executor-0.{key}": value for key, value in (MEASURED | TIMES).items()}
    (row,) = rows(MEASURED | per_executor)
    assert row == UsageRow(executor="0", cpu_cores="0.50", memory="1.0 kB", disk="0 bytes")


@pytest.mark.parametrize(
    "metadata",
    [{}, {"peak_memory_bytes": "much"}, {"peak_memory_bytes": "-1"}, {"executor-7.peak_memory_bytes": "1"}],
)
def test_nothing_measured_is_no_row(metadata):
    assert rows(metadata) == []


@pytest.mark.parametrize("resources", [None, [], {"ram_gb": None}, {"ram_gb": "2"}, {"ram_gb": True}])
def test_malformed_requests_are_left_out(resources):
    assert rows(MEASURED, resources=resources)[0].memory == "1.0 kB"


ROW = {"owner": "alice", "tasks": 3, "failures": 0, "cpu_hours": 1.5, "cost": 0.25}


@pytest.mark.parametrize(
    ("given", "params"),
    [
        ({}, []),
        ({"since": "2026-11-01", "until": "2026-12-01"}, [("since", "2026-11-01"), ("until", "2026-12-01")]),
        ({"groups": ["day", "owner"]}, [("group_by", "day"), ("group_by", "owner")]),
        ({"groups": ["tag:a:b"]}, [("group_by", "tag"), ("tag_key", "a:b")]),
        ({"as_csv": True}, [("format", "csv")]),
    ],
)
def test_options_become_parameters(given, params):
    assert usage_params(**{"since": None, "until": None, "groups": (), "as_csv": False, **given}) == params


@pytest.mark.parametrize("group", ["", "user", "tag", "tag:", "day:x", "day:"])
def test_unknown_group_is_rejected(group):
    with pytest.raises(BadUsage, match="--by must be month, day, owner, group or tag:KEY"):
        usage_params(None, None, [group], as_csv=False)


def test_report_has_the_columns_of_its_rows():
    report = read_report({"rows": [ROW, {"tasks": 1}], "currency": "EUR", "truncated": True})
    assert report.columns == {
        "OWNER": ["alice", ""],
        "TASKS": ["3", "1"],
        "FAILED": ["0", ""],
        "CPU-HOURS": ["1.50", ""],
        "COST EUR": ["0.25", ""],
    }
    assert report.truncated


@pytest.mark.parametrize("document", [None, [], {}, {"rows": 1}])
def test_other_documents_are_no_report(document):
    with pytest.raises(NotTes):
        read_report(document)
