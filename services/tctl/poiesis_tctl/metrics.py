"""The metrics of one replica; docs/reference/metrics.md explains each."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from math import inf
from types import MappingProxyType

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from poiesis_models.outages import Outage
from poiesis_server.metrics import REQUEST_SECONDS, DatabaseMetrics, Families
from poiesis_server.metrics import exposition as text_of
from poiesis_tctl.informer import WatchState
from poiesis_tctl.retention import Deletions
from poiesis_tctl.totals import Totals, cumulative
from poiesis_tctl.transfers import Figures

REGISTRY = CollectorRegistry()
DATABASE = DatabaseMetrics("poiesis_controller", Outage, REGISTRY)
ACTIONS = Counter(
    "poiesis_controller_actions", "Actions that were carried out, by kind.", ["action"], registry=REGISTRY
)
RETRIES = Counter(
    "poiesis_controller_retries", "Tasks that could not be processed and are retried.", registry=REGISTRY
)
REPAIRED = Counter(
    "poiesis_controller_repaired_tasks",
    "Tasks about which the watches missed something that a comparison with the cluster found.",
    registry=REGISTRY,
)
TASK_SECONDS = Histogram(
    "poiesis_controller_task_seconds",
    "Time to decide about a task and to act.",
    buckets=REQUEST_SECONDS,
    registry=REGISTRY,
)


def exposition(
    *,
    leading: bool,
    figures: Figures | None = None,
    totals: Totals | None = None,
    deletions: Deletions | None = None,
    synced: Mapping[str, bool] = MappingProxyType({}),
    watches: Sequence[WatchState] = (),
) -> bytes:
    """Return the response to a scrape. Only the leader has figures, so sums over replicas are correct.

    `figures`, `totals` None: the leader has not read Postgres yet. `deletions`: those of old tasks and logs.
    `synced`: whether it knows all Pods and Jobs of each namespace.
    """
    led = CollectorRegistry()
    read = partial(
        _families,
        leading=leading,
        figures=figures,
        totals=totals,
        deletions=deletions,
        synced=synced,
        watches=watches,
    )
    led.register(Families(read))
    return text_of(led) + text_of(REGISTRY)


def _families(
    *,
    leading: bool,
    figures: Figures | None,
    totals: Totals | None,
    deletions: Deletions | None,
    synced: Mapping[str, bool],
    watches: Sequence[WatchState],
) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "poiesis_controller_leader", "1 if this replica leads, else 0.", value=int(leading)
    )
    if not leading:
        return
    yield _labelled(
        GaugeMetricFamily(
            "poiesis_namespace_synced",
            "1 if the leader has listed the Pods and Jobs of this namespace, else 0.",
            labels=["tasks_namespace"],
        ),
        {name: int(is_synced) for name, is_synced in synced.items()},
    )
    yield from _watch_families(watches)
    if deletions is not None:
        yield from _deletion_families(deletions)
    if totals is not None:
        yield from _total_families(totals)
    if figures is not None:
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


def _watch_families(watches: Sequence[WatchState]) -> Iterator[Metric]:
    labels = ["tasks_namespace", "collection"]
    age = GaugeMetricFamily(
        "poiesis_informer_age_seconds", "Time since the last list, event or bookmark.", labels=labels
    )
    lists = CounterMetricFamily(
        "poiesis_informer_lists", "Complete lists since this leader started.", labels=labels
    )
    failures = CounterMetricFamily(
        "poiesis_informer_failures", "Failed lists and watches since this leader started.", labels=labels
    )
    for one in watches:
        values = [one.namespace, one.collection]
        if one.age_seconds is not None:
            age.add_metric(values, one.age_seconds)
        lists.add_metric(values, one.lists)
        failures.add_metric(values, one.failures)
    yield from (age, lists, failures)


def _total_families(totals: Totals) -> Iterator[Metric]:
    outcomes = CounterMetricFamily(
        "poiesis_task_outcomes", "Tasks that have ended, by state and reason.", labels=["state", "reason"]
    )
    for outcome, tasks in totals.outcomes.items():
        outcomes.add_metric([outcome.state.value, outcome.reason], tasks)
    yield outcomes
    phases = HistogramMetricFamily(
        "poiesis_task_phase_seconds", "Duration of the phases of ended tasks.", labels=["phase"]
    )
    for phase, buckets in totals.phases.items():
        counts, seconds = cumulative(buckets)
        phases.add_metric(
            [phase], [("+Inf" if le == inf else str(le), tasks) for le, tasks in counts], seconds
        )
    yield phases
    yield GaugeMetricFamily("poiesis_database_bytes", "Size of the database.", value=totals.database_bytes)
    yield _labelled(
        GaugeMetricFamily("poiesis_table_bytes", "Size of a table with its indexes.", labels=["table"]),
        {name: table.bytes for name, table in totals.tables.items()},
    )
    yield _labelled(
        GaugeMetricFamily("poiesis_table_rows", "Postgres' estimate of a table's rows.", labels=["table"]),
        {name: table.rows for name, table in totals.tables.items()},
    )


def _leader_families(figures: Figures) -> Iterator[Metric]:
    filers = figures.filers.items()
    yield GaugeMetricFamily(
        "poiesis_metrics_read_timestamp_seconds",
        "Unix time at which the leader last read these metrics from Postgres.",
        value=figures.read_at.timestamp(),
    )
    tasks = GaugeMetricFamily(
        "poiesis_tasks",
        "Tasks that have not ended, by namespace and state.",
        labels=["tasks_namespace", "state"],
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
