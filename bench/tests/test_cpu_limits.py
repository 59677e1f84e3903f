from poiesis_bench.cpu_limits import BASELINE, SETTINGS, Sample, show


def samples(*complete: float) -> list[Sample]:
    return [Sample(complete=seconds, executor=seconds / 2) for seconds in complete]


def test_baseline_is_measured():
    assert BASELINE in SETTINGS


def test_table_has_medians_and_ratios_to_request():
    found = show({"one": {"none": samples(9, 3, 3.5), "request": samples(7, 6, 8)}}, 3)
    assert [line.split() for line in found.splitlines()[-2:]] == [
        ["one", "none", "3.50", "s", "0.50", "1.75", "s", "0.50"],
        ["one", "request", "7.00", "s", "1.00", "3.50", "s", "1.00"],
    ]
