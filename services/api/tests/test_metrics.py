"""What the api counts, apart from requests (test_request_log) and the queue (test_queue_depth)."""

import asyncio

import pytest

from poiesis_api import metrics, tasks_db
from poiesis_api.config import Database, UserLimits
from poiesis_api.errors import StorageUnavailable
from poiesis_api.postgres import fetch, open_pool
from poiesis_api.submitter import Submitter
from poiesis_api.tasks_db import NewTask
from poiesis_kube.errors import Refused, Unreachable
from poiesis_models.tes import TesTaskRequest

REQUEST = TesTaskRequest.model_validate({"executors": [{"image": "busybox", "command": ["true"]}]})
UNREACHABLE_DSN = "postgresql://poiesis_api@127.0.0.1:9/poiesis"


def value(name, **labels):
    return metrics.REGISTRY.get_sample_value(name, labels) or 0.0


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Refused(403, "Forbidden", "exceeded quota"), "Forbidden"),
        (Refused(500, "", "a webhook without a reason"), "Other"),
        (Refused(400, "SomeWebhooksReason7", "denied"), "Other"),
        (Unreachable("no connection"), "Unreachable"),
    ],
)
def test_refusals_are_counted_by_known_reasons(error, reason):
    before = value("poiesis_api_submission_refusals_total", reason=reason)
    metrics.refused(error)
    assert value("poiesis_api_submission_refusals_total", reason=reason) == before + 1


@pytest.mark.integration
@pytest.mark.parametrize(
    ("trouble", "outcome"),
    [
        (None, "submitted"),
        ({"status": 403, "reason": "Forbidden", "message": "exceeded quota: all"}, "postponed"),
        ({"status": 422, "reason": "Invalid", "message": "spec is invalid"}, "failed"),
    ],
)
async def test_submissions_are_counted_by_outcome(pool, kubernetes, config, trouble, outcome):
    if trouble is not None:
        kubernetes.fail("POST Job", **trouble)
    names = ("submitted", "postponed", "failed")
    before = {name: value("poiesis_api_submissions_total", outcome=name) for name in names}
    attempts = value("poiesis_api_submission_seconds_count")
    await tasks_db.create_task(pool, NewTask(owner="alice", request=REQUEST), UserLimits())
    submitter = Submitter(pool, kubernetes.client, config)
    await submitter._submit_due()
    while submitter._at_work:
        await asyncio.wait(submitter._at_work)
    after = {name: value("poiesis_api_submissions_total", outcome=name) for name in names}
    assert {name: after[name] - before[name] for name in names} == {
        name: float(name == outcome) for name in names
    }
    assert value("poiesis_api_submission_seconds_count") == attempts + 1


@pytest.mark.integration
async def test_pool_shows_its_connections(postgres_dsn):
    async with open_pool(postgres_dsn, Database(min_connections=1, max_connections=2)) as pool:
        assert value("poiesis_api_database_connections_max") == 2
        async with pool.acquire(), pool.acquire():
            assert value("poiesis_api_database_connections", state="in_use") == 2
            waiting = asyncio.create_task(fetch(pool, "SELECT 1"))
            await asyncio.sleep(0)
            assert value("poiesis_api_database_waiting") == 1
        await waiting
        assert value("poiesis_api_database_waiting") == 0
        assert value("poiesis_api_database_connections", state="in_use") == 0


async def test_statement_without_postgres_is_counted_as_away():
    before = value("poiesis_api_database_errors_total", cause="away")
    async with open_pool(UNREACHABLE_DSN, Database(timeout_seconds=1)) as pool:
        with pytest.raises(StorageUnavailable):
            await fetch(pool, "SELECT 1")
    assert value("poiesis_api_database_errors_total", cause="away") > before
