"""One report over HTTPS, with a database in memory."""

import asyncio
import gzip
import json
import logging
from uuid import uuid4

import pytest
from gateway_fakes import CLOSED, TASK, TOKEN, FakeDatabase, report_of, until

from poiesis_gateway.errors import DatabaseUnavailable, MalformedReport


async def test_report_is_passed_on_unchanged(gateway, database):
    response = await gateway.post(report_of())
    assert (response.status, response.json) == (
        200,
        {"state": "RUNNING", "cancel_requested": False, "ended": False},
    )
    assert database.bodies == [report_of().encode()]


@pytest.mark.parametrize(
    ("task", "token"), [(TASK, "wrong"), (TASK, None), ("no-uuid", TOKEN), (TASK, "x" * 300)]
)
async def test_unknown_token_and_unknown_task_get_one_answer(gateway, database, task, token):
    response = await gateway.post(task=task, token=token)
    assert (response.status, response.json) == (401, {"error": "unknown task or token"})
    assert database.bodies == []


async def test_body_of_an_unknown_token_is_not_read(gateway):
    reader, writer = await gateway.raw()
    head = f"POST /v1/tasks/{TASK}/report HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer x\r\n"
    writer.write(f"{head}Content-Length: 1000\r\n\r\n".encode())  # and no byte of it
    async with asyncio.timeout(5):
        assert b"401" in await reader.readline()
    writer.close()


async def test_token_is_checked_once(gateway, database):
    for _ in range(3):
        assert (await gateway.post()).status == 200
    assert (database.checks, len(database.bodies)) == (1, 3)


async def test_accepted_token_is_forgotten_with_its_task(gateway, database):
    await gateway.post()
    database.result = None
    assert (await gateway.post()).status == 401
    assert database.checks == 1
    await gateway.post()
    assert database.checks == 2


async def test_ended_task_gets_410_before_its_body_is_read(gateway, database):
    database.access_result = CLOSED
    response = await gateway.post()
    assert (response.status, response.json["ended"]) == (410, True)
    assert database.bodies == []


async def test_refused_pod_gets_410_with_the_state(gateway, database):
    database.result = CLOSED
    response = await gateway.post()
    assert (response.status, response.json) == (
        410,
        {"state": "COMPLETE", "cancel_requested": False, "ended": True},
    )


@pytest.mark.parametrize("chunked", [False, True])
async def test_long_body_gets_413(start, database, chunked):
    async with start(database, body_bytes=1000) as gateway:

        async def pieces():
            for _ in range(11):
                yield b"x" * 100

        response = await gateway.post(pieces() if chunked else b"x" * 1001)
        assert response.status == 413
        assert response.json == {"error": "the report is longer than 1000 bytes (the maximum)"}
        assert (await gateway.post(b"x" * 1000)).status == 200
    assert len(database.bodies) == 1


async def test_compressed_body_is_rejected(gateway):
    response = await gateway.post(gzip.compress(b"{}"), Content_Encoding="gzip")
    assert response.status == 400
    assert "Content-Encoding" in response.json["error"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [(b"", "the report is empty"), (b"[" + b"[]," * 200_001, "more than 200000 JSON values")],
)
async def test_unbounded_values_are_rejected(gateway, body, reason):
    response = await gateway.post(body)
    assert response.status == 400
    assert reason in response.json["error"]


async def test_separators_in_texts_are_no_values(gateway):
    assert (await gateway.post(json.dumps({"text": ',[{\\"' * 100_000}))).status == 200


async def test_slow_body_gets_408(start, database):
    async with start(database, body_seconds=0.2) as gateway:

        async def pieces():
            yield b"{"
            await asyncio.sleep(5)

        response = await gateway.post(pieces())
        assert (response.status, response.headers["Retry-After"]) == (408, "1")


async def test_bodies_together_have_a_limit(start, database):
    database.gate = asyncio.Event()
    async with start(database, body_bytes=1000, incoming_bytes=1500) as gateway:
        first = asyncio.create_task(gateway.post(b"x" * 1000))
        await until(lambda: database.bodies)
        second = await gateway.post(b"x" * 1000)
        assert (second.status, second.headers["Retry-After"]) == (503, "2")
        database.gate.set()
        assert (await first).status == 200
        assert (await gateway.post(b"x" * 1000)).status == 200


