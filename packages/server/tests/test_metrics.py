from enum import Enum

from prometheus_client import CollectorRegistry

from poiesis_server.metrics import DatabaseMetrics, exposition


class Cause(Enum):
    AWAY = "message"
    FULL = "other message"


class Pool:
    def __init__(self, size, idle):
        self.size, self.idle = size, idle

    def get_size(self):
        return self.size

    def get_idle_size(self):
        return self.idle

    def get_max_size(self):
        return 10


def text(registry):
    return exposition(registry).decode().splitlines()


def test_pool_is_read_at_each_scrape():
    registry = CollectorRegistry()
    metrics, pool = DatabaseMetrics("poiesis_x", Cause, registry), Pool(5, 2)
    metrics.watch(pool)
    assert 'poiesis_x_database_connections{state="in_use"} 3.0' in text(registry)
    pool.idle = 5
    lines = text(registry)
    assert 'poiesis_x_database_connections{state="in_use"} 0.0' in lines
    assert 'poiesis_x_database_connections{state="idle"} 5.0' in lines
    assert "poiesis_x_database_connections_max 10.0" in lines


def test_every_cause_has_a_value_before_it_happens():
    registry = CollectorRegistry()
    metrics = DatabaseMetrics("poiesis_x", Cause, registry)
    metrics.failed(Cause.FULL)
    lines = text(registry)
    assert 'poiesis_x_database_errors_total{cause="away"} 0.0' in lines
    assert 'poiesis_x_database_errors_total{cause="full"} 1.0' in lines


def test_counters_have_no_second_series():
    registry = CollectorRegistry()
    DatabaseMetrics("poiesis_x", Cause, registry)
    assert not any("_created" in line for line in text(registry))
