"""Used and requested resources, from documents of Poiesis and of other servers."""

import pytest
from tes_for_tests import attempt, task

from poiesis_cli.tes import read_task
from poiesis_cli.usage import UsageRow, usage_rows

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
