"""The stories' client waits like a user's client."""

from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from poiesis_e2e.tes_client import PATH, TesClient, TesError, connect


class Answers:
    """A server that returns these responses, one after the other."""

    def __init__(self, *answers: tuple[int, str]) -> None:
        self._answers = list(answers)

    async def next(self, _: web.Request) -> web.Response:
        status, state = self._answers.pop(0)
        return web.json_response({"id": "a", "state": state}, status=status)


@pytest.fixture
async def client(answers: Answers) -> AsyncIterator[TesClient]:
    app = web.Application()
    app.router.add_get(f"{PATH}/tasks/a", answers.next)
    async with TestServer(app) as server, connect(str(server.make_url("/"))) as made:
        yield made


@pytest.mark.parametrize("answers", [Answers((200, "QUEUED"), (503, ""), (200, "COMPLETE"))])
async def test_wait_retries_when_the_server_is_unavailable(client: TesClient) -> None:
    assert (await client.wait("a", every=0)).states == ["QUEUED", "COMPLETE"]


@pytest.mark.parametrize("answers", [Answers((500, ""))])
async def test_wait_raises_any_other_error(client: TesClient) -> None:
    with pytest.raises(TesError, match="500"):
        await client.wait("a", every=0)
