"""The metrics of one replica; docs/reference/metrics.md explains each."""

from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from poiesis_gateway import errors

OUTCOMES = ("accepted", "closed", *errors.OUTCOMES.values(), "error")
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """Counters of reports, and gauges that are read at a scrape."""

    def __init__(self, gauges: Mapping[str, tuple[str, Callable[[], float]]]) -> None:
        """`gauges`: description and function by name, without the common prefix."""
        self._registry = CollectorRegistry()
        self._reports = Counter(
            "poiesis_gateway_reports", "Reports by outcome.", ["outcome"], registry=self._registry
        )
        self._seconds = Histogram(
            "poiesis_gateway_report_seconds",
            "Time from the head of an accepted report to its response.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        for outcome in OUTCOMES:
            self._reports.labels(outcome)
        for name, (text, value) in gauges.items():
            Gauge(f"poiesis_gateway_{name}", text, registry=self._registry).set_function(value)

    def count(self, outcome: str) -> None:
        """Count one report."""
        self._reports.labels(outcome).inc()

    def took(self, seconds: float) -> None:
        """Record the duration of an accepted report."""
        self._seconds.observe(seconds)

    def exposition(self) -> bytes:
        """Return the response to a scrape."""
        return generate_latest(self._registry)
