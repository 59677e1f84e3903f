"""What a scrape is told, in Prometheus' text format; docs/reference/metrics.md explains each metric. Pure."""

from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from poiesis_tctl.transfers import Figures

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4


def exposition(*, leading: bool, figures: Figures | None) -> bytes:
    """Figures are the leader's alone, so that sums over replicas are right. None: it has not looked yet."""
    registry = CollectorRegistry()
    registry.register(_Families(_families(leading, figures)))
    return generate_latest(registry)


class _Families:
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _families(leading: bool, figures: Figures | None) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "poiesis_controller_leader", "1 if this replica leads, else 0.", value=int(leading)
    )
    if leading and figures is not None:
        yield from _told_by_the_leader(figures)


def _told_by_the_leader(figures: Figures) -> Iterator[Metric]:
    filers = figures.filers.items()
    yield GaugeMetricFamily(
        "poiesis_metrics_looked_at_seconds",
        "Unix time at which these figures were read from Postgres.",
        value=figures.looked_at.timestamp(),
    )
    yield _labelled(
        GaugeMetricFamily("poiesis_tasks", "Tasks that have not ended.", labels=["state"]),
        {state.value: count for state, count in figures.tasks.items()},
    )
    yield _labelled(
        GaugeMetricFamily("poiesis_filers", "Filers that move data now.", labels=["filer"]),
        {name: one.moving for name, one in filers},
    )
    yield _labelled(
        GaugeMetricFamily(
            "poiesis_filer_bytes_per_second",
            "What filers that move data now move a second.",
            labels=["filer"],
        ),
        {name: one.bytes_per_second for name, one in filers},
    )
    yield _labelled(
        CounterMetricFamily(
            "poiesis_filer_bytes", "Bytes that filers have moved since this leader began.", labels=["filer"]
        ),
        {name: one.moved.bytes for name, one in filers},
    )
    yield _labelled(
        CounterMetricFamily(
            "poiesis_filer_files", "Files that filers have moved since this leader began.", labels=["filer"]
        ),
        {name: one.moved.files for name, one in filers},
    )


def _labelled(
    family: GaugeMetricFamily | CounterMetricFamily, values: Mapping[str, int]
) -> GaugeMetricFamily | CounterMetricFamily:
    """With one sample for each value of the family's label."""
    for label, value in values.items():
        family.add_metric([label], value)
    return family
