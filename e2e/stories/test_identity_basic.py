"""As an operator of few users I put their passwords into a Secret, and users see only their tasks."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import aiohttp
import pytest

from poiesis_e2e.command import Command
from poiesis_e2e.documents import only_log, sh
from poiesis_e2e.install import Release, Secrets, Values
from poiesis_e2e.ownership import assert_a_task_is_its_owners, users_secret
from poiesis_e2e.tes_client import PATH, Document, TesClient, connect
from poiesis_lab.images import Images

pytestmark = pytest.mark.e2e

USERS = ("alice", "bob", "carol", "root")
_VALUES: Values = {
    "config": {
        "auth": {
            "mode": "basic",
            "basic": {"usersSecret": {"name": "tes-users"}},
            "administrators": {"users": ["root"]},
        },
        "userLimits": {"active": {"tasks": 2}},
    },
}


@pytest.fixture(scope="module")
def release(with_users: Callable[[Values, Secrets], Release]) -> Release:
    return with_users(_VALUES, {"tes-users": users_secret(*USERS)})


def _as(release: Release, user: str) -> AbstractAsyncContextManager[TesClient]:
    return connect(release.url, user=(user, f"{user}-password"))


@pytest.fixture
async def root(release: Release) -> AsyncIterator[TesClient]:
    async with _as(release, "root") as client:
        yield client


@pytest.mark.parametrize("user", [None, ("alice", "wrong"), ("eve", "eve-password")])
async def test_request_without_valid_password_is_rejected(
    release: Release, user: tuple[str, str] | None
) -> None:
    headers = {"Authorization": aiohttp.encode_basic_auth(*user)} if user else {}
    async with (
        aiohttp.ClientSession(headers=headers) as http,
        http.get(f"{release.url}{PATH}/tasks") as answer,
    ):
        challenge = answer.headers["WWW-Authenticate"]
        assert (answer.status, challenge) == (401, 'Basic realm="poiesis", charset="UTF-8"')


async def test_flood_of_wrong_passwords_blocks_no_other_user(release: Release) -> None:
    """The other user logs in for the first time: a cached password would not need a check."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:

        async def wrong(number: int) -> int:
            user = "bob" if number % 2 else f"unknown-{number}"
            headers = {"Authorization": aiohttp.encode_basic_auth(user, f"wrong-{number}")}
            async with http.get(f"{release.url}{PATH}/tasks", headers=headers) as answer:
                return answer.status

        flood = asyncio.gather(*map(wrong, range(300)))
        async with _as(release, "carol") as carol:
            await carol.list_tasks()
        assert set(await flood) == {401, 429}


async def test_service_info_needs_no_password(release: Release) -> None:
    async with connect(release.url) as anonymous:
        assert (await anonymous.service_info())["type"]["artifact"] == "tes"


@pytest.mark.core
async def test_task_is_visible_to_owner_and_administrators(
    alice: TesClient, bob: TesClient, root: TesClient, images: Images
) -> None:
    await assert_a_task_is_its_owners(owner=alice, other=bob, root=root, image=images.busybox)


async def test_task_waiting_for_its_owners_tasks_states_why(
    alice: TesClient, bob: TesClient, images: Images
) -> None:
    document: Document = {"executors": [sh(images.busybox, "sleep 3")]}
    tasks = [await alice.create(document) for _ in range(3)]
    other = await bob.create(document)
    for task in tasks:
        assert (await alice.wait(task)).state == "COMPLETE"
    await bob.wait(other)

    line = "waiting: the owner already has 2 active tasks (the per-user limit)"
    ended = [await alice.get(task, "FULL") for task in tasks] + [await bob.get(other, "FULL")]
    found = [[one for one in only_log(task)["system_logs"] if line in one] for task in ended]
    assert [len(lines) for lines in found] == [0, 0, 1, 0]


async def test_command_accepts_user_and_password(release: Release, images: Images, tmp_path: Path) -> None:
    password = tmp_path / "password"
    credentials = {"POIESIS_USER": "alice", "POIESIS_PASSWORD_FILE": str(password)}
    poiesis = Command(home=tmp_path, environment={"POIESIS_SERVER": release.url, **credentials})

    password.write_text("alice-password\n")
    code, out, err = await poiesis.run("run", "--logs", images.busybox, "--", "echo", "hello")
    assert (code, out) == (0, "hello\n"), err

    password.write_text("wrong\n")
    code, _, err = await poiesis.run("list")
    assert (code, "the server rejected the configured credentials" in err) == (77, True), err
