"""Metrics that services share: buckets, families that are read at a scrape, and those of a database pool.

Each service has one module `metrics` with its registry and all of its metrics, so that the names are in one
place. docs/reference/metrics.md lists them.
"""

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from enum import Enum
from typing import Any, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics, generate_latest
from prometheus_client.core import Metric

# They double the series of counters, and Prometheus' text format has no use for them.
disable_created_metrics()  # type: ignore[no-untyped-call]

REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Families:
    """A collector of families that a function returns at each scrape."""

    def __init__(self, read: Callable[[], Iterable[Metric]]) -> None:
        self._read = read

    def collect(self) -> Iterable[Metric]:
        """Return the current families."""
        return self._read()


class Pool(Protocol):
    """What is used of asyncpg.Pool."""

    def acquire(self, *, timeout: float | None = None) -> AbstractAsyncContextManager[Any]: ...
    def get_size(self) -> int: ...
    def get_idle_size(self) -> int: ...
    def get_max_size(self) -> int: ...


class DatabaseMetrics:
    """Connections of one pool to Postgres, and the failures of its statements.

    `waiting`: counted by `connection`, or read by the caller, because asyncpg does not publish it.
    """

    def __init__(self, prefix: str, causes: type[Enum], registry: CollectorRegistry) -> None:
        """`causes`: of failed statements; their names in lower case are the values of the label."""
        self._connections = Gauge(
            f"{prefix}_database_connections",
            "Connections to Postgres by state.",
            ["state"],
            registry=registry,
        )
        self._most = Gauge(
            f"{prefix}_database_connections_max",
            "Limit of connections to Postgres.",
            registry=registry,
        )
        self.waiting = Gauge(
            f"{prefix}_database_waiting",
            "Work that waits for a connection to Postgres.",
            registry=registry,
        )
        self._errors = Counter(
            f"{prefix}_database_errors",
            "Statements that Postgres did not execute, by cause.",
            ["cause"],
            registry=registry,
        )
        for cause in causes:
            self._errors.labels(_label(cause))

    def watch(self, pool: Pool) -> None:
        """Read the numbers of connections from this pool."""
        self._most.set_function(pool.get_max_size)
        self._connections.labels("idle").set_function(pool.get_idle_size)
        self._connections.labels("in_use").set_function(lambda: pool.get_size() - pool.get_idle_size())

    @asynccontextmanager
    async def connection(self, pool: Pool, seconds: float) -> AsyncIterator[Any]:
        """Yield a connection of the pool, after at most `seconds`, and count those who wait for one."""
        async with AsyncExitStack() as stack:
            with self.waiting.track_inprogress():
                connection = await stack.enter_async_context(pool.acquire(timeout=seconds))
            yield connection

    def failed(self, cause: Enum) -> None:
        """Count a statement that was not executed."""
        self._errors.labels(_label(cause)).inc()


def exposition(registry: CollectorRegistry) -> bytes:
    """Return the response to a scrape."""
    return generate_latest(registry)


def _label(cause: Enum) -> str:
    return cause.name.lower()
