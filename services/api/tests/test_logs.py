import json
import logging

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from poiesis_api.logs import with_request_id
from poiesis_models.logs import JsonFormatter


@pytest.mark.parametrize(
    ("header", "expected"),
    [("abc-1.2_X", "abc-1.2_X"), ("x" * 65, None), ("a b", None), ("", None), ('"}', None)],
)
async def test_log_lines_have_the_id_of_their_request(header, expected):
    lines = []

    async def handler(_: web.Request) -> web.Response:
        made = logging.LogRecord("x", logging.INFO, "x.py", 1, "rejected create", (), None)
        lines.append(json.loads(JsonFormatter().format(made)))
        return web.Response()

    app = web.Application(middlewares=[with_request_id])
    app.router.add_get("/", handler)
    async with TestClient(TestServer(app)) as client:
        for _ in range(2):
            await client.get("/", headers={"X-Request-ID": header})
    ids = [line["request_id"] for line in lines]
    assert (ids == [expected, expected]) if expected else (len(set(ids)) == 2 and set(map(len, ids)) == {32})
