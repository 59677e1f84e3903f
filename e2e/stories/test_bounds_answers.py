"""As a user I list many tasks with long logs, and the api returns every page without crashing."""

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from poiesis_e2e.documents import assert_ended, only_log, sh, system_logs
from poiesis_e2e.kube import Kube
from poiesis_e2e.pressure import reading, restarts
from poiesis_e2e.storage import Bucket
from poiesis_e2e.tes_client import Document, TesClient
from poiesis_lab.images import Images

pytestmark = pytest.mark.e2e

_TASKS = 200
_FILES = 1700
_NAME = f"/{'x' * 199}"
_FOLDER = f"/out{5 * _NAME}"  # in the paths
_BELOW = f"{_FOLDER}{4 * _NAME}"  # in the URLs, too
_PRINT = "head -c 70000 /dev/zero | tr '\\0' '\\1'"


@dataclass(frozen=True, kw_only=True)
class Logged:
    """Many tasks with long logs: the value of their tag `set`, and the id of one of them."""

    name: str
    task_id: str


@pytest.fixture
async def logged(second_client: TesClient, second_kube: Kube, images: Images) -> AsyncIterator[Logged]:
    """Run one task, and copy its log to the others in Postgres."""
    name = uuid4().hex
    document: Document = {
        "executors": [sh(images.busybox, f"{_PRINT}; {_PRINT} >&2")],
        "tags": {"set": name},
    }
    task = await second_client.run(document)
    copies = f"""
        WITH made AS (
            INSERT INTO task (id, owner, state, recorder_token_hash, submitted_at, ended_at, reported_by)
            SELECT gen_random_uuid(), t.owner, 'COMPLETE', '', now(), now(), 'recorder'
              FROM task t, generate_series(2, {_TASKS}) WHERE t.id = '{task["id"]}' RETURNING id
        ), tags AS (
            INSERT INTO task_tag SELECT id, 'set', '{name}' FROM made
        ), executors AS (
            INSERT INTO executor (task_id, index, image, command) SELECT id, 0, 'x', '{{true}}' FROM made
        ), logs AS (
            INSERT INTO task_log (task_id, attempt, pod_uid, pod_name, node)
            SELECT id, 0, 'u', 'p', 'n' FROM made
        )
        INSERT INTO executor_log (task_id, attempt, executor_index, start_time, end_time, exit_code,
                                  stdout, stderr)
        SELECT made.id, 0, 0, now(), now(), 0, e.stdout, e.stderr
          FROM made, executor_log e WHERE e.task_id = '{task["id"]}'"""  # noqa: S608
    await second_kube.sql(copies)
    yield Logged(name=name, task_id=task["id"])
    tagged = f"SELECT task_id FROM task_tag WHERE value = '{name}'"  # noqa: S608
    await second_kube.sql(f"DELETE FROM task WHERE id IN ({tagged})")  # noqa: S608


async def test_concurrent_full_lists_crash_no_api(
    second_client: TesClient, second_kube: Kube, logged: Logged
) -> None:
    before = await restarts(second_kube)

    async def all_pages() -> list[str]:
        found: list[str] = []
        token: dict[str, str] = {}
        while True:
            page = await second_client.list_tasks(
                view="FULL", page_size=2047, tag_key="set", tag_value=logged.name, **token
            )
            found += [task["id"] for task in page["tasks"]]
            if "next_page_token" not in page:
                return found
            token = {"page_token": page["next_page_token"]}

    async with reading(second_client) as reads:
        lists = await asyncio.gather(*(all_pages() for _ in range(4)))

    assert logged.task_id in lists[0]
    assert [len(set(found)) for found in lists] == [_TASKS] * 4
    assert reads.errors == []
    assert await restarts(second_kube) == before


async def test_clients_that_do_not_read_crash_no_api(
    second_client: TesClient, second_kube: Kube, logged: Logged
) -> None:
    before = await restarts(second_kube)
    url = urlsplit(second_client.base)
    request = f"GET {url.path}/tasks?view=FULL&page_size=2047 HTTP/1.1\r\nHost: {url.netloc}\r\n\r\n"
    deaf = [socket.create_connection((url.hostname or "", url.port or 80)) for _ in range(60)]
    try:
        for one in deaf:
            one.sendall(request.encode())
        async with reading(second_client) as reads:
            await asyncio.gather(*(second_client.get(logged.task_id, "FULL") for _ in range(20)))
    finally:
        for one in deaf:
            one.close()

    assert reads.errors == []
    assert await restarts(second_kube) == before


async def test_output_list_of_a_task_is_bounded(
    second_client: TesClient, images: Images, bucket: Bucket
) -> None:
    """Executors choose the number and names of outputs, which every BASIC view contains."""
    task = await second_client.run(
        {
            "executors": [sh(images.busybox, f"mkdir -p {_BELOW}; cd {_BELOW}; seq {_FILES} | xargs touch")],
            "outputs": [{"path": _FOLDER, "url": bucket.url("o"), "type": "DIRECTORY"}],
            "volumes": ["/out"],
        }
    )

    assert_ended(task, "COMPLETE")
    listed = only_log(task)["outputs"]
    assert 0 < sum(len(one["path"]) + len(one["url"]) for one in listed) <= 4 * 1024 * 1024
    assert "logs.outputs may not be complete" in system_logs(task)
    assert len(listed) < _FILES == len(await bucket.keys())
