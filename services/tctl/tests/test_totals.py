import re
from math import inf
from pathlib import Path

from poiesis_tctl.totals import BUCKETS, REASONS, Bucket, cumulative

FAILURES = Path(__file__).parents[3] / "docs" / "reference" / "failures.md"
STATE, REASON = 3, 4  # columns of its tables, from 1


def test_buckets_are_cumulative_and_end_at_infinity():
    counts, seconds = cumulative([Bucket(5, 2, 7.0), Bucket(60, 1, 31.0), Bucket(inf, 1, 1e6)])
    assert dict(counts)[2.0] == 0
    assert (dict(counts)[5.0], dict(counts)[30.0], dict(counts)[60.0]) == (2, 2, 3)
    assert counts[-1] == (inf, 4)
    assert seconds == 1_000_038.0


def test_counts_of_a_removed_bound_belong_to_the_next():
    assert 45 not in BUCKETS
    counts, _ = cumulative([Bucket(45, 3, 120.0)])
    assert (dict(counts)[30.0], dict(counts)[60.0]) == (0, 3)


def test_every_reason_of_the_failure_table_has_a_label():
    rows = [line.split("|") for line in FAILURES.read_text().splitlines() if line.startswith("| `")]
    states = {"EXECUTOR_ERROR", "SYSTEM_ERROR", "PREEMPTED", "CANCELED"}
    reasons = [re.findall(r"`(\w+)`", row[REASON]) for row in rows if row[STATE].strip() in states]
    assert len(reasons) > 50
    assert {reason for found in reasons for reason in found} <= REASONS