async def test_full_line_gets_503(start, database):
    database.gate = asyncio.Event()
    async with start(database, database_connections=1, waiting=1) as gateway:
        await gateway.post(token="wrong")
        first = asyncio.create_task(gateway.post())
        await until(lambda: database.concurrent == 1)
        second = asyncio.create_task(gateway.post())
        await until(lambda: gateway.metric("poiesis_gateway_database_waiting "))
        third = await gateway.post()
        assert (third.status, third.headers["Retry-After"]) == (503, "2")
        assert "waiting for the database (the maximum is 1)" in third.json["error"]
        database.gate.set()
        assert [(await one).status for one in (first, second)] == [200, 200]


async def test_line_that_does_not_advance_gets_503(start, database):
    database.gate = asyncio.Event()
    async with start(database, database_connections=1, waiting_seconds=0.1) as gateway:
        first = asyncio.create_task(gateway.post())
        await until(lambda: database.concurrent == 1)
        second = await gateway.post()
        assert (second.status, second.json) == (
            503,
            {"error": "no database connection became free within 0.1 seconds"},
        )
        database.gate.set()
        assert (await first).status == 200


async def test_reports_of_one_task_are_limited(start, database):
    async with start(database, reports_per_second=0.5, reports_burst=3) as gateway:
        assert [(await gateway.post()).status for _ in range(3)] == [200] * 3
        response = await gateway.post()
        assert (response.status, response.headers["Retry-After"]) == (429, "2")
        assert (await gateway.post(task=uuid4())).status == 200


async def test_invalid_tokens_of_one_address_are_slowed(start, database):
    async with start(database, attempts_per_second=0.1, attempts_burst=2) as gateway:
        assert (await gateway.post()).status == 200
        assert [(await gateway.post(token="wrong")).status for _ in range(2)] == [401, 401]
        response = await gateway.post(token="wrong")
        assert (response.status, response.headers["Retry-After"]) == (429, "10")
        assert database.checks == 3
        assert (await gateway.post()).status == 200, "a token that was accepted before"


@pytest.mark.parametrize(
    ("error", "status", "retry_after"),
    [
        (DatabaseUnavailable("the database does not answer; try again"), 503, "5"),
        (MalformedReport("Postgres rejects the report"), 400, None),
        (ZeroDivisionError(), 500, "5"),
    ],
)
async def test_error_becomes_a_status(gateway, database, error, status, retry_after):
    database.error = error
    response = await gateway.post()
    assert (response.status, response.headers.get("Retry-After")) == (status, retry_after)
    assert set(response.json) == {"error"}
    database.error = None
    assert (await gateway.post()).status == 200


@pytest.mark.parametrize(
    ("path", "status"), [("/", 404), ("/v1/tasks/00000000-0000-4000-8000-000000000000/report", 405)]
)
async def test_other_operations_are_errors_in_json(gateway, path, status):
    assert gateway._session is not None
    async with gateway._session.get(gateway.url + path) as response:
        assert response.status == status
        assert "the only operation is POST" in (await response.json())["error"]


async def test_only_rejected_reports_are_logged(gateway, database, caplog):
    caplog.set_level(logging.DEBUG, "poiesis_gateway")
    await gateway.post()
    assert [one for one in caplog.records if one.message == "rejected report"] == []
    await gateway.post(token="wrong-token")
    database.error = MalformedReport("quotes 'a secret'", reason="SQLSTATE 22P02")
    await gateway.post()
    lines = [one for one in caplog.records if one.message == "rejected report"]
    assert [(one.task, one.status, one.reason) for one in lines] == [
        (str(TASK), 401, "unknown task or token"),
        (str(TASK), 400, "SQLSTATE 22P02"),
    ]
    assert not any("wrong-token" in str(vars(one)) or TOKEN in str(vars(one)) for one in caplog.records)


async def test_metrics_count_reports_by_outcome(gateway):
    names = [
        *(
            f'poiesis_gateway_reports_total{{outcome="{one}"}}'
            for one in ("accepted", "unauthorized", "busy")
        ),
        "poiesis_gateway_report_seconds_count",
    ]
    before = [await gateway.metric(name) for name in names]
    await gateway.post()
    await gateway.post(token="wrong")
    after = [await gateway.metric(name) for name in names]
    assert [now - then for now, then in zip(after, before, strict=True)] == [1, 1, 0, 1]


async def test_stop_completes_the_report_in_progress(start):
    database = FakeDatabase(gate=asyncio.Event())
    async with start(database) as gateway:
        report = asyncio.create_task(gateway.post())
        await until(lambda: database.concurrent == 1)
        gateway.stop.set()
        assert (await gateway.health("/readyz"))[0] == 503
        database.gate.set()
        response = await report
        assert (response.status, response.headers["Connection"]) == (200, "close")
