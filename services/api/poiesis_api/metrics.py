"""The metrics of one replica; docs/reference/metrics.md explains each.

No label has a value of a client: the values of a label are listed here, in an enum or in the routes.
"""

from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from poiesis_kube.errors import KubernetesError, Refused
from poiesis_models.outages import Outage
from poiesis_server.metrics import REQUEST_SECONDS, DatabaseMetrics

REGISTRY = CollectorRegistry()
_counter = partial(Counter, registry=REGISTRY)
_gauge = partial(Gauge, registry=REGISTRY)
_histogram = partial(Histogram, registry=REGISTRY)

REQUESTS = _histogram(
    "poiesis_api_request_seconds",
    "Time from the head of a request to the end of its response.",
    ["operation", "view", "status"],
    buckets=REQUEST_SECONDS,
)
BODIES = _gauge("poiesis_api_bodies", "Request bodies that are being received or checked.")
RESPONSE_BYTES = _gauge("poiesis_api_response_buffer_bytes", "Bytes buffered for clients.")
CONNECTIONS = _gauge("poiesis_api_connections", "Open connections of clients.")
DATABASE = DatabaseMetrics("poiesis_api", Outage, REGISTRY)

SUBMISSIONS = _counter(
    "poiesis_api_submissions", "Attempts to create the objects of a task, by outcome.", ["outcome"]
)
SUBMISSION_SECONDS = _histogram(
    "poiesis_api_submission_seconds", "Duration of an attempt to submit a task.", buckets=REQUEST_SECONDS
)
_REFUSALS = _counter(
    "poiesis_api_submission_refusals",
    "Attempts that Kubernetes refused, by the reason of its Status.",
    ["reason"],
)
# Kubernetes' own reasons (metav1.StatusReason). Webhooks may send any other.
_REASONS = frozenset(
    {
        *("AlreadyExists", "BadRequest", "Conflict", "Expired", "Forbidden", "Gone", "InternalError"),
        *("Invalid", "MethodNotAllowed", "NotAcceptable", "NotFound", "RequestEntityTooLarge"),
        *("ServerTimeout", "ServiceUnavailable", "Timeout", "TooManyRequests", "Unauthorized"),
        "UnsupportedMediaType",
    }
)

QUEUE_TASKS = _gauge("poiesis_queue_tasks", "Tasks without a running Pod, by why they wait.", ["reason"])
QUEUE_OLDEST = _gauge(
    "poiesis_queue_oldest_age_seconds", "Time since the creation of the oldest of these tasks.", ["reason"]
)
QUEUE_READ = _gauge("poiesis_queue_read_timestamp_seconds", "Unix time of the last read of the queue.")


def refused(error: KubernetesError) -> None:
    """Count an attempt that Kubernetes refused, or that did not reach it."""
    reason = error.reason if isinstance(error, Refused) else "Unreachable"
    known = reason in _REASONS or reason == "Unreachable"
    _REFUSALS.labels(reason if known else "Other").inc()
