"""The metrics of one replica; docs/reference/metrics.md explains each."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from poiesis_gateway import errors
from poiesis_models.outages import Outage
from poiesis_server.metrics import REQUEST_SECONDS, DatabaseMetrics

OUTCOMES = ("accepted", "closed", *errors.OUTCOMES.values(), "error")

REGISTRY = CollectorRegistry()
REPORTS = Counter("poiesis_gateway_reports", "Reports by outcome.", ["outcome"], registry=REGISTRY)
for _outcome in OUTCOMES:
    REPORTS.labels(_outcome)
REPORT_SECONDS = Histogram(
    "poiesis_gateway_report_seconds",
    "Time from the head of an accepted report to its response.",
    buckets=REQUEST_SECONDS,
    registry=REGISTRY,
)
BODIES = Gauge(
    "poiesis_gateway_bodies", "Reports whose body is being received or applied.", registry=REGISTRY
)
BODY_BYTES = Gauge("poiesis_gateway_body_bytes", "Bytes of these bodies.", registry=REGISTRY)
CONNECTIONS = Gauge("poiesis_gateway_connections", "Open connections of clients.", registry=REGISTRY)
DATABASE = DatabaseMetrics("poiesis_gateway", Outage, REGISTRY)
