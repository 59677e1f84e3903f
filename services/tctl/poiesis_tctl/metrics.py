"""The metrics in Prometheus' text format; docs/reference/metrics.md explains each. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from poiesis_tctl.retention import Deletions
from poiesis_tctl.transfers import Figures


def exposition(
    *,
    leading: bool,
    figures: Figures | None,
    deletions: Deletions | None = None,
    synced: Mapping[str, bool] = MappingProxyType({}),
) -> bytes:
    """Return the response to a scrape. Only the leader has figures, so sums over replicas are correct.

    `figures` None: the leader has not read Postgres yet. `deletions`: those of old tasks and logs.
    `synced`: whether it knows all Pods and Jobs of each namespace.
    """
    registry = CollectorRegistry()
    registry.register(_Families(_families(leading, figures, deletions, synced)))
    return generate_latest(registry)


class _Families:
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _families(
    leading: bool, figures: Figures | None, deletions: Deletions | None, synced: Mapping[str, bool]
) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "poiesis_controller_leader", "1 if this replica leads, else 0.", value=int(leading)
    )
    if leading:
        yield _labelled(
            GaugeMetricFamily(
                "poiesis_namespace_synced",
                "1 if the leader has listed the Pods and Jobs of this namespace, else 0.",
                labels=["namespace"],
            ),
            {name: int(is_synced) for name, is_synced in synced.items()},
        )
    if leading and deletions is not None:
        yield from _deletion_families(deletions)
    if leading and figures is not None:
        yield from _leader_families(figures)


def _deletion_families(deletions: Deletions) -> Iterator[Metric]:
    yield _labelled(
        CounterMetricFamily(
            "poiesis_retention_deleted",
            "Ended tasks that were deleted, or whose logs were, since this leader started.",
            labels=["kind"],
        ),
        deletions.deleted,
    )
    yield CounterMetricFamily(
        "poiesis_retention_failures",
        "Rounds of deletion that ended early since this leader started: Postgres or the archive failed.",
        value=deletions.failures,
    )


def _leader_families(figures: Figures) -> Iterator[Metric]:
    filers = figures.filers.items()
    yield GaugeMetricFamily(
        "poiesis_metrics_read_timestamp_seconds",
        "Unix time at which the leader last read these metrics from Postgres.",
        value=figures.read_at.timestamp(),
    )
    tasks = GaugeMetricFamily(
        "poiesis_tasks", "Tasks that have not ended, by namespace and state.", labels=["namespace", "state"]
    )
    for place, count in figures.tasks.items():
        tasks.add_metric([place.namespace, place.state.value], count)
    yield tasks
    yield _labelled(
        GaugeMetricFamily("poiesis_filers", "Filers that are transferring data.", labels=["filer"]),
        {name: one.moving for name, one in filers},
    )
    yield _labelled(
        GaugeMetricFamily(
            "poiesis_filer_bytes_per_second",
            "Current transfer rate of these filers.",
            labels=["filer"],
        ),
        {name: one.bytes_per_second for name, one in filers},
    )
    yield _labelled(
        CounterMetricFamily(
            "poiesis_filer_bytes",
            "Bytes that filers have transferred since this leader started.",
            labels=["filer"],
        ),
        {name: one.moved.bytes for name, one in filers},
    )
    yield _labelled(
        CounterMetricFamily(
            "poiesis_filer_files",
            "Files that filers have transferred since this leader started.",
            labels=["filer"],
        ),
        {name: one.moved.files for name, one in filers},
    )


def _labelled(
    family: GaugeMetricFamily | CounterMetricFamily, values: Mapping[str, int]
) -> GaugeMetricFamily | CounterMetricFamily:
    """Add one sample for each value of the family's label."""
    for label, value in values.items():
        family.add_metric([label], value)
    return family
